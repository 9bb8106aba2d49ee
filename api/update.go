package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/jobs"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// begin starts an operation on a CVM, or says that another one is at work. Stop,
// shutdown and delete may overtake; the one they overtake ends as superseded.
func (s *Server) begin(ctx context.Context, c store.CVM, kind, status string, body store.OperationBody, edit func(*store.Change) error) (store.CVM, int64, error) {
	if !jobs.Overtakes(kind) {
		if err := s.solvent(ctx, c.WorkspaceID, false); err != nil {
			return c, 0, err
		}
	}
	seq, err := s.store.LastSeq(ctx, c.ID)
	if err != nil {
		return c, 0, err
	}
	body.CorrelationID, body.By, body.ByID = uuid.NewString(), who(ctx).Username, who(ctx).UserID
	made, err := s.store.Change(ctx, c.ID, s.jobs.Enqueue, func(ch *store.Change) error {
		if !ch.CVM.Live() {
			return missing()
		}
		if err := busy(ch, kind); err != nil {
			return err
		}
		if kind == store.Update || kind == store.Resize || kind == store.Upgrade {
			body.Before = ch.CVM.Version()
		}
		if edit != nil {
			if err := edit(ch); err != nil {
				return err
			}
		}
		ch.Begin(kind, body)
		ch.CVM.Error = nil
		ch.SetStatus(status, "the CVM is "+status)
		return nil
	})
	return made, seq, err
}

func busy(ch *store.Change, kind string) error {
	if len(ch.Ops) == 0 {
		return nil
	}
	last := ch.Ops[len(ch.Ops)-1].Kind
	if jobs.Overtakes(kind) && !jobs.Overtakes(last) || kind == store.Delete && last != store.Delete {
		return nil
	}
	return fail(http.StatusConflict, "", cvm.Conflict, "busy", fmt.Sprintf("the CVM is %s: its %s is not finished", ch.CVM.Status, last),
		"wait for it to finish, or stop the CVM first")
}

// IDInput names a CVM in the path. (huma fills embedded structs only when exported.)
type IDInput struct {
	ID string `path:"id" doc:"uuid, cvm_ id, app id, instance id or name"`
}

// find resolves the path's CVM among the caller's.
func (s *Server) find(ctx context.Context, ref string) (store.CVM, error) {
	return s.resolve(ctx, ref, false)
}

func (s *Server) resolve(ctx context.Context, ref string, deleted bool) (store.CVM, error) {
	all, err := s.store.Find(ctx, who(ctx).WorkspaceID, ref, deleted)
	switch {
	case err != nil:
		return store.CVM{}, err
	case len(all) == 0:
		return store.CVM{}, missing()
	case len(all) > 1:
		var ids []string
		for _, c := range all {
			ids = append(ids, c.Name+" ("+c.UUID+")")
		}
		return store.CVM{}, fail(http.StatusConflict, errSeveralCVMs, cvm.Conflict, "several-cvms", "several CVMs match: "+strings.Join(ids, ", "), "name one by its uuid")
	}
	return all[0], nil
}

// power makes the handler of start, stop, shutdown and restart.
func (s *Server) power(verb string) func(context.Context, *IDInput) (cloudapi.VM, error) {
	status := map[string]string{
		store.Start: cloudapi.StatusStarting, store.Stop: cloudapi.StatusStopping,
		store.Shutdown: cloudapi.StatusStopping, store.Restart: cloudapi.StatusRestarting,
	}[verb]
	return func(ctx context.Context, in *IDInput) (out cloudapi.VM, err error) {
		c, err := s.find(ctx, in.ID)
		if err != nil {
			return out, err
		}
		c, seq, err := s.begin(ctx, c, verb, status, store.OperationBody{}, nil)
		if err != nil {
			return out, err
		}
		return s.vm(ctx, c, seq), nil
	}
}

type deleteInput struct {
	IDInput
	Volumes string `query:"volumes" enum:"keep,delete" default:"delete" doc:"what becomes of the CVM's volumes"`
}

func (s *Server) deleteCVM(ctx context.Context, in *deleteInput) (struct{}, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return struct{}{}, err
	}
	_, _, err = s.begin(ctx, c, store.Delete, cloudapi.StatusDeleting, store.OperationBody{Volumes: in.Volumes}, nil)
	return struct{}{}, err
}

type composeInput struct {
	IDInput
	Body    any
	RawBody []byte
}

func (s *Server) provisionCompose(ctx context.Context, in *composeInput) (out cloudapi.ComposeProvisioned, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	base, err := object(c.AppCompose)
	if err != nil {
		return out, err
	}
	next, err := s.compose(in.RawBody, c.Name, base, c.GPUs)
	if err != nil {
		return out, err
	}
	return s.prepare(ctx, c, next)
}

// prepare stores an app-compose for a later update of the CVM.
func (s *Server) prepare(ctx context.Context, c store.CVM, next composed) (out cloudapi.ComposeProvisioned, err error) {
	err = s.store.PutProvision(ctx, store.Provision{WorkspaceID: c.WorkspaceID, CVMID: c.ID, ComposeHash: next.hash(),
		ExpiresAt: s.now().Add(provisionAge), ProvisionBody: store.ProvisionBody{Name: c.Name, AppCompose: next.doc.Raw()}})
	out = cloudapi.ComposeProvisioned{AppID: ptr(c.AppID), DeviceID: s.deviceID(c), ComposeHash: next.hash(), KMSInfo: ptr(s.cfg.kms()),
		AppCompose: string(next.doc.Raw()), Changed: next.hash() != c.ComposeHash}
	if err == nil && s.governed() {
		if st := s.chainStatus(ctx, c.AppID, next.hash(), word(out.DeviceID)); st != nil {
			out.ComposeHashRegistered = ptr(st.ComposeHashAllowed)
		}
	}
	return out, err
}

func (s *Server) deviceID(c store.CVM) *string {
	if r := s.nodeRef(c.NodeID); r.DeviceID != nil {
		return r.DeviceID
	}
	return nil
}

type updateInput struct {
	IDInput
	Approval
	Origin
	Body cloudapi.ComposeUpdate
}

// updateCompose applies a prepared app-compose ("" or the present hash: keeps it) and,
// if given, an environment. A chain must allow the hash, as for every update.
func (s *Server) updateCompose(ctx context.Context, in *updateInput) (out cloudapi.Accepted, err error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	r := in.Body
	p := store.Patch{AppCompose: c.AppCompose, ComposeHash: c.ComposeHash}
	if hash := bare(r.ComposeHash); hash != "" && hash != c.ComposeHash {
		prov, err := s.provisionOf(ctx, c.ID, hash)
		if err != nil {
			return out, err
		}
		p.AppCompose, p.ComposeHash = prov.AppCompose, hash
	}
	next, err := s.compose(p.AppCompose, c.Name, nil, c.GPUs)
	if err != nil {
		return out, err
	}
	if err := s.withEnv(c, &p, next, opt(r.EncryptedEnv), r.EnvSignature); err != nil {
		return out, err
	}
	return s.apply(ctx, c, change{kind: store.Update, patch: p, approval: in.Approval, base: in.base})
}

type envsInput struct {
	IDInput
	Origin
	Body cloudapi.EnvsUpdate
}

// updateEnvs replaces the environment. Other names are another app-compose, whose
// hash a chain must allow first: then the same request comes again with compose_hash.
func (s *Server) updateEnvs(ctx context.Context, in *envsInput) (out cloudapi.Accepted, err error) {
	r := in.Body
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return out, err
	}
	if r.EncryptedEnv == "" {
		var p problems
		p.add("encrypted_env", "missing", "the encrypted environment is missing", "to remove all values send an encrypted empty list")
		return out, p.err()
	}
	ch, next, err := s.envsChange(ctx, c, r)
	if err != nil {
		return out, err
	}
	if err := s.withEnv(c, &ch.patch, next, &r.EncryptedEnv, r.EnvSignature); err != nil {
		return out, err
	}
	ch.base = in.base
	out, err = s.apply(ctx, c, ch)
	out.AllowedEnvsChanged = err == nil && !sameSet(parsed(c).AllowedEnvs, next.doc.AllowedEnvs)
	return out, err
}

// envsChange is the app-compose that an environment is for: the present one, one with
// other names, or the one that compose_hash names.
func (s *Server) envsChange(ctx context.Context, c store.CVM, r cloudapi.EnvsUpdate) (ch change, next composed, err error) {
	ch = change{kind: store.Update, approval: Approval{Transaction: r.TransactionHash}}
	hash := bare(r.ComposeHash)
	if hash != "" && hash != c.ComposeHash {
		prov, err := s.provisionOf(ctx, c.ID, hash)
		if err == nil { // prepared by compose_file/provision
			next, err = s.compose(prov.AppCompose, c.Name, nil, c.GPUs)
			ch.patch, ch.redo = store.Patch{AppCompose: prov.AppCompose, ComposeHash: hash}, true
			return ch, next, err
		}
		if !s.governed() {
			return ch, next, err
		}
		ch.approval.ComposeHash = hash
	}
	keys := map[string]any{}
	if r.EnvKeys != nil && !sameSet(parsed(c).AllowedEnvs, r.EnvKeys) {
		keys["allowed_envs"] = anys(r.EnvKeys)
	}
	p, next, err := s.composePatch(c, keys)
	if len(keys) > 0 {
		ch.patch = p
	}
	if len(keys) == 0 && ch.approval.ComposeHash == "" {
		ch.approval.Transaction = "" // nothing that a chain decides
	}
	return ch, next, err
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// getCompose answers with the app-compose as an object.
func (s *Server) getCompose(ctx context.Context, in *IDInput) (any, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(c.AppCompose), nil
}
