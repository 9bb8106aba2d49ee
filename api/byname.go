package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// The public CLI's `deploy -n NAME` always provisions and commits, also where it is
// documented to update the CVM that has this name: pipelines run one command again
// and again. What it sends (the contract of 2025-10-28, a compose_file with an empty
// name) therefore makes of the two calls an update in place. Everything else is
// answered ERR-01-004, and so is all on a chain, where updates have an approval that
// these calls cannot carry.

// named is the live CVM that a provision of the public CLI means to update, or nil.
func (s *Server) named(ctx context.Context, in *provisionInput) (*store.CVM, error) {
	if !in.legacy() || s.governed() {
		return nil, nil
	}
	doc, err := object(raw(in.RawBody, "compose_file"))
	if _, whole := doc["manifest_version"]; err != nil || whole || doc["name"] != "" {
		return nil, err
	}
	all, err := s.store.Find(ctx, who(ctx).WorkspaceID, in.Body.Name, false)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(c store.CVM) bool { return c.Live() && c.Name == in.Body.Name })
	if i < 0 {
		return nil, nil
	}
	return &all[i], nil
}

// provisionNamed prepares an update of c. Its size, node and image stay: the CLI
// sends a size of its own choice when it is given none.
func (s *Server) provisionNamed(ctx context.Context, c store.CVM, in *provisionInput) (out cloudapi.Provisioned, err error) {
	keys, err := object(raw(in.RawBody, "compose_file"))
	if err != nil {
		return out, err
	}
	delete(keys, "name")
	for k, v := range keys {
		if v == nil {
			delete(keys, k)
		}
	}
	if names, _ := keys["allowed_envs"].([]any); len(names) == 0 {
		delete(keys, "allowed_envs") // no environment in this run: the present one stays
	}
	p, next, err := s.composePatch(c, keys)
	if err != nil {
		return out, err
	}
	app, err := cvm.ParseAppID(c.AppID)
	if err != nil {
		return out, err
	}
	k, err := s.keys.EnvKey(ctx, app)
	if err != nil {
		return out, err
	}
	err = s.store.PutProvision(ctx, store.Provision{WorkspaceID: c.WorkspaceID, CVMID: c.ID, ComposeHash: p.ComposeHash, ExpiresAt: s.now().Add(provisionAge),
		ProvisionBody: store.ProvisionBody{Name: c.Name, AppCompose: p.AppCompose, ByName: true}})
	return cloudapi.Provisioned{AppID: ptr(c.AppID), AppEnvEncryptPubkey: ptr(hex.EncodeToString(k.PublicKey)), ComposeHash: p.ComposeHash, KMSInfo: ptr(s.cfg.kms()),
		DeviceID: s.deviceID(c), InstanceType: opt(c.InstanceType), KMSID: ptr(s.cfg.KMS.ID), TeepodID: ptr(int(c.NodeID)), NodeID: ptr(int(c.NodeID)),
		AppCompose: string(next.doc.Raw()), Warnings: append(stays(c, in.Body), next.warnings...)}, err
}

// stays says which of the wishes have no part in an update.
func stays(c store.CVM, r cloudapi.ProvisionRequest) (out []string) {
	size := fmt.Sprintf("%d vCPU, %d MB, %d GB disk", c.VCPU, c.MemoryMiB, c.DiskGB)
	switch {
	case r.InstanceType != "" && r.InstanceType != c.InstanceType, r.VCPU != 0 && r.VCPU != c.VCPU, r.Memory != 0 && r.Memory != c.MemoryMiB, r.DiskSize != 0 && r.DiskSize != c.DiskGB:
		out = append(out, "the size stays "+strings.TrimSpace(c.InstanceType+" ("+size+")")+": an update by name changes none (PATCH /cvms/{id}/resources does)")
	}
	if id := r.NodeID + r.TeepodID; id != 0 && int64(id) != c.NodeID {
		out = append(out, fmt.Sprintf("the node stays %d: an update by name moves nothing", c.NodeID))
	}
	if r.Image != "" && r.Image != c.Image {
		out = append(out, "the OS image stays "+c.Image+" (PATCH /cvms/{id}/os-image changes it)")
	}
	return out
}

// namedUpdate is the CVM of app that provisionNamed prepared an update of, or nil.
func (s *Server) namedUpdate(ctx context.Context, app cvm.AppID, hash string) (*store.CVM, store.Provision, error) {
	if s.governed() {
		return nil, store.Provision{}, nil
	}
	ws := who(ctx).WorkspaceID
	all, err := s.store.AppCVMs(ctx, app.String())
	if err != nil {
		return nil, store.Provision{}, err
	}
	for _, c := range all {
		if c.WorkspaceID != ws || !c.Live() {
			continue
		}
		p, err := s.store.Provision(ctx, ws, c.ID, hash)
		if err == nil && p.ByName {
			return &c, p, nil
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, p, err
		}
	}
	return nil, store.Provision{}, nil
}

// commitNamed starts the prepared update. Asking again after a lost answer, and a
// run that changes nothing, leave a CVM alone that serves or is about to.
func (s *Server) commitNamed(ctx context.Context, c store.CVM, prov store.Provision, r cloudapi.CommitRequest) (out cloudapi.VM, err error) {
	next, err := s.compose(prov.AppCompose, c.Name, nil, c.GPUs)
	if err != nil {
		return out, err
	}
	p := store.Patch{AppCompose: prov.AppCompose, ComposeHash: prov.ComposeHash}
	if err := s.withEnv(c, &p, next, opt(r.EncryptedEnv), r.EnvSignature); err != nil {
		return out, err
	}
	same := p.ComposeHash == c.ComposeHash && (!p.SetEnv || bytes.Equal(p.EncryptedEnv, c.EncryptedEnv))
	if same && slices.Contains([]string{cloudapi.StatusRunning, cloudapi.StatusCreating, cloudapi.StatusUpdating, cloudapi.StatusStarting}, c.Status) {
		return s.vm(ctx, c, 0), nil
	}
	a, err := s.apply(ctx, c, change{kind: store.Update, patch: p})
	if err != nil {
		return out, err
	}
	if c, err = s.store.CVM(ctx, c.ID); err != nil {
		return out, err
	}
	return s.vm(ctx, c, a.EventSeq), nil
}
