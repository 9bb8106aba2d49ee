package tdx_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
)

type item struct {
	ID    asn1.ObjectIdentifier
	Value any
}

func oid(n ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, n...)
}

// sgxItems are those of a sound PCK certificate; tcbItems those of its second.
func sgxItems() []item {
	return []item{{oid(1), make([]byte, 16)}, {oid(2), tcbItems()}, {oid(3), []byte{0, 0}}, {oid(4), []byte{1, 2, 3, 4, 5, 6}}, {oid(5), asn1.Enumerated(1)}}
}

func tcbItems() []item {
	var out []item
	for i := range 17 {
		out = append(out, item{oid(2, i+1), i})
	}
	return append(out, item{oid(2, 18), make([]byte, 16)})
}

// leafCert is a certificate that is signed by nobody who counts: what is read
// before the chain is verified.
func leafCert(t testing.TB, cn string, ext ...pkix.Extension) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, NotAfter: time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC), ExtraExtensions: ext}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// withCert puts another certificate at a place of the quote's chain and mends the
// lengths around it.
func withCert(t testing.TB, raw []byte, place int, cert []byte) []byte {
	t.Helper()
	const begin = "-----BEGIN"
	at := bytes.Index(raw, []byte(begin))
	parts := bytes.Split(raw[at+len(begin):], []byte(begin))
	for i := range parts {
		parts[i] = append([]byte(begin), parts[i]...)
	}
	old := len(raw) - at
	parts[place] = cert
	chain := bytes.Join(parts, nil)
	out := append(bytes.Clone(raw[:at]), chain...)
	for _, f := range []int{48 + 584, 48 + 584 + 4 + 130, at - 4} {
		binary.LittleEndian.PutUint32(out[f:], binary.LittleEndian.Uint32(out[f:])-uint32(old)+uint32(len(chain))) //nolint:gosec // small
	}
	return out
}

func extension(t testing.TB, v any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oid(), Value: der}
}

func TestPCKRefusals(t *testing.T) {
	_, raw := quote(t, simtee.Config{})
	const cn = "Intel SGX PCK Certificate"
	edited := func(fn func([]item) []item) []pkix.Extension { return []pkix.Extension{extension(t, fn(sgxItems()))} }
	set := func(i int, v any) []pkix.Extension {
		return edited(func(l []item) []item { l[i].Value = v; return l })
	}
	tcb := func(fn func([]item) []item) []pkix.Extension { return set(1, fn(tcbItems())) }
	tcbSet := func(i int, v any) []pkix.Extension {
		return tcb(func(l []item) []item { l[i].Value = v; return l })
	}
	drop := func(i int) []pkix.Extension {
		return edited(func(l []item) []item { return slices.Delete(l, i, i+1) })
	}
	der := func(b ...byte) asn1.RawValue { return asn1.RawValue{FullBytes: b} }
	trailing := extension(t, sgxItems())
	trailing.Value = append(trailing.Value, 5, 0)
	for _, tc := range []struct {
		name, words string
		ext         []pkix.Extension
	}{
		{"sound", "", edited(func(l []item) []item { return l })},
		{"unknown item", "", edited(func(l []item) []item { return append(l, item{oid(9), 1}) })},
		{"no extension", "without a readable", nil},
		{"not a sequence", "without a readable", []pkix.Extension{{Id: oid(), Value: []byte{4, 1, 0}}}},
		{"bytes after it", "without a readable", []pkix.Extension{trailing}},
		{"item twice", "repeats", edited(func(l []item) []item { return append(l, l[3]) })},
		{"unknown item twice", "repeats", edited(func(l []item) []item { return append(l, item{oid(9), 1}, item{oid(9), 1}) })},
		{"no PPID", "without 1.2.840.113741.1.13.1.1", drop(0)}, {"no TCB", "13.1.2", drop(1)}, {"no PCEID", "13.1.3", drop(2)},
		{"no FMSPC", "13.1.4", drop(3)}, {"no SGX type", "13.1.5", drop(4)},
		{"short PPID", "octet string of 16", set(0, make([]byte, 15))}, {"long PCEID", "octet string of 2", set(2, make([]byte, 3))},
		{"short FMSPC", "octet string of 6", set(3, make([]byte, 5))}, {"FMSPC is a number", "octet string of 6", set(3, 1)},
		{"TCB of 17", "18 items", tcb(func(l []item) []item { return l[:17] })},
		{"TCB of 19", "18 items", tcb(func(l []item) []item { return append(l, item{oid(2, 19), 1}) })},
		{"TCB is a number", "18 items", set(1, 7)},
		{"TCB out of order", "TCB item 0", tcb(func(l []item) []item { l[0], l[1] = l[1], l[0]; return l })},
		{"component 256", "item 3 out of range", tcbSet(3, 256)}, {"component -1", "item 3 out of range", tcbSet(3, -1)},
		{"component is octets", "item 3 out of range", tcbSet(3, []byte{1})},
		{"PCE SVN 65536", "item 16 out of range", tcbSet(16, 65536)}, {"PCE SVN -1", "item 16 out of range", tcbSet(16, -1)},
		{"component of two bytes", "item 3 out of range", tcbSet(3, der(2, 2, 0, 16))}, {"component of no bytes", "item 3 out of range", tcbSet(3, der(2, 0))},
		{"length of two bytes", "without a readable", set(2, der(4, 0x81, 2, 0, 0))}, {"length of any", "without a readable", set(2, der(4, 0x80, 0, 0))},
		{"octets in pieces", "octet string of 2", set(2, der(0x24, 4, 4, 2, 0, 0))},
		{"item of three", "without a readable", edited(func(l []item) []item {
			return append(l, item{oid(9), der(5, 0, 5, 0)})
		})},
		{"item of another arc", "without a readable", edited(func(l []item) []item { return append(l, item{asn1.ObjectIdentifier{1, 2, 3}, 1}) })},
		{"item of a deeper arc", "without a readable", edited(func(l []item) []item { return append(l, item{oid(9, 1), 1}) })},
		{"item of a large arc", "without a readable", edited(func(l []item) []item { return append(l, item{oid(128), 1}) })},
		{"TCB item of another arc", "TCB item 2", tcb(func(l []item) []item { l[2].ID = oid(3, 3); return l })},
		{"short CPU SVN", "octet string of 16", tcbSet(17, make([]byte, 15))},
	} {
		fmspc, _, err := tdx.FMSPC(withCert(t, raw, 0, leafCert(t, cn, tc.ext...)))
		switch {
		case tc.words == "" && (err != nil || fmspc != [6]byte{1, 2, 3, 4, 5, 6}):
			t.Errorf("%s: %x %v", tc.name, fmspc, err)
		case tc.words != "" && (err == nil || !strings.Contains(err.Error(), tc.words)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.words)
		}
	}
	sound := extension(t, sgxItems())
	for _, tc := range []struct {
		name, words string
		place       int
		cert        []byte
	}{
		{"leaf of another name", "certificate of", 0, leafCert(t, "Intel SGX PCK Certificata", sound)},
		{"CA of another name", "PCK issuer", 1, leafCert(t, "Intel SGX PCK Service CA")},
		{"Processor CA", "no other certifies TDX", 1, leafCert(t, "Intel SGX PCK Processor CA")},
		{"root of another name", "root \"Intel SGX Root CB\"", 2, append(leafCert(t, "Intel SGX Root CB"), 0)},
		{"no certificate", "want 2", 0, []byte("-----BEGIN NOTHING\n")},
		{"no line end between certificates", "one after another", 0, bytes.TrimSpace(leafCert(t, cn, sound))},
	} {
		if _, _, err := tdx.FMSPC(withCert(t, raw, tc.place, tc.cert)); err == nil || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.words)
		}
	}
	if _, _, err := tdx.FMSPC(raw[:100]); err == nil {
		t.Error("FMSPC of a cut quote")
	}
}

// Every length of a quote must agree with its container, in both directions.
func TestQuoteLengths(t *testing.T) {
	_, v4 := quote(t, simtee.Config{})
	const body, data = 48, 48 + 584 + 4
	le32 := binary.LittleEndian.PutUint32
	as5 := func(typ uint16, size uint32) []byte { // the same TD 1.0 body in a version 5 quote
		head := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(bytes.Clone(v4[:body]), typ), size)
		head[0] = 5
		return append(head, v4[body:]...)
	}
	if _, err := tdx.ParseQuote(as5(2, 584)); err != nil {
		t.Fatal(err)
	}
	edited := func(fn func(q []byte)) []byte { q := bytes.Clone(v4); fn(q); return q }
	for _, tc := range []struct {
		name, words string
		q           []byte
	}{
		{"empty", "truncated", nil}, {"half a header", "truncated", v4[:40]}, {"no body", "truncated body", v4[:48]},
		{"half a body", "truncated body", v4[:600]}, {"no signature data", "signature data is missing", v4[:632]},
		{"half the signature data", "longer than the quote", v4[:700]},
		{"body type 3 of 584", "body type 3", as5(3, 584)}, {"body type 2 of 648", "body type 2", as5(2, 648)},
		{"body type 4", "body type 4", as5(4, 648)}, {"body type 1", "body type 1", as5(1, 384)},
		{"signature data of 0", "missing", edited(func(q []byte) { le32(q[data-4:], 0) })},
		{"signature data of 100", "truncated signature", append(edited(func(q []byte) { le32(q[data-4:], 100) })[:data+100], 0)},
		{"signature data of 4 GiB", "longer", edited(func(q []byte) { le32(q[data-4:], 0xffffffff) })},
		{"signature data one short", "after the quote", append(edited(func(q []byte) { le32(q[data-4:], binary.LittleEndian.Uint32(q[data-4:])-1) }), 1)},
		{"certification data one short", "certification data of", edited(func(q []byte) { q[data+130]-- })},
		{"certification data one long", "certification data of", edited(func(q []byte) { q[data+130]++ })},
		{"certification data of 4 GiB", "certification data of", edited(func(q []byte) { le32(q[data+130:], 0xffffffff) })},
		{"auth data of 64 KiB", "truncated certification", edited(func(q []byte) { q[data+134+448], q[data+134+449] = 0xff, 0xff })},
		{"PCK chain one short", "PCK chain of", edited(func(q []byte) { q[data+134+450+32+2]-- })},
		{"PCK chain one long", "PCK chain of", edited(func(q []byte) { q[data+134+450+32+2]++ })},
		{"inner type 6", "inner certification type 6", edited(func(q []byte) { q[data+134+450+32] = 6 })},
		{"outer type 5", "certification type 5", edited(func(q []byte) { q[data+128] = 5 })},
		{"a byte after the padding", "after the quote", append(bytes.Clone(v4), 0, 1)},
	} {
		if _, err := tdx.ParseQuote(tc.q); err == nil || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.words)
		}
	}
}
