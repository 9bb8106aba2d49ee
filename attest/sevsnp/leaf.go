package sevsnp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Leaf is what AMD certified about one signing key.
type Leaf struct {
	Cert     *x509.Certificate
	Key      *ecdsa.PublicKey // P-384
	Kind     uint8            // KeyVCEK or KeyVLEK
	Product  string
	Stepping string // "B1"; VCEK only
	TCB      TCB
	HWID     []byte // of a VCEK: 64 bytes, Turin 8
	CSP      string // of a VLEK: the cloud provider
}

// oidAMD is the arc of AMD's extensions (AMD 57230).
const oidAMD = "1.3.6.1.4.1.3704.1."

// The extensions, relative to oidAMD.
const (
	extStruct    = "1"
	extProduct   = "2"
	extBoot      = "3.1"
	extTEE       = "3.2"
	extSNP       = "3.3"
	extMicrocode = "3.8"
	extFMC       = "3.9" // Turin only
	extHWID      = "4"
	extCSP       = "5"
)

// reservedSPL are levels that no product uses: zero.
func reservedSPL() []string { return []string{"3.4", "3.5", "3.6", "3.7"} }

const (
	oidAuthorityKey = "2.5.29.35"
	maxCert         = 8 << 10 // bytes
	maxCSP          = 256     // bytes
)

func refuseLeaf(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "certificate: "+format, args...)
}

// ParseLeaf reads a VCEK or VLEK certificate (DER). Every extension must be one that
// AMD 57230 lists for its kind and product, once. Signatures are not checked.
func ParseLeaf(der []byte) (*Leaf, error) {
	if len(der) == 0 || len(der) > maxCert {
		return nil, refuseLeaf("%d bytes, want 1 to %d", len(der), maxCert)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuseLeaf("%w", err)
	}
	l := &Leaf{Cert: c}
	pub, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P384() {
		return nil, refuseLeaf("the key is not of P-384")
	}
	l.Key = pub
	switch c.Subject.CommonName {
	case "SEV-VCEK":
		l.Kind = KeyVCEK
	case "SEV-VLEK":
		l.Kind = KeyVLEK
	default:
		return nil, refuseLeaf("of %.40q, want SEV-VCEK or SEV-VLEK", c.Subject.CommonName)
	}
	exts, err := extensions(c)
	if err != nil {
		return nil, err
	}
	if err := l.read(exts); err != nil {
		return nil, err
	}
	for name := range exts {
		return nil, refuseLeaf("extension %s%s has no place in a certificate of %s", oidAMD, name, l.Product)
	}
	return l, nil
}

// extensions gathers AMD's. Of others only the authority key id may stand beside them.
func extensions(c *x509.Certificate) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, e := range c.Extensions {
		id := e.Id.String()
		if id == oidAuthorityKey {
			continue
		}
		name, ok := strings.CutPrefix(id, oidAMD)
		if !ok || e.Critical {
			return nil, refuseLeaf("unexpected extension %s", id)
		}
		if _, again := out[name]; again {
			return nil, refuseLeaf("extension %s appears twice", id)
		}
		out[name] = e.Value
	}
	return out, nil
}

// read takes the extensions that belong to the certificate out of exts.
func (l *Leaf) read(exts map[string][]byte) error {
	take := func(name string) []byte {
		v := exts[name]
		delete(exts, name)
		return v
	}
	if _, err := small(take(extStruct), 1); err != nil {
		return refuseLeaf("structVersion: %w", err)
	}
	name, err := ia5(take(extProduct))
	if err != nil {
		return refuseLeaf("productName: %w", err)
	}
	if err := l.product(name); err != nil {
		return err
	}
	if err := l.levels(take, exts); err != nil {
		return err
	}
	if l.Kind == KeyVLEK {
		if l.CSP, err = ia5(take(extCSP)); err != nil || l.CSP == "" || len(l.CSP) > maxCSP {
			return refuseLeaf("a VLEK without a cloud provider's id")
		}
		return nil
	}
	l.HWID, err = hwid(take(extHWID), HWIDSize(l.Product))
	return err
}

// product splits "Milan-B0"; a VLEK has no stepping.
func (l *Leaf) product(name string) error {
	line, stepping, has := strings.Cut(name, "-")
	for _, p := range Products() {
		if p == line {
			l.Product, l.Stepping = p, stepping
		}
	}
	good := len(stepping) == 2 && stepping[0] >= 'A' && stepping[0] <= 'Z' && stepping[1] >= '0' && stepping[1] <= '9'
	if l.Product == "" || has != good || has != (l.Kind == KeyVCEK) {
		return refuseLeaf("product %.40q is unknown", name)
	}
	return nil
}

// levels reads the TCB. The reserved levels are zero; Turin's certificates may
// leave them out and have one of their own.
func (l *Leaf) levels(take func(string) []byte, exts map[string][]byte) error {
	turin := l.Product == Turin
	for _, n := range reservedSPL() {
		if _, ok := exts[n]; !ok && turin {
			continue
		}
		if _, err := small(take(n), 0); err != nil {
			return refuseLeaf("reserved level %s: %w", n, err)
		}
	}
	parts := []struct {
		name string
		max  int
		dst  *uint8
	}{{extBoot, 127, &l.TCB.BootLoader}, {extTEE, 127, &l.TCB.TEE}, {extSNP, 127, &l.TCB.SNP}, {extMicrocode, 255, &l.TCB.Microcode}}
	if turin {
		parts = append(parts, struct {
			name string
			max  int
			dst  *uint8
		}{extFMC, 127, &l.TCB.FMC})
	}
	for _, p := range parts {
		n, err := small(take(p.name), p.max)
		if err != nil {
			return refuseLeaf("level %s: %w", p.name, err)
		}
		*p.dst = n
	}
	return nil
}

// small reads a DER INTEGER from 0 to most.
func small(der []byte, most int) (uint8, error) {
	var n int
	if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) != 0 || n < 0 || n > most {
		return 0, cvm.Errorf(cvm.Invalid, "want an integer from 0 to %d", most)
	}
	return uint8(n), nil //nolint:gosec // at most 255
}

// ia5 reads a DER IA5String.
func ia5(der []byte) (string, error) {
	var v asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) != 0 || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagIA5String || v.IsCompound {
		return "", cvm.Errorf(cvm.Invalid, "want an IA5String")
	}
	for _, c := range v.Bytes {
		if c < 0x20 || c > 0x7e {
			return "", cvm.Errorf(cvm.Invalid, "want printable characters")
		}
	}
	return string(v.Bytes), nil
}

// hwid reads a chip id: the bare bytes (as KDS writes it) or a DER OCTET STRING.
func hwid(v []byte, size int) ([]byte, error) {
	if len(v) == size+2 && v[0] == asn1.TagOctetString && int(v[1]) == size {
		v = v[2:]
	}
	if len(v) != size {
		return nil, refuseLeaf("a chip id of %d bytes, want %d", len(v), size)
	}
	return bytes.Clone(v), nil
}
