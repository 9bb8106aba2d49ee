package sdk

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"
)

// This file knows the reference's document (dstack-core A to D) and nothing of our
// packages: what it needs of HTTP, derivation, signatures and encodings it does itself.

// answer is one HTTP answer as the JavaScript SDK's own parser wants it: with a
// Content-Length, not chunked, in ASCII.
type answer struct {
	status int
	body   []byte
}

// call speaks HTTP/1.1 by hand.
func call(t *testing.T, sock, method, target, body string, headers ...string) answer {
	t.Helper()
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if len(headers) == 0 {
		headers = []string{"Content-Type: application/json"}
	}
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n\r\n%s", method, target, len(body), strings.Join(headers, "\r\n"), body)
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	var a answer
	if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &a.status); err != nil {
		t.Fatalf("%s %s: %q", method, target, line)
	}
	length := -1
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			break
		}
		k, v, ok := strings.Cut(line, ": ")
		if !ok {
			t.Errorf("%s: header %q is not Key: value", target, line)
		}
		switch strings.ToLower(k) {
		case "content-length":
			length, _ = strconv.Atoi(v)
		case "transfer-encoding":
			t.Errorf("%s: %s", target, line)
		}
	}
	if length < 0 {
		t.Fatalf("%s %s: no Content-Length", method, target)
	}
	a.body = make([]byte, length)
	if _, err := io.ReadFull(r, a.body); err != nil {
		t.Fatal(err)
	}
	for _, b := range a.body {
		if b >= 0x80 {
			t.Fatalf("%s: the body is not ASCII", target)
		}
	}
	return a
}

// ask wants an answer and decodes it.
func ask(t *testing.T, sock, target string, req, resp any) {
	t.Helper()
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	a := call(t, sock, "POST", target, string(b))
	if a.status != 200 {
		t.Fatalf("%s: %d %s", target, a.status, a.body)
	}
	if err := json.Unmarshal(a.body, resp); err != nil {
		t.Fatalf("%s: %v", target, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || strings.ToLower(s) != s {
		t.Fatalf("%.40q is not lowercase hex", s)
	}
	return b
}

// derive is B.4.
func derive(t *testing.T, ikm []byte, context string) []byte {
	t.Helper()
	b, err := hkdf.Key(sha256.New, ikm, []byte("RATLS"), context, 32)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keccak(parts ...[]byte) []byte {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// recover65 is the compressed key that made a signature r||s||recid.
func recover65(t *testing.T, sig, digest []byte) []byte {
	t.Helper()
	if len(sig) != 65 || sig[64] > 1 {
		t.Fatalf("signature of %d bytes", len(sig))
	}
	pub, _, err := secpecdsa.RecoverCompact(append([]byte{27 + 4 + sig[64]}, sig[:64]...), digest)
	if err != nil {
		t.Fatal(err)
	}
	return pub.SerializeCompressed()
}

// checkChain verifies GetKey's chain from a public key to the KMS root (C.2).
func checkChain(t *testing.T, app []byte, purpose string, pub []byte, chain []string) {
	t.Helper()
	if len(chain) != 2 {
		t.Fatalf("chain of %d", len(chain))
	}
	appPub := recover65(t, unhex(t, chain[0]), keccak([]byte(purpose+":"+hex.EncodeToString(pub))))
	root := recover65(t, unhex(t, chain[1]), keccak([]byte("dstack-kms-issued:"), app, appPub))
	if hex.EncodeToString(root) != goldenKMSKey {
		t.Errorf("purpose %s: the chain ends at %x", purpose, root)
	}
}

// appKey is the app's k256 key of the fixture.
func appKey(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors(t), "simulator", "appkeys.json"))
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		K256 string `json:"k256_key"`
	}
	if err := json.Unmarshal(b, &k); err != nil {
		t.Fatal(err)
	}
	return unhex(t, k.K256)
}

type keyAnswer struct {
	Key   string   `json:"key"`
	Chain []string `json:"signature_chain"`
}

func TestGoGetKey(t *testing.T) {
	sock, app := filepath.Join(simulator(t), "dstack.sock"), unhex(t, goldenApp)
	parent := appKey(t)
	for _, c := range []struct{ path, purpose, algorithm string }{{"/", "test", ""}, {"", "", "secp256k1"}, {"wallet/é", "p:q", "k256"}, {"/", "test", "ed25519"}} {
		var k keyAnswer
		ask(t, sock, "/GetKey", map[string]string{"path": c.path, "purpose": c.purpose, "algorithm": c.algorithm}, &k)
		key := unhex(t, k.Key)
		if !bytes.Equal(key, derive(t, parent, c.path)) {
			t.Errorf("path %q: another key than B.4's", c.path)
		}
		pub := secp256k1.PrivKeyFromBytes(key).PubKey().SerializeCompressed()
		if c.algorithm == "ed25519" {
			pub = ed25519.NewKeyFromSeed(key).Public().(ed25519.PublicKey)
		}
		checkChain(t, app, c.purpose, pub, k.Chain)
		if c.path == "/" { // the legacy socket gives the same
			var l struct {
				Key   string   `json:"k256_key"`
				Chain []string `json:"k256_signature_chain"`
			}
			ask(t, filepath.Join(filepath.Dir(sock), "tappd.sock"), "/prpc/Tappd.DeriveK256Key", map[string]string{"path": c.path, "purpose": c.purpose}, &l)
			if l.Key != k.Key || (c.algorithm == "" && (l.Chain[0] != k.Chain[0] || l.Chain[1] != k.Chain[1])) {
				t.Error("DeriveK256Key and GetKey differ")
			}
		}
	}
}

func TestGoSign(t *testing.T) {
	sock, app := filepath.Join(simulator(t), "dstack.sock"), unhex(t, goldenApp)
	key := derive(t, appKey(t), "vms")
	data := []byte("hello")
	digest := sha256.Sum256(data)
	for _, alg := range []string{"ed25519", "secp256k1", "k256", "secp256k1_prehashed"} {
		in := data
		if alg == "secp256k1_prehashed" {
			in = digest[:]
		}
		var s struct {
			Signature string   `json:"signature"`
			Chain     []string `json:"signature_chain"`
			Key       string   `json:"public_key"`
		}
		ask(t, sock, "/Sign", map[string]string{"algorithm": alg, "data": hex.EncodeToString(in)}, &s)
		sig, pub := unhex(t, s.Signature), unhex(t, s.Key)
		var ok bool
		if alg == "ed25519" {
			ok = bytes.Equal(pub, ed25519.NewKeyFromSeed(key).Public().(ed25519.PublicKey)) && ed25519.Verify(pub, data, sig)
		} else {
			var r, v secp256k1.ModNScalar
			over := r.SetByteSlice(sig[:32]) || v.SetByteSlice(sig[32:])
			ok = len(sig) == 64 && !over && !v.IsOverHalfOrder() && bytes.Equal(pub, secp256k1.PrivKeyFromBytes(key).PubKey().SerializeCompressed()) &&
				secpecdsa.NewSignature(&r, &v).Verify(digest[:], secp256k1.PrivKeyFromBytes(key).PubKey())
		}
		if !ok || len(s.Chain) != 3 || s.Chain[0] != s.Signature {
			t.Errorf("%s: %+v", alg, s)
			continue
		}
		checkChain(t, app, "signing", pub, s.Chain[1:])
		for sent, want := range map[string]bool{hex.EncodeToString(in): true, strings.Repeat("09", 32): false} {
			var v struct{ Valid *bool }
			ask(t, sock, "/Verify", map[string]string{"algorithm": alg, "data": sent, "signature": s.Signature, "public_key": s.Key}, &v)
			if v.Valid == nil || *v.Valid != want {
				t.Errorf("%s: verify of %.10s: %v", alg, sent, v.Valid)
			}
		}
	}
}

// extension returns the bytes in the OCTET STRING of one of the reference's extensions.
func extension(t *testing.T, c *x509.Certificate, last int) []byte {
	t.Helper()
	for _, e := range c.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 62397, 1, last}) {
			var b []byte
			if rest, err := asn1.Unmarshal(e.Value, &b); err != nil || len(rest) > 0 || e.Critical {
				t.Errorf("extension %d: %v", last, err)
			}
			return b
		}
	}
	return nil
}

func certs(t *testing.T, chain []string) (out []*x509.Certificate) {
	t.Helper()
	for _, p := range chain {
		b, _ := pem.Decode([]byte(p))
		if b == nil {
			t.Fatalf("no PEM: %.40q", p)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func TestGoTLSKey(t *testing.T) {
	sock := filepath.Join(simulator(t), "dstack.sock")
	get := func(req map[string]any) (*ecdsa.PrivateKey, []*x509.Certificate) {
		var k struct {
			Key   string   `json:"key"`
			Chain []string `json:"certificate_chain"`
		}
		ask(t, sock, "/GetTlsKey", req, &k)
		b, _ := pem.Decode([]byte(k.Key))
		p, err := x509.ParsePKCS8PrivateKey(b.Bytes)
		if err != nil || b.Type != "PRIVATE KEY" {
			t.Fatal(err)
		}
		cs := certs(t, k.Chain)
		key := p.(*ecdsa.PrivateKey)
		if key.Curve != elliptic.P256() || !key.PublicKey.Equal(cs[0].PublicKey) || cs[0].CheckSignatureFrom(cs[1]) != nil {
			t.Error("key, certificate and issuer do not belong together")
		}
		return key, cs
	}
	k1, c := get(map[string]any{"subject": "a.test", "alt_names": []string{"one.test", "two.test", "127.0.0.1"}, "usage_ra_tls": true, "usage_server_auth": true})
	leaf := c[0]
	if leaf.Subject.CommonName != "a.test" || len(leaf.DNSNames) != 2 || leaf.DNSNames[1] != "two.test" || len(leaf.IPAddresses) != 1 ||
		len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("leaf %v %v %v", leaf.Subject, leaf.DNSNames, leaf.ExtKeyUsage)
	}
	if string(extension(t, leaf, 3)) != string(unhex(t, goldenApp)) || string(extension(t, leaf, 4)) != "app:custom" {
		t.Error("APP_ID or CERT_USAGE")
	}
	want := sha512.Sum512(append([]byte("ratls-cert:"), leaf.RawSubjectPublicKeyInfo...))
	if att := readAttestation(t, extension(t, leaf, 8)); !bytes.Equal(att.reportData, want[:]) || !bytes.Equal(att.quote[568:632], want[:]) {
		t.Error("the evidence does not bind the key")
	}
	k2, c := get(map[string]any{"subject": "b.test", "usage_client_auth": true, "usage_server_auth": true, "not_before": 1700000000, "not_after": 1900000000})
	if k2.Equal(k1) || len(c[0].ExtKeyUsage) != 2 || c[0].NotBefore.Unix() != 1700000000 || c[0].NotAfter.Unix() != 1900000000 || extension(t, c[0], 8) != nil || len(c[0].DNSNames) != 0 {
		t.Errorf("second: %+v", c[0].Subject)
	}
	var d, e struct {
		Key   string   `json:"key"`
		Chain []string `json:"certificate_chain"`
	}
	legacy := filepath.Join(filepath.Dir(sock), "tappd.sock")
	ask(t, legacy, "/prpc/Tappd.DeriveKey?json", map[string]any{"path": "p", "subject": "s"}, &d)
	ask(t, legacy, "/prpc/Tappd.DeriveKey?json", map[string]any{"path": "p", "random_seed": true}, &e)
	b, _ := pem.Decode([]byte(d.Key))
	p, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := p.(*ecdsa.PrivateKey).ECDH()
	if err != nil || !bytes.Equal(scalar.Bytes(), derive(t, appKey(t), "p")) || scalar.Curve() != ecdh.P256() || e.Key == d.Key {
		t.Errorf("DeriveKey: %v", err)
	}
}

func TestGoQuote(t *testing.T) {
	sock := filepath.Join(simulator(t), "dstack.sock")
	var q struct {
		Quote       string  `json:"quote"`
		EventLog    string  `json:"event_log"`
		ReportData  string  `json:"report_data"`
		VMConfig    *string `json:"vm_config"`
		Attestation string  `json:"attestation"`
	}
	ask(t, sock, "/GetQuote", map[string]string{"report_data": "0x0x" + hex.EncodeToString([]byte("test"))}, &q)
	want := append([]byte("test"), make([]byte, 60)...)
	quote := unhex(t, q.Quote)
	var events []map[string]any
	if !bytes.Equal(quote[568:632], want) || !bytes.Equal(unhex(t, q.ReportData), want) || json.Unmarshal([]byte(q.EventLog), &events) != nil || len(events) != 33 || q.VMConfig == nil {
		t.Errorf("GetQuote: %d events", len(events))
	}
	if hex.EncodeToString(quote[48+136:48+184]) != goldenMRTD || hex.EncodeToString(quote[48+472:48+520]) != goldenRTMR3 {
		t.Error("registers")
	}
	v1 := readAttestation(t, unhex(t, q.Attestation))
	if v1.version != 1 || !bytes.Equal(v1.quote, quote) || !bytes.Equal(v1.reportData, want) {
		t.Errorf("attestation of GetQuote: V%d", v1.version)
	}
	var a struct{ Attestation string }
	ask(t, sock, "/Attest", map[string]string{"report_data": hex.EncodeToString(want)}, &a)
	v0 := readAttestation(t, unhex(t, a.Attestation))
	if v0.version != 0 || !bytes.Equal(v0.quote, quote) || !bytes.Equal(v0.reportData, want) || v0.events != v1.events || v0.events != 9 {
		t.Errorf("Attest: V%d, %d and %d events", v0.version, v0.events, v1.events)
	}
}
