package guestagent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/ratls"
)

type freshRequest struct {
	Nonce []byte `json:"nonce"`
}

type freshResponse struct {
	Attestation []byte `json:"attestation"`
}

// tlsIdentity is a TLS key under the app's CA, as a container gets it.
func tlsIdentity(t *testing.T, d *guestapi.Dstack) tls.Certificate {
	t.Helper()
	k, err := d.GetTLSKey(t.Context(), guestapi.TLSKeyRequest{Subject: "app.test", AltNames: []string{"127.0.0.1"}, ServerAuth: true})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode([]byte(k.Key))
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	var chain [][]byte
	for _, p := range k.CertificateChain {
		b, _ := pem.Decode([]byte(p))
		chain = append(chain, b.Bytes)
	}
	c, err := ratls.TLSCertificate(key.(*ecdsa.PrivateKey), chain...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// listen serves /fresh over TLS with answer.
func listen(t *testing.T, c tls.Certificate, answer func(*http.Request, freshRequest) (freshResponse, error)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /fresh", rpc.Handle(answer))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		_ = s.Serve(tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c}}))
	}()
	t.Cleanup(func() { _ = s.Close() })
	return ln.Addr().String()
}

// forward is a gateway that passes TLS through: it sees bytes.
func forward(t *testing.T, to string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
	return ln.Addr().String()
}

// ask challenges the app at addr over one connection.
func (w *world) ask(ctx context.Context, addr string, app cvm.AppID) error {
	d := tls.Dialer{Config: ratls.PinnedClient(w.kms.SPKI, ratls.UsageAppCustom, &app, nil)}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	c := raw.(*tls.Conn)
	ch, err := ratls.NewChannel(c.ConnectionState(), false, nil)
	if err != nil {
		return err
	}
	h := &http.Client{Transport: &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
	nonce := []byte("a nonce of this call")
	var out freshResponse
	if err := (&rpc.Client{Base: "https://" + addr, HTTP: h}).Call(ctx, http.MethodPost, "/fresh", freshRequest{nonce}, &out); err != nil {
		return err
	}
	return ch.Check(nonce, out.Attestation, func(ev attest.Evidence, _ ratls.Extensions, binding [64]byte) error {
		now := time.Now()
		set, err := w.hw.Collateral(now)
		if err != nil {
			return err
		}
		v, _, err := attest.Verify(ev, set, w.hw.Policy(binding, claim.PhaseRunning), now)
		if err == nil && v.Claims().AppID != app {
			err = cvm.Errorf(cvm.Denied, "another app")
		}
		return err
	})
}

// A client of an app behind a gateway that passes TLS through checks with fresh
// evidence that its TLS ends in the app's own TD. Whoever ends TLS in between, even
// with a stolen key of the app, cannot answer for it.
func TestFreshEvidenceThroughPassthrough(t *testing.T) {
	w := newWorld(t, "")
	w.share(t, nil, nil)
	stop, _ := start(t, w.config())
	d := guestapi.NewDstack(filepath.Join(w.dir, "dstack.sock"))
	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	app, id := cvm.AppID(info.AppID), tlsIdentity(t, d)
	addr := listen(t, id, func(r *http.Request, q freshRequest) (out freshResponse, err error) {
		ch, err := ratls.NewChannel(*r.TLS, true, id.Leaf.RawSubjectPublicKeyInfo)
		if err != nil {
			return out, err
		}
		out.Attestation, err = ch.Prove(r.Context(), q.Nonce, d.Attest)
		return out, err
	})
	if err := w.ask(t.Context(), forward(t, addr), app); err != nil {
		t.Errorf("passed through: %v", err)
	}
	for name, shown := range map[string]tls.Certificate{"another key of the app": tlsIdentity(t, d), "the app's key, stolen": id} {
		between := listen(t, shown, func(r *http.Request, q freshRequest) (out freshResponse, err error) {
			c := &rpc.Client{Base: "https://" + addr, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: ratls.PinnedClient(w.kms.SPKI, ratls.UsageAppCustom, &app, nil)}}}
			return out, c.Call(r.Context(), http.MethodPost, "/fresh", q, &out)
		})
		err := w.ask(t.Context(), between, app)
		var rej *claim.Rejection
		if !errors.As(err, &rej) || !rej.Genuine {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, c := range rej.Checks {
			if c.Verdict == claim.Failed && c.Name != claim.ReportData {
				t.Errorf("%s: failed %s", name, c.Name)
			}
		}
	}
	if err := stop(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
