package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// changeRoutes are what changes a CVM beyond power, and what came of it.
func (s *Server) changeRoutes(api huma.API) {
	write, read := writes("cvms"), reads("cvms")
	register(s, api, op{method: "PATCH", path: "/cvms/{id}", summary: "Change a CVM", status: 202, access: write}, s.patchCVM)
	register(s, api, op{method: "GET", path: "/cvms/{id}/commit-update", summary: "What a commit token would commit", access: open()}, s.preparedUpdate)
	register(s, api, op{method: "POST", path: "/cvms/{id}/commit-update", summary: "Commit a prepared update (the token is the credential)", status: 202, access: open()}, s.commitUpdateByToken)
	register(s, api, op{method: "POST", path: "/cvms/{id}/compose_file", summary: "Replace the app-compose", status: 202, access: write}, s.replaceCompose)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/docker-compose", summary: "Replace the docker-compose.yml (text)", status: 202, access: write}, s.patchDockerCompose)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/pre-launch-script", summary: "Replace the pre-launch script (text)", status: 202, access: write}, s.patchScript)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/resources", summary: "Resize a CVM", status: 202, access: write}, s.resize)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/visibility", summary: "Change what is public", as: map[string]any{}, access: write}, s.visibility)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/os-image", summary: "Change the guest image", status: 202, access: write}, s.patchImage)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/name", summary: "Rename a CVM", status: 204, access: write}, s.rename)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/listed", summary: "List a CVM publicly, or not", access: write}, s.patchListed)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/scheduled-delete", summary: "Delete a CVM at a time, or call it off", access: write}, s.scheduleDelete)
	register(s, api, op{method: "PATCH", path: "/cvms/{id}/instance-id", summary: "Ask the node for the instance id", access: write}, s.refreshInstanceID)
	register(s, api, op{method: "PATCH", path: "/cvms/instance-ids", summary: "Ask the nodes for instance ids", access: write}, s.refreshInstanceIDs)
	register(s, api, op{method: "POST", path: "/cvms/batch-stop", summary: "Stop several CVMs", access: write}, s.batchStop)
	register(s, api, op{method: "GET", path: "/cvms/{id}/operations", summary: "What was asked of a CVM", access: read}, s.operations)
	register(s, api, op{method: "GET", path: "/cvms/{id}/operation-status", summary: "The operation at work", access: read}, s.operationStatus)
	register(s, api, op{method: "POST", path: "/cvms/{id}/operations/cancel", summary: "Give up the operation at work", access: write}, s.cancel)
	register(s, api, op{method: "POST", path: "/cvms/{id}/replicas", summary: "Make a replica", access: write}, s.replicate)
	register(s, api, op{method: "POST", path: "/cvms/{id}/commit-replica", summary: "Commit a prepared replica (the token is the credential)", access: open()}, s.commitReplicaByToken)
	register(s, api, op{method: "POST", path: "/apps/{app_id}/cvms/{vm_uuid}/replicas", summary: "Make a replica", access: write}, s.replicateOf)
	register(s, api, op{method: "POST", path: "/apps/{app_id}/instances", summary: "Make a new instance of an app, or commit a prepared one", access: write}, s.addInstance)
	register(s, api, op{method: "POST", path: "/cvms/{id}/revisions/{revision_id}/redeploy", summary: "Run a revision again", status: 202, access: write}, s.redeploy)
	register(s, api, op{method: "POST", path: "/apps/{app_id}/revisions/{revision_id}/redeploy", summary: "Run a revision again", status: 202, as: map[string]any{}, access: write}, s.redeployApp)
	register(s, api, op{method: "POST", path: "/cvms/{id}/is-allowed", summary: "Does the chain allow a CVM", access: read}, s.cvmIsAllowed)
	register(s, api, op{method: "POST", path: "/apps/{app_id}/is-allowed", summary: "Does the chain allow a compose hash on a device", access: read}, s.appIsAllowed)
	register(s, api, op{method: "POST", path: "/apps/{app_id}/cvms/is-allowed", summary: "Does the chain allow each of an app's CVMs", access: read}, s.cvmsAreAllowed)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/device-allowlist", summary: "Devices of an app and what the chain says of them", access: read}, s.deviceAllowlist)
	register(s, api, op{method: "GET", path: "/cvms/{id}/user_config", summary: "The user config", access: read}, s.userConfig)
	register(s, api, op{method: "GET", path: "/cvms/{id}/available-os-images", summary: "Images that the CVM could have", access: read}, s.availableImages)
	register(s, api, op{method: "GET", path: "/kms/phala/next_app_id", summary: "The app ids of new apps", access: reads("nodes")}, s.nextAppIDs)
	s.plain(api, "/cvms/{id}/docker-compose.yml", "The docker-compose.yml", func(c store.CVM) string { return parsed(c).DockerComposeFile })
	s.plain(api, "/cvms/{id}/pre-launch-script", "The pre-launch script", func(c store.CVM) string { return parsed(c).PreLaunchScript })
}

type plainText struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// plain serves a part of a CVM as text.
func (s *Server) plain(api huma.API, path, summary string, part func(store.CVM) string) {
	o := op{method: "GET", path: path, summary: summary}
	h := huma.Operation{
		OperationID: operationID(o), Method: o.method, Path: cloudapi.Prefix + path, Summary: summary, Tags: []string{"cvms"},
		Responses: map[string]*huma.Response{
			"200":     {Description: "OK", Content: map[string]*huma.MediaType{"text/plain": {}}},
			"default": {Description: "Error", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Error"}}}},
		},
	}
	if !s.guard(&h, reads("cvms")) {
		return
	}
	huma.Register(api, h, func(ctx context.Context, in *IDInput) (*plainText, error) {
		c, err := s.find(ctx, in.ID)
		if err != nil {
			return nil, s.answer(ctx, err)
		}
		return &plainText{"text/plain; charset=utf-8", []byte(part(c))}, nil
	})
}

type redeployInput struct {
	IDInput
	Approval
	Origin
	RevisionID  string `path:"revision_id"`
	Transaction string `query:"transaction_hash" doc:"the transaction that registered the hash, or already-registered"`
}

func (s *Server) redeploy(ctx context.Context, in *redeployInput) (out cloudapi.Accepted, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	r, err := s.revisionOf(ctx, c.AppID, in.RevisionID)
	if err != nil {
		return out, err
	}
	if in.Transaction != "" {
		in.Approval.Transaction = in.Transaction
	}
	return s.redeployTo(ctx, c, r, in.Approval, in.base)
}

func (s *Server) redeployTo(ctx context.Context, c store.CVM, r store.Revision, a Approval, base string) (out cloudapi.Accepted, err error) {
	if _, err := s.compose(r.AppCompose, c.Name, nil, c.GPUs); err != nil { // today's checks hold for it too
		return out, err
	}
	return s.apply(ctx, c, change{kind: store.Update, patch: store.Patch{AppCompose: r.AppCompose, ComposeHash: r.ComposeHash}, approval: a, base: base, redo: true})
}

func (s *Server) revisionOf(ctx context.Context, app, id string) (store.Revision, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return store.Revision{}, noRevision()
	}
	r, err := s.store.Revision(ctx, who(ctx).WorkspaceID, app, n)
	if err == store.ErrNotFound { //nolint:errorlint // the store returns it bare
		return r, noRevision()
	}
	return r, err
}

func noRevision() error {
	return fail(http.StatusNotFound, "", cvm.NotFound, "revision-not-found", "revision not found", "list them: GET /apps/{app_id}/revisions")
}

type redeployAppInput struct {
	AppInput
	Approval
	Origin
	RevisionID  string `path:"revision_id"`
	Transaction string `query:"transaction_hash" doc:"the transaction that registered the hash, or already-registered"`
	Body        *struct {
		VMUUIDs []string `json:"vm_uuids,omitempty" nullable:"true" doc:"which of several CVMs"`
	}
}

// redeployApp runs a revision on an app's only CVM, or on the named ones.
func (s *Server) redeployApp(ctx context.Context, in *redeployAppInput) (any, error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return nil, err
	}
	r, err := s.revisionOf(ctx, cvms[0].AppID, in.RevisionID)
	if err != nil {
		return nil, err
	}
	targets := cvms
	if in.Body != nil && len(in.Body.VMUUIDs) > 0 {
		targets = nil
		for _, id := range in.Body.VMUUIDs {
			i := slices.IndexFunc(cvms, func(c store.CVM) bool { return c.UUID == store.ParseRef(id).UUID })
			if i < 0 {
				return nil, missing()
			}
			targets = append(targets, cvms[i])
		}
	} else if len(cvms) > 1 {
		return nil, fail(http.StatusBadRequest, errSeveralCVMs, cvm.Invalid, "several-cvms", "the app has several CVMs", "name some in vm_uuids")
	}
	if in.Transaction != "" {
		in.Approval.Transaction = in.Transaction
	}
	started := []cloudapi.Accepted{}
	for _, c := range targets {
		a, err := s.redeployTo(ctx, c, r, in.Approval, in.base)
		if err != nil {
			return nil, err
		}
		started = append(started, a)
	}
	return map[string]any{"status": "in_progress", "message": "the update has started", "correlation_id": started[0].CorrelationID, "operations": started}, nil
}

type nextAppIDsInput struct {
	Counts int `query:"counts" default:"1" minimum:"1" maximum:"20"`
}

// nextAppIDs cannot be known here: a chain names apps after their contracts, and
// without one an app is named after its compose hash.
func (s *Server) nextAppIDs(_ context.Context, _ *nextAppIDsInput) (out cloudapi.NextAppIDs, err error) {
	why := "an app's id is the first 20 bytes of its compose hash"
	if s.governed() {
		why = "an app's id is the address of its contract on " + strings.TrimSpace(s.cfg.Chain.Name)
	}
	return out, fail(http.StatusNotFound, "", cvm.Unsupported, "no-predicted-app-ids", "app ids are not counted here: "+why, "provision the app: the answer has its id, or its contract gives it")
}
