package sevsnp

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// Memory remembers that signatures over exact bytes were good, so that they need
// not be checked again. What it holds was put there by Verify. nil remembers nothing.
type Memory interface {
	Get(key [32]byte) any
	Put(key [32]byte, v any)
}

// endorsement is a chain whose signatures and names are good, and the revocation
// list of its root, signed by it. Time, revocation and trust in the root are not judged.
type endorsement struct {
	leaf     *Leaf
	ask, ark *x509.Certificate
	root     [32]byte // sha256 of the ARK's SubjectPublicKeyInfo
	crl      *collateral.CRL
	crlErr   error
}

// endorse parses AMD's statements and checks their signatures. parseErr says that
// they could not be read, err that they do not hold together.
func endorse(c *collateral.AMD, m Memory) (e *endorsement, parseErr, err error) {
	if c == nil {
		return nil, cvm.Errorf(cvm.Invalid, "AMD's certificates and revocation list are missing"), nil
	}
	key := identity(c.Leaf, c.Chain, c.CRL)
	if m != nil {
		if e, ok := m.Get(key).(*endorsement); ok {
			return e, nil, nil
		}
	}
	e = &endorsement{}
	if e.leaf, parseErr = ParseLeaf(c.Leaf); parseErr != nil {
		return nil, parseErr, nil
	}
	chain, parseErr := collateral.ParseChain(c.Chain, 2)
	if parseErr != nil {
		return nil, parseErr, nil
	}
	if e.crl, parseErr = collateral.ParseCRL(c.CRL); parseErr != nil {
		return nil, parseErr, nil
	}
	e.ask, e.ark = chain[0], chain[1]
	e.root = collateral.SPKIHash(e.ark)
	if err := e.check(); err != nil {
		return nil, nil, err
	}
	if e.crlErr = e.crl.SignedBy(e.ark); e.crlErr == nil && m != nil {
		m.Put(key, e)
	}
	return e, nil, nil
}

// identity is a hash over parts that no other parts share.
func identity(parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("phala-snp-endorsement:v1"))
	for _, p := range parts {
		sum := sha256.Sum256(p)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// organization is AMD's name in every subject.
const organization = "Advanced Micro Devices"

// check holds the three certificates against AMD 57230: names, kinds of keys,
// constraints, signatures.
func (e *endorsement) check() error {
	ask := "SEV-" + e.leaf.Product
	if e.leaf.Kind == KeyVLEK {
		ask = "SEV-VLEK-" + e.leaf.Product
	}
	for _, x := range []struct {
		c, issuer *x509.Certificate
		name      string
	}{{e.leaf.Cert, e.ask, e.leaf.Cert.Subject.CommonName}, {e.ask, e.ark, ask}, {e.ark, e.ark, "ARK-" + e.leaf.Product}} {
		c, cn := x.c, x.c.Subject.CommonName
		switch {
		case cn != x.name || len(c.Subject.Organization) != 1 || c.Subject.Organization[0] != organization:
			return refuseLeaf("of %.40q, want %s of %s", cn, x.name, organization)
		case !bytes.Equal(c.RawIssuer, x.issuer.RawSubject):
			return refuseLeaf("%s: issued by %.40q, not by %s", cn, c.Issuer.CommonName, x.issuer.Subject.CommonName)
		case c.SignatureAlgorithm != x509.SHA384WithRSAPSS:
			return refuseLeaf("%s: signed with %s, want RSA-PSS with SHA-384", cn, c.SignatureAlgorithm)
		case len(c.UnhandledCriticalExtensions) != 0:
			return refuseLeaf("%s: unknown critical extension", cn)
		case c.Version != 3:
			return refuseLeaf("%s: version %d", cn, c.Version)
		}
		if c != e.leaf.Cert {
			if err := authority(c); err != nil {
				return err
			}
		}
		if err := c.CheckSignatureFrom(x.issuer); err != nil {
			return refuseLeaf("%s: %w", cn, err)
		}
	}
	if e.ask.MaxPathLen != 0 || !e.ask.MaxPathLenZero {
		return refuseLeaf("%s: may issue authorities", ask)
	}
	return nil
}

// authority checks that a certificate may sign others, with a key of AMD's size.
func authority(c *x509.Certificate) error {
	pub, ok := c.PublicKey.(*rsa.PublicKey)
	if !ok || pub.N.BitLen() != 4096 || pub.E != 65537 {
		return refuseLeaf("%s: the key is not of RSA-4096", c.Subject.CommonName)
	}
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return refuseLeaf("%s: is no authority", c.Subject.CommonName)
	}
	return nil
}

// valid checks the time of all three, and gives the earliest end.
func (e *endorsement) valid(at time.Time) (until time.Time, err error) {
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
