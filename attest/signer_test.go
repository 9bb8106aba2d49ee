package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// Whoever serves collateral makes a TCB signer of the right name, puts the genuine
// root behind it and signs what he likes: the root never signed that signer (20).
func TestForgedSigner(t *testing.T) {
	for _, which := range []string{"TCB info", "QE identity", "both"} {
		t.Run(which, func(t *testing.T) {
			s := newScene(t, nil)
			chain, err := collateral.ParseChain(s.coll.TCBInfoIssuerChain, 2)
			if err != nil {
				t.Fatal(err)
			}
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			issuer := *chain[1]
			issuer.PublicKey = key.Public() // named like the root, with his own key
			template := *chain[0]
			template.PublicKey = nil
			der, err := x509.CreateCertificate(rand.Reader, &template, &issuer, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			forged := append(encode(der), encode(chain[1].Raw)...)
			if which != "QE identity" {
				s.coll.TCBInfo, s.coll.TCBInfoIssuerChain = signAgain(t, s.coll.TCBInfo, "tcbInfo", key), forged
			}
			if which != "TCB info" {
				s.coll.QEIdentity, s.coll.QEIdentityIssuerChain = signAgain(t, s.coll.QEIdentity, "enclaveIdentity", key), forged
			}
			_, _, err = s.verify()
			rejected(t, err, true, claim.CollateralChain)
			// Nor does a verifier that knows the machine take it.
			sound := newScene(t, nil)
			warm := attest.NewVerifier(16)
			for range 2 {
				if _, _, err := warm.Verify(sound.ev, sound.coll, sound.policy, sound.at); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err = warm.Verify(s.ev, s.coll, s.policy, s.at)
			rejected(t, err, true, claim.CollateralChain)
		})
	}
}

// A host whose processor was revoked signs its certificate anew, with another serial
// number, under the genuine CA's name: the CA never signed that (19).
func TestForgedProcessor(t *testing.T) {
	s := newScene(t, func(s *scene) { s.cfg.Faults.RevokePCK = true })
	chain, err := collateral.ParseChain(bytes.TrimRight(s.ev.Quote[bytes.Index(s.ev.Quote, []byte("-----BEGIN")):], "\x00"), 3)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := *chain[1]
	issuer.PublicKey = key.Public()
	template := *chain[0]
	template.ExtraExtensions = template.Extensions
	template.SerialNumber = new(big.Int).Xor(template.SerialNumber, big.NewInt(1))
	old := encode(chain[0].Raw)
	for range 1000 { // until it is as long as the old one, so that no length changes
		der, err := x509.CreateCertificate(rand.Reader, &template, &issuer, chain[0].PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		if forged := encode(der); len(forged) == len(old) {
			s.ev.Quote = bytes.Replace(s.ev.Quote, old, forged, 1)
			_, _, err := s.verify()
			rejected(t, err, false, claim.PCKChain)
			return
		}
	}
	t.Fatal("no certificate of the same length came up")
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// signAgain signs a statement's exact bytes with another key.
func signAgain(t *testing.T, body []byte, name string, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	signed, err := collateral.ParseSigned(body, name)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(signed.Bytes)
	r, v, err := ecdsa.Sign(rand.Reader, key, h[:])
	if err != nil {
		t.Fatal(err)
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	v.FillBytes(sig[32:])
	return []byte(`{"` + name + `":` + string(signed.Bytes) + `,"signature":"` + hex.EncodeToString(sig[:]) + `"}`)
}
