package collateral_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
)

func noon() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

// pki makes a chain of three (leaf, CA, root), each template open to an edit.
type pki struct {
	keys  [3]*ecdsa.PrivateKey
	chain []*x509.Certificate
}

func newPKI(t *testing.T, edit func(place int, c *x509.Certificate)) pki {
	t.Helper()
	var p pki
	for i := range p.keys {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p.keys[i] = k
	}
	p.chain = make([]*x509.Certificate, 3)
	names := []string{"leaf", "CA", "root"}
	for i := 2; i >= 0; i-- {
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: names[i]},
			NotBefore: noon().AddDate(-1, 0, 0), NotAfter: noon().AddDate(1, 0, 0), BasicConstraintsValid: true, SubjectKeyId: []byte{byte(i + 1)}}
		if i > 0 {
			c.IsCA, c.MaxPathLen, c.MaxPathLenZero = true, i-1, i == 1
			c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		}
		edit(i, c)
		parent, key := c, p.keys[i]
		if i < 2 {
			parent, key = p.chain[i+1], p.keys[i+1]
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &p.keys[i].PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		if p.chain[i], err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestVerifyChainRefusals(t *testing.T) {
	at := func(place int, fn func(*x509.Certificate)) func(int, *x509.Certificate) {
		return func(i int, c *x509.Certificate) {
			if i == place {
				fn(c)
			}
		}
	}
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	for _, tc := range []struct {
		name, words string
		edit        func(int, *x509.Certificate)
		after       func(*testing.T, *pki)
	}{
		{"sound", "", func(int, *x509.Certificate) {}, nil},
		{"leaf expired", "leaf: valid", at(0, func(c *x509.Certificate) { c.NotAfter = noon().Add(-time.Second) }), nil},
		{"CA expired", "CA: valid", at(1, func(c *x509.Certificate) { c.NotAfter = noon().Add(-time.Second) }), nil},
		{"root expired", "root: valid", at(2, func(c *x509.Certificate) { c.NotAfter = noon().Add(-time.Second) }), nil},
		{"leaf of the future", "leaf: valid", at(0, func(c *x509.Certificate) { c.NotBefore = noon().Add(time.Second) }), nil},
		{"critical extension", "unknown critical", at(0, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{critical} }), nil},
		{"SHA-384", "signed with", at(0, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }), nil},
		{"leaf is a CA", "CA is true at place 0", at(0, func(c *x509.Certificate) { c.IsCA = true }), nil},
		{"CA is none", "cannot sign", at(1, func(c *x509.Certificate) { c.IsCA, c.MaxPathLen, c.MaxPathLenZero = false, 0, false }), nil},
		{"path length", "path length", at(2, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }), nil},
		{"CA may not sign", "cannot sign", at(1, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), nil},
		{"another CA of the same name", "leaf:", func(int, *x509.Certificate) {}, func(t *testing.T, p *pki) {
			other := newPKI(t, func(int, *x509.Certificate) {})
			p.chain[1], p.chain[2] = other.chain[1], other.chain[2]
		}},
		{"issuer of another name", "issued by", func(int, *x509.Certificate) {}, func(t *testing.T, p *pki) {
			c := *p.chain[0] // as if the same key had another name
			issuer := *p.chain[1]
			issuer.RawSubject = bytes.Replace(issuer.RawSubject, []byte("CA"), []byte("CB"), 1)
			p.chain = []*x509.Certificate{&c, &issuer, p.chain[2]}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPKI(t, tc.edit)
			if tc.after != nil {
				tc.after(t, &p)
			}
			err := collateral.VerifyChain(p.chain, noon())
			if tc.words == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("%v, want %q", err, tc.words)
			}
		})
	}
}

func TestCRLRefusals(t *testing.T) {
	p := newPKI(t, func(int, *x509.Certificate) {})
	make1 := func(fn func(*x509.RevocationList)) []byte {
		l := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: noon().AddDate(0, 0, -1), NextUpdate: noon().AddDate(0, 0, 1),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(42), RevocationTime: noon()}}}
		fn(l)
		der, err := x509.CreateRevocationList(rand.Reader, l, p.chain[1], p.keys[1])
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	sound := func(*x509.RevocationList) {}
	list := func(der []byte) *collateral.CRL {
		t.Helper()
		c, err := collateral.ParseCRL(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := list(make1(sound))
	if err := c.Verify(p.chain[1], noon()); err != nil || !c.Revoked(big.NewInt(42)) || c.Revoked(big.NewInt(43)) {
		t.Fatalf("%v", err)
	}
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	ecdsaSHA256 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	//nolint:staticcheck // x509.CreateRevocationList makes no list without a number
	bare, err := asn1.Marshal(pkix.CertificateList{SignatureAlgorithm: ecdsaSHA256, TBSCertList: pkix.TBSCertificateList{
		Version: 1, Signature: ecdsaSHA256, Issuer: p.chain[1].Subject.ToRDNSequence(), ThisUpdate: noon(), NextUpdate: noon().Add(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"empty": nil, "text": []byte("text"), "over the limit": append(make1(sound), make([]byte, collateral.MaxBody)...),
		"trailing byte":      append(make1(sound), 0),
		"critical extension": make1(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical} }),
	} {
		if _, err := collateral.ParseCRL(der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, tc := range []struct {
		der  []byte
		want bool
	}{{make1(sound), true}, {bare, false}} {
		if c, err := collateral.ParseCRL(tc.der); err != nil || c.Numbered() != tc.want {
			t.Errorf("numbered: want %v: %v", tc.want, err)
		}
	}
	other := newPKI(t, func(int, *x509.Certificate) {})
	for name, tc := range map[string]struct {
		der    []byte
		issuer *x509.Certificate
		words  string
	}{
		"expired":                         {make1(func(l *x509.RevocationList) { l.NextUpdate = noon() }), p.chain[1], "expired"},
		"of the future":                   {make1(func(l *x509.RevocationList) { l.ThisUpdate = noon().Add(time.Second) }), p.chain[1], "future"},
		"of another issuer":               {make1(sound), p.chain[2], "want that of root"},
		"of another issuer with its name": {make1(sound), other.chain[1], "revocation list of CA"},
	} {
		if err := list(tc.der).Verify(tc.issuer, noon()); err == nil || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: %v, want %q", name, err, tc.words)
		}
	}
}
