package ratls_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

// seedEvidence is what the fuzz targets begin with.
func seedEvidence(f *testing.F, k *ecdsa.PrivateKey, version int) attest.Evidence {
	f.Helper()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	g, err := hw.Boot(context.Background(), simtee.Boot{Name: "g", AppID: cvm.AppID{7}, Version: version, Phase: claim.PhaseRunning})
	if err != nil {
		f.Fatal(err)
	}
	pub, err := ratls.SPKI(&k.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	ev, err := g.Evidence(context.Background(), ratls.ReportData(pub))
	if err != nil {
		f.Fatal(err)
	}
	return ev
}

// Whatever stands in a certificate: no panic, and an attestation that is accepted
// re-encodes to the bytes of the extension.
func FuzzFromCertificate(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, version := range []int{1, 2} {
		app := cvm.AppID{7}
		c, err := ratls.NewCertificate(k, seedEvidence(f, k, version), template("x", ratls.Extensions{AppID: &app, Usage: "app:custom", AppInfo: appInfo()}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.Certificate[0])
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		ev, ext, err := ratls.FromCertificate(c)
		if err != nil || len(ext.Attestation) == 0 {
			return
		}
		if again, err := ev.Marshal(); err != nil || !bytes.Equal(again, ext.Attestation) {
			t.Errorf("accepted, but encodes otherwise: %v", err)
		}
		out, err := ext.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			for _, x := range c.Extensions {
				if x.Id.Equal(o.Id) && !bytes.Equal(x.Value, o.Value) {
					t.Errorf("extension %s encodes otherwise", o.Id)
				}
			}
		}
	})
}

// The extensions of old images: bounded, and what is read is what was in them.
func FuzzLegacy(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	ev := seedEvidence(f, k, 1)
	log, err := json.Marshal(ev.EventLog)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ev.Quote, log)
	f.Add(ev.Quote, []byte("ELGZv1\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x8b\x8e\x05\x00\x29\xbb\x4c\x0d\x02\x00\x00\x00")) // []
	f.Fuzz(func(t *testing.T, quote, log []byte) {
		c := &x509.Certificate{NotBefore: time.Unix(0, 0)}
		for n, v := range map[int][]byte{1: quote, 2: log} {
			der, err := asn1.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			c.Extensions = append(c.Extensions, pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 62397, 1, n}, Value: der})
		}
		ev, _, err := ratls.FromCertificate(c)
		if err != nil {
			return
		}
		if !bytes.Equal(ev.Quote, quote) {
			t.Error("another quote")
		}
		if _, err := ev.Marshal(); err != nil {
			t.Errorf("accepted, and cannot be encoded: %v", err)
		}
	})
}
