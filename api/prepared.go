package api

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// More of the public error catalogue.
const (
	errTxFailed       = "ERR-01-007"
	errNotAllowed     = "ERR-01-008"
	errReplicaImage   = "ERR-03-006"
	errReplicaSource  = "ERR-03-008"
	errReplicaCompose = "ERR-03-009"
	statusTxFailed    = 467
	statusNotAllowed  = 468
)

// slotUpdate is where a CVM's prepared update waits; the newest one wins.
const slotUpdate = "update"

// waiting is a change that governance must allow first.
type waiting struct {
	cvm                store.CVM
	patch              store.Patch
	hash, device, slot string
	node               int64
	base               string // where people reach this API
	status             *cloudapi.ChainStatus
	chain              bool // the KMS is described with its chain (viem's shape)
}

// needsChain stores a waiting change and makes the answer that says what to approve.
func (s *Server) needsChain(ctx context.Context, w waiting) error {
	token, p := uuid.NewString(), who(ctx)
	err := s.store.Prepare(ctx, store.Prepared{
		Token: sha([]byte(token)), WorkspaceID: w.cvm.WorkspaceID, CVMID: w.cvm.ID, Slot: w.slot, ComposeHash: w.hash, ExpiresAt: s.now().Add(provisionAge),
		PreparedBody: store.PreparedBody{UserID: p.UserID, By: p.Username, Base: w.cvm.ComposeHash, Patch: w.patch, NodeID: w.node},
	})
	if err != nil {
		return err
	}
	verb := "commit-update"
	if w.slot != slotUpdate {
		verb = "commit-replica"
	}
	link := w.base + "/cvms/" + w.cvm.UUID + "/" + verb + "?token=" + url.QueryEscape(token)
	e := fail(statusNeedsChain, errNeedsChain, cvm.Precondition, "needs-on-chain", "the app's contract must allow this compose hash and device first",
		"register compose_hash with the app's contract, then commit with the transaction's hash")
	d := e.Detail.(cloudapi.ErrorDetail) //nolint:forcetypeassert // made two lines above
	d.Details = []cloudapi.Detail{{Field: "compose_hash", Value: w.hash}, {Field: "app_id", Value: w.cvm.AppID}, {Field: "device_id", Value: w.device},
		{Field: "kms_info", Value: s.kmsDetail(w.chain)}, {Field: "commit_token", Value: token}, {Field: "commit_url", Value: link}, {Field: "api_commit_url", Value: link}}
	if w.status != nil {
		d.Details = append(d.Details, cloudapi.Detail{Field: "onchain_status", Value: *w.status})
	}
	e.Detail = d
	return e
}

// multicall3 has the same address on every chain that has it.
const multicall3 = "0xcA11bde05977b3631167028862bE2a173976CA11"

// kmsDetail describes the KMS, with its chain where a client reads it from there.
func (s *Server) kmsDetail(chain bool) any {
	k := s.cfg.kms()
	if !chain {
		return k
	}
	c := s.cfg.Chain
	var urls []string
	if c.RPCURL != "" {
		urls = []string{c.RPCURL}
	}
	return map[string]any{"id": k.ID, "slug": k.Slug, "url": k.URL, "version": k.Version, "chain_id": k.ChainID, "kms_contract_address": k.KMSContractAddress,
		"gateway_app_id": k.GatewayAppID, "chain": map[string]any{"id": c.ID, "name": c.Name,
			"nativeCurrency": map[string]any{"name": "Ether", "symbol": "ETH", "decimals": 18},
			"rpcUrls":        map[string]any{"default": map[string]any{"http": urls}},
			"contracts":      map[string]any{"multicall3": map[string]any{"address": multicall3}}}}
}

func spent(message string) error {
	return fail(statusHashUnknown, errHashUnknown, cvm.Precondition, "commit-token-invalid", message, "prepare the change again, then commit")
}

func superseded() error {
	return fail(statusHashUnknown, errHashUnknown, cvm.Precondition, "superseded", "a newer change of this CVM took this one's place", "prepare the change again, then commit")
}

// confirm is the second phase by headers: the hash names the prepared change.
func (s *Server) confirm(ctx context.Context, c store.CVM, ch change) (out cloudapi.Accepted, err error) {
	hash := bare(ch.approval.ComposeHash)
	prep, err := s.store.PreparedFor(ctx, c.ID, slotUpdate, hash)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return out, spent("no change with this compose hash was prepared here in the last 14 days")
	case err != nil:
		return out, err
	case ch.patch.AppCompose != nil && ch.patch.ComposeHash != hash:
		return out, spent("X-Compose-Hash is not the hash of the change in this request")
	}
	if p := ch.patch; p.SetEnv && prep.State == store.Waiting { // the newer ciphertext of the same request
		prep.Patch.SetEnv, prep.Patch.EncryptedEnv, prep.Patch.EnvSignature = true, p.EncryptedEnv, p.EnvSignature
	}
	return s.commitUpdate(ctx, prep, ch.approval.Transaction)
}

// usable tells why a prepared change cannot be committed, or nil.
func (s *Server) usable(p store.Prepared) error {
	switch {
	case p.State == store.Replaced:
		return superseded()
	case p.State == store.Waiting && !s.now().Before(p.ExpiresAt):
		return spent("the commit token has expired")
	}
	return nil
}

// commitUpdate does a prepared update, once. Committing it again gets the same answer.
func (s *Server) commitUpdate(ctx context.Context, p store.Prepared, tx string) (out cloudapi.Accepted, err error) {
	if err := s.usable(p); err != nil {
		return out, err
	}
	if p.State == store.Committed {
		return s.begun(ctx, p.CommittedCVM, p.CommittedGeneration, 0)
	}
	c, err := s.store.CVM(ctx, p.CVMID)
	if err != nil {
		return out, err
	}
	if !c.Live() {
		return out, missing()
	}
	if err := s.prove(ctx, c.AppID, p.ComposeHash, word(s.deviceID(c)), tx); err != nil {
		return out, err
	}
	out, err = s.begins(as(ctx, p), c, change{kind: store.Update, patch: p.Patch}, &p)
	if errors.Is(err, store.ErrSpent) {
		return out, superseded()
	}
	return out, err
}

// as is for operations of who prepared them: the token is the credential.
func as(ctx context.Context, p store.Prepared) context.Context {
	w := who(ctx)
	w.UserID, w.Username, w.WorkspaceID = p.UserID, p.By, p.WorkspaceID
	return context.WithValue(ctx, principalKey{}, w)
}

type commitChangeInput struct {
	IDInput
	Token string `query:"token" doc:"instead of token in the body"`
	Body  cloudapi.CommitChange
}

// byToken finds what a token commits. Every failure says the same: the token is all
// that the caller has.
func (s *Server) byToken(ctx context.Context, id, token string, update bool) (p store.Prepared, c store.CVM, err error) {
	invalid := spent("the commit token is not valid here, or has expired")
	p, err = s.store.PreparedByToken(ctx, sha([]byte(strings.ToLower(token))))
	if errors.Is(err, store.ErrNotFound) || err == nil && (p.Slot == slotUpdate) != update {
		return p, c, invalid
	}
	if err != nil {
		return p, c, err
	}
	found, err := s.store.Find(ctx, p.WorkspaceID, id, false)
	if err != nil {
		return p, c, err
	}
	i := slices.IndexFunc(found, func(c store.CVM) bool { return c.ID == p.CVMID })
	if i < 0 {
		return p, c, invalid
	}
	return p, found[i], nil
}

// commits reads a commit's token and compares its hash with the token's own.
func (s *Server) commits(ctx context.Context, id, queryToken string, r cloudapi.CommitChange, update bool) (p store.Prepared, c store.CVM, err error) {
	if r.Token == "" {
		r.Token = queryToken
	}
	if p, c, err = s.byToken(ctx, id, r.Token, update); err != nil {
		return p, c, err
	}
	if h := bare(r.ComposeHash); h != "" && h != p.ComposeHash {
		return p, c, spent("the commit token is for another compose hash")
	}
	return p, c, nil
}

func (s *Server) commitUpdateByToken(ctx context.Context, in *commitChangeInput) (out cloudapi.Accepted, err error) {
	p, _, err := s.commits(ctx, in.ID, in.Token, in.Body, true)
	if err != nil {
		return out, err
	}
	return s.commitUpdate(ctx, p, in.Body.TransactionHash)
}

type preparedInput struct {
	IDInput
	Token string `query:"token"`
}

// preparedUpdate shows what a token would commit.
func (s *Server) preparedUpdate(ctx context.Context, in *preparedInput) (out cloudapi.PreparedChange, err error) {
	p, c, err := s.byToken(ctx, in.ID, in.Token, true)
	if err != nil {
		return out, err
	}
	out = cloudapi.PreparedChange{CVMID: store.HashID(c.UUID), CVMName: c.Name, AppID: c.AppID, ComposeHash: p.ComposeHash, DeviceID: s.deviceID(c),
		KMSInfo: s.cfg.kms(), Status: p.State, ExpiresAt: stamp(p.ExpiresAt)}
	if p.State == store.Waiting && !s.now().Before(p.ExpiresAt) {
		out.Status = "expired"
	}
	out.Onchain = s.chainStatus(ctx, c.AppID, p.ComposeHash, word(out.DeviceID))
	return out, nil
}

type commitReplicaInput struct {
	IDInput
	Token string `query:"token" doc:"instead of token in the body"`
	Body  cloudapi.CommitChange
}

func (s *Server) commitReplicaByToken(ctx context.Context, in *commitReplicaInput) (out cloudapi.VM, err error) {
	p, c, err := s.commits(ctx, in.ID, in.Token, in.Body, false)
	if err != nil {
		return out, err
	}
	return s.commitReplica(ctx, p, c, in.Body.TransactionHash)
}

// commitReplica makes a prepared replica, once; again gets the same CVM.
func (s *Server) commitReplica(ctx context.Context, p store.Prepared, src store.CVM, tx string) (out cloudapi.VM, err error) {
	if err := s.usable(p); err != nil {
		return out, err
	}
	if p.State == store.Committed {
		c, err := s.store.CVM(ctx, p.CommittedCVM)
		if err != nil || !c.Live() {
			return out, errors.Join(err, spent("the replica that this token made is gone"))
		}
		return s.vm(ctx, c, 0), nil
	}
	if err := s.prove(ctx, src.AppID, p.ComposeHash, word(s.nodeRef(p.NodeID).DeviceID), tx); err != nil {
		return out, err
	}
	out, err = s.makeReplica(as(ctx, p), src, p.Patch, p.NodeID, &p)
	if errors.Is(err, store.ErrSpent) {
		return out, superseded()
	}
	return out, err
}
