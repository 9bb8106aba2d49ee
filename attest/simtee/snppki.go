package simtee

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/sevsnp"
)

// authorityKey is the ARK, the ASK or the ASVK.
type authorityKey struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

// amdName is a subject as AMD writes it, marked as simulated.
func amdName(cn string) pkix.Name {
	return pkix.Name{CommonName: cn, Organization: []string{"Advanced Micro Devices"}, OrganizationalUnit: []string{"Engineering"},
		Country: []string{"US"}, Locality: []string{"Santa Clara"}, Province: []string{"CA"}, SerialNumber: organization}
}

// authority makes a key and its certificate; without an issuer it signs itself.
func (a *AMD) authority(cn string, issuer *authorityKey) (*authorityKey, error) {
	sound := a.cfg.Faults.Root == nil && a.cfg.Faults.Issuer == nil
	if k := a.ring.certified(cn); k != nil && sound {
		return k, nil
	}
	key, err := a.ring.key(a.seed, cn)
	if err != nil {
		return nil, err
	}
	t := amdTemplate(cn, key.N.Bytes())
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	t.CRLDistributionPoints = []string{"https://kdsintf.amd.com/vcek/v1/" + a.cfg.Product + "/crl"}
	own, edit := &authorityKey{key: key}, a.cfg.Faults.Issuer
	if issuer == nil {
		t.KeyUsage |= x509.KeyUsageCRLSign
		issuer, edit = own, a.cfg.Faults.Root
	} else {
		t.MaxPathLenZero = true
	}
	if edit != nil {
		edit(t)
	}
	parent := issuer.cert
	if issuer == own {
		parent = t
	}
	der, err := x509.CreateCertificate(nil, t, parent, &key.PublicKey, repeatable{issuer.key})
	if err != nil {
		return nil, err
	}
	if own.cert, err = x509.ParseCertificate(der); err == nil && sound {
		a.ring.keep(cn, own)
	}
	return own, err
}

func amdTemplate(cn string, public []byte) *x509.Certificate {
	id := sha256.Sum256(public)
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(id[:16]), Subject: amdName(cn), SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC),
		SubjectKeyId: id[:20],
	}
}

// leafKey is the key of the chip at a TCB, or of the cloud provider.
func (a *AMD) leafKey(t sevsnp.TCB) (*ecdsa.PrivateKey, error) {
	label := fmt.Sprintf("amd:vcek:%s:%x:%x", a.cfg.Product, a.chip, t.Value(a.cfg.Product))
	if a.cfg.VLEK != "" {
		label = fmt.Sprintf("amd:vlek:%s:%s:%x", a.cfg.Product, a.cfg.VLEK, t.Value(a.cfg.Product))
	}
	const size = 48
	b, err := hkdf.Key(sha256.New, a.seed, []byte("phala-simtee:v1"), label, 8*size)
	if err != nil {
		return nil, err
	}
	for c := range slices.Chunk(b, size) {
		if k, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), c); err == nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("no valid key for %s", label)
}

// certificates are the leaf for the platform's TCB (DER) and its issuer.
func (a *AMD) certificates() (leaf []byte, issuer *authorityKey, err error) {
	tcb := a.tcb()
	if a.cfg.Faults.OtherTCB {
		tcb.Microcode--
	}
	leaf, err = a.leaf(tcb)
	if err != nil {
		return nil, nil, err
	}
	issuer, err = a.issuer()
	return leaf, issuer, err
}

func (a *AMD) issuer() (*authorityKey, error) {
	if a.cfg.VLEK != "" {
		return a.asvk()
	}
	return a.ask, nil
}

// leaf certifies the key of the platform's own TCB for tcb (the two differ only by
// a fault).
func (a *AMD) leaf(tcb sevsnp.TCB) ([]byte, error) {
	at := tcb
	if a.cfg.Faults.OtherTCB {
		at = a.tcb()
	}
	key, err := a.leafKey(at)
	if err != nil {
		return nil, err
	}
	issuer, err := a.issuer()
	if err != nil {
		return nil, err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	cn := "SEV-VCEK"
	if a.cfg.VLEK != "" {
		cn = "SEV-VLEK"
	}
	t := amdTemplate(cn, public)
	t.SubjectKeyId = nil
	if t.ExtraExtensions, err = a.leafExtensions(tcb); err != nil {
		return nil, err
	}
	if a.cfg.Faults.Leaf != nil {
		a.cfg.Faults.Leaf(t)
	}
	return x509.CreateCertificate(nil, t, issuer.cert, &key.PublicKey, repeatable{issuer.key})
}

// leafExtensions are AMD's, as its service writes them: the chip id stands bare.
func (a *AMD) leafExtensions(tcb sevsnp.TCB) ([]pkix.Extension, error) {
	turin := a.cfg.Product == sevsnp.Turin
	product, structure := a.cfg.Product+"-B1", 0
	if a.cfg.VLEK != "" {
		product = a.cfg.Product
	}
	if turin {
		structure = 1
	}
	type part struct {
		value any
		oid   []int
	}
	parts := []part{{structure, []int{1}}, {tcb.BootLoader, []int{3, 1}}, {tcb.TEE, []int{3, 2}}, {tcb.SNP, []int{3, 3}}, {tcb.Microcode, []int{3, 8}}}
	if turin {
		parts = append(parts, part{tcb.FMC, []int{3, 9}})
	} else {
		parts = append(parts, part{0, []int{3, 4}}, part{0, []int{3, 5}}, part{0, []int{3, 6}}, part{0, []int{3, 7}})
	}
	var out []pkix.Extension
	add := func(value []byte, oid ...int) {
		out = append(out, pkix.Extension{Id: append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, oid...), Value: value})
	}
	for _, p := range parts {
		n, _ := p.value.(int)
		if b, ok := p.value.(uint8); ok {
			n = int(b)
		}
		der, err := asn1.Marshal(n)
		if err != nil {
			return nil, err
		}
		add(der, p.oid...)
	}
	ia5 := func(s string, oid ...int) error {
		der, err := asn1.MarshalWithParams(s, "ia5")
		add(der, oid...)
		return err
	}
	if err := ia5(product, 2); err != nil {
		return nil, err
	}
	if a.cfg.VLEK != "" {
		return out, ia5(a.cfg.VLEK, 5)
	}
	chip := a.chip
	if a.cfg.Faults.OtherChip {
		chip[0] ^= 1
	}
	add(chip[:sevsnp.HWIDSize(a.cfg.Product)], 4)
	return out, nil
}

func (a *AMD) chain(issuer *authorityKey) []byte {
	var out []byte
	for _, c := range []*x509.Certificate{issuer.cert, a.ark.cert} {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// revocationList is the root's list: minted to the hour, valid for a year as AMD's.
func (a *AMD) revocationList(at time.Time, issuer *authorityKey) ([]byte, error) {
	const year = 365 * 24 * time.Hour
	f := a.cfg.Faults
	from := at.UTC().Truncate(time.Hour).Add(-time.Hour)
	switch {
	case f.Expired:
		from = from.Add(-year - 24*time.Hour)
	case f.Future:
		from = from.Add(26 * time.Hour)
	}
	t := &x509.RevocationList{Number: big.NewInt(from.Unix()), ThisUpdate: from, NextUpdate: from.Add(year), SignatureAlgorithm: x509.SHA384WithRSAPSS}
	revoke := func(serial *big.Int) {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: from})
	}
	if f.RevokeASK {
		revoke(issuer.cert.SerialNumber)
	}
	if f.RevokeLeaf {
		der, _, err := a.certificates()
		if err != nil {
			return nil, err
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		revoke(leaf.SerialNumber)
	}
	signer := a.ark
	if f.OtherList {
		// The root's name over another key's signature.
		signer = &authorityKey{key: issuer.key, cert: a.ark.cert}
		return forgedList(t, signer)
	}
	return x509.CreateRevocationList(nil, t, signer.cert, repeatable{signer.key})
}

// forgedList signs a list in the name of a certificate whose key is another: the
// library refuses to, so that the certificate is copied with the false key in it.
func forgedList(t *x509.RevocationList, signer *authorityKey) ([]byte, error) {
	c := *signer.cert
	c.PublicKey = &signer.key.PublicKey
	return x509.CreateRevocationList(nil, t, &c, repeatable{signer.key})
}
