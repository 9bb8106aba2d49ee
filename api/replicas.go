package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

type replicaInput struct {
	IDInput
	Approval
	Origin
	Body *cloudapi.ReplicaRequest
}

func (s *Server) replicate(ctx context.Context, in *replicaInput) (out cloudapi.VM, err error) {
	src, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	return s.replica(ctx, src, in.Body, in.Approval, in.base, nil)
}

type appReplicaInput struct {
	AppInput
	VMUUID string `path:"vm_uuid" doc:"of the source"`
	Approval
	Origin
	Body *cloudapi.ReplicaRequest
}

// replicateOf is replicate with the app in the path, which must be the source's.
func (s *Server) replicateOf(ctx context.Context, in *appReplicaInput) (out cloudapi.VM, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	src, err := s.find(ctx, in.VMUUID)
	if err != nil {
		return out, err
	}
	if src.AppID != cvms[0].AppID {
		return out, missing()
	}
	return s.replica(ctx, src, in.Body, in.Approval, in.base, nil)
}

type instanceInput struct {
	AppInput
	Approval
	Origin
	Body cloudapi.InstanceRequest
}

// addInstance makes a replica of an app's newest CVM, perhaps with another
// app-compose, or commits a prepared one.
func (s *Server) addInstance(ctx context.Context, in *instanceInput) (out cloudapi.VM, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	r := in.Body
	if r.Token != "" {
		return s.commitInstance(ctx, cvms, r)
	}
	src := cvms[0]
	keys := map[string]any{}
	if r.DockerComposeFile != nil {
		keys["docker_compose_file"] = *r.DockerComposeFile
	}
	if r.PreLaunchScript != nil {
		keys["pre_launch_script"] = script(*r.PreLaunchScript)
	}
	if len(keys) == 0 {
		return s.replica(ctx, src, &r.ReplicaRequest, in.Approval, in.base, &instance{})
	}
	if r.ComposeHash != "" {
		var p problems
		p.add("compose_hash", "value_error", "compose_hash names a revision, docker_compose_file and pre_launch_script make a new one", "send one or the other")
		return out, p.err()
	}
	p, _, err := s.composePatch(src, keys)
	if err != nil {
		return out, err
	}
	return s.replica(ctx, src, &r.ReplicaRequest, in.Approval, in.base, &instance{patch: p})
}

// commitInstance commits a prepared instance of the app in the path.
func (s *Server) commitInstance(ctx context.Context, cvms []store.CVM, r cloudapi.InstanceRequest) (out cloudapi.VM, err error) {
	p, err := s.store.PreparedByToken(ctx, sha([]byte(strings.ToLower(r.Token))))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return out, err
	}
	i := slices.IndexFunc(cvms, func(c store.CVM) bool { return c.ID == p.CVMID })
	if err != nil || i < 0 || p.Slot == slotUpdate {
		return out, spent("the commit token is not valid here, or has expired")
	}
	if h := bare(r.ComposeHash); h != "" && h != p.ComposeHash {
		return out, spent("the commit token is for another compose hash")
	}
	return s.commitReplica(ctx, p, cvms[i], r.TransactionHash)
}

// instance is what POST /apps/{app}/instances adds to a replica.
type instance struct{ patch store.Patch }

// replica makes a CVM of the source's app on a node, or prepares it.
func (s *Server) replica(ctx context.Context, src store.CVM, r *cloudapi.ReplicaRequest, a Approval, base string, inst *instance) (out cloudapi.VM, err error) {
	if r == nil {
		r = &cloudapi.ReplicaRequest{}
	}
	var p store.Patch
	if inst != nil && inst.patch.AppCompose != nil {
		p = inst.patch
	} else if p, err = s.revisionFor(ctx, src, bare(r.ComposeHash)); err != nil {
		return out, err
	}
	next, err := s.compose(p.AppCompose, src.Name, nil, src.GPUs)
	if err != nil {
		return out, err
	}
	if err := s.withEnv(src, &p, next, r.EncryptedEnv, r.EnvSignature); err != nil {
		return out, err
	}
	node, err := s.replicaNode(ctx, src, int64(max(r.NodeID, r.TeepodID)))
	if err != nil {
		return out, err
	}
	prepareOnly := strings.EqualFold(a.PrepareOnly, "true") || a.PrepareOnly == "1"
	if s.governed() {
		device := word(s.nodeRef(node).DeviceID)
		st := s.chainStatus(ctx, src.AppID, p.ComposeHash, device)
		if prepareOnly || st == nil || !st.IsAllowed {
			return out, s.needsChain(ctx, waiting{cvm: src, patch: p, hash: p.ComposeHash, device: device, node: node, base: base, status: st, chain: inst != nil,
				slot: fmt.Sprintf("replica:%d:%s", node, p.ComposeHash)})
		}
	} else if prepareOnly {
		return out, fail(http.StatusUnprocessableEntity, errBadRequest, cvm.Invalid, "not-on-chain", "this cloud's KMS is not on a chain: there is nothing to prepare")
	}
	return s.makeReplica(ctx, src, p, node, nil)
}

// revisionFor is the app-compose of a replica: the named revision's, or the source's
// if all of the app's CVMs run it.
func (s *Server) revisionFor(ctx context.Context, src store.CVM, hash string) (p store.Patch, err error) {
	p = store.Patch{AppCompose: src.AppCompose, ComposeHash: src.ComposeHash}
	if hash == src.ComposeHash {
		return p, nil
	}
	if hash == "" {
		cvms, err := s.cvmsOf(ctx, src.AppID)
		if err != nil {
			return p, err
		}
		if slices.ContainsFunc(cvms, func(c store.CVM) bool { return c.ComposeHash != src.ComposeHash }) {
			return p, fail(http.StatusBadRequest, errReplicaCompose, cvm.Invalid, "compose-hash-needed", "the app's CVMs run different compose hashes",
				"name one in compose_hash")
		}
		return p, nil
	}
	all, err := s.store.Revisions(ctx, src.WorkspaceID, src.AppID)
	if err != nil {
		return p, err
	}
	for _, r := range all {
		if r.ComposeHash == hash {
			return store.Patch{AppCompose: r.AppCompose, ComposeHash: hash}, nil
		}
	}
	return p, fail(http.StatusNotFound, errReplicaSource, cvm.NotFound, "revision-not-found", "the app has no revision with this compose hash", "list them: GET /apps/{app_id}/revisions")
}

func (s *Server) replicaRequest(src store.CVM, node int64) scheduler.Request {
	return scheduler.Request{Need: bodySize(&src.Body).need(), GPUs: src.GPUs, GPU: src.GPU, NodeID: node, Image: src.Image}
}

// replicaNode is where a replica goes: the named node, else where there is room, with
// as few of the app's CVMs as can be.
func (s *Server) replicaNode(ctx context.Context, src store.CVM, want int64) (int64, error) {
	nodes, err := s.placements(ctx)
	if err != nil {
		return 0, err
	}
	r := s.replicaRequest(src, want)
	if r.Replicas, err = s.store.ReplicasOf(ctx, src.AppID); err != nil {
		return 0, err
	}
	node, _, err := scheduler.Pick(r, nodes)
	if cvm.ReasonOf(err) == scheduler.ReasonNoImage {
		return 0, fail(http.StatusBadRequest, errReplicaImage, cvm.Precondition, "image-not-found", err.Error(), "choose a node that has the source's image")
	}
	if err != nil {
		return 0, unplaced(err)
	}
	return node.ID, nil
}

// makeReplica creates the CVM: the source's app, size and environment, no data of it.
func (s *Server) makeReplica(ctx context.Context, src store.CVM, p store.Patch, node int64, prep *store.Prepared) (out cloudapi.VM, err error) {
	who := who(ctx)
	body := src.Body
	body.Error, body.BootProgress, body.StartedAt, body.StoppedAt, body.DeleteAt = nil, "", time.Time{}, time.Time{}, time.Time{}
	p.Apply(&body)
	limits, err := s.mayMake(ctx, src.WorkspaceID)
	if err != nil {
		return out, err
	}
	at, err := s.place(ctx, s.replicaRequest(src, node), src.AppID)
	if err != nil {
		return out, err
	}
	defer s.drop(ctx, at)
	for range 3 { // somebody may take the name meanwhile
		name, err := s.replicaName(ctx, src)
		if err != nil {
			return out, err
		}
		made, err := s.store.Create(ctx, store.CVM{
			WorkspaceID: src.WorkspaceID, UserID: who.UserID, UUID: uuid.NewString(), Name: name, AppID: src.AppID, NodeID: node,
			Status: cloudapi.StatusCreating, Body: body,
		}, s.jobs.Enqueue, func(c *store.Change) error {
			if prep != nil {
				c.Spend = prep.ID
			}
			c.Limits = limits
			c.Reservation = at.holdID
			c.Begin(store.Deploy, store.OperationBody{CorrelationID: uuid.NewString(), By: who.Username, ByID: who.UserID})
			c.Emit(cloudapi.Event{Kind: cloudapi.EventSchedule, Status: c.CVM.Status, Message: "a replica of " + src.Name + " on node " + word(s.nodeRef(node).Name)})
			c.Revised = true
			return nil
		})
		if errors.Is(err, store.ErrNameTaken) {
			continue
		}
		if errors.Is(err, store.ErrReservationGone) {
			return out, tooLate()
		}
		if err != nil {
			return out, err
		}
		return s.vm(ctx, made, 0), nil
	}
	return out, store.ErrNameTaken
}

// replicaName is the source's name with the first free number.
func (s *Server) replicaName(ctx context.Context, src store.CVM) (string, error) {
	base := strings.TrimRight(src.Name[:min(len(src.Name), 57)], "-")
	for n := 2; ; n++ {
		name := fmt.Sprintf("%s-%d", base, n)
		if taken, err := s.store.NameTaken(ctx, src.WorkspaceID, name); err != nil || !taken {
			return name, err
		}
	}
}
