package tdx

import (
	"bytes"
	"encoding/asn1"
	"testing"
)

// encodeSGX writes an extension of the items that are read, in their order.
func encodeSGX(t testing.TB, p *PCK, cpuSVN []byte) []byte {
	t.Helper()
	type item struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	oid := func(n ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, n...)
	}
	var tcb []item
	for i, n := range p.SGX {
		tcb = append(tcb, item{oid(2, i+1), int(n)})
	}
	tcb = append(tcb, item{oid(2, 17), int(p.PCESVN)}, item{oid(2, 18), cpuSVN})
	der, err := asn1.Marshal([]item{{oid(1), p.PPID}, {oid(2), tcb}, {oid(3), p.PCEID[:]}, {oid(4), p.FMSPC[:]}, {oid(5), asn1.Enumerated(0)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// What is accepted is what encoding/asn1 reads from the same bytes, and the known
// items re-encode to bytes that stand in it.
func FuzzSGXExtension(f *testing.F) {
	p := &PCK{PPID: bytes.Repeat([]byte{7}, 16), PCESVN: 0x8001, FMSPC: [6]byte{1, 2, 3, 0xff}}
	for i := range p.SGX {
		p.SGX[i] = uint8(i * 16) //nolint:gosec // at most 240
	}
	cpu := bytes.Repeat([]byte{9}, 16)
	seed := encodeSGX(f, p, cpu)
	if got, err := parseSGX(seed); err != nil || !bytes.Equal(encodeSGX(f, got, cpu), seed) {
		f.Fatalf("%+v %v", got, err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseSGX(b)
		if err != nil {
			return
		}
		var items []struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if rest, err := asn1.Unmarshal(b, &items); err != nil || len(rest) != 0 {
			t.Fatalf("encoding/asn1 reads no such extension: %v", err)
		}
		for _, it := range items {
			if n := it.ID[len(it.ID)-1]; n == 2 && bytes.Count(encodeSGX(t, p, it.Value.FullBytes[len(it.Value.FullBytes)-16:]), it.Value.FullBytes) != 1 {
				t.Fatal("the TCB does not re-encode")
			}
		}
	})
}
