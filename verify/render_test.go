package verify

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// downEdge is an edge of which parts do not answer.
type downEdge struct {
	Edge
	connect, gateway, app bool
}

func (d *downEdge) Connect(ctx context.Context, h string, p int) (Peer, error) {
	if d.connect {
		return Peer{}, errDown
	}
	return d.Edge.Connect(ctx, h, p)
}

func (d *downEdge) GatewayEvidence(ctx context.Context, n []byte) (gatewayapi.Evidence, Peer, error) {
	if d.gateway {
		return gatewayapi.Evidence{}, Peer{}, errDown
	}
	return d.Edge.GatewayEvidence(ctx, n)
}

func (d *downEdge) AppEvidence(ctx context.Context, id string, n []byte) (guestapi.Evidence, Peer, error) {
	if d.app {
		return guestapi.Evidence{}, Peer{}, errDown
	}
	return d.Edge.AppEvidence(ctx, id, n)
}

func TestRender(t *testing.T) {
	w := newWorld(t, nil)
	good := w.run()
	w.chain.denied[0] = "<script>alert(\"x\")</script>\x1b[2J"
	bad := w.run()
	for name, r := range map[string]*Report{"good": good, "bad": bad} {
		var text, page, doc bytes.Buffer
		if err := r.WriteText(&text, Style{All: true}); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteJSON(&doc); err != nil {
			t.Fatal(err)
		}
		for _, out := range []string{text.String(), page.String()} {
			if !strings.Contains(out, "SIMULATED TEE") {
				t.Errorf("%s: no banner", name)
			}
			for _, s := range r.Sections {
				if !strings.Contains(out, s.Title) {
					t.Errorf("%s: section %q is not shown", name, s.Title)
				}
			}
		}
		if strings.Contains(page.String(), "<script") || strings.Contains(page.String(), "ZgotmplZ") {
			t.Errorf("%s: foreign text is not escaped", name)
		}
		var back Report
		if err := json.Unmarshal(doc.Bytes(), &back); err != nil || back.Verified != r.Verified || len(back.Sections) != len(r.Sections) {
			t.Errorf("%s: JSON: %v", name, err)
		}
		if d := os.Getenv("PHALA_WRITE_REPORTS"); d != "" {
			if err := os.WriteFile(d+"/"+name+".html", page.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(d+"/"+name+".txt", text.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !strings.Contains(textOf(t, good), "\nVERIFIED: ") || !strings.Contains(textOf(t, bad), "\nNOT VERIFIED: ") {
		t.Error("the verdict is not shown")
	}
	if strings.ContainsAny(textOf(t, bad), "\x1b\r") {
		t.Error("foreign text steers the terminal")
	}
	if s := textOf(t, bad); !strings.Contains(s, "alert") {
		t.Errorf("the reason is not shown:\n%s", s)
	}
}

func textOf(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteText(&b, Style{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestProfile(t *testing.T) {
	p := newWorld(t, nil).profile
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseProfile(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Marshal()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("a profile changes when it is read and written: %v\n%s\n%s", err, b, again)
	}
	if _, err := ParseProfile(append([]byte("surprise = 1\n"), b...)); cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), "surprise") {
		t.Errorf("an unknown key: %v", err)
	}
	// T9: each thing that a profile must name.
	for name, change := range map[string]func(*Profile){
		"version":             func(p *Profile) { p.Version = 2 },
		"chain.id":            func(p *Profile) { p.Chain.ID = 0 },
		"chain.rpc_urls":      func(p *Profile) { p.Chain.RPCURLs = nil },
		"chain.kms_contract":  func(p *Profile) { p.Chain.KMSContract = "" },
		"chain.max_staleness": func(p *Profile) { p.Chain.MaxStaleness = "soon" },
		"kms.root_spki":       func(p *Profile) { p.KMS.RootSPKI = "00" },
		"kms.k256_pubkey":     func(p *Profile) { p.KMS.K256PubKey = "" },
		"kms.urls":            func(p *Profile) { p.KMS.URLs = nil },
		"tee.roots":           func(p *Profile) { p.TEE.Roots = nil },
		"tee.collateral_urls": func(p *Profile) { p.TEE.CollateralURLs = nil },
		"tee.tcb_status":      func(p *Profile) { p.TEE.TCBStatus = nil },
		"tee.image_variants":  func(p *Profile) { p.TEE.ImageVariants = nil },
		"gateway.app_id":      func(p *Profile) { p.Gateway.AppID = "" },
		"gateway.domain":      func(p *Profile) { p.Gateway.Domain = "" },
		"gateway.port":        func(p *Profile) { p.Gateway.Port = 70000 },
		"gateway.ca_pem":      func(p *Profile) { p.Gateway.CAPEM = "x" },
		"ledger: ":            func(p *Profile) { p.LedgerKeys.Threshold = 1 },
	} {
		q := p
		q.TEE.Roots = append([]RootPin{}, p.TEE.Roots...)
		change(&q)
		if err := q.Validate(); cvm.CodeOf(err) != cvm.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseTarget(t *testing.T) {
	p := newWorld(t, nil).profile
	id := strings.Repeat("ab", 20)
	for _, s := range []string{id, "0x" + id, "https://" + id + ".dev.localhost:8443/x?y", id + "-80.dev.localhost", "https://" + id + "-80g.dev.localhost"} {
		if tg, err := p.ParseTarget(s); err != nil || tg.ID != id {
			t.Errorf("%s: %+v, %v", s, tg, err)
		}
	}
	for _, s := range []string{"", "hello", "http://" + id + ".dev.localhost", "https://" + id + ".elsewhere.example", "https://x.dev.localhost", "https://" + id + "-443s.dev.localhost", "https://" + id + ".dev.localhost:70000", "https://a." + id + ".dev.localhost"} {
		if tg, err := p.ParseTarget(s); err == nil {
			t.Errorf("%q: %+v", s, tg)
		}
	}
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte("version = 1\n[chain]\nid = 1\n"))
	f.Add([]byte("[[tee.roots]]\nspki = \"\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParseProfile(b); err == nil && p.Validate() != nil {
			t.Fatal("accepted what does not validate")
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	f.Add("https://abababababababababababababababababababab-1.d:1/")
	f.Fuzz(func(t *testing.T, s string) {
		p := Profile{Gateway: GatewayPin{Domain: "d", Port: 1}}
		if tg, err := p.ParseTarget(s); err == nil {
			if _, err := cvm.ParseAppID(tg.ID); err != nil || tg.Port < 1 || tg.Port > 65535 {
				t.Fatalf("accepted %q as %+v", s, tg)
			}
		}
	})
}
