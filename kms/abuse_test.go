package kms

import (
	"context"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// A quote that anyone can have, and an app that makes as many as it likes, do not
// fill the ledger (T12); what another reason refuses still gets its leaf.
func TestGenuineEvidenceDoesNotFloodTheLedger(t *testing.T) {
	c := newCluster(t, 1)
	ctx := context.Background()
	victim := c.guest(composeOf(t, appcompose.Document{Name: "victim"}))
	stolen := victim.request(nil).Attestation
	stranger := c.guest(composeOf(t, appcompose.Document{Name: "stranger"}))
	before := c.nodes[0].machine.Size()
	for range 20 {
		r := stranger.request(nil)
		r.Attestation = stolen
		if _, err := stranger.client.Release(ctx, r); cvm.ReasonOf(err) != kmsapi.ReasonBinding {
			t.Fatalf("%v", err)
		}
	}
	if n := c.nodes[0].machine.Size() - before; n != 1 {
		t.Errorf("one quote sent 20 times made %d leaves", n)
	}
	running := c.guestOn(c.hw, stranger.compose, cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseRunning)
	before = c.nodes[0].machine.Size()
	for range denialBudget + 10 {
		if _, err := running.release(); cvm.ReasonOf(err) != kmsapi.ReasonPhase {
			t.Fatalf("%v", err)
		}
	}
	if n := c.nodes[0].machine.Size() - before; n != denialBudget {
		t.Errorf("an app made %d deny leaves, the budget is %d", n, denialBudget)
	}
	nobody := composeOf(t, appcompose.Document{Name: "nobody allowed this"})
	_, err := c.guestOn(c.hw, nobody, cvm.AppID{7}, cvm.InstanceID{2}, claim.PhaseRelease).release()
	if l := c.lastLeaf(); cvm.ReasonOf(err) != kmsapi.ReasonGovernance || l.Kind != ledger.KindDeny || l.Reason != kmsapi.ReasonGovernance {
		t.Errorf("a real deny was lost: %v, %+v", err, l)
	}
	c.nodes[0].flushSummary(ctx)
	if l := c.lastLeaf(); l.Kind != ledger.KindSummary || l.Count != 19+10 {
		t.Errorf("what had no leaf is not counted: %+v", l)
	}
}

// Evidence whose log is a lie shows no app; two of them are still two.
func TestEachForgedLogHasItsLeaf(t *testing.T) {
	c := newCluster(t, 1)
	before := c.nodes[0].machine.Size()
	for i := range 2 {
		g := c.guest(composeOf(t, appcompose.Document{Name: "hello"}))
		g.boot.Events[2].Payload = make([]byte, 32)
		if _, err := g.release(); cvm.ReasonOf(err) != kmsapi.ReasonEvidence {
			t.Fatalf("%v", err)
		}
		if l := c.lastLeaf(); c.nodes[0].machine.Size() != before+int64(i)+1 || l.Reason != kmsapi.ReasonEvidence || l.DeviceID != c.hw.DeviceID().String() {
			t.Errorf("refusal %d: %+v", i+1, l)
		}
	}
}

// A deny that could not be written is not taken for one that was.
func TestDenialsForget(t *testing.T) {
	var d denials
	r := &refusal{genuine: true, err: cvm.Errorf(cvm.Denied, "no").WithReason("x")}
	at := time.Unix(1_000_000, 0)
	if !d.leaf(r, at) || d.leaf(r, at) {
		t.Fatal("the second of two equal refusals gets a leaf")
	}
	d.forget(r)
	if !d.leaf(r, at) || !d.leaf(r, at.Add(2*denialWindow)) {
		t.Error("a refusal is forgotten for good")
	}
}

// Renewals and certificates write nothing, so nothing but this keeps a member with
// an old chain and a stopped clock from serving a revoked app (T2).
func TestRenewalsDoNotGoBack(t *testing.T) {
	c := newCluster(t, 1)
	g := c.guest(composeOf(t, appcompose.Document{Name: "hello"}))
	rel, err := g.release()
	if err != nil {
		t.Fatal(err)
	}
	g.run()
	cert := signRequest(t, rel.Lease.ID, `{"subject":"x","server_auth":true,"client_auth":false,"app_info":false}`)
	c.chain.set(func(ch *chain) { ch.head -= 50 })
	if _, err := g.renew(rel.Lease.ID); cvm.ReasonOf(err) != keyring.ReasonChainWentBack {
		t.Errorf("renewed on an old chain: %v", err)
	}
	if _, err := g.client.SignCert(context.Background(), cert); cvm.ReasonOf(err) != keyring.ReasonChainWentBack {
		t.Errorf("certified on an old chain: %v", err)
	}
	c.chain.set(func(ch *chain) { ch.head += 60 })
	if _, err := g.renew(rel.Lease.ID); err != nil {
		t.Error(err)
	}
	if _, err := g.client.SignCert(context.Background(), cert); err != nil {
		t.Error(err)
	}
}

type countingVendor struct {
	Collateral
	n int
}

func (v *countingVendor) For(ctx context.Context, ev attest.Evidence) (collateral.Set, error) {
	v.n++
	return v.Collateral.For(ctx, ev)
}

// A stranger's self-made certificate chain does not make the KMS ask the vendor.
func TestStrangersFetchNothing(t *testing.T) {
	c := newCluster(t, 1)
	m := c.nodes[0].Member
	v := &countingVendor{Collateral: m.collateral}
	m.collateral = v
	compose := composeOf(t, appcompose.Document{Name: "x"})
	judge := func(g *guest) error {
		ev, err := g.boot.Evidence(context.Background(), [64]byte{1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.judge(context.Background(), ev, [64]byte{1}, claim.PhaseRelease)
		return err
	}
	stranger := c.guestOn(newHardware(t, 9), compose, cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseRelease)
	if err := judge(stranger); cvm.ReasonOf(err) != kmsapi.ReasonRoot || v.n != 0 {
		t.Errorf("%d fetches for a stranger: %v", v.n, err)
	}
	if err := judge(c.guest(compose)); err != nil || v.n != 1 {
		t.Errorf("%d fetches for a guest: %v", v.n, err)
	}
}
