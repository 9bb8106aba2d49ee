package ratls_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

// csrHead is the reference's vector up to the flags: confirm, key 010203, no
// organization, subject test.example.com (dstack-core C.6).
const csrHead = "44706c65617365207369676e20636572743a" + "0c010203" + "00" + "40746573742e6578616d706c652e636f6d"

// emptyTail is the rest of an attestation V0 after its quote: no events, zero
// report data, no config.
func emptyTail() string { return "0000" + strings.Repeat("00", 64) + "00" }

// The reference's vectors. DO NOT CHANGE.
func TestCertRequestVectors(t *testing.T) {
	for name, tc := range map[string]struct {
		hex  string
		want ratls.CertRequest
	}{
		"server": {csrHead + "00" + "01000000" + "0000" + "0000" + "00" + emptyTail(),
			ratls.CertRequest{PublicKey: []byte{1, 2, 3}, Subject: "test.example.com", ServerAuth: true}},
		"server with quote": {csrHead + "00" + "01000100" + "0000" + "0000" + "0409" + emptyTail(),
			ratls.CertRequest{PublicKey: []byte{1, 2, 3}, Subject: "test.example.com", ServerAuth: true, Quote: true}},
	} {
		raw := must(hex.DecodeString(tc.hex))(t)
		got := must(ratls.ParseCertRequest(raw))(t)
		if !bytes.Equal(got.Encode(), raw) {
			t.Errorf("%s: encodes to %x", name, got.Encode())
		}
		if !bytes.Equal(got.PublicKey, tc.want.PublicKey) || got.Subject != tc.want.Subject || got.ServerAuth != tc.want.ServerAuth ||
			got.Quote != tc.want.Quote || got.ClientAuth || got.AppInfo || got.NotBefore != nil || got.OrgName != nil || got.Attestation[0] != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func request(t *testing.T, k *ecdsa.PrivateKey) *ratls.CertRequest {
	t.Helper()
	org, from, to := "Org", uint64(1), uint64(1)<<40
	return &ratls.CertRequest{PublicKey: spki(t, k), OrgName: &org, Subject: strings.Repeat("s", 100), AltNames: []string{"a.example", "10.0.0.1"},
		ServerAuth: true, ClientAuth: true, Quote: true, AppInfo: true, NotBefore: &from, NotAfter: &to, Attestation: []byte{0, 0, 1}}
}

func sign(t *testing.T, k *ecdsa.PrivateKey, raw []byte) []byte {
	t.Helper()
	h := sha256.Sum256(raw)
	return must(ecdsa.SignASN1(rand.Reader, k, h[:]))(t)
}

func TestCertRequest(t *testing.T) {
	k := key(t)
	r := request(t, k)
	raw := r.Encode()
	got := must(ratls.ParseCertRequest(raw))(t)
	if *got.OrgName != "Org" || got.Subject != r.Subject || !slices.Equal(got.AltNames, r.AltNames) || *got.NotBefore != 1 || *got.NotAfter != 1<<40 ||
		!got.ClientAuth || !got.AppInfo || !bytes.Equal(got.Attestation, r.Attestation) {
		t.Errorf("%+v", got)
	}
	sig := sign(t, k, raw)
	if pub, err := got.Verify(sig); err != nil || !pub.Equal(&k.PublicKey) {
		t.Errorf("%v", err)
	}
	if _, err := got.Verify(sign(t, key(t), raw)); cvm.ReasonOf(err) != ratls.ReasonSignature {
		t.Errorf("signed by another key: %v", err)
	}
	for bit := range 8 * len(raw) { // every bit is signed
		raw[bit/8] ^= 1 << (bit % 8)
		if x, err := ratls.ParseCertRequest(raw); err == nil {
			if _, err := x.Verify(sig); err == nil {
				t.Errorf("bit %d does not count", bit)
			}
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	got.PublicKey = must(ratls.SPKI(&p384.PublicKey))(t)
	if _, err := got.Verify(sign(t, p384, got.Encode())); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a P-384 key: %v", err)
	}
}

func TestCertRequestRefusals(t *testing.T) {
	raw := request(t, key(t)).Encode()
	for n := range len(raw) - 3 { // all but the attestation
		if _, err := ratls.ParseCertRequest(raw[:n]); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
	if _, err := ratls.ParseCertRequest(raw[:len(raw)-3]); err == nil {
		t.Error("no attestation")
	}
	for name, h := range map[string]string{
		"another purpose":         "44706c65617365207369676e20636572743b" + csrHead[36:] + "00010000000000" + "00",
		"length not shortest":     "4500" + csrHead[2:] + "00010000000000" + "00",
		"four-byte length":        "46000000" + csrHead[2:] + "00010000000000" + "00",
		"a flag of 2":             csrHead + "00" + "02000000" + "0000" + "00",
		"an option of 2":          csrHead + "00" + "01000000" + "0200" + "00",
		"subject not UTF-8":       csrHead[:len(csrHead)-2] + "ff" + "00" + "01000000" + "0000" + "00",
		"a name longer than text": csrHead + "04" + "0200" + "0000" + "00",
		"65 names":                csrHead + "0501" + strings.Repeat("00", 65) + "01000000" + "0000" + "00",
	} {
		if _, err := ratls.ParseCertRequest(must(hex.DecodeString(h))(t)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseCertRequest(f *testing.F) {
	for _, s := range []string{csrHead + "00010000000000" + "0000" + "00" + emptyTail(), csrHead + "080461040162" + "0101010101" + strings.Repeat("11", 8) + "00" + "00"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ratls.ParseCertRequest(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Encode(), raw) {
			t.Errorf("%x encodes to %x", raw, r.Encode())
		}
		_, _ = r.Verify(raw)
	})
}
