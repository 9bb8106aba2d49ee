package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/seen"
)

// Cache remembers which signatures were good, by the exact bytes of all that a
// signature's worth depends on. It never remembers a verdict: roots, time, policy,
// revocation and TCB levels are judged on every call. Only what was found under an
// admitted root enters; what failed never does. Another collateral for a processor
// model replaces the old one and drops every host. The nil Cache remembers
// nothing. It is safe for concurrent use.
type Cache struct {
	issuers *seen.Cache[*issuers]  // by the PEM of CA and root
	hosts   *seen.Cache[*host]     // by the PEM of the leaf, and its issuers
	reports *seen.Cache[struct{}]  // QE reports, by the sha256 of the key that signed them, report and signature
	sets    *seen.Cache[*endorsed] // the newest collateral, by issuers and FMSPC
}

// maxModels bounds how many CAs, and how many processor models under them, are
// remembered.
const maxModels = 64

// NewCache makes a cache for at most hosts machines (their certificates, and as
// many QE reports: about 4 KiB together), and 64 processor models' collateral.
func NewCache(hosts int) *Cache {
	return &Cache{
		issuers: seen.New[*issuers](maxModels), hosts: seen.New[*host](hosts),
		reports: seen.New[struct{}](hosts), sets: seen.New[*endorsed](maxModels),
	}
}

// Hosts is the number of machines that are remembered.
func (c *Cache) Hosts() int { return c.hosts.Len() }

// issuers are the CA and root of a PCK chain.
type issuers struct {
	ca, root *x509.Certificate
	spki     [32]byte // sha256 of the root's SubjectPublicKeyInfo
	id       [32]byte // sha256 of the PEM of both
}

func parseIssuers(text []byte) (*issuers, error) {
	chain, err := collateral.ParseChain(text, 2)
	if err != nil {
		return nil, err
	}
	// TDX runs on platforms of several processor packages, which the Platform CA
	// certifies; the Processor CA is for those that have no TDX.
	if cn := chain[0].Subject.CommonName; cn != cnPlatformCA {
		return nil, refuse("PCK issuer %q, want %q: no other certifies TDX platforms", cn, cnPlatformCA)
	}
	if cn := chain[1].Subject.CommonName; cn != cnRoot {
		return nil, refuse("root %q, want %q", cn, cnRoot)
	}
	return &issuers{ca: chain[0], root: chain[1], spki: collateral.SPKIHash(chain[1]), id: sha256.Sum256(text)}, nil
}

// check verifies both certificates' signatures and constraints.
func (i *issuers) check() error {
	if err := collateral.CheckIssued(i.ca, i.root, 1); err != nil {
		return err
	}
	return checkRoot(i.root, 2)
}

// checkRoot verifies that a root signed itself: else bits of it would not count.
// Intel's own is known byte for byte.
func checkRoot(root *x509.Certificate, place int) error {
	if sha256.Sum256(root.Raw) == intelRoot() {
		return nil
	}
	return collateral.CheckIssued(root, root, place)
}

// intelRoot is the sha256 of the certificate "Intel SGX Root CA" (serial
// 22650cd65a9d3489f383b49552bf501b392706ac).
func intelRoot() [32]byte {
	return [32]byte{
		0x44, 0xa0, 0x19, 0x6b, 0x2b, 0x99, 0xf8, 0x89, 0xb8, 0xe1, 0x49, 0xe9, 0x5b, 0x80, 0x7a, 0x35,
		0x0e, 0x74, 0x24, 0x96, 0x43, 0x99, 0xe8, 0x85, 0xa7, 0xcb, 0xb8, 0xcc, 0xfa, 0xb6, 0x74, 0xd3,
	}
}

// host is what a PCK certificate says.
type host struct {
	pck         *PCK
	key         *ecdsa.PublicKey
	spki        []byte // the key as it is in the certificate
	serial      *big.Int
	from, until time.Time
}

func hostOf(c *x509.Certificate, pck *PCK) (*host, error) {
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, refuse("%s: its key is not of P-256", cnPCK)
	}
	return &host{pck: pck, key: key, spki: bytes.Clone(c.RawSubjectPublicKeyInfo), serial: c.SerialNumber, from: c.NotBefore, until: c.NotAfter}, nil
}

// endorsed is a set of collateral, parsed.
type endorsed struct {
	set               collateral.Set
	tcb               *collateral.TCBInfo
	qe                *collateral.QEIdentity
	tcbChain, qeChain []*x509.Certificate // signer, root
	rootCRL, pckCRL   *collateral.CRL
	marks             collateral.Floor
}

// reportID names a QE report, its signature and the host's key. The first two are of
// fixed size, so that no other three join to the same bytes.
func (h *host) reportID(q *Quote) (id [32]byte) {
	d := sha256.New()
	d.Write(q.report)
	d.Write(q.reportSig)
	d.Write(h.spki)
	d.Sum(id[:0])
	return id
}

// is reports whether e was made of these very bytes.
func (e *endorsed) is(c collateral.Set) bool {
	s := &e.set
	return bytes.Equal(s.TCBInfo, c.TCBInfo) && bytes.Equal(s.TCBInfoIssuerChain, c.TCBInfoIssuerChain) &&
		bytes.Equal(s.QEIdentity, c.QEIdentity) && bytes.Equal(s.QEIdentityIssuerChain, c.QEIdentityIssuerChain) &&
		bytes.Equal(s.RootCRL, c.RootCRL) && bytes.Equal(s.PCKCRL, c.PCKCRL)
}

func parseSet(c collateral.Set, root *x509.Certificate) (e *endorsed, err error) {
	e = &endorsed{set: c}
	if e.tcb, err = collateral.ParseTCBInfo(c.TCBInfo); err != nil {
		return nil, err
	}
	if e.qe, err = collateral.ParseQEIdentity(c.QEIdentity); err != nil {
		return nil, err
	}
	if e.tcbChain, err = collateral.ParseChain(c.TCBInfoIssuerChain, 2, root); err != nil {
		return nil, err
	}
	if e.qeChain = e.tcbChain; !bytes.Equal(c.QEIdentityIssuerChain, c.TCBInfoIssuerChain) {
		if e.qeChain, err = collateral.ParseChain(c.QEIdentityIssuerChain, 2, root, e.tcbChain[0]); err != nil {
			return nil, err
		}
	}
	if e.rootCRL, err = collateral.ParseCRL(c.RootCRL); err != nil {
		return nil, err
	}
	if e.pckCRL, err = collateral.ParseCRL(c.PCKCRL); err != nil {
		return nil, err
	}
	if !e.rootCRL.Numbered() || !e.pckCRL.Numbered() {
		return nil, refuse("a revocation list without number or authority key id")
	}
	e.marks = collateral.MarksOf(root, e.tcb, e.qe, e.rootCRL, e.pckCRL)
	return e, nil
}

// remember keeps a set for good, in memory of its own: the caller's may change.
// One that takes the place of another drops every host, and remember says so.
func (c *Cache) remember(e *endorsed, i *issuers) (dropped bool) {
	if c.sets == nil {
		return false
	}
	s := e.set
	kept := *e
	kept.set = collateral.Set{
		TCBInfo: bytes.Clone(s.TCBInfo), TCBInfoIssuerChain: bytes.Clone(s.TCBInfoIssuerChain), QEIdentity: bytes.Clone(s.QEIdentity),
		QEIdentityIssuerChain: bytes.Clone(s.QEIdentityIssuerChain), RootCRL: bytes.Clone(s.RootCRL), PCKCRL: bytes.Clone(s.PCKCRL),
	}
	if _, dropped = c.sets.Get(i.id[:], e.tcb.FMSPC[:]); dropped {
		c.issuers.Drop()
		c.hosts.Drop()
		c.reports.Drop()
	}
	c.sets.Put(&kept, i.id[:], e.tcb.FMSPC[:])
	return dropped
}
