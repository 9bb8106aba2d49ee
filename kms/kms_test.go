package kms

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

func (c *cluster) checkpointKeys() ledger.Keys { return c.nodes[c.leader()].machine.CheckpointKeys() }

// leaves reads the ledger of a member that has at least n leaves.
func (c *cluster) lastLeaf() ledger.Leaf {
	var out ledger.Leaf
	n := c.nodes[c.leader()]
	err := n.machine.Ledger(func(t *ledger.Tree) error {
		b, err := t.Leaf(t.Size() - 1)
		if err != nil {
			return err
		}
		out, err = ledger.ParseLeaf(b)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func TestCluster(t *testing.T) {
	c := newCluster(t, 3)
	compose := composeOf(t, appcompose.Document{Name: "hello"})
	g := c.guest(compose)
	g.ctx.WireGuardKey = bytes.Repeat([]byte{7}, 32)
	first, err := g.release()
	if err != nil {
		t.Fatal(err)
	}
	checkRelease(t, c, g, first)

	t.Run("renew", func(t *testing.T) {
		if _, err := g.renew(first.Lease.ID); cvm.ReasonOf(err) != kmsapi.ReasonPhase {
			t.Errorf("renewal before the guest is ready: %v", err)
		}
		g.run()
		r, err := g.renew(first.Lease.ID)
		if err != nil || r.Lease.ID != first.Lease.ID || len(r.Certificates) != 3 {
			t.Fatalf("%v", err)
		}
		if _, err := c.guestOn(c.hw, compose, g.app, cvm.InstanceID{2}, "running").renew(first.Lease.ID); cvm.ReasonOf(err) != kmsapi.ReasonLeaseUnknown {
			t.Errorf("another key renews the lease: %v", err)
		}
		c.chain.set(func(ch *chain) { clear(ch.apps) })
		if _, err := g.renew(first.Lease.ID); cvm.ReasonOf(err) != kmsapi.ReasonGovernance {
			t.Errorf("a disallowed app renews: %v", err)
		}
		c.chain.set(func(ch *chain) { ch.apps[cvm.ComposeHash(mustHash(compose))] = true })
	})

	t.Run("leader lost", func(t *testing.T) {
		i := c.leader()
		c.halt(i)
		again := c.guest(compose)
		rel, err := again.release()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rel.DiskKey.Reveal(), first.DiskKey.Reveal()) {
			t.Error("another member gives another key")
		}
		if _, err := g.renew(first.Lease.ID); cvm.ReasonOf(err) != kmsapi.ReasonLeaseUnknown {
			t.Errorf("a newer boot of the instance did not end the old lease: %v", err)
		}
		c.start(i)
		c.await(i)
	})

	t.Run("no quorum", func(t *testing.T) {
		i := c.leader()
		c.halt((i + 1) % 3)
		c.halt((i + 2) % 3)
		late := c.guest(compose)
		n, err := late.client.Nonce(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := late.client.Release(context.Background(), late.request(n.Nonce)); cvm.ReasonOf(err) != kmsapi.ReasonNoQuorum {
			t.Errorf("a minority releases, or says something else: %v", err)
		}
		c.start((i + 1) % 3)
		c.start((i + 2) % 3)
		c.await((i + 1) % 3)
		c.await((i + 2) % 3)
	})

	t.Run("cold start", func(t *testing.T) {
		for i := range c.nodes {
			c.halt(i)
		}
		for i := range c.nodes {
			c.start(i)
		}
		for i := range c.nodes {
			c.await(i)
		}
		rel, err := c.guest(compose).release()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rel.DiskKey.Reveal(), first.DiskKey.Reveal()) || rel.RootCA != first.RootCA {
			t.Error("the keys changed over a restart")
		}
		meta, err := c.client(nil).Meta(context.Background())
		if err != nil || len(meta.Members) != 3 || !hasPrefix(meta.Warnings, "NO ANTI-ROLLBACK") || !hasPrefix(meta.Warnings, "SIMULATED") {
			t.Errorf("meta %+v, %v", meta, err)
		}
	})

	t.Run("nothing secret on disk", func(t *testing.T) { noSecrets(t, c, first) })
}

func mustHash(b []byte) [32]byte {
	d, err := appcompose.Parse(b)
	if err != nil {
		panic(err)
	}
	return d.Hash()
}

func hasPrefix(list []string, p string) bool {
	for _, s := range list {
		if len(s) >= len(p) && s[:len(p)] == p {
			return true
		}
	}
	return false
}

func checkRelease(t *testing.T, c *cluster, g *guest, rel kmsapi.Release) {
	t.Helper()
	leaf, err := rel.Receipt.Verify(c.checkpointKeys())
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Kind != ledger.KindAllow || leaf.AppID != g.app.String() || leaf.ClientKey != hashHex(g.spki) || leaf.LeaseID != rel.Lease.ID || leaf.Platform != "simulated" {
		t.Errorf("leaf %+v", leaf)
	}
	ctx := context.Background()
	meta, err := g.client.Meta(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(meta.Members) != 3 || meta.LedgerOrigin == "" || !meta.Simulated || hasPrefix(meta.Warnings, "NO ANTI") {
		t.Errorf("meta %+v", meta)
	}
	pub, _ := keys.K256Public(rel.AppKey)
	if root, err := keys.RecoverAppKeyIssuer(g.app, pub, rel.AppKeySig); err != nil || !bytes.Equal(root, meta.K256PubKey) {
		t.Errorf("app key chain: %x, %v", root, err)
	}
	env, err := g.client.EnvKey(ctx, g.app)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.VerifyEnvKey(g.app, env.PublicKey, env.Timestamp, env.SignatureV1, meta.K256PubKey, time.Now()); err != nil {
		t.Error(err)
	}
	if p, _ := keys.EnvPublicKey(rel.EnvKey); !bytes.Equal(p, env.PublicKey) {
		t.Error("the released environment key is not the advertised one")
	}
	ticket, err := kmsapi.OpenTicket(ed25519.PublicKey(rel.TicketKey), rel.Ticket, time.Now())
	if err != nil || ticket.AppID != g.app || !ticket.Simulated || !bytes.Equal(rel.TicketKey, meta.TicketKey) {
		t.Errorf("ticket %+v, %v", ticket, err)
	}
	if _, err := kmsapi.OpenTicket(ed25519.PublicKey(rel.TicketKey), rel.Ticket, time.Now().Add(time.Minute)); err == nil {
		t.Error("a ticket outlives its lease")
	}
	if _, l, err := g.client.Receipt(ctx, c.checkpointKeys(), 0); err != nil || l.Kind != ledger.KindBootstrap {
		t.Errorf("first leaf over the API: %+v, %v", l, err)
	}
}

// noSecrets looks for root and app keys in every file, in three spellings.
func noSecrets(t *testing.T, c *cluster, rel kmsapi.Release) {
	for i := range c.nodes {
		if err := c.nodes[i].replica.Snapshot(); err != nil {
			t.Logf("snapshot of %s: %v", c.nodes[i].cfg.ID, err)
		}
	}
	scalar, err := keys.Scalar(c.nodes[0].vault.Load().CA())
	if err != nil {
		t.Fatal(err)
	}
	ticket, _ := c.nodes[0].vault.Load().TicketKey()
	secrets := map[string][]byte{
		"root CA": scalar.Reveal(), "ticket": ticket.Seed(), "nonce": c.nodes[0].nonceKey.Reveal(),
		"disk": rel.DiskKey.Reveal(), "app": rel.AppKey.Reveal(), "env": rel.EnvKey.Reveal(),
		"note": c.nodes[0].id.note.Seed(), "wrap": c.nodes[0].id.wrap.Reveal(),
	}
	files := 0
	for _, n := range c.nodes {
		err := filepath.WalkDir(n.cfg.Dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			files++
			for name, s := range secrets {
				for _, form := range [][]byte{s, []byte(hex.EncodeToString(s)), []byte(base64.StdEncoding.EncodeToString(s)[:40])} {
					if bytes.Contains(b, form) {
						t.Errorf("%s holds the %s key", p, name)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 6 {
		t.Fatalf("only %d files were searched", files)
	}
}
