package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

// appFactRoutes say what is known about apps beyond their CVMs.
func (s *Server) appFactRoutes(api huma.API) {
	read := reads("apps")
	register(s, api, op{method: "GET", path: "/apps/filter-options", summary: "What the apps can be filtered by", access: read}, s.appFilters)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/kms-info", summary: "Which KMS and contract govern an app", access: read}, s.appKMSInfo)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/pending-updates", summary: "Prepared updates that are not committed", access: read}, s.pendingUpdates)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/pending-updates/{vm_uuid}/{compose_hash}/preview", summary: "What a pending update would change", access: read}, s.previewUpdate)
	register(s, api, op{method: "GET", path: "/apps/{app_id}/revisions/{revision_id}", summary: "One revision with its app-compose", access: read}, s.revision)
}

func (s *Server) appFilters(ctx context.Context, _ *none) (out cloudapi.AppFilters, err error) {
	sets := map[*[]string]map[string]bool{}
	for _, l := range []*[]string{&out.Statuses, &out.ImageVersions, &out.InstanceTypes, &out.KMSSlugs, &out.KMSTypes, &out.Regions, &out.Nodes} {
		*l, sets[l] = []string{}, map[string]bool{}
	}
	add := func(l *[]string, v string) {
		if v != "" && !sets[l][v] {
			sets[l][v] = true
			*l = append(*l, v)
		}
	}
	err = s.each(ctx, store.ListQuery{Workspace: who(ctx).WorkspaceID}, func(some []store.CVM) {
		for _, c := range some {
			add(&out.Statuses, c.Status)
			add(&out.ImageVersions, word(s.os(c).Name))
			add(&out.InstanceTypes, c.InstanceType)
			add(&out.KMSSlugs, s.cfg.KMS.ID)
			add(&out.KMSTypes, s.cfg.kmsType())
			if n := s.nodes.byID[c.NodeID]; n != nil {
				add(&out.Regions, n.region())
				add(&out.Nodes, n.name())
			}
		}
	})
	if err != nil {
		return out, err
	}
	for l := range sets {
		slices.Sort(*l)
	}
	return out, nil
}

func (s *Server) appKMSInfo(ctx context.Context, in *AppInput) (out cloudapi.AppKMSInfo, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil || !s.governed() {
		return out, err
	}
	c := cvms[len(cvms)-1] // the first one: who deployed it made the contract
	return cloudapi.AppKMSInfo{IsOnchainKMS: true, ChainID: ptr(s.cfg.Chain.ID), KMSContractAddress: ptr(s.cfg.Chain.Contract),
		AppContractAddress: ptr("0x" + c.AppID), DeployerAddress: opt(c.DeployerAddress)}, nil
}

func (s *Server) pendingUpdates(ctx context.Context, in *AppInput) (out cloudapi.PendingUpdates, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	out.Items = []cloudapi.PendingUpdate{}
	for _, c := range cvms {
		list, err := s.store.WaitingChanges(ctx, c.ID, slotUpdate)
		if err != nil {
			return out, err
		}
		for _, p := range list {
			v := cloudapi.PendingUpdate{VMUUID: c.UUID, ComposeHash: p.ComposeHash, InstanceName: ptr(c.Name)}
			if st := s.chainStatus(ctx, c.AppID, p.ComposeHash, word(s.deviceID(c))); st != nil {
				v.OnChain = st.ComposeHashAllowed
			}
			out.Items = append(out.Items, v)
		}
	}
	return out, nil
}

type previewInput struct {
	AppInput
	VMUUID      string `path:"vm_uuid"`
	ComposeHash string `path:"compose_hash"`
}

func (s *Server) previewUpdate(ctx context.Context, in *previewInput) (out cloudapi.PendingPreview, err error) {
	none := fail(http.StatusNotFound, "", cvm.NotFound, "update-not-found", "the app has no such pending update", "list them: GET /apps/{app_id}/pending-updates")
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	i := slices.IndexFunc(cvms, func(c store.CVM) bool { return c.UUID == store.ParseRef(in.VMUUID).UUID })
	if i < 0 {
		return out, none
	}
	list, err := s.store.WaitingChanges(ctx, cvms[i].ID, slotUpdate)
	if err != nil {
		return out, err
	}
	at := slices.IndexFunc(list, func(p store.Prepared) bool { return p.ComposeHash == bare(in.ComposeHash) })
	if at < 0 {
		return out, none
	}
	now, next := parsed(cvms[i]), parsed(cvms[i])
	if b := list[at].Patch.AppCompose; b != nil {
		if next, err = appcompose.Parse(b); err != nil {
			return out, err
		}
	}
	return cloudapi.PendingPreview{CurrentDockerCompose: opt(now.DockerComposeFile), PendingDockerCompose: opt(next.DockerComposeFile),
		CurrentPreLaunchScript: opt(now.PreLaunchScript), PendingPreLaunchScript: opt(next.PreLaunchScript)}, nil
}

// revisionView is a revision as lists show it.
func revisionView(p store.Principal, r store.Revision, c store.CVM) cloudapi.Revision {
	return cloudapi.Revision{
		RevisionID: strconv.FormatInt(r.ID, 10), AppID: r.AppID, VMUUID: c.UUID, ComposeHash: r.ComposeHash, CreatedAt: stamp(r.CreatedAt),
		OperationType: r.Kind, TriggeredBy: &cloudapi.UserRef{ObjectType: "user", Username: ptr(p.Username)},
		CVM:       &cloudapi.CVMRef{ObjectType: "cvm", ID: ptr(store.HashID(c.UUID)), Name: ptr(c.Name), AppID: ptr(c.AppID), VMUUID: ptr(c.UUID)},
		Workspace: &cloudapi.WorkspaceRef{ObjectType: "workspace", ID: workspaceID(p), Name: p.WorkspaceName, Slug: ptr(p.WorkspaceSlug)},
	}
}

type revisionInput struct {
	AppInput
	RevisionID string `path:"revision_id"`
	Raw        bool   `query:"raw_compose_file" doc:"compose_file as its exact text"`
}

func (s *Server) revision(ctx context.Context, in *revisionInput) (out cloudapi.RevisionDetail, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	r, err := s.revisionOf(ctx, cvms[0].AppID, in.RevisionID)
	if err != nil {
		return out, err
	}
	c, err := s.store.CVM(ctx, r.CVMID)
	if err != nil {
		return out, err
	}
	out = cloudapi.RevisionDetail{Revision: revisionView(who(ctx), r, c), ComposeFile: json.RawMessage(r.AppCompose)}
	if in.Raw {
		out.ComposeFile = string(r.AppCompose)
	}
	if r.ComposeHash == c.ComposeHash {
		out.EncryptedEnv, out.UserConfig = hex.EncodeToString(c.EncryptedEnv), c.UserConfig
	}
	return out, nil
}
