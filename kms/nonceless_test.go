package kms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
	"github.com/confidential-cloud/phala/ratls"
)

// referenceGuest asks as the reference's guest does (dstack-core A.8, B.2).
type referenceGuest struct {
	*guest
	url  string
	cert *tls.Certificate
}

// call posts as the reference's RA client does and returns what it is answered; with
// HTTP 400, its error.
func (g *referenceGuest) call(method string, in any, out any) string {
	g.t.Helper()
	tc := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13} //nolint:gosec // whom it talks to is not this test's matter
	if g.cert != nil {
		tc.Certificates = []tls.Certificate{*g.cert}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tc}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(in)
	if err != nil {
		g.t.Fatal(err)
	}
	res, err := client.Post(g.url+"/prpc/KMS."+method+"?json", "application/json", bytes.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, out); err != nil {
			g.t.Fatalf("%s: %v in %s", method, err, b)
		}
		return ""
	}
	var e struct{ Error string }
	if err := json.Unmarshal(b, &e); err != nil || e.Error == "" || res.StatusCode != http.StatusBadRequest {
		g.t.Fatalf("%s: %s: %s", method, res.Status, b)
	}
	return e.Error
}

func privateKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// attested is evidence over a key; of another one if over is not nil.
func (g *referenceGuest) attested(k, over *ecdsa.PrivateKey) []byte {
	g.t.Helper()
	if over == nil {
		over = k
	}
	spki, err := spkiOf(&over.PublicKey)
	if err != nil {
		g.t.Fatal(err)
	}
	ev, err := g.boot.Evidence(context.Background(), ratls.ReportData(spki))
	if err != nil {
		g.t.Fatal(err)
	}
	raw, err := ev.Marshal()
	if err != nil {
		g.t.Fatal(err)
	}
	return raw
}

// enter gets the temporary CA and makes the certificate for the one call.
func (g *referenceGuest) enter(attestation func(k *ecdsa.PrivateKey) []byte) {
	g.t.Helper()
	var ca tempCAAnswer
	if e := g.call("GetTempCaCert", struct{}{}, &ca); e != "" {
		g.t.Fatal(e)
	}
	parsed, err := ratls.ParsePEM(ca.Cert)
	if err != nil {
		g.t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(ca.Key))
	signer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		g.t.Fatal(err)
	}
	k := privateKey(g.t)
	a := ratls.Authority{Cert: parsed[0], Key: signer.(*ecdsa.PrivateKey)}
	der, err := a.Issue(&k.PublicKey, ratls.Template{CommonName: "RA-TLS TEMP Cert", ClientAuth: true,
		NotBefore: time.Unix(157766400, 0), NotAfter: time.Now().AddDate(10, 0, 0), Extensions: ratls.Extensions{Attestation: attestation(k)}})
	if err != nil {
		g.t.Fatal(err)
	}
	g.cert = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

func (g *referenceGuest) enterHonestly() {
	g.enter(func(k *ecdsa.PrivateKey) []byte { return g.attested(k, nil) })
}

func (c *cluster) referenceGuest(compose []byte) *referenceGuest {
	return &referenceGuest{guest: c.guest(compose), url: c.urls()[0]}
}

func noncelessCluster(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, 1)
	c.halt(0)
	c.nodes[0].cfg.AllowNonceless = true
	c.start(0)
	c.await(0)
	return c
}

// signCert asks for a certificate over a new key.
func (g *referenceGuest) signCert(spoil func(r *refSignCertRequest, csr *ratls.CertRequest)) (out refSignCertAnswer, refusal string) {
	g.t.Helper()
	return g.signCertAs(func(k *ecdsa.PrivateKey) []byte { return g.attested(k, nil) }, spoil)
}

// signCertAs asks with other evidence.
func (g *referenceGuest) signCertAs(attest func(k *ecdsa.PrivateKey) []byte, spoil func(r *refSignCertRequest, csr *ratls.CertRequest)) (out refSignCertAnswer, refusal string) {
	g.t.Helper()
	k := privateKey(g.t)
	spki, err := spkiOf(&k.PublicKey)
	if err != nil {
		g.t.Fatal(err)
	}
	csr := &ratls.CertRequest{PublicKey: spki, Subject: "x", AltNames: []string{"localhost"}, ServerAuth: true, Quote: true, AppInfo: true, Attestation: attest(k)}
	req := refSignCertRequest{APIVersion: 2}
	if spoil != nil {
		spoil(&req, csr)
	}
	raw := csr.Encode()
	h := sha256.Sum256(raw)
	sig, err := ecdsa.SignASN1(rand.Reader, k, h[:])
	if err != nil {
		g.t.Fatal(err)
	}
	req.CSR, req.Signature = hex.EncodeToString(raw), req.Signature+hex.EncodeToString(sig)
	return out, g.call("SignCert", req, &out)
}

func TestReferenceGuest(t *testing.T) {
	c := noncelessCluster(t)
	compose := composeOf(t, appcompose.Document{Name: "old"})
	g := c.referenceGuest(compose)
	if _, e := g.signCert(nil); !strings.Contains(e, claim.PhaseCheck) {
		t.Errorf("a certificate before the guest is ready: %q", e)
	}
	g.enterHonestly()
	var got appKeyAnswer
	if e := g.call("GetAppKey", appKeyRequest{APIVersion: 1}, &got); e != "" {
		t.Fatal(e)
	}
	if l := c.lastLeaf(); l.Kind != ledger.KindAllow || !l.NoNonce || l.EnvSigned || l.AppID != g.app.String() {
		t.Errorf("the leaf: %+v", l)
	}
	again := appKeyAnswer{}
	if e := g.call("GetAppKey", appKeyRequest{APIVersion: 1}, &again); !strings.Contains(e, "used before") || again != (appKeyAnswer{}) {
		t.Errorf("the same key twice: %q", e)
	}
	if l := c.lastLeaf(); l.Kind != ledger.KindDeny || l.Reason != kmsapi.ReasonNonceUsed {
		t.Errorf("its leaf: %+v", l)
	}
	if _, e := g.signCert(nil); !strings.Contains(e, claim.PhaseCheck) {
		t.Errorf("a certificate before the guest is ready: %q", e)
	}
	g.run()
	chain, e := g.signCert(nil)
	if e != "" || len(chain.Chain) != 3 {
		t.Fatal(e)
	}
	checkChain(t, chain.Chain, g.app, "localhost")
	leaf, err := ratls.ParsePEM(chain.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if ext, err := ratls.ParseExtensions(leaf[0]); err != nil || ext.AppInfo == nil || len(ext.Attestation) == 0 {
		t.Errorf("the certificate's extensions: %+v, %v", ext, err)
	}
	sameKeys(t, c, got, compose)
}

// sameKeys: over our own wire the instance gets the same.
func sameKeys(t *testing.T, c *cluster, got appKeyAnswer, compose []byte) {
	t.Helper()
	want, err := c.guest(compose).release()
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]struct {
		got  string
		want keys.Secret
	}{"disk": {got.DiskKey, want.DiskKey}, "env": {got.EnvKey, want.EnvKey}, "k256": {got.AppKey, want.AppKey}} {
		if k.got != hex.EncodeToString(k.want.Reveal()) {
			t.Errorf("%s key differs", name)
		}
	}
	if got.CACert != want.RootCA || got.AppKeySig != hex.EncodeToString(want.AppKeySig) || got.OSImageHash != want.OSImageHash.String() {
		t.Errorf("CA, signature or image differ")
	}
}

func TestReferenceGuestRefused(t *testing.T) {
	t.Run("by default", func(t *testing.T) {
		c := newCluster(t, 1)
		g := c.referenceGuest(composeOf(t, appcompose.Document{Name: "old"}))
		for _, method := range []string{"GetTempCaCert", "GetAppKey", "SignCert"} {
			if e := g.call(method, struct{}{}, new(any)); !strings.Contains(e, "no nonce") {
				t.Errorf("%s: %q", method, e)
			}
		}
	})
	c := noncelessCluster(t)
	compose := composeOf(t, appcompose.Document{Name: "old"})
	ask := func(t *testing.T, g *referenceGuest, want string) {
		t.Helper()
		var out appKeyAnswer
		if e := g.call("GetAppKey", appKeyRequest{APIVersion: 1}, &out); !strings.Contains(e, want) || out != (appKeyAnswer{}) {
			t.Errorf("%q, want %q", e, want)
		}
	}
	t.Run("no certificate", func(t *testing.T) { ask(t, c.referenceGuest(compose), "No attestation provided") })
	t.Run("no evidence", func(t *testing.T) {
		g := c.referenceGuest(compose)
		g.cert, _ = clientCert(t)
		ask(t, g, "No attestation provided")
	})
	t.Run("evidence over another key", func(t *testing.T) {
		g := c.referenceGuest(compose)
		g.enter(func(k *ecdsa.PrivateKey) []byte { return g.attested(k, privateKey(t)) })
		ask(t, g, claim.ReportData)
	})
	t.Run("not evidence", func(t *testing.T) {
		g := c.referenceGuest(compose)
		g.enter(func(*ecdsa.PrivateKey) []byte { return []byte("no evidence") })
		ask(t, g, "unknown encoding")
	})
	t.Run("after the boot", func(t *testing.T) {
		g := c.referenceGuest(compose)
		g.run()
		g.enterHonestly()
		ask(t, g, claim.PhaseCheck)
	})
	t.Run("not allowed", func(t *testing.T) {
		g := &referenceGuest{guest: c.guestOn(c.hw, composeOf(t, appcompose.Document{Name: "strange"}), cvm.AppID{1}, cvm.InstanceID{2}, claim.PhaseRelease), url: c.urls()[0]}
		g.enterHonestly()
		ask(t, g, "App not allowed")
		if l := c.lastLeaf(); l.Kind != ledger.KindDeny || l.Reason != kmsapi.ReasonGovernance {
			t.Errorf("its leaf: %+v", l)
		}
	})
	t.Run("version", func(t *testing.T) {
		g := c.referenceGuest(compose)
		g.enterHonestly()
		if e := g.call("GetAppKey", appKeyRequest{APIVersion: 2}, &appKeyAnswer{}); e != "Unsupported API version: 2" {
			t.Error(e)
		}
	})
	t.Run("an app that signs its environment", func(t *testing.T) {
		key, address := owner(t, 3)
		signed := composeOf(t, appcompose.Document{Name: "signed", EnvSigners: []string{address}})
		first := c.guest(signed)
		first.sealEnv(key, 1, "env")
		if _, err := first.release(); err != nil {
			t.Fatal(err)
		}
		g := c.referenceGuest(signed)
		g.enterHonestly()
		ask(t, g, "environment is signed")
	})
}

func TestReferenceSignCertRefused(t *testing.T) {
	c := noncelessCluster(t)
	compose := composeOf(t, appcompose.Document{Name: "old"})
	late := c.referenceGuest(compose)
	late.run()
	if _, e := late.signCert(nil); !strings.Contains(e, "no keys were released") {
		t.Errorf("a boot that got no keys: %q", e)
	}
	g := c.referenceGuest(compose)
	g.enterHonestly()
	if e := g.call("GetAppKey", appKeyRequest{}, &appKeyAnswer{}); e != "" {
		t.Fatal(e)
	}
	g.run()
	for name, tc := range map[string]struct {
		want  string
		spoil func(r *refSignCertRequest, csr *ratls.CertRequest)
	}{
		"version 1":    {"Unsupported API version: 1", func(r *refSignCertRequest, _ *ratls.CertRequest) { r.APIVersion = 1 }},
		"signature":    {"csr signature", func(r *refSignCertRequest, _ *ratls.CertRequest) { r.Signature = "00" }},
		"no hex":       {"csr signature", func(r *refSignCertRequest, _ *ratls.CertRequest) { r.Signature = "x" }},
		"another key":  {claim.ReportData, func(_ *refSignCertRequest, q *ratls.CertRequest) { q.Attestation = g.attested(privateKey(t), nil) }},
		"no evidence":  {"Failed to parse csr", func(_ *refSignCertRequest, q *ratls.CertRequest) { q.Attestation = []byte("x") }},
		"long subject": {"64 bytes", func(_ *refSignCertRequest, q *ratls.CertRequest) { q.Subject = strings.Repeat("x", 65) }},
		"period":       {"not_before", func(_ *refSignCertRequest, q *ratls.CertRequest) { n := uint64(1); q.NotAfter, q.NotBefore = &n, &n }},
	} {
		if out, e := g.signCert(tc.spoil); !strings.Contains(e, tc.want) || out.Chain != nil {
			t.Errorf("%s: %q, want %q", name, e, tc.want)
		}
	}
	c.chain.set(func(ch *chain) { clear(ch.apps) })
	if _, e := g.signCert(nil); !strings.Contains(e, "App not allowed") {
		t.Errorf("an app that is not allowed any more: %q", e)
	}
}

// On SEV-SNP a key that counts once is not enough: whatever runs in the guest can have
// its own keys attested. The launch counts once too.
func TestReferenceGuestOnSNP(t *testing.T) {
	hw := amdMachine(t, 1)
	c := snpCluster(t, hw)
	c.halt(0)
	c.nodes[0].cfg.AllowNonceless = true
	c.start(0)
	c.await(0)
	compose := composeOf(t, appcompose.Document{Name: "old"})
	from := func(m *snpMachine) *referenceGuest {
		g := c.referenceGuest(compose)
		g.enter(m.attests)
		return g
	}
	m := c.launched(t, hw, compose, appcompose.ProviderKMS)
	boot := from(m)
	if e := boot.call("GetAppKey", appKeyRequest{}, &appKeyAnswer{}); e != "" {
		t.Fatal(e)
	}
	if e := from(m).call("GetAppKey", appKeyRequest{}, &appKeyAnswer{}); !strings.Contains(e, "released to this launch") {
		t.Errorf("another key in the same launch: %q", e)
	}
	if l := c.lastLeaf(); l.Kind != ledger.KindDeny || l.Reason != kmsapi.ReasonLaunchRedeemed {
		t.Errorf("its leaf: %+v", l)
	}
	sign := func(m *snpMachine) string {
		_, e := boot.signCertAs(m.attests, nil)
		return e
	}
	if e := sign(m); e != "" {
		t.Errorf("a certificate for the launch that has its keys: %q", e)
	}
	if e := sign(c.launched(t, hw, compose, appcompose.ProviderKMS)); !strings.Contains(e, "no keys were released to this boot") {
		t.Errorf("a certificate for another launch: %q", e)
	}
	if e := from(c.launched(t, hw, compose, "none")).call("GetAppKey", appKeyRequest{}, &appKeyAnswer{}); !strings.Contains(e, "asks no KMS") {
		t.Errorf("a launch that started without asking for keys: %q", e)
	}
}

// attests is evidence over a key.
func (m *snpMachine) attests(k *ecdsa.PrivateKey) []byte {
	m.t.Helper()
	spki, err := spkiOf(&k.PublicKey)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.proves(ratls.ReportData(spki))
}
