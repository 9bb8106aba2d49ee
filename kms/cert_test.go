package kms

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ratls"
)

func signRequest(t *testing.T, lease, conf string) kmsapi.SignCertRequest {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := spkiOf(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(slices.Concat([]byte("phala-sign-cert:v1:"), spki, []byte(conf)))
	proof, err := ecdsa.SignASN1(rand.Reader, k, h[:])
	if err != nil {
		t.Fatal(err)
	}
	return kmsapi.SignCertRequest{LeaseID: lease, PublicKey: spki, Proof: proof, Config: []byte(conf)}
}

func checkChain(t *testing.T, chain []string, app cvm.AppID, name string) {
	t.Helper()
	var cs []*x509.Certificate
	for _, p := range chain {
		b, _ := pem.Decode([]byte(p))
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	if err := ratls.VerifyPinned(cs, cs[2].RawSubjectPublicKeyInfo, ratls.UsageAppCustom, &app, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	if err := cs[0].VerifyHostname(name); err != nil {
		t.Error(err)
	}
}
