package cli_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/verify"
)

// platform is a simulated machine, its collateral service, and a CLI on a fresh
// directory.
type platform struct {
	t    *testing.T
	hw   *simtee.Hardware
	url  string
	root string
	dir  string
	now  time.Time
}

func newPlatform(t *testing.T, seedByte byte) *platform {
	t.Helper()
	p := &platform{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)}
	var err error
	if p.hw, err = simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{seedByte}, 32), Clock: func() time.Time { return p.now }}); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(p.hw.Handler())
	t.Cleanup(s.Close)
	spki := p.hw.RootSPKI()
	p.url, p.root = s.URL, hex.EncodeToString(spki[:])
	return p
}

func (p *platform) run(args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	var out, errOut bytes.Buffer
	env := map[string]string{"PHALA_CLOUD_DIR": filepath.Join(p.dir, "cli"), "HOME": p.dir}
	code = cli.Run(context.Background(), cli.Config{Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut,
		Getenv: func(k string) string { return env[k] }, Workdir: p.dir, Now: func() time.Time { return p.now }})
	return code, out.String(), errOut.String()
}

// evidence is an attestation of a TD of the machine.
func (p *platform) evidence(name string) []byte {
	p.t.Helper()
	td, err := p.hw.NewTD(name, simtee.Shape{})
	if err != nil {
		p.t.Fatal(err)
	}
	quote, err := td.Quote(context.Background(), [64]byte{})
	if err != nil {
		p.t.Fatal(err)
	}
	ev, err := attest.NewEvidence(quote, nil, nil, [64]byte{}, "")
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := ev.Marshal()
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

func (p *platform) bundle(file string) collateral.Bundle {
	p.t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.dir, file))
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := collateral.ParseBundle(raw)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func TestCollateralExportAndShow(t *testing.T) {
	p := newPlatform(t, 1)
	code, out, errOut := p.run("collateral", "export", "-o", "a.json", "--pcs", p.url, "--root", p.root, "--fmspc", "508060000000")
	want := "tdx/" + p.root + "/508060000000/platform"
	if code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "2026-12-21") || !strings.Contains(out, "TCB info ") {
		t.Fatalf("%d %s %s", code, out, errOut)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "ev.bin"), p.evidence("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut = p.run("collateral", "export", "-o", "b.json", "--pcs", p.url, "--root", p.root, "--evidence", "ev.bin"); code != 0 {
		t.Fatalf("%d %s %s", code, out, errOut)
	}
	if b := p.bundle("b.json"); len(b.Entries) != 1 || b.Entries[0].Subject != want {
		t.Errorf("%+v", b.Entries)
	}
	code, out, _ = p.run("collateral", "show", "b.json", "--json")
	var shown struct {
		Success bool
		Items   []struct {
			Subject, State, Root_crl_number string    //nolint:revive // as in JSON
			Until                           time.Time `json:"valid_until"`
			Number                          int       `json:"tcb_evaluation_data_number"`
		}
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || code != 0 || len(shown.Items) != 1 {
		t.Fatalf("%d %v %s", code, err, out)
	}
	if i := shown.Items[0]; i.Subject != want || i.State != "current" || i.Number < 1 || !i.Until.Equal(time.Date(2026, 12, 21, 2, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", i)
	}
	// Another vendor's machine joins the same file; what the file holds stays.
	q := newPlatform(t, 2)
	q.dir = p.dir
	if code, out, errOut = q.run("collateral", "export", "-o", "b.json", "--add", "--pcs", q.url, "--root", q.root, "--fmspc", "508060000000"); code != 0 {
		t.Fatalf("%d %s %s", code, out, errOut)
	}
	if b := p.bundle("b.json"); len(b.Entries) != 2 {
		t.Errorf("%d entries", len(b.Entries))
	}
	p.now = p.now.Add(40 * 24 * time.Hour)
	if code, _, errOut = p.run("collateral", "show", "b.json"); code != 0 || !strings.Contains(errOut, "has ended") {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestCollateralRefusals(t *testing.T) {
	p := newPlatform(t, 1)
	if err := os.WriteFile(filepath.Join(p.dir, "bad.json"), []byte(`{"format":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"export -o x --pcs URL --root ROOT", 2, "about which platform"},
		{"export --pcs URL --root ROOT --fmspc 508060000000", 2, "--out is missing"},
		{"export -o x --pcs URL --root ROOT --fmspc 50806000000", 2, "want 12 hex digits"},
		{"export -o x --pcs URL --root ROOT --fmspc 508060000000 --ca some", 2, "want platform or processor"},
		{"export -o x --pcs URL --root zz --fmspc 508060000000", 2, "want 64 hex digits"},
		{"export -o x --pcs ftp://x --root ROOT --fmspc 508060000000", 2, "is not a base URL"},
		{"export -o x --pcs URL --fmspc 508060000000", 6, "another vendor's statement"}, // Intel's root is the default
		{"export -o x --pcs URL --root ROOT --fmspc 000000000000", 6, "404"},
		{"export -o x --pcs URL --root ROOT --evidence none.bin", 4, "none.bin"},
		{"export -o x --pcs URL --root ROOT --evidence bad.json", 2, ""},
		{"export -o x --url https://x.example", 5, "trust profile"},
		{"export -o bad.json --add --pcs URL --root ROOT --fmspc 508060000000", 2, "format"},
		{"show none.json", 4, "none.json"},
		{"show bad.json", 2, "format"},
	} {
		args := strings.Fields(strings.NewReplacer("URL", p.url, "ROOT", p.root).Replace(c.args))
		code, out, errOut := p.run(append([]string{"collateral"}, args...)...)
		if code != c.code || !strings.Contains(errOut, c.want) || out != "" {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, out, errOut)
		}
		if _, err := os.Stat(filepath.Join(p.dir, "x")); err == nil {
			t.Fatalf("%s wrote a file", c.args)
		}
	}
}

// --url asks the app and its gateway for evidence, as a trust profile reaches them.
func TestCollateralOfURL(t *testing.T) {
	p := newPlatform(t, 1)
	gw := newPlatform(t, 3) // on another vendor's machine
	app := strings.Repeat("1", 40)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "gateway.") {
			_ = json.NewEncoder(w).Encode(gatewayapi.Evidence{Evidence: guestapi.Evidence{Attestation: gw.evidence(r.URL.Query().Get("nonce")[:12])}})
			return
		}
		_ = json.NewEncoder(w).Encode(guestapi.Evidence{Attestation: p.evidence(r.URL.Query().Get("nonce")[:12])})
	}))
	defer s.Close()
	both := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gw.hw.Handler().ServeHTTP(w, r) }))
	defer both.Close()
	prof, err := trustProfile(newFakeCloud(t), []string{"http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	prof.TEE.CollateralURLs = []string{p.url, both.URL}
	prof.TEE.Roots = []verify.RootPin{{SPKI: p.root, Platform: cvm.PlatformSimulated}, {SPKI: gw.root, Platform: cvm.PlatformSimulated}}
	prof.Gateway.Domain, prof.Gateway.Address = "example.com", s.Listener.Addr().String()
	prof.Gateway.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	raw, err := prof.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "trust.toml"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := p.run("collateral", "export", "-o", "x", "--trust", "trust.toml", "--url", "https://"+app+".example.com")
	if code != 0 {
		t.Fatalf("%d %s %s", code, out, errOut)
	}
	if b := p.bundle("x"); len(b.Entries) != 2 {
		t.Errorf("%d entries", len(b.Entries))
	}
}
