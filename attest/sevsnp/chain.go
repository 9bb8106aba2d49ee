package sevsnp

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/seen"
	"github.com/confidential-cloud/phala/cvm"
)

// Cache remembers certificates and lists whose signatures were good, by their
// exact bytes. Only what stood behind a report of an admitted root enters: what
// strangers make for themselves pushes nobody out. Time, revocation and trust are
// judged on every call. The nil Cache remembers nothing. It is safe for concurrent use.
type Cache struct {
	authorities *seen.Cache[*authority]
	leaves      *seen.Cache[*Leaf]
}

// NewCache makes a cache of at most limit chips' certificates.
func NewCache(limit int) *Cache {
	return &Cache{authorities: seen.New[*authority](min(limit, 64)), leaves: seen.New[*Leaf](limit)}
}

// Chips is the number of chips whose certificates are remembered.
func (c *Cache) Chips() int { return c.leaves.Len() }

// authority is AMD's part of a chain, its signatures and names checked, and the
// revocation list of its root.
type authority struct {
	product  string
	kind     uint8 // of the keys it certifies: KeyVCEK or KeyVLEK
	ask, ark *x509.Certificate
	root     [32]byte // sha256 of the ARK's SubjectPublicKeyInfo
	id       [32]byte // sha256 of the ASK's certificate
	crl      *collateral.CRL
	crlErr   error // why the list is none of the root's; crl may then be nil
}

// readAuthority reads ASK (or ASVK) and ARK in PEM and the ARK's list. parseErr says
// that they could not be read, err that they do not hold together.
func (c *Cache) readAuthority(chainPEM, crl []byte) (a *authority, parseErr, err error) {
	if a, ok := c.authorities.Get(chainPEM, crl); ok {
		return a, nil, nil
	}
	chain, parseErr := collateral.ParseChain(chainPEM, 2)
	if parseErr != nil {
		return nil, parseErr, nil
	}
	a = &authority{ask: chain[0], ark: chain[1], root: collateral.SPKIHash(chain[1]), id: sha256.Sum256(chain[0].Raw), kind: KeyVCEK}
	if err := a.check(); err != nil {
		return nil, nil, err
	}
	if a.crl, a.crlErr = collateral.ParseCRL(crl); a.crlErr == nil {
		a.crlErr = a.crl.SignedBy(a.ark)
	}
	return a, nil, nil
}

// readLeaf reads a chip's certificate and checks that the authority issued it.
func (c *Cache) readLeaf(der []byte, a *authority) (l *Leaf, parseErr, err error) {
	if l, ok := c.leaves.Get(der, a.id[:]); ok {
		return l, nil, nil
	}
	if l, parseErr = ParseLeaf(der); parseErr != nil {
		return nil, parseErr, nil
	}
	if l.Kind != a.kind || l.Product != a.product {
		return nil, nil, refuseLeaf("%s of %s under %s", l.Cert.Subject.CommonName, l.Product, a.ask.Subject.CommonName)
	}
	if err := issued(l.Cert, a.ask, l.Cert.Subject.CommonName); err != nil {
		return nil, nil, err
	}
	return l, nil, nil
}

// remember keeps what was verified for a report that an admitted root stands behind.
func (c *Cache) remember(s *collateral.AMD, e endorsement) {
	if e.crlErr != nil {
		return
	}
	if _, ok := c.authorities.Get(s.Chain, s.CRL); !ok {
		c.authorities.Put(e.authority, s.Chain, s.CRL)
	}
	if _, ok := c.leaves.Get(s.Leaf, e.id[:]); !ok {
		c.leaves.Put(e.leaf, s.Leaf, e.id[:])
	}
}

// organization is AMD's name in every subject.
const organization = "Advanced Micro Devices"

// check holds ASK and ARK against AMD 57230.
func (a *authority) check() error {
	name, ok := strings.CutPrefix(a.ark.Subject.CommonName, "ARK-")
	for _, p := range Products() {
		if ok && p == name {
			a.product = p
		}
	}
	if a.product == "" {
		return refuseLeaf("root %.40q is of no known product", a.ark.Subject.CommonName)
	}
	ask := "SEV-" + a.product
	if a.ask.Subject.CommonName == "SEV-VLEK-"+a.product {
		ask, a.kind = "SEV-VLEK-"+a.product, KeyVLEK
	}
	for _, c := range []*x509.Certificate{a.ask, a.ark} {
		pub, ok := c.PublicKey.(*rsa.PublicKey)
		if !ok || pub.N.BitLen() != 4096 || pub.E != 65537 {
			return refuseLeaf("%s: the key is not of RSA-4096", c.Subject.CommonName)
		}
		if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return refuseLeaf("%s: is no authority", c.Subject.CommonName)
		}
	}
	if a.ask.MaxPathLen != 0 || !a.ask.MaxPathLenZero {
		return refuseLeaf("%s: may issue authorities", ask)
	}
	if err := issued(a.ask, a.ark, ask); err != nil {
		return err
	}
	return issued(a.ark, a.ark, "ARK-"+a.product)
}

// issued checks a certificate's names and that issuer signed it.
func issued(c, issuer *x509.Certificate, name string) error {
	cn := c.Subject.CommonName
	switch {
	case cn != name || len(c.Subject.Organization) != 1 || c.Subject.Organization[0] != organization:
		return refuseLeaf("of %.40q, want %s of %s", cn, name, organization)
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return refuseLeaf("%s: issued by %.40q, not by %s", cn, c.Issuer.CommonName, issuer.Subject.CommonName)
	case c.SignatureAlgorithm != x509.SHA384WithRSAPSS:
		return refuseLeaf("%s: signed with %s, want RSA-PSS with SHA-384", cn, c.SignatureAlgorithm)
	case len(c.UnhandledCriticalExtensions) != 0 || c.Version != 3:
		return refuseLeaf("%s: unknown critical extension, or version %d", cn, c.Version)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return refuseLeaf("%s: %w", cn, err)
	}
	return nil
}

// endorsement is what stands behind a report's key.
type endorsement struct {
	*authority
	leaf *Leaf
}

func (c *Cache) endorse(s *collateral.AMD) (e endorsement, parseErr, err error) {
	if s == nil {
		return e, cvm.Errorf(cvm.Invalid, "AMD's certificates and revocation list are missing"), nil
	}
	if e.authority, parseErr, err = c.readAuthority(s.Chain, s.CRL); parseErr != nil || err != nil {
		return e, parseErr, err
	}
	e.leaf, parseErr, err = c.readLeaf(s.Leaf, e.authority)
	return e, parseErr, err
}

// valid checks the time of all three certificates, and gives the earliest end.
func (e endorsement) valid(at time.Time) (until time.Time, err error) {
	for _, c := range []*x509.Certificate{e.leaf.Cert, e.ask, e.ark} {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return until, refuseLeaf("%s: valid %s to %s", c.Subject.CommonName, c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
		}
		if until.IsZero() || c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return until, nil
}
