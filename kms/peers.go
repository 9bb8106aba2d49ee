package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/internal/replica"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/ratls"
)

// The members' own calls, over the members' port.
const (
	pathChallenge = "/peer/challenge" // any attested KMS
	pathJoin      = "/peer/join"      // any attested and allowed KMS
	pathReady     = "/peer/ready"     // members only, like all that follow
	pathPropose   = "/peer/propose"   // leader
	pathBarrier   = "/peer/barrier"   // leader
	pathCosign    = "/peer/cosign"
	pathHello     = "/peer/hello"
)

// Before it joins, a member challenges the other end and is challenged: both prove
// with fresh evidence that they are at the ends of this connection (ratls.Channel).
type challengeRequest struct {
	Nonce []byte `json:"nonce"`
}

type challengeResponse struct {
	Origin      string `json:"origin"`
	Attestation []byte `json:"attestation"` // for the caller's nonce
	Nonce       []byte `json:"nonce"`       // for the join that follows on this connection
}

type joinRequest struct {
	Member      keyring.Member `json:"member"`
	Nonce       []byte         `json:"nonce"`
	Attestation []byte         `json:"attestation"`
}

type joinResponse struct {
	Leader  string           `json:"leader,omitempty"` // set: ask there instead (raft address)
	Members []keyring.Member `json:"members,omitempty"`
}

type proposeRequest struct {
	Command []byte `json:"command"`
}

type proposeResponse struct {
	NotLeader bool            `json:"not_leader"`
	Index     uint64          `json:"index"`
	Result    json.RawMessage `json:"result,omitempty"`
}

type cosignRequest struct {
	Size int64 `json:"size"`
}

type cosignResponse struct {
	Note []byte `json:"note"`
}

type hello struct {
	ID   string `json:"id"`
	Warm bool   `json:"warm"`
}

type empty struct{}

func (m *Member) peerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathJoin, rpc.Handle(m.handleJoin))
	mux.HandleFunc("POST "+pathChallenge, rpc.Handle(m.handleChallenge))
	member := func(path string, h http.HandlerFunc) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if !m.isMember(peerKey(r.TLS)) {
				rpc.WriteError(w, cvm.Errorf(cvm.Denied, "only members may call this").WithReason("kms-not-a-member"))
				return
			}
			h(w, r)
		})
	}
	member(pathReady, rpc.Handle(m.handleReady))
	member(pathPropose, rpc.Handle(m.handlePropose))
	member(pathBarrier, rpc.Handle(m.handleBarrier))
	member(pathCosign, rpc.Handle(m.handleCosign))
	member(pathHello, rpc.Handle(func(*http.Request, empty) (hello, error) {
		return hello{ID: m.cfg.ID, Warm: m.warm.Load()}, nil
	}))
	return mux
}

// isMember knows members by their RA-TLS key: from the replicated state, and,
// while joining, from the answer of the authorized member that admitted us.
func (m *Member) isMember(spki []byte) bool {
	if len(spki) == 0 {
		return false
	}
	if _, ok := m.machine.MemberByKey(spki); ok {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sponsors[string(spki)]
}

// admit asks the authority whether a KMS with these claims may hold root secrets.
func (m *Member) admit(ctx context.Context, c claim.Claims) (governance.Decision, error) {
	d, err := m.cfg.Authority.AuthorizeKMS(ctx, governance.RequestOf(c))
	if err != nil {
		return d, err
	}
	if !d.Allowed {
		return d, cvm.Errorf(cvm.Denied, "KMS is not allowed: %s", d.Reason).WithReason(kmsapi.ReasonGovernance).
			WithFix(fmt.Sprintf("allow mr_aggregated 0x%x and device 0x%s for the KMS", c.MRAggregated, c.DeviceID))
	}
	return d, m.fresh(d.View)
}

// handleChallenge proves this member to a caller, and gives it the nonce for its
// own proof.
func (m *Member) handleChallenge(r *http.Request, req challengeRequest) (out challengeResponse, err error) {
	if err := m.serving(); err != nil {
		return out, err
	}
	ch, err := ratls.NewChannel(*r.TLS, true, m.id.spki)
	if err != nil {
		return out, err
	}
	if out.Attestation, err = ch.Prove(r.Context(), req.Nonce, m.self.evidence); err != nil {
		return out, err
	}
	out.Origin, out.Nonce = m.machine.Origin(), newNonce(m.nonceKey, peerKey(r.TLS), m.now()).Nonce
	return out, nil
}

// proved is what the joiner's fresh evidence shows. It is of this connection: what
// another member was shown, or is being shown, proves nothing here.
func (m *Member) proved(r *http.Request, req joinRequest) (c claim.Claims, err error) {
	spki := peerKey(r.TLS)
	if string(req.Member.TLSKey) != string(spki) {
		return c, cvm.Errorf(cvm.Denied, "the member's key is not the one this connection has proved").WithReason(kmsapi.ReasonBinding)
	}
	if _, err := checkNonce(m.nonceKey, req.Nonce, spki, m.now()); err != nil {
		return c, err
	}
	ch, err := ratls.NewChannel(*r.TLS, true, m.id.spki)
	if err != nil {
		return c, err
	}
	return c, ch.Check(req.Nonce, req.Attestation, m.believe(r.Context(), &c))
}

// handleJoin admits a member: it has shown evidence in the handshake, and fresh
// evidence for this connection, and the authority must allow it (T4). The join is
// a leaf, and the roots travel in the same command, encrypted to the member.
func (m *Member) handleJoin(r *http.Request, req joinRequest) (joinResponse, error) {
	vault := m.vault.Load()
	if !m.replica.IsLeader() || vault == nil {
		_, addr := m.replica.Leader()
		if addr == "" || addr == m.raftAddr {
			return joinResponse{}, replica.NoQuorum(errors.New("there is no leader at the moment"))
		}
		return joinResponse{Leader: addr}, nil
	}
	c, err := m.proved(r, req)
	if err != nil {
		return joinResponse{}, m.refused(r.Context(), err)
	}
	if err := checkMember(req.Member, m.machine.Origin()); err != nil {
		return joinResponse{}, err
	}
	d, err := m.admit(r.Context(), c)
	if err != nil {
		if cvm.CodeOf(err) == cvm.Denied {
			return joinResponse{}, m.refused(r.Context(), &refusal{genuine: true, claims: c, err: asCoded(err)})
		}
		return joinResponse{}, err
	}
	wrapped, err := vault.WrapFor(req.Member)
	if err != nil {
		return joinResponse{}, cvm.Errorf(cvm.Invalid, "wrapping the roots: %w", err)
	}
	cmd := m.command(keyring.KindJoin)
	cmd.Join = &keyring.Join{Member: req.Member, Wrapped: wrapped, Leaf: leafOf(c, d)}
	if _, err := m.propose(r.Context(), cmd); err != nil {
		return joinResponse{}, err
	}
	m.log.Info("a member joined", "member", req.Member.ID, "raft", req.Member.Raft)
	return joinResponse{Members: m.machine.Members()}, nil
}

func checkMember(mb keyring.Member, origin string) error {
	if !memberID.MatchString(mb.ID) || mb.Raft == "" || len(mb.URLs) == 0 || len(mb.WrapKey) != 32 {
		return cvm.Errorf(cvm.Invalid, "join: id, raft, urls and wrap_key must be set")
	}
	if err := ledger.Majority(origin, []string{mb.VerifierKey}).Validate(); err != nil {
		return cvm.Errorf(cvm.Invalid, "join: verifier_key: %w", err)
	}
	return nil
}

func (m *Member) handleReady(r *http.Request, _ empty) (empty, error) {
	mb, ok := m.machine.MemberByKey(peerKey(r.TLS))
	if !ok {
		return empty{}, cvm.Errorf(cvm.Precondition, "join first")
	}
	return empty{}, m.replica.AddVoter(r.Context(), mb.ID, mb.Raft)
}

func (m *Member) handlePropose(r *http.Request, req proposeRequest) (proposeResponse, error) {
	i, out, err := m.replica.Apply(r.Context(), req.Command)
	if errors.Is(err, replica.ErrNotLeader) {
		return proposeResponse{NotLeader: true}, nil
	}
	return proposeResponse{Index: i, Result: out}, err
}

func (m *Member) handleBarrier(r *http.Request, _ empty) (proposeResponse, error) {
	i, err := m.replica.Barrier(r.Context())
	if errors.Is(err, replica.ErrNotLeader) {
		return proposeResponse{NotLeader: true}, nil
	}
	return proposeResponse{Index: i}, err
}

// handleCosign signs this member's own checkpoint of the asked size, never what
// the caller believes it to be.
func (m *Member) handleCosign(r *http.Request, req cosignRequest) (cosignResponse, error) {
	note, err := m.signCheckpoint(r.Context(), req.Size)
	return cosignResponse{Note: note}, err
}

// leaderCall runs a call on the leader, wherever it is. It goes on to a new leader
// only while it is certain that nothing was sent to the old one.
func (m *Member) leaderCall(ctx context.Context, local func() (proposeResponse, error), path string, req any) (proposeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	last := errors.New("there is no leader at the moment")
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		id, addr := m.replica.Leader()
		switch {
		case m.replica.IsLeader():
			out, err := local()
			if err != nil || !out.NotLeader {
				return out, err
			}
		case id != "" && id != m.cfg.ID:
			var out proposeResponse
			err := m.peer(addr).Call(ctx, http.MethodPost, path, req, &out)
			var dial *dialError
			switch {
			case err == nil && !out.NotLeader:
				return out, nil
			case err != nil && !errors.As(err, &dial):
				return out, replica.NoQuorum(err)
			case err != nil:
				last = err
			}
		}
		select {
		case <-ctx.Done():
			return proposeResponse{}, replica.NoQuorum(last)
		case <-time.After(pause):
		}
	}
}

// leaderTimeout bounds a proposal, an election included.
const leaderTimeout = 8 * time.Second

// command starts a command of this member.
func (m *Member) command(kind string) keyring.Command {
	return keyring.Command{V: keyring.Version, Kind: kind, Time: m.now().UTC(), Member: m.cfg.ID}
}

// propose commits a command and returns when this member has applied it.
func (m *Member) propose(ctx context.Context, c keyring.Command) (keyring.Result, error) {
	b, err := c.Encode()
	if err != nil {
		return keyring.Result{}, err
	}
	out, err := m.leaderCall(ctx, func() (proposeResponse, error) {
		i, res, err := m.replica.Apply(ctx, b)
		if errors.Is(err, replica.ErrNotLeader) {
			return proposeResponse{NotLeader: true}, nil
		}
		return proposeResponse{Index: i, Result: res}, err
	}, pathPropose, proposeRequest{Command: b})
	if err != nil {
		return keyring.Result{}, err
	}
	var r keyring.Result
	if err := json.Unmarshal(out.Result, &r); err != nil {
		return r, fmt.Errorf("result of a proposal: %w", err)
	}
	wctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	if err := m.replica.WaitApplied(wctx, out.Index); err != nil {
		return r, err
	}
	if r.Reason != "" {
		return r, cvm.Errorf(cvm.Denied, "%s", r.Detail).WithReason(r.Reason)
	}
	return r, nil
}

// barrier returns when this member's state is as new as the cluster's was at the
// call, which only a majority can say.
func (m *Member) barrier(ctx context.Context) error {
	out, err := m.leaderCall(ctx, func() (proposeResponse, error) {
		i, err := m.replica.Barrier(ctx)
		if errors.Is(err, replica.ErrNotLeader) {
			return proposeResponse{NotLeader: true}, nil
		}
		return proposeResponse{Index: i}, err
	}, pathBarrier, empty{})
	if err != nil {
		return err
	}
	wctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	return m.replica.WaitApplied(wctx, out.Index)
}

// peer calls a member.
func (m *Member) peer(addr string) *rpc.Client {
	return &rpc.Client{Base: "https://" + addr, HTTP: m.peers}
}
