package kms

import (
	"bytes"
	"context"
	"encoding/hex"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// owner signs environments.
func owner(t *testing.T, seed byte) (keys.Secret, string) {
	k := keys.NewSecret(bytes.Repeat([]byte{seed}, 32))
	pub, err := keys.K256Public(k)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := keys.Address(pub)
	if err != nil {
		t.Fatal(err)
	}
	return k, addr
}

// sealEnv puts a signed environment into a guest's context.
func (g *guest) sealEnv(key keys.Secret, counter uint64, blob string) {
	sum := mustSum([]byte(blob))
	sig, err := keys.SignEnv(key, g.app, counter, sum)
	if err != nil {
		g.t.Fatal(err)
	}
	g.ctx.EnvSHA256, g.ctx.EnvCounter, g.ctx.EnvSignature = hex.EncodeToString(sum[:]), counter, hex.EncodeToString(sig)
}

func mustSum(b []byte) [32]byte {
	s, err := hex.DecodeString(hashHex(b))
	if err != nil {
		panic(err)
	}
	return [32]byte(s)
}

// Every refusal has its own reason, and, where a vendor signed the evidence, a leaf.
func TestRefusals(t *testing.T) {
	c := newCluster(t, 1)
	key, addr := owner(t, 3)
	plain := composeOf(t, appcompose.Document{Name: "plain"})
	signed := composeOf(t, appcompose.Document{Name: "signed", EnvSigners: []string{addr}})
	other := newHardware(t, 9)
	ctx := context.Background()
	k := func() *guest { return c.guest(signed) }

	good := k()
	good.sealEnv(key, 5, "five")
	if _, err := good.release(); err != nil {
		t.Fatal(err)
	}
	if l := c.lastLeaf(); l.Kind != ledger.KindAllow || !l.EnvSigned || l.EnvCounter != 5 {
		t.Fatalf("%+v", l)
	}

	for _, tc := range []struct {
		name, reason string
		leaf         bool
		ask          func() error
	}{
		{"compose not allowed", kmsapi.ReasonGovernance, true, func() error {
			d := composeOf(t, appcompose.Document{Name: "nobody allowed this"})
			_, err := c.guestOn(c.hw, d, cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseRelease).release()
			return err
		}},
		{"after boot", kmsapi.ReasonPhase, true, func() error {
			_, err := c.guestOn(c.hw, plain, cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseRunning).release()
			return err
		}},
		{"before boot-mr-done", kmsapi.ReasonPhase, true, func() error {
			_, err := c.guestOn(c.hw, plain, cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseEarly).release()
			return err
		}},
		{"another vendor root", kmsapi.ReasonRoot, false, func() error {
			_, err := c.guestOn(other, plain, cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseRelease).release()
			return err
		}},
		{"not evidence", kmsapi.ReasonEvidence, false, func() error {
			g := c.guest(plain)
			r := g.request(nil)
			r.Attestation = []byte("nonsense")
			_, err := g.client.Release(ctx, r)
			return err
		}},
		{"event payload flipped", kmsapi.ReasonEvidence, true, func() error {
			g := c.guest(plain)
			g.boot.Events[2].Payload = bytes.Repeat([]byte{1}, 32)
			_, err := g.release()
			return err
		}},
		{"replayed nonce", kmsapi.ReasonNonceUsed, true, func() error {
			g := c.guest(plain)
			r := g.request(nil)
			if _, err := g.client.Release(ctx, r); err != nil {
				t.Fatal(err)
			}
			_, err := g.client.Release(ctx, r)
			return err
		}},
		{"nonce of another client", kmsapi.ReasonBinding, false, func() error {
			a, b := c.guest(plain), c.guest(plain)
			n, err := b.client.Nonce(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.client.Release(ctx, a.request(n.Nonce))
			return err
		}},
		{"evidence for another nonce", kmsapi.ReasonBinding, true, func() error {
			g := c.guest(plain)
			r, n := g.request(nil), g.request(nil)
			r.Nonce = n.Nonce
			_, err := g.client.Release(ctx, r)
			return err
		}},
		{"context changed on the way", kmsapi.ReasonBinding, true, func() error {
			g := c.guest(plain)
			r := g.request(nil)
			r.Context = bytes.Replace(r.Context, []byte(`"disk_generation":0`), []byte(`"disk_generation":1`), 1)
			_, err := g.client.Release(ctx, r)
			return err
		}},
		{"another compose sent", kmsapi.ReasonComposeMismatch, true, func() error {
			g := c.guest(plain)
			r := g.request(nil)
			r.AppCompose = signed
			_, err := g.client.Release(ctx, r)
			return err
		}},
		{"environment unsigned", kmsapi.ReasonEnvSwapped, true, func() error {
			g := k()
			g.ctx.EnvSHA256, g.ctx.EnvCounter = hashHex([]byte("five")), 6
			_, err := g.release()
			return err
		}},
		{"environment swapped", kmsapi.ReasonEnvSwapped, true, func() error {
			g := k()
			g.sealEnv(key, 6, "six")
			g.ctx.EnvSHA256 = hashHex([]byte("the host's"))
			_, err := g.release()
			return err
		}},
		{"environment of a stranger", kmsapi.ReasonEnvSwapped, true, func() error {
			g := k()
			stranger, _ := owner(t, 4)
			g.sealEnv(stranger, 6, "six")
			_, err := g.release()
			return err
		}},
		{"environment rolled back", kmsapi.ReasonEnvRolledBack, true, func() error {
			g := k()
			g.sealEnv(key, 4, "four")
			_, err := g.release()
			return err
		}},
		{"environment dropped", kmsapi.ReasonEnvRolledBack, true, func() error { _, err := k().release(); return err }},
		{"same counter, other environment", kmsapi.ReasonEnvRolledBack, true, func() error {
			g := k()
			g.sealEnv(key, 5, "another five")
			_, err := g.release()
			return err
		}},
		{"chain unreachable", "chain-unreachable", true, func() error {
			c.chain.set(func(ch *chain) { ch.err = cvm.Errorf(cvm.Unavailable, "no route").WithReason("chain-unreachable") })
			defer c.chain.set(func(ch *chain) { ch.err = nil })
			_, err := c.guest(plain).release()
			return err
		}},
		{"chain stale", kmsapi.ReasonChainStale, true, func() error {
			c.chain.set(func(ch *chain) { ch.lag = 61e9 })
			defer c.chain.set(func(ch *chain) { ch.lag = 0 })
			_, err := c.guest(plain).release()
			return err
		}},
		{"chain went back", "chain-went-back", true, func() error {
			c.chain.set(func(ch *chain) { ch.head -= 50 })
			defer c.chain.set(func(ch *chain) { ch.head += 60 })
			_, err := c.guest(plain).release()
			return err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.ask()
			if cvm.ReasonOf(err) != tc.reason {
				t.Fatalf("reason %q (%v), want %q", cvm.ReasonOf(err), err, tc.reason)
			}
			l := c.lastLeaf()
			if got := l.Kind == ledger.KindDeny && l.Reason == tc.reason; got != tc.leaf {
				t.Errorf("last leaf %+v, want a deny: %v", l, tc.leaf)
			}
		})
	}

	t.Run("strangers are summarized", func(t *testing.T) {
		before := c.nodes[0].machine.Size()
		c.nodes[0].flushSummary(ctx)
		c.nodes[0].flushSummary(ctx) // nothing left to say
		if l := c.lastLeaf(); l.Kind != ledger.KindSummary || l.Count != 3 || c.nodes[0].machine.Size() != before+1 {
			t.Errorf("%+v", l)
		}
	})
	t.Run("the owner goes on", func(t *testing.T) {
		for _, n := range []uint64{5, 6} {
			g := k()
			g.sealEnv(key, n, map[uint64]string{5: "five", 6: "six"}[n])
			if _, err := g.release(); err != nil {
				t.Errorf("counter %d: %v", n, err)
			}
		}
	})
	t.Run("no client certificate", func(t *testing.T) {
		if _, err := c.client(nil).Nonce(ctx); cvm.CodeOf(err) != cvm.Unauthenticated {
			t.Errorf("%v", err)
		}
	})
	t.Run("another root pinned", func(t *testing.T) {
		_, spki := clientCert(t)
		k, err := kmsapi.New(kmsapi.Config{URLs: c.urls(), RootSPKI: hex.EncodeToString(spki)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Meta(ctx); err == nil {
			t.Error("a KMS with another root is believed")
		}
	})
}

// A member that the chain does not allow neither founds nor joins.
func TestMemberMustBeAllowed(t *testing.T) {
	c := newCluster(t, 1)
	mr, _ := ExpectedMR(testVMConfig)
	extra := *c.nodes[0]
	extra.cfg.ID, extra.cfg.Dir, extra.cfg.Bootstrap = "kms-9", t.TempDir(), false
	extra.cfg.Raft, extra.cfg.Peers = freePort(t), []string{c.nodes[0].cfg.Raft}
	extra.cfg.RPC = []string{freePort(t)}
	extra.cfg.URLs = []string{"https://" + extra.cfg.RPC[0]}
	// The founder's chain denies; the joiner's own view is a lie that allows.
	lie := &chain{kms: map[[32]byte]bool{mr: true}, head: 1000}
	extra.cfg.Authority = lie
	c.chain.set(func(ch *chain) { clear(ch.kms) })
	c.nodes = append(c.nodes, &extra)
	c.start(1)
	eventually(t, "a deny leaf for the join", func() bool {
		l := c.lastLeaf()
		return l.Kind == ledger.KindDeny && l.Reason == kmsapi.ReasonGovernance && l.AppID == AppID().String()
	})
	select {
	case <-c.nodes[1].Ready():
		t.Fatal("a disallowed member serves")
	default:
	}
	if n := len(c.nodes[0].machine.Members()); n != 1 {
		t.Errorf("%d members", n)
	}
	c.chain.set(func(ch *chain) { ch.kms[mr] = true })
	c.await(1)
}

func TestSignCert(t *testing.T) {
	c := newCluster(t, 1)
	g := c.guest(composeOf(t, appcompose.Document{Name: "hello"}))
	rel, err := g.release()
	if err != nil {
		t.Fatal(err)
	}
	req := signRequest(t, rel.Lease.ID, `{"subject":"x","alt_names":["localhost"],"server_auth":true,"client_auth":false,"app_info":true}`)
	out, err := g.client.SignCert(context.Background(), req)
	if err != nil || len(out.Certificates) != 3 {
		t.Fatalf("%v", err)
	}
	checkChain(t, out.Certificates, g.app, "localhost")
	bad := req
	bad.Config = bytes.Replace(req.Config, []byte("localhost"), []byte("other.org"), 1)
	if _, err := g.client.SignCert(context.Background(), bad); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a config that the key did not sign: %v", err)
	}
	if _, err := c.guest(g.compose).client.SignCert(context.Background(), req); cvm.ReasonOf(err) != kmsapi.ReasonLeaseUnknown {
		t.Errorf("another client's lease: %v", err)
	}
	c.chain.set(func(ch *chain) { clear(ch.apps) })
	if _, err := g.client.SignCert(context.Background(), req); cvm.ReasonOf(err) != kmsapi.ReasonGovernance {
		t.Errorf("a disallowed app gets a certificate: %v", err)
	}
}
