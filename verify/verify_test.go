package verify

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/ledger"
)

func names(cs []claim.Check) []string {
	var out []string
	for _, c := range cs {
		out = append(out, c.Name)
	}
	return out
}

func TestVerified(t *testing.T) {
	w := newWorld(t, nil)
	r := w.run()
	if !r.Verified {
		t.Fatalf("not verified: %+v", r.Failures())
	}
	if !slices.Equal(r.Banners, []string{BannerSimulated}) {
		t.Errorf("banners: %q", r.Banners)
	}
	if r.App.Claims.AppID != w.app.app || r.Gateway.Claims.AppID != w.gw.app || r.App.AppCompose != w.app.doc || r.App.View.Head.Number != 12 || r.App.LeafIndex != 1 {
		t.Errorf("subjects: %+v", r.App)
	}
	for _, s := range r.Sections {
		if len(s.Checks) == 0 {
			t.Errorf("section %s made no check", s.ID)
		}
		for _, c := range s.Checks {
			if c.Title == "" || c.Title == c.Name {
				t.Errorf("check %s has no title", c.Name)
			}
			if c.Verdict != claim.Passed && c.Required {
				t.Errorf("%s: %s", c.Name, c.Verdict)
			}
		}
	}
	// By instance id too, and not by another id.
	for id, good := range map[string]bool{w.app.inst.String(): true, w.app.app.String(): true, strings.Repeat("12", 20): false} {
		tg, err := w.profile.ParseTarget(id)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(t.Context(), w.profile, tg, Sources{Edge: w, Collateral: w, Chain: w.chain, Ledger: w}, nil)
		if err != nil || r.Verified != good {
			t.Errorf("target %s: %v, %v", id, r.Verified, err)
		}
	}
}

// Every piece that is tampered with fails its own check.
func TestTamperedPieces(t *testing.T) {
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	cases := []struct {
		name string
		do   func(w *world)
		want []string // who.check
	}{
		{"TLS ended in between", func(w *world) { key := spki(t); w.peer = func(p *Peer) { p.SPKI = key } }, []string{"connection.tls.key-proved", "app.evidence.same-gateway"}},
		{"certificate of a stranger", func(w *world) { w.peer = func(p *Peer) { p.Untrusted = "unknown authority" } }, []string{"connection.tls.certificate"}},
		{"the gateway proves another key", func(w *world) {
			w.evidence = func(who string, e *guestapi.Evidence) {
				if who == "gateway" {
					e.Bound = spki(t)
				}
			}
		}, []string{"connection.tls.key-proved"}},
		{"old evidence", func(w *world) {
			first := map[string]guestapi.Evidence{}
			w.evidence = func(who string, e *guestapi.Evidence) { first[who] = *e }
			w.run()
			w.evidence = func(who string, e *guestapi.Evidence) { *e = first[who] }
		}, []string{"gateway.reportdata", "app.reportdata"}},
		{"flipped quote", func(w *world) {
			w.raw = func(who string, e *attest.Evidence) {
				if who == "app" {
					e.Quote = flip(e.Quote, 200)
				}
			}
		}, []string{"app.quote.signature"}},
		{"flipped event", func(w *world) {
			w.raw = func(who string, e *attest.Evidence) {
				if who == "gateway" {
					e.RuntimeEvents = slices.Clone(e.RuntimeEvents)
					e.RuntimeEvents[2].Payload = flip(e.RuntimeEvents[2].Payload, 0)
				}
			}
		}, []string{"gateway.eventlog.replay"}},
		{"another VM shape", func(w *world) {
			w.raw = func(who string, e *attest.Evidence) {
				e.Config = strings.Replace(e.Config, `"cpu_count":1`, `"cpu_count":2`, 1)
			}
		}, []string{"app.image.measurement", "gateway.image.measurement"}},
		{"another root", func(w *world) { r := newHardware(t, 2).RootSPKI(); w.profile.TEE.Roots[0].SPKI = hexOf(r[:]) }, []string{"gateway.root.admitted", "app.root.admitted"}},
		{"garbage", func(w *world) {
			w.evidence = func(who string, e *guestapi.Evidence) {
				if who == "app" {
					e.Attestation = []byte("junk")
				}
			}
		}, []string{"app.evidence.parsed"}},
		{"another document", func(w *world) {
			w.evidence = func(who string, e *guestapi.Evidence) { e.AppCompose += " " }
		}, []string{"app.identity.compose", "gateway.identity.compose"}},
		{"another KMS", func(w *world) { w.profile.KMS.RootSPKI = hexOf(spki(t)) }, []string{"app.identity.kms", "gateway.identity.kms"}},
		{"another gateway app in the profile", func(w *world) { w.profile.Gateway.AppID = cvm.AppID{1}.String() }, []string{"gateway.identity.app", "gateway.governance.gateway"}},
		{"another gateway on chain", func(w *world) { w.chain.gateway = "00" }, []string{"gateway.governance.gateway"}},
		{"denied now", func(w *world) { w.chain.denied[0] = "Compose hash not allowed" }, []string{"app.governance.now", "gateway.governance.now"}},
		{"denied at the final block then", func(w *world) { w.chain.denied[10] = "x" }, []string{"app.governance.then"}},
		{"denied at the head then", func(w *world) { w.chain.denied[12] = "x" }, []string{"app.governance.then"}},
		{"chain away", func(w *world) { w.chain.err = cvm.Errorf(cvm.Unavailable, "away") }, []string{"app.governance.now", "app.governance.then", "gateway.governance.gateway"}},
		{"decided by another contract", func(w *world) { w.profile.Chain.KMSContract = "0x00000000000000000000000000000000000000bB" }, []string{"app.governance.then"}},
		{"another boot's receipt", func(w *world) {
			w.evidence = func(_ string, e *guestapi.Evidence) { e.Receipt = w.gw.receipt }
		}, []string{"app.ledger.leaf"}},
		{"edited leaf", func(w *world) {
			w.evidence = func(_ string, e *guestapi.Evidence) {
				e.Receipt.Leaf = bytes.Replace(e.Receipt.Leaf, []byte("UpToDate"), []byte("OutToday"), 1)
			}
		}, []string{"app.ledger.included"}},
		{"no receipt", func(w *world) {
			w.evidence = func(_ string, e *guestapi.Evidence) { e.Receipt = ledger.Receipt{} }
		}, []string{"app.ledger.included", "app.ledger.leaf", "app.governance.then"}},
		{"other members' keys", func(w *world) { w.profile.LedgerKeys = newWorld(t, nil).profile.LedgerKeys }, []string{"app.ledger.included"}},
		{"a minority signs", func(w *world) {
			note := w.checkpoint(&w.tree, 1)
			w.evidence = func(_ string, e *guestapi.Evidence) { e.Receipt.Checkpoint = note }
		}, []string{"app.ledger.included"}},
		{"newest checkpoint of a minority", func(w *world) { note := w.checkpoint(&w.tree, 1); w.note = func([]byte) []byte { return note } }, []string{"app.ledger.consistent"}},
		{"ledger rolled back", func(w *world) { w.note = func([]byte) []byte { return w.gw.receipt.Checkpoint } }, []string{"app.ledger.consistent"}},
		{"ledger rewritten", func(w *world) {
			w.note = func([]byte) []byte {
				var other ledger.Tree
				for range 5 {
					if _, err := other.Append([]byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				w.write(w.app.leaf)
				return w.checkpoint(&other, 3)
			}
			w.proof = func([][]byte) [][]byte { return nil }
		}, []string{"app.ledger.consistent", "gateway.ledger.consistent"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			c.do(w)
			r := w.run()
			if r.Verified {
				t.Fatal("verified")
			}
			got := names(r.Failures())
			for _, n := range c.want {
				if !slices.Contains(got, n) {
					t.Errorf("check %s did not fail; these did: %q", n, got)
				}
			}
		})
	}
}

// An entry of the ledger that tells of another boot fails, field by field.
func TestLeafOfAnotherBoot(t *testing.T) {
	for name, change := range map[string]func(*ledger.Leaf){
		"deny":     func(l *ledger.Leaf) { l.Kind = ledger.KindDeny },
		"app":      func(l *ledger.Leaf) { l.AppID = cvm.AppID{7}.String() },
		"instance": func(l *ledger.Leaf) { l.InstanceID = "" },
		"compose":  func(l *ledger.Leaf) { l.ComposeHash = cvm.ComposeHash{7}.String() },
		"image":    func(l *ledger.Leaf) { l.ImageHash = cvm.ImageHash{7}.String() },
		"device":   func(l *ledger.Leaf) { l.DeviceID = cvm.DeviceID{7}.String() },
		"mr":       func(l *ledger.Leaf) { l.MRAggregate = cvm.DeviceID{7}.String() },
		"system":   func(l *ledger.Leaf) { l.MRSystem = cvm.DeviceID{7}.String() },
		"platform": func(l *ledger.Leaf) { l.Platform = string(cvm.PlatformTDX) },
		"launch":   func(l *ledger.Leaf) { l.Note = []byte(`{"phase":"unproven","launch":"ab"}`) },
	} {
		r := newWorld(t, change).run()
		if got := names(r.Failures()); r.Verified || !slices.Contains(got, "app.ledger.leaf") {
			t.Errorf("%s: verified %t, failures %q", name, r.Verified, got)
		}
	}
	r := newWorld(t, func(l *ledger.Leaf) { l.Governance = nil }).run()
	if got := names(r.Failures()); r.Verified || !slices.Contains(got, "app.governance.then") {
		t.Errorf("no block: %q", got)
	}
}

func TestBanners(t *testing.T) {
	r := newWorld(t, func(l *ledger.Leaf) { l.NoNonce, l.EnvSHA256 = true, "ab" }).run()
	if !r.Verified || !slices.Contains(r.Banners, BannerUnsigned) || !slices.Contains(r.Banners, BannerNoNonce) || !slices.Contains(r.Banners, BannerSimulated) {
		t.Errorf("verified %t, banners %q", r.Verified, r.Banners)
	}
	r = newWorld(t, func(l *ledger.Leaf) { l.EnvSHA256, l.EnvSigned = "ab", true }).run()
	if !slices.Equal(r.Banners, []string{BannerSimulated}) {
		t.Errorf("banners %q", r.Banners)
	}
}

func TestAnotherKindOfProvider(t *testing.T) {
	r := newWorldWith(t, "local-sgx", nil).run()
	if got := names(r.Failures()); r.Verified || !slices.Contains(got, "app.identity.kms") {
		t.Errorf("failures %q", got)
	}
}

// What cannot be reached is not verified.
func TestNothingAnswers(t *testing.T) {
	w := newWorld(t, nil)
	tg, err := w.profile.ParseTarget(w.app.app.String())
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]Edge{"nothing": &downEdge{w, true, true, true}, "gateway": &downEdge{w, false, true, false}, "app": &downEdge{w, false, false, true}, "connect": &downEdge{w, true, false, false}} {
		r, err := Run(t.Context(), w.profile, tg, Sources{Edge: e, Collateral: w, Chain: w.chain, Ledger: w}, nil)
		if err != nil || r.Verified || len(r.Failures()) == 0 {
			t.Errorf("%s: %v, %v", name, r.Verified, err)
		}
	}
	if _, err := Run(t.Context(), Profile{}, tg, Sources{}, nil); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("an empty profile: %v", err)
	}
	if _, err := Run(t.Context(), w.profile, tg, Sources{}, nil); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("no sources: %v", err)
	}
}

var errDown = errors.New("connection refused")
