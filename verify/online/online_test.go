package online

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/verify"
)

// gateway answers as one, for the domain example.com (httptest's certificate is
// for it).
func gateway(t *testing.T, h http.HandlerFunc) (*edge, *httptest.Server) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	e, err := newEdge(verify.Profile{Gateway: verify.GatewayPin{Domain: "example.com", Port: 443, Address: s.Listener.Addr().String(), CAPEM: string(ca)}}, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return e, s
}

func TestEdge(t *testing.T) {
	var hosts []string
	e, s := gateway(t, func(w http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.Host)
		if r.URL.Path != "/evidence" || r.URL.Query().Get("nonce") != "0102" {
			t.Errorf("asked for %s", r.URL)
		}
		ev := guestapi.Evidence{AppCompose: "doc"}
		if strings.HasPrefix(r.Host, "gateway.") {
			_ = json.NewEncoder(w).Encode(gatewayapi.Evidence{Evidence: ev, Domain: "example.com"})
			return
		}
		_ = json.NewEncoder(w).Encode(ev)
	})
	key := s.Certificate().RawSubjectPublicKeyInfo
	p, err := e.Connect(t.Context(), "example.com", 1)
	if err != nil || p.Untrusted != "" || string(p.SPKI) != string(key) {
		t.Fatalf("%+v, %v", p, err)
	}
	if p, err := e.Connect(t.Context(), "other.test", 1); err != nil || p.Untrusted == "" {
		t.Errorf("a certificate for another name: %+v, %v", p, err)
	}
	e.roots = x509.NewCertPool()
	if p, err := e.Connect(t.Context(), "example.com", 1); err != nil || p.Untrusted == "" {
		t.Errorf("a certificate of an unknown authority: %+v, %v", p, err)
	}
	g, p, err := e.GatewayEvidence(t.Context(), []byte{1, 2})
	if err != nil || g.Evidence.AppCompose != "doc" || string(p.SPKI) != string(key) {
		t.Errorf("%+v, %v", g, err)
	}
	id := hex.EncodeToString(make([]byte, 20))
	a, p, err := e.AppEvidence(t.Context(), id, []byte{1, 2})
	if err != nil || a.AppCompose != "doc" || string(p.SPKI) != string(key) {
		t.Errorf("%+v, %v", a, err)
	}
	if got := strings.Join(hosts, " "); got != "gateway.example.com "+id+"-8090.example.com" {
		t.Errorf("asked %q", got)
	}
}

func TestEdgeRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		code cvm.Code
		text string
	}{
		"coded error": {func(w http.ResponseWriter, _ *http.Request) {
			rpc.WriteError(w, cvm.Errorf(cvm.NotFound, "no such app").WithFix("look again"))
		}, cvm.NotFound, "no such app"},
		"plain error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }, cvm.Unavailable, "502"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/x", http.StatusFound)
		}, cvm.Unavailable, "never redirected"},
		"not JSON":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, cvm.Invalid, "not what was expected"},
		"too large": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, rpc.MaxBody+2)) }, cvm.Unavailable, "larger"},
	} {
		e, _ := gateway(t, c.h)
		_, _, err := e.GatewayEvidence(t.Context(), []byte{1})
		if cvm.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e, s := gateway(t, nil)
	s.Close()
	if _, err := e.Connect(t.Context(), "example.com", 1); cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := newEdge(verify.Profile{Gateway: verify.GatewayPin{CAPEM: "x"}}, 0); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a bad CA: %v", err)
	}
}
