package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
)

// What a chain can only hold if somebody else than Intel made it, and what
// crypto/x509 happens to refuse before us.
func TestStrangeProcessorCertificates(t *testing.T) {
	for name, key := range map[string]any{
		"RSA": &rsa.PublicKey{}, "P-384": &ecdsa.PublicKey{Curve: elliptic.P384()}, "none": nil,
	} {
		if _, err := hostOf(&x509.Certificate{PublicKey: key}, &PCK{}); err == nil || !strings.Contains(err.Error(), "not of P-256") {
			t.Errorf("key %s: %v", name, err)
		}
	}
	one := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, Value: encodeSGX(t, &PCK{PPID: make([]byte, 16)}, make([]byte, 16))}
	if _, err := parsePCK(&x509.Certificate{Extensions: []pkix.Extension{one}}); err != nil {
		t.Error(err)
	}
	if _, err := parsePCK(&x509.Certificate{Extensions: []pkix.Extension{one, one}}); err == nil || !strings.Contains(err.Error(), "two SGX extensions") {
		t.Errorf("two SGX extensions: %v", err)
	}
}

func TestChainIsCutAfterTheLeaf(t *testing.T) {
	const begin = "-----BEGIN CERTIFICATE-----"
	for name, tc := range map[string]struct{ chain, words string }{
		"empty":                 {"", "chain of 0 bytes"},
		"a byte short":          {begin[1:], "chain of 26 bytes"},
		"one certificate":       {begin + "\nAA\n", "one after another"},
		"none, and a line ends": {strings.Repeat("a", 25) + "\naaaa", "one after another"},
		"no line between":       {begin + "\nAA" + begin, "one after another"},
	} {
		if _, _, err := (&Quote{chain: []byte(tc.chain)}).splitChain(); err == nil || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: %v, want %q", name, err, tc.words)
		}
	}
	leaf, issuers, err := (&Quote{chain: []byte(begin + "\n" + begin + "\n")}).splitChain()
	if err != nil || string(leaf) != begin+"\n" || string(issuers) != begin+"\n" {
		t.Errorf("%q %q %v", leaf, issuers, err)
	}
}
