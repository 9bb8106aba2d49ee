package fetch_test

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
)

// dialect is how one kind of service writes the same statements. The shapes are
// those of the documents of Intel's PCS v4 and of its PCCS; the services themselves
// are not reached from here.
type dialect struct {
	tcbHeader string
	escape    func(string) string
	crl       func([]byte) []byte
	rootPath  string
}

func (d dialect) handler(t *testing.T, s collateral.Set) http.Handler {
	mux := http.NewServeMux()
	serve := func(path, header string, body, chain []byte, want map[string]string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			for k, v := range want {
				if got := r.URL.Query().Get(k); got != v {
					t.Errorf("%s: %s is %q, want %q", path, k, got, v)
				}
			}
			if header != "" {
				w.Header().Set(header, d.escape(string(chain)))
			}
			_, _ = w.Write(body)
		})
	}
	serve("/tdx/certification/v4/tcb", d.tcbHeader, s.TCBInfo, s.TCBInfoIssuerChain, map[string]string{"fmspc": "508060000000"})
	serve("/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain", s.QEIdentity, s.QEIdentityIssuerChain, nil)
	serve("/sgx/certification/v4/pckcrl", "SGX-PCK-CRL-Issuer-Chain", d.crl(s.PCKCRL), s.PCKCRLIssuerChain, map[string]string{"ca": "platform", "encoding": "der"})
	serve(d.rootPath, "", d.crl(s.RootCRL), nil, nil)
	return mux
}

// crlf is PEM as some proxies and shells make it.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestDialects(t *testing.T) {
	const rootPath = "/sgx/certification/v4/rootcacrl"
	der := func(b []byte) []byte { return b }
	hexed := func(b []byte) []byte { return []byte(hex.EncodeToString(b)) }
	pemmed := func(b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: b}) }
	quoted := func(b []byte) []byte { return []byte(`"` + strings.ToUpper(hex.EncodeToString(b)) + "\"\n") }
	lowerPercent := func(s string) string {
		return strings.NewReplacer("%0A", "%0a", "%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(url.PathEscape(s))
	}
	bare := func(s string) string { // only what a header cannot hold
		return strings.NewReplacer("\n", "%0A", " ", "%20").Replace(s)
	}
	for name, d := range map[string]dialect{
		"PCS v4":             {"TCB-Info-Issuer-Chain", url.PathEscape, der, rootPath},
		"PCCS, hex":          {"SGX-TCB-Info-Issuer-Chain", url.PathEscape, hexed, rootPath},
		"form encoded":       {"TCB-Info-Issuer-Chain", url.QueryEscape, der, rootPath},
		"lower case percent": {"TCB-Info-Issuer-Chain", lowerPercent, hexed, rootPath},
		"+ of base64 bare":   {"tcb-info-issuer-chain", bare, pemmed, rootPath},
		"CR LF":              {"TCB-Info-Issuer-Chain", func(s string) string { return url.PathEscape(crlf(s)) }, quoted, rootPath},
		"distribution point": {"TCB-Info-Issuer-Chain", url.PathEscape, der, "/IntelSGXRootCA.der"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			want, err := b.hw.Collateral(b.clock())
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewServer(d.handler(t, want))
			defer s.Close()
			f := client(t, fetch.Config{URLs: []string{s.URL + "/"}, Roots: b.roots(), Clock: b.clock})
			got, err := f.For(context.Background(), b.ev())
			if err != nil || !same(got, want) {
				t.Fatalf("%v", err)
			}
			verifies(t, b, got)
		})
	}
}

// verifies: what was fetched is enough for the vendor's checks.
func verifies(t *testing.T, b *bench, set collateral.Set) {
	t.Helper()
	_, checks, _ := attest.Verify(b.ev(), set, b.hw.Policy([64]byte{}, claim.PhaseEarly), b.clock())
	for _, c := range checks {
		if (strings.HasPrefix(c.Name, "collateral.") || strings.HasPrefix(c.Name, "crl.") || c.Name == claim.TCBStatus) && c.Verdict != claim.Passed {
			t.Errorf("%s: %s %s", c.Name, c.Verdict, c.Reason)
		}
	}
}

// byHost serves each host by its own handler, without a network.
type byHost struct {
	t     testing.TB
	hosts map[string]http.Handler
}

func (h byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	handler := h.hosts[r.URL.Scheme+"://"+r.URL.Host]
	if handler == nil {
		h.t.Errorf("asked %s", r.URL)
		handler = http.NotFoundHandler()
	}
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// Intel's own service keeps the root's list elsewhere than its statements.
func TestIntelsOwnService(t *testing.T) {
	b := newBench(t)
	want, err := b.hw.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	pcs := dialect{"TCB-Info-Issuer-Chain", url.PathEscape, func(b []byte) []byte { return b }, "/nowhere"}.handler(t, want)
	crl := http.NewServeMux()
	crl.HandleFunc("GET /IntelSGXRootCA.der", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(want.RootCRL) })
	f := client(t, fetch.Config{URLs: []string{fetch.IntelPCS}, Roots: b.roots(), Clock: b.clock,
		Transport: byHost{t, map[string]http.Handler{fetch.IntelPCS: pcs, "https://certificates.trustedservices.intel.com": crl}}})
	if got, err := f.For(context.Background(), b.ev()); err != nil || !same(got, want) {
		t.Errorf("%v", err)
	}
}

// Early TCB recoveries are asked for, and kept apart from the others.
func TestEarly(t *testing.T) {
	b := newBench(t)
	var queries []string
	dir := t.TempDir()
	good := b.hw.Handler()
	tr := byHost{t, map[string]http.Handler{"http://pccs": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tcb") {
			queries = append(queries, r.URL.Query().Get("update"))
		}
		good.ServeHTTP(w, r)
	})}}
	for _, early := range []bool{true, false, true} {
		f := client(t, fetch.Config{URLs: []string{"http://pccs"}, Dir: dir, Roots: b.roots(), Clock: b.clock, Early: early, Transport: tr})
		if _, err := f.For(context.Background(), b.ev()); err != nil {
			t.Fatal(err)
		}
	}
	if len(queries) != 2 || queries[0] != "early" || queries[1] != "" {
		t.Errorf("%q", queries)
	}
}

// A list of the wrong processors' CA, and one of another root, are refused.
func TestWrongLists(t *testing.T) {
	b := newBench(t)
	other := newBenchSeed(t, 5)
	mine, err := b.hw.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.hw.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*collateral.Set){
		"the root's list for the processors'":  func(s *collateral.Set) { s.PCKCRL = s.RootCRL },
		"the processors' list for the root's":  func(s *collateral.Set) { s.RootCRL = s.PCKCRL },
		"the processors' list of another root": func(s *collateral.Set) { s.PCKCRL, s.PCKCRLIssuerChain = theirs.PCKCRL, theirs.PCKCRLIssuerChain },
		"another root's list":                  func(s *collateral.Set) { s.RootCRL = theirs.RootCRL },
		"the signer's chain for the list's":    func(s *collateral.Set) { s.PCKCRLIssuerChain = s.TCBInfoIssuerChain },
	} {
		s := mine
		edit(&s)
		d := dialect{"TCB-Info-Issuer-Chain", url.PathEscape, func(b []byte) []byte { return b }, "/sgx/certification/v4/rootcacrl"}
		f := client(t, fetch.Config{URLs: []string{"http://pccs"}, Roots: b.roots(), Clock: b.clock, Timeout: time.Second,
			Transport: byHost{t, map[string]http.Handler{"http://pccs": d.handler(t, s)}}})
		if _, err := f.For(context.Background(), b.ev()); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := client(t, fetch.Config{URLs: []string{"http://pccs"}, Roots: b.roots(), Clock: b.clock,
		Transport: byHost{t, map[string]http.Handler{"http://pccs": b.hw.Handler()}}})
	if _, err := f.ForFMSPC(context.Background(), b.hw.RootSPKI(), [6]byte{0x50, 0x80, 0x60}, "both"); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("%v", err)
	}
	// The simulated vendor has no processor CA.
	if _, err := f.ForFMSPC(context.Background(), b.hw.RootSPKI(), [6]byte{0x50, 0x80, 0x60}, "processor"); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
		t.Errorf("%v", err)
	}
}
