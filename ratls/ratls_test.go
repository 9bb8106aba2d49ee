package ratls_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func spki(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	b, err := ratls.SPKI(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func template(cn string, ext ratls.Extensions) ratls.Template {
	return ratls.Template{CommonName: cn, Organization: "Dstack", ServerAuth: true, ClientAuth: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), Extensions: ext}
}

// must unwraps in the tests' set-up.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Frozen: the reference's report data. DO NOT CHANGE.
func TestReportData(t *testing.T) {
	got := ratls.ReportData([]byte("spki"))
	if want := "54c188d31f7fd721e24b2b525178afe7cf8442ad87afcd7261353b12cc77fdc36778d6b362ae53c5f1fc0e718e52c512c152195508eafe98f0c4efd246984581"; hex.EncodeToString(got[:]) != want {
		t.Errorf("%x", got)
	}
}

func appInfo() *ratls.AppInfo {
	return &ratls.AppInfo{AppID: cvm.AppID{1}, ComposeHash: cvm.ComposeHash{2}, InstanceID: cvm.InstanceID{3}, DeviceID: cvm.DeviceID{4},
		MRSystem: [32]byte{5}, MRAggregated: [32]byte{6}, OSImageHash: cvm.ImageHash{7}, KeyProviderInfo: []byte(`{"name":"kms"}`)}
}

func TestExtensionsRoundTrip(t *testing.T) {
	app := cvm.AppID{1, 2}
	scripts := appInfo()
	scripts.InitScripts, scripts.InstanceID = [][32]byte{{8}, {9}}, cvm.InstanceID{}
	for _, e := range []ratls.Extensions{
		{},
		{AppID: &app, Usage: ratls.UsageAppCA},
		{AppID: &app, Usage: ratls.UsageAppCustom, AppInfo: appInfo(), Attestation: []byte{1, 2, 3}},
		{AppInfo: scripts},
	} {
		ca := must(ratls.NewRoot(key(t), template("Dstack KMS CA", ratls.Extensions{})))(t)
		der := must(ca.Issue(&key(t).PublicKey, template("leaf", e)))(t)
		got := must(ratls.ParseExtensions(must(x509.ParseCertificate(der))(t)))(t)
		if (got.AppID == nil) != (e.AppID == nil) || got.AppID != nil && *got.AppID != *e.AppID || got.Usage != e.Usage || !bytes.Equal(got.Attestation, e.Attestation) {
			t.Errorf("%+v, want %+v", got, e)
		}
		if (got.AppInfo == nil) != (e.AppInfo == nil) {
			t.Fatalf("app info %+v", got.AppInfo)
		}
		if got.AppInfo != nil && (got.AppInfo.AppID != e.AppInfo.AppID || got.AppInfo.InstanceID != e.AppInfo.InstanceID ||
			!bytes.Equal(got.AppInfo.KeyProviderInfo, e.AppInfo.KeyProviderInfo) || !slices.Equal(got.AppInfo.InitScripts, e.AppInfo.InitScripts)) {
			t.Errorf("%+v, want %+v", got.AppInfo, e.AppInfo)
		}
	}
}

// The reference wraps each value in an OCTET STRING inside extnValue. DO NOT CHANGE.
func TestExtensionBytes(t *testing.T) {
	app := cvm.AppID{0xaa}
	out := must(ratls.Extensions{AppID: &app, Usage: "app:ca", AppInfo: appInfo()}.Encode())(t)
	want := []struct{ oid, value string }{
		{"1.3.6.1.4.1.62397.1.3", "0414aa00000000000000000000000000000000000000"},
		{"1.3.6.1.4.1.62397.1.9", "0481e899c4140100"},
		{"1.3.6.1.4.1.62397.1.4", "04066170703a6361"},
	}
	for i, w := range want {
		if got := hex.EncodeToString(out[i].Value); out[i].Id.String() != w.oid || got[:len(w.value)] != w.value || out[i].Critical {
			t.Errorf("%s %s", out[i].Id, got)
		}
	}
}

// cloud is a KMS root with an app's CA below it.
type cloud struct {
	root, app *ratls.Authority
	id        cvm.AppID
	pin       []byte
}

func newCloud(t *testing.T) cloud {
	t.Helper()
	c := cloud{id: cvm.AppID{7}}
	c.root = must(ratls.NewRoot(key(t), template("Dstack KMS CA", ratls.Extensions{})))(t)
	c.app = must(c.root.IssueCA(key(t), template("Dstack App CA", ratls.Extensions{AppID: &c.id, Usage: ratls.UsageAppCA})))(t)
	c.pin = c.root.Cert.RawSubjectPublicKeyInfo
	return c
}

func (c cloud) leaf(t *testing.T, by *ratls.Authority, e ratls.Extensions, change func(*ratls.Template)) tls.Certificate {
	t.Helper()
	k, tm := key(t), template("leaf", e)
	if change != nil {
		change(&tm)
	}
	chain := [][]byte{must(by.Issue(&k.PublicKey, tm))(t)}
	if by != c.root {
		chain = append(chain, by.Cert.Raw)
	}
	return must(ratls.TLSCertificate(k, append(chain, c.root.Cert.Raw)...))(t)
}

// shake makes one connection and returns both sides' errors.
func shake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	ln := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer func() { _ = ln.Close() }()
	b := must(net.Dial("tcp", ln.Addr().String()))(t)
	a := must(ln.Accept())(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.HandshakeContext(ctx)
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		_ = a.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	clientErr = c.HandshakeContext(ctx)
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1)) // TLS 1.3: the client's refusal arrives here
	}
	_ = b.Close()
	return <-done, clientErr
}

func serve(c tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c}}
}

func TestPinnedClient(t *testing.T) {
	c, other := newCloud(t), newCloud(t)
	otherID := cvm.AppID{8}
	rpc := ratls.Extensions{Usage: ratls.UsageKMSRPC}
	custom := ratls.Extensions{AppID: &c.id, Usage: ratls.UsageAppCustom}
	expired := func(tm *ratls.Template) { tm.NotAfter = time.Now().Add(-time.Minute) }
	future := func(tm *ratls.Template) { tm.NotBefore = time.Now().Add(time.Minute) }
	for _, tc := range []struct {
		name   string
		cert   tls.Certificate
		usage  string
		app    *cvm.AppID
		reason string // "" accepts
	}{
		{"kms", c.leaf(t, c.root, rpc, nil), ratls.UsageKMSRPC, nil, ""},
		{"app", c.leaf(t, c.app, custom, nil), ratls.UsageAppCustom, &c.id, ""},
		{"another root", other.leaf(t, other.root, rpc, nil), ratls.UsageKMSRPC, nil, ratls.ReasonRoot},
		{"the right root sent, the chain from another", func() tls.Certificate {
			l := other.leaf(t, other.root, rpc, nil)
			l.Certificate[1] = c.root.Cert.Raw
			return l
		}(), ratls.UsageKMSRPC, nil, ratls.ReasonRoot},
		{"self-signed", must(ratls.TLSCertificate(c.root.Key, c.root.Cert.Raw))(t), ratls.UsageKMSRPC, nil, ratls.ReasonRoot},
		{"wrong usage", c.leaf(t, c.app, custom, nil), ratls.UsageKMSRPC, nil, ratls.ReasonUsage},
		{"usage that only begins alike", c.leaf(t, c.root, ratls.Extensions{Usage: "kms:rpc2"}, nil), ratls.UsageKMSRPC, nil, ratls.ReasonUsage},
		{"no usage", c.leaf(t, c.root, ratls.Extensions{}, nil), ratls.UsageKMSRPC, nil, ratls.ReasonUsage},
		{"an app's CA speaks for the KMS", c.leaf(t, c.app, rpc, nil), ratls.UsageKMSRPC, nil, ratls.ReasonUsage},
		{"another app", c.leaf(t, c.app, custom, nil), ratls.UsageAppCustom, &otherID, ratls.ReasonApp},
		{"an app's CA speaks for another app", c.leaf(t, c.app, ratls.Extensions{AppID: &otherID, Usage: ratls.UsageAppCustom}, nil), ratls.UsageAppCustom, &otherID, ratls.ReasonApp},
		{"expired", c.leaf(t, c.root, rpc, expired), ratls.UsageKMSRPC, nil, ratls.ReasonRoot},
		{"not yet valid", c.leaf(t, c.root, rpc, future), ratls.UsageKMSRPC, nil, ratls.ReasonRoot},
		{"for clients only", c.leaf(t, c.root, rpc, func(tm *ratls.Template) { tm.ServerAuth = false }), ratls.UsageKMSRPC, nil, ratls.ReasonRoot},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := shake(t, serve(tc.cert), ratls.PinnedClient(c.pin, tc.usage, tc.app, nil))
			if tc.reason == "" && err != nil || tc.reason != "" && cvm.ReasonOf(err) != tc.reason {
				t.Errorf("want reason %q: %v", tc.reason, err)
			}
		})
	}
	if _, err := shake(t, serve(c.leaf(t, c.root, rpc, nil)), ratls.PinnedClient(nil, ratls.UsageKMSRPC, nil, nil)); err == nil {
		t.Error("no pin accepts")
	}
	if _, err := shake(t, serve(c.leaf(t, c.root, ratls.Extensions{}, nil)), ratls.PinnedClient(c.pin, "", nil, nil)); err == nil {
		t.Error("no usage accepts")
	}
}

func TestPinnedServer(t *testing.T) {
	c, other := newCloud(t), newCloud(t)
	srv := ratls.PinnedServer(c.leaf(t, c.root, ratls.Extensions{Usage: ratls.UsageKMSRPC}, nil), c.pin, ratls.UsageAppCustom)
	custom := ratls.Extensions{AppID: &c.id, Usage: ratls.UsageAppCustom}
	good, bad := c.leaf(t, c.app, custom, nil), other.leaf(t, other.app, custom, nil)
	if se, ce := shake(t, srv, ratls.PinnedClient(c.pin, ratls.UsageKMSRPC, nil, &good)); se != nil || ce != nil {
		t.Errorf("%v %v", se, ce)
	}
	if se, _ := shake(t, srv, ratls.PinnedClient(c.pin, ratls.UsageKMSRPC, nil, &bad)); cvm.ReasonOf(se) != ratls.ReasonRoot {
		t.Errorf("another root: %v", se)
	}
	if se, _ := shake(t, srv, ratls.PinnedClient(c.pin, ratls.UsageKMSRPC, nil, nil)); se == nil {
		t.Error("no client certificate accepted")
	}
}

// tee makes evidence and its verifier.
type tee struct {
	hw    *simtee.Hardware
	guest *simtee.Guest
}

func newTEE(t *testing.T, seed byte) tee {
	t.Helper()
	hw := must(simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{seed}, 32)}))(t)
	return tee{hw, must(hw.Boot(context.Background(), simtee.Boot{Name: "g", AppID: cvm.AppID{7}, Phase: claim.PhaseRunning}))(t)}
}

func (e tee) cert(t *testing.T, k *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	ev := must(e.guest.Evidence(context.Background(), ratls.ReportData(spki(t, k))))(t)
	return must(ratls.NewCertificate(k, ev, template("RA-TLS", ratls.Extensions{})))(t)
}

func (e tee) verify(ev attest.Evidence, _ ratls.Extensions, binding [64]byte) error {
	c, err := e.hw.Collateral(time.Now())
	if err != nil {
		return err
	}
	_, _, err = attest.Verify(ev, c, e.hw.Policy(binding, claim.PhaseRunning), time.Now())
	return err
}

func TestMutualRATLS(t *testing.T) {
	e, stranger := newTEE(t, 1), newTEE(t, 2)
	server, client, foreign := e.cert(t, key(t)), e.cert(t, key(t)), stranger.cert(t, key(t))
	if se, ce := shake(t, ratls.ServerConfig(ratls.Fixed(server), e.verify, time.Now), ratls.ClientConfig(ratls.Fixed(client), e.verify, time.Now)); se != nil || ce != nil {
		t.Fatalf("%v %v", se, ce)
	}
	var r *claim.Rejection
	if se, _ := shake(t, ratls.ServerConfig(ratls.Fixed(server), e.verify, time.Now), ratls.ClientConfig(ratls.Fixed(foreign), e.verify, time.Now)); !errors.As(se, &r) {
		t.Errorf("a client of another root: %v", se)
	}
	if _, ce := shake(t, ratls.ServerConfig(ratls.Fixed(foreign), e.verify, time.Now), ratls.ClientConfig(ratls.Fixed(client), e.verify, time.Now)); !errors.As(ce, &r) {
		t.Errorf("a server of another root: %v", ce)
	}
	if se, _ := shake(t, ratls.ServerConfig(ratls.Fixed(server), e.verify, time.Now), ratls.ClientConfig(nil, e.verify, time.Now)); se == nil {
		t.Error("no client certificate accepted")
	}
	if _, ce := shake(t, ratls.ServerConfig(ratls.Fixed(server), e.verify, time.Now), ratls.ClientConfig(ratls.Fixed(client), nil, time.Now)); ce == nil {
		t.Error("no verifier accepts")
	}
}

// Evidence of one key on a certificate of another (a relay) is refused, by the
// verifier whatever the certificate's maker did.
func TestEvidenceIsBoundToTheKey(t *testing.T) {
	e := newTEE(t, 1)
	mine, theirs := key(t), key(t)
	ev := must(e.guest.Evidence(context.Background(), ratls.ReportData(spki(t, theirs))))(t)
	if _, err := ratls.NewCertificate(mine, ev, template("x", ratls.Extensions{})); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("made: %v", err)
	}
	ext := ratls.Extensions{Attestation: must(ev.Strip().Marshal())(t)}
	root := must(ratls.NewTempCA(key(t), template("ca", ratls.Extensions{})))(t)
	relay := must(ratls.TLSCertificate(mine, must(root.Issue(&mine.PublicKey, template("x", ext)))(t), root.Cert.Raw))(t)
	_, ce := shake(t, serve(relay), ratls.ClientConfig(nil, e.verify, time.Now))
	var r *claim.Rejection
	if !errors.As(ce, &r) || !r.Genuine {
		t.Errorf("relayed evidence: %v", ce)
	}
	bare := must(ratls.TLSCertificate(mine, must(root.Issue(&mine.PublicKey, template("x", ratls.Extensions{})))(t), root.Cert.Raw))(t)
	if _, ce := shake(t, serve(bare), ratls.ClientConfig(nil, e.verify, time.Now)); cvm.ReasonOf(ce) != "attestation-missing" {
		t.Errorf("no evidence: %v", ce)
	}
}

func TestTemplateRefusals(t *testing.T) {
	root := must(ratls.NewRoot(key(t), template("r", ratls.Extensions{})))(t)
	for _, tm := range []ratls.Template{{}, {NotBefore: time.Now(), NotAfter: time.Now().Add(-time.Hour)}, {NotAfter: time.Now()}} {
		if _, err := root.Issue(&key(t).PublicKey, tm); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%+v: %v", tm, err)
		}
	}
	leaf := must(x509.ParseCertificate(must(root.Issue(&key(t).PublicKey, ratls.Template{CommonName: "c", AltNames: []string{"a.example", "10.0.0.1"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}))(t)))(t)
	if !slices.Equal(leaf.DNSNames, []string{"a.example"}) || len(leaf.IPAddresses) != 1 || len(leaf.ExtKeyUsage) != 0 || leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("%+v", leaf)
	}
}

func FuzzParseExtensions(f *testing.F) {
	app := cvm.AppID{1}
	ext, err := ratls.Extensions{AppID: &app, Usage: "app:ca", AppInfo: appInfo()}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range ext {
		f.Add(e.Id[8], e.Value)
	}
	f.Fuzz(func(t *testing.T, n int, value []byte) {
		id := append(slices.Clone(ext[0].Id[:8]), n)
		e := ext[0]
		e.Id, e.Value = id, value
		c := &x509.Certificate{}
		c.Extensions = append(c.Extensions, e)
		got, err := ratls.ParseExtensions(c)
		if err != nil {
			return
		}
		out, err := got.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out { // what is known re-encodes to the same bytes
			if !bytes.Equal(o.Value, value) {
				t.Errorf("%x, want %x", o.Value, value)
			}
		}
	})
}
