package kms

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// authorized is a verified request that governance allows, at a fresh view.
// Only authorize makes one.
type authorized struct {
	*verified
	decision governance.Decision
}

// fresh refuses a view that is too old (T2), by local time and by block time.
func (m *Member) fresh(v governance.View) error {
	max := time.Duration(m.cfg.MaxStaleness)
	now := m.now()
	if now.Sub(v.SeenAt) > max {
		return stale("the chain's head was read %s ago, the limit is %s", now.Sub(v.SeenAt).Round(time.Second), max)
	}
	if !v.Head.Time.IsZero() && now.Sub(v.Head.Time) > max {
		return stale("the chain's newest block is %s old, the limit is %s", now.Sub(v.Head.Time).Round(time.Second), max)
	}
	return nil
}

func stale(format string, args ...any) error {
	return cvm.Errorf(cvm.Unavailable, format, args...).WithReason(kmsapi.ReasonChainStale).
		WithFix("check the chain and the KMS's chain endpoints")
}

func (m *Member) authorize(ctx context.Context, v *verified) (*authorized, error) {
	d, err := m.ask(ctx, governance.RequestOf(v.v.Claims()))
	if err != nil {
		e := asCoded(err)
		return nil, &refusal{genuine: true, claims: v.v.Claims(), err: e}
	}
	return &authorized{v, d}, nil
}

// ask gets an allow of the authority at a fresh view that does not go back behind
// what the cluster has seen, or an error.
func (m *Member) ask(ctx context.Context, r governance.BootRequest) (governance.Decision, error) {
	d, err := m.cfg.Authority.AuthorizeApp(ctx, r)
	if err != nil {
		e := asCoded(err)
		if e.Code == cvm.Internal { // no answer refuses like a deny does, and is not the guest's fault
			e = cvm.Errorf(cvm.Unavailable, "the authority gives no answer: %w", err)
		}
		if e.Reason == "" {
			e = e.WithReason("chain-unreachable")
		}
		return d, e
	}
	if !d.Allowed { // a deny counts as soon as the head has it
		return d, cvm.Errorf(cvm.Denied, "App not allowed: %s", d.Reason).WithReason(kmsapi.ReasonGovernance).
			WithFix("allow the compose hash, image and device for the app on chain")
	}
	return d, m.fresh(d.View)
}

// still asks whether what a lease was given for is still allowed. It records
// nothing, so that it must itself compare the view with what the cluster has seen:
// else a member with a stopped clock and an old chain would renew for ever (T2).
func (m *Member) still(ctx context.Context, r governance.BootRequest) error {
	for range maxReads {
		d, err := m.ask(ctx, r)
		if err != nil {
			return err
		}
		if m.machine.HeightsHold(heights(d.View)) {
			return nil
		}
	}
	return wentBack()
}

func wentBack() *cvm.Error {
	return cvm.Errorf(cvm.Unavailable, "the chain's endpoints lag behind what the cluster has seen").
		WithReason(keyring.ReasonChainWentBack).WithFix("check the KMS's chain endpoints")
}

// leafOf is the leaf of claims and of what governance said about them.
func leafOf(c claim.Claims, d governance.Decision) ledger.Leaf {
	l := ledger.Leaf{
		AppID: c.AppID.String(), ComposeHash: c.ComposeHash.String(), ImageHash: c.OSImageHash.String(),
		DeviceID: c.DeviceID.String(), MRSystem: hex.EncodeToString(c.MRSystem[:]), MRAggregate: hex.EncodeToString(c.MRAggregated[:]),
		Platform: string(c.Platform), TCBStatus: c.TCB.Status, EvidenceHash: evidenceHash(c),
	}
	if !c.InstanceID.IsZero() {
		l.InstanceID = c.InstanceID.String()
	}
	if d.View.Source != "" {
		l.Governance, _ = json.Marshal(d.View) // plain data: it always encodes
	}
	return l
}

// evidenceHash names evidence by its content: the bytes of a quote are malleable.
func evidenceHash(c claim.Claims) string {
	h := sha256.New()
	h.Write(c.ReportData)
	h.Write(c.RTMR[3][:])
	h.Write(c.MRTD[:])
	return hex.EncodeToString(h.Sum(nil))
}

// maxReads bounds how often the chain is read again for one request, when another
// request has meanwhile recorded a newer height.
const maxReads = 4

// record writes the allow into the replicated ledger and returns it as applied by
// this member. Governance is asked again when the chain was read too early.
func (m *Member) record(ctx context.Context, a *authorized) (keyring.Recorded, error) {
	for range maxReads {
		lease := m.newLease(a)
		cmd := m.command(keyring.KindDecide)
		cmd.Decide = &keyring.Decide{
			Leaf: a.leaf(lease), Nonce: a.nonce, NonceExpires: a.nonceEnd, Lease: lease, Heights: heights(a.decision.View),
		}
		cmd.Decide.Once = a.redeems()
		_, err := m.propose(ctx, cmd)
		switch cvm.ReasonOf(err) {
		case "":
			if err != nil {
				return keyring.Recorded{}, err
			}
			return m.machine.Recorded(lease.ID, a.client)
		case keyring.ReasonChainWentBack:
			next, err := m.authorize(ctx, a.verified)
			if err != nil {
				return keyring.Recorded{}, err
			}
			a = next
		default: // the state refused, and wrote the deny leaf itself
			return keyring.Recorded{}, err
		}
	}
	return keyring.Recorded{}, &refusal{genuine: true, claims: a.v.Claims(), err: wentBack()}
}

func (m *Member) newLease(a *authorized) *keyring.Lease {
	c := a.v.Claims()
	id := make([]byte, 16)
	_, _ = rand.Read(id) // crypto/rand does not fail
	l := &keyring.Lease{
		ID: hex.EncodeToString(id), AppID: c.AppID, InstanceID: c.InstanceID, ComposeHash: c.ComposeHash, MRBoot: c.MRBoot[:],
		ClientKey: a.client, Simulated: c.Platform == cvm.PlatformSimulated, Epoch: m.vault.Load().Epoch(), Issued: m.now().UTC(),
		EnvTracked: a.tracked, EnvCounter: a.context.EnvCounter, EnvSHA256: a.context.EnvSHA256, Boot: governance.RequestOf(c), NoNonce: a.noNonce, Launch: c.LaunchID(),
	}
	if a.compose != nil && a.compose.PortPolicy != nil {
		l.PortPolicy, _ = json.Marshal(a.compose.PortPolicy)
	}
	return l
}

func (a *authorized) leaf(lease *keyring.Lease) ledger.Leaf {
	l := leafOf(a.v.Claims(), a.decision)
	l.ClientKey, l.LeaseID, l.Epoch, l.NoNonce = a.client, lease.ID, lease.Epoch, a.noNonce
	l.Note = launchNote(a.v.Claims())
	l.EnvSHA256, l.EnvCounter, l.EnvSigned = a.context.EnvSHA256, a.context.EnvCounter, a.signed
	return l
}

func heights(v governance.View) *keyring.Heights {
	if v.Head.Number == 0 && v.Final.Number == 0 {
		return nil // not a chain
	}
	return &keyring.Heights{Chain: fmt.Sprintf("%s/%d/%s", v.Source, v.ChainID, v.Contract), Final: v.Final.Number, Head: v.Head.Number}
}

// refused notes a refusal in the ledger (T12) and gives back the error for the
// caller. Without a quorum there is no leaf, and the error says so.
func (m *Member) refused(ctx context.Context, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	if !r.genuine {
		m.strangers.add(r.err.Reason)
		return r.err
	}
	if !m.denials.leaf(r, m.now()) {
		m.strangers.add(r.err.Reason)
		return r.err
	}
	if lerr := m.recordDenial(ctx, r.claims, leafOf(r.claims, governance.Decision{}), r.err); lerr != nil {
		m.denials.forget(r)
		return lerr
	}
	return r.err
}

func (m *Member) recordDenial(ctx context.Context, c claim.Claims, l ledger.Leaf, why error) error {
	e := asCoded(why)
	l.Reason, l.Detail = e.Reason, e.Message
	cmd := m.command(keyring.KindDecide)
	cmd.Decide = &keyring.Decide{Leaf: l}
	if _, err := m.propose(ctx, cmd); err != nil && cvm.CodeOf(err) == cvm.Unavailable {
		m.log.Warn("a refusal could not be recorded", "reason", e.Reason, "app", c.AppID, "err", err)
		return err
	}
	m.log.Info("refused", "reason", e.Reason, "app", c.AppID, "instance", c.InstanceID, "detail", e.Message)
	return nil
}

// tally counts refusals of strangers until a summary leaf takes them.
type tally struct {
	mu      sync.Mutex
	count   uint64
	reasons map[string]uint64
}

func (t *tally) add(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reasons == nil {
		t.reasons = map[string]uint64{}
	}
	t.count++
	t.reasons[reason]++ // reasons are our own words: few
}

func (t *tally) take() *keyring.Summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == 0 {
		return nil
	}
	s := &keyring.Summary{Count: t.count, Reasons: t.reasons}
	t.count, t.reasons = 0, nil
	return s
}

func (t *tally) back(s *keyring.Summary) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reasons == nil {
		t.reasons = map[string]uint64{}
	}
	t.count += s.Count
	for k, v := range s.Reasons {
		t.reasons[k] += v
	}
}

// summaryEvery is how often refusals of strangers may cost one leaf.
const summaryEvery = time.Minute

func (m *Member) summarize(ctx context.Context) error {
	t := time.NewTicker(summaryEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			m.flushSummary(ctx)
		}
	}
}

func (m *Member) flushSummary(ctx context.Context) {
	s := m.strangers.take()
	if s == nil {
		return
	}
	cmd := m.command(keyring.KindSummary)
	cmd.Summary = s
	if _, err := m.propose(ctx, cmd); err != nil {
		m.strangers.back(s)
		m.log.Warn("a summary of refusals could not be recorded", "count", s.Count, "err", err)
	}
}
