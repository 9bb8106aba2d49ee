package tdx

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

const oidSGX = "1.2.840.113741.1.13.1"

// arcs is oidSGX in DER: what the OIDs inside of the extension begin with.
func arcs() [9]byte { return [9]byte{0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01} }

// parsePCK reads the SGX extension of a PCK certificate.
func parsePCK(c *x509.Certificate) (*PCK, error) {
	id := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	var raw []byte
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			if raw != nil {
				return nil, refuse("PCK certificate with two SGX extensions")
			}
			raw = e.Value
		}
	}
	return parseSGX(raw)
}

// parseSGX reads a DER sequence of (OID, value), in which no OID stands twice.
// Items 1 to 5 must be there; those that are not known are passed over, if their OID
// is one arc below the extension's, as all of the specification's are.
func parseSGX(raw cryptobyte.String) (*PCK, error) {
	var list cryptobyte.String
	if !raw.ReadASN1(&list, der.SEQUENCE) || !raw.Empty() {
		return nil, refuse("PCK certificate without a readable SGX extension")
	}
	p := &PCK{PPID: make([]byte, 16)}
	var seen [128]bool
	for !list.Empty() {
		id, value, ok := sgxItem(&list)
		if !ok || len(id) != 1 || id[0] >= 128 {
			return nil, refuse("PCK certificate without a readable SGX extension")
		}
		n := id[0]
		if seen[n] {
			return nil, refuse("PCK certificate repeats %s.%d", oidSGX, n)
		}
		seen[n] = true
		var err error
		switch n {
		case 1:
			err = octets(value, p.PPID)
		case 2:
			err = p.tcb(value)
		case 3:
			err = octets(value, p.PCEID[:])
		case 4:
			err = octets(value, p.FMSPC[:])
		}
		if err != nil {
			return nil, err
		}
	}
	for n := 1; n <= 5; n++ {
		if !seen[n] {
			return nil, refuse("PCK certificate without %s.%d", oidSGX, n)
		}
	}
	return p, nil
}

// sgxItem reads one (OID, value) of the extension: the OID's bytes below the
// extension's own, and the whole value.
func sgxItem(list *cryptobyte.String) (id []byte, value cryptobyte.String, ok bool) {
	var item, oid cryptobyte.String
	var tag der.Tag
	if !list.ReadASN1(&item, der.SEQUENCE) || !item.ReadASN1(&oid, der.OBJECT_IDENTIFIER) ||
		!item.ReadAnyASN1Element(&value, &tag) || !item.Empty() {
		return nil, nil, false
	}
	prefix := arcs()
	id, ok = bytes.CutPrefix(oid, prefix[:])
	return id, value, ok
}

// tcb reads the 16 component SVNs, the PCE SVN and the CPU SVN (the components
// count, as in Intel's own verifier).
func (p *PCK) tcb(v cryptobyte.String) error {
	const components, items = 16, 18
	var list cryptobyte.String
	if !v.ReadASN1(&list, der.SEQUENCE) || !v.Empty() {
		return refuse("PCK certificate: TCB is not %d items", items)
	}
	for i := range byte(items) {
		if list.Empty() {
			return refuse("PCK certificate: TCB is not %d items", items)
		}
		id, value, ok := sgxItem(&list)
		if !ok || len(id) != 2 || id[0] != 2 || id[1] != i+1 {
			return refuse("PCK certificate: TCB item %d has OID %x below %s", i, id, oidSGX)
		}
		if i == items-1 {
			if err := octets(value, make([]byte, 16)); err != nil {
				return err
			}
			break
		}
		var n int64
		if !value.ReadASN1Int64WithTag(&n, der.INTEGER) || n < 0 || n > 0xffff || i < components && n > 0xff {
			return refuse("PCK certificate: TCB item %d out of range", i)
		}
		if i == components {
			p.PCESVN = uint16(n) //nolint:gosec // checked above
		} else {
			p.SGX[i] = uint8(n) //nolint:gosec // checked above
		}
	}
	if !list.Empty() {
		return refuse("PCK certificate: TCB is not %d items", items)
	}
	return nil
}

func octets(v cryptobyte.String, dst []byte) error {
	var b cryptobyte.String
	if !v.ReadASN1(&b, der.OCTET_STRING) || !v.Empty() || len(b) != len(dst) {
		return refuse("PCK certificate: want an octet string of %d bytes", len(dst))
	}
	copy(dst, b)
	return nil
}
