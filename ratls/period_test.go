package ratls_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

func TestCertificatePeriod(t *testing.T) {
	e, k := newTEE(t, 1), key(t)
	ev := must(e.guest.Evidence(t.Context(), ratls.ReportData(spki(t, k))))(t)
	from := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	long := ratls.Template{CommonName: "x", NotBefore: from, NotAfter: from.Add(ratls.MaxLifetime + time.Second)}
	if _, err := ratls.NewCertificate(k, ev, long); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("made a certificate that lives too long: %v", err)
	}
	made := must(ratls.NewCertificate(k, ev, ratls.Template{CommonName: "x", NotBefore: from, NotAfter: from.Add(ratls.MaxLifetime)}))(t)
	root := must(ratls.NewTempCA(k, long))(t)
	long.Extensions.Attestation = must(ev.Strip().Marshal())(t)
	foreign := must(ratls.TLSCertificate(k, must(root.Issue(&k.PublicKey, long))(t), root.Cert.Raw))(t)
	for _, tc := range []struct {
		name string
		cert tls.Certificate
		at   time.Time
		ok   bool
	}{
		{"first second", made, from, true},
		{"last second", made, from.Add(ratls.MaxLifetime), true},
		{"not yet valid", made, from.Add(-time.Second), false},
		{"expired", made, from.Add(ratls.MaxLifetime + time.Second), false},
		{"lives too long", foreign, from.Add(time.Minute), false},
	} {
		clock := func() time.Time { return tc.at }
		verify := func(attest.Evidence, ratls.Extensions, [64]byte) error { return nil }
		_, err := shake(t, serve(tc.cert), ratls.ClientConfig(nil, verify, clock))
		if tc.ok && err != nil || !tc.ok && cvm.ReasonOf(err) != ratls.ReasonPeriod {
			t.Errorf("%s: %v", tc.name, err)
		}
		serr, _ := shake(t, ratls.ServerConfig(ratls.Fixed(made), verify, clock), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{tc.cert}}) // #nosec G402 -- the server's side is tested
		if tc.ok && serr != nil || !tc.ok && cvm.ReasonOf(serr) != ratls.ReasonPeriod {
			t.Errorf("%s, as client: %v", tc.name, serr)
		}
	}
	if _, err := shake(t, serve(made), ratls.ClientConfig(nil, e.verify, nil)); cvm.CodeOf(err) != cvm.Internal {
		t.Errorf("no clock: %v", err)
	}
}

// A long-lived end shows the certificate of now, not that of its start.
func TestSourceIsAskedEachTime(t *testing.T) {
	e, k := newTEE(t, 1), key(t)
	n := 0
	source := func() (*tls.Certificate, error) {
		n++
		c := e.cert(t, k)
		return &c, nil
	}
	for range 2 {
		if se, ce := shake(t, ratls.ServerConfig(source, e.verify, time.Now), ratls.ClientConfig(source, e.verify, time.Now)); se != nil || ce != nil {
			t.Fatal(se, ce)
		}
	}
	if n != 4 {
		t.Errorf("asked %d times in 2 mutual handshakes", n)
	}
}

// judge runs the client's check on a certificate as if a server had shown it.
func judge(e tee, chain ...*x509.Certificate) error {
	return ratls.ClientConfig(nil, e.verify, time.Now).VerifyConnection(tls.ConnectionState{PeerCertificates: chain})
}

// Every single bit of an accepted attestation extension counts.
func TestEveryBitOfTheExtension(t *testing.T) {
	e, k := newTEE(t, 1), key(t)
	c := e.cert(t, k)
	if err := judge(e, c.Leaf); err != nil {
		t.Fatal(err)
	}
	der := c.Certificate[0]
	att := must(ratls.ParseExtensions(c.Leaf))(t).Attestation
	from := bytes.Index(der, att)
	if from < 0 {
		t.Fatal("the extension is not in the certificate")
	}
	step := 17 // odd: every position in a byte
	if os.Getenv("PHALA_LONG") != "" {
		step = 1
	}
	for bit := 0; bit < 8*len(att); bit += step {
		der[from+bit/8] ^= 1 << (bit % 8)
		if x, err := x509.ParseCertificate(der); err == nil {
			if err := judge(e, x); err == nil {
				t.Errorf("bit %d of the extension does not count", bit)
			}
		}
		der[from+bit/8] ^= 1 << (bit % 8)
	}
}

// Whoever holds the key may sign what he likes: the evidence still decides, and a
// change that is accepted changes no claim.
func TestChangedAndSignedAgain(t *testing.T) {
	e, k := newTEE(t, 1), key(t)
	att := must(ratls.ParseExtensions(e.cert(t, k).Leaf))(t).Attestation
	accepted := 0
	for bit := 0; bit < 8*len(att); bit += 389 {
		changed := bytes.Clone(att)
		changed[bit/8] ^= 1 << (bit % 8)
		root := must(ratls.NewTempCA(key(t), template("ca", ratls.Extensions{})))(t)
		leaf := must(x509.ParseCertificate(must(root.Issue(&k.PublicKey, template("x", ratls.Extensions{Attestation: changed})))(t)))(t)
		if judge(e, leaf, root.Cert) == nil {
			accepted++
			t.Logf("bit %d (byte %d of %d) changes nothing that is believed", bit, bit/8, len(att))
		}
	}
	if accepted > 0 {
		t.Errorf("%d changes of the evidence were accepted", accepted)
	}
}

func TestUnsignedCertificate(t *testing.T) {
	e, k := newTEE(t, 1), key(t)
	leaf := e.cert(t, k).Leaf
	other := must(ratls.NewTempCA(key(t), template("ca", ratls.Extensions{})))(t)
	issued := must(x509.ParseCertificate(must(other.Issue(&k.PublicKey, template("x", ratls.Extensions{Attestation: must(ratls.ParseExtensions(leaf))(t).Attestation})))(t)))(t)
	if err := judge(e, issued, other.Cert); err != nil {
		t.Errorf("by an issuer, as the reference's guests: %v", err)
	}
	for name, chain := range map[string][]*x509.Certificate{
		"no issuer":      {issued},
		"another issuer": {issued, leaf},
	} {
		if err := judge(e, chain...); cvm.ReasonOf(err) != ratls.ReasonSignature {
			t.Errorf("%s: %v", name, err)
		}
	}
}
