package collateral

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// ParseChain reads exactly n certificates in PEM, leaf first. The text must be
// the canonical encoding of those certificates (64 columns, LF); only the last line
// end may be missing and one NUL may follow, as vendors write it. A certificate that
// is byte for byte one of known is that one, and is not parsed again.
func ParseChain(text []byte, n int, known ...*x509.Certificate) ([]*x509.Certificate, error) {
	if len(text) > MaxChain {
		return nil, cvm.Errorf(cvm.Invalid, "certificate chain of %d bytes, at most %d", len(text), MaxChain)
	}
	rest := bytes.TrimSuffix(text, []byte{0})
	certs := make([]*x509.Certificate, 0, n)
	for len(rest) > 0 {
		if len(certs) == n {
			return nil, cvm.Errorf(cvm.Invalid, "certificate chain: more than %d certificates or text after them", n)
		}
		der, next, err := cutCertificate(rest)
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "certificate chain: certificate %d is %w", len(certs), err)
		}
		c, err := parseCertificate(der, known)
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "certificate %d: %w", len(certs), err)
		}
		certs, rest = append(certs, c), next
	}
	if len(certs) != n {
		return nil, cvm.Errorf(cvm.Invalid, "certificate chain: %d certificates, want %d", len(certs), n)
	}
	return certs, nil
}

func parseCertificate(der []byte, known []*x509.Certificate) (*x509.Certificate, error) {
	for _, k := range known {
		if bytes.Equal(k.Raw, der) {
			return k, nil
		}
	}
	return x509.ParseCertificate(der)
}

// SPKIHash is the sha256 of a certificate's SubjectPublicKeyInfo.
func SPKIHash(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// VerifyChain checks a chain, leaf first, that ends in its root: signatures,
// names, CA constraints, validity at a time. Trust in the root is the caller's.
func VerifyChain(chain []*x509.Certificate, at time.Time) error {
	for i, c := range chain {
		if err := CheckValidity(c.Subject.CommonName, c.NotBefore, c.NotAfter, at); err != nil {
			return err
		}
		issuer, place := chain[min(i+1, len(chain)-1)], i
		if len(chain) == 1 {
			place = 1 // a root alone
		}
		if err := CheckIssued(c, issuer, place); err != nil {
			return err
		}
	}
	return nil
}

// CheckValidity refuses a time outside the period of validity of a certificate.
func CheckValidity(name string, from, until, at time.Time) error {
	if at.Before(from) || at.After(until) {
		return cvm.Errorf(cvm.Invalid, "%s: valid %s to %s", name, from.Format(time.DateOnly), until.Format(time.DateOnly))
	}
	return nil
}

// CheckIssued checks all about a certificate but time: that issuer signed it
// (itself, for a root) and that it may stand at this place of a chain, whose leaf
// has place 0. The result depends on the bytes of the two certificates alone.
func CheckIssued(c, issuer *x509.Certificate, place int) error {
	switch {
	case len(c.UnhandledCriticalExtensions) != 0:
		return cvm.Errorf(cvm.Invalid, "%s: unknown critical extension", c.Subject.CommonName)
	case c.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return cvm.Errorf(cvm.Invalid, "%s: signed with %s", c.Subject.CommonName, c.SignatureAlgorithm)
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return cvm.Errorf(cvm.Invalid, "%s: issued by %s, not by %s", c.Subject.CommonName, c.Issuer.CommonName, issuer.Subject.CommonName)
	case (place == 0) == c.IsCA:
		return cvm.Errorf(cvm.Invalid, "%s: CA is %v at place %d of the chain", c.Subject.CommonName, c.IsCA, place)
	// place-1 certificates of a CA stand below this one.
	case place > 0 && (c.MaxPathLen > 0 || c.MaxPathLenZero) && place-1 > c.MaxPathLen:
		return cvm.Errorf(cvm.Invalid, "%s: path length exceeded", c.Subject.CommonName)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return cvm.Errorf(cvm.Invalid, "%s: %w", c.Subject.CommonName, err)
	}
	return nil
}

// CRL is a parsed revocation list.
type CRL struct {
	list    *x509.RevocationList
	revoked map[string]bool
}

// ParseCRL reads a revocation list in DER. The signature is not checked.
func ParseCRL(der []byte) (*CRL, error) {
	if len(der) == 0 || len(der) > MaxBody {
		return nil, cvm.Errorf(cvm.Invalid, "revocation list: %d bytes, want 1 to %d", len(der), MaxBody)
	}
	l, err := x509.ParseRevocationList(bytes.Clone(der)) // it would keep the caller's bytes
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "revocation list: %w", err)
	}
	if len(l.Raw) != len(der) { // the standard parser passes over what follows
		return nil, cvm.Errorf(cvm.Invalid, "revocation list: %d bytes after it", len(der)-len(l.Raw))
	}
	for _, e := range l.Extensions {
		if e.Critical {
			return nil, cvm.Errorf(cvm.Invalid, "revocation list: critical extension %s", e.Id)
		}
	}
	if n := l.Number; n != nil && (n.Sign() < 0 || n.BitLen() > 160) || len(l.AuthorityKeyId) > 64 {
		return nil, cvm.Errorf(cvm.Invalid, "revocation list: its number or authority key id is out of range")
	}
	c := &CRL{list: l, revoked: map[string]bool{}}
	for _, e := range l.RevokedCertificateEntries {
		c.revoked[string(e.SerialNumber.Bytes())] = true
	}
	return c, nil
}

// Window is the list's period of validity.
func (c *CRL) Window() Window { return Window{c.list.ThisUpdate, c.list.NextUpdate} }

// Verify checks that issuer signed the list and that it is current.
func (c *CRL) Verify(issuer *x509.Certificate, at time.Time) error {
	if err := c.SignedBy(issuer); err != nil {
		return err
	}
	if err := c.Window().Check(at); err != nil {
		return cvm.Errorf(cvm.Invalid, "revocation list of %s: %w", issuer.Subject.CommonName, err)
	}
	return nil
}

// SignedBy checks that issuer signed the list. Whether it is current is another
// question (Window).
func (c *CRL) SignedBy(issuer *x509.Certificate) error {
	if !bytes.Equal(c.list.RawIssuer, issuer.RawSubject) {
		return cvm.Errorf(cvm.Invalid, "revocation list of %s, want that of %s", c.list.Issuer.CommonName, issuer.Subject.CommonName)
	}
	if err := c.list.CheckSignatureFrom(issuer); err != nil {
		return cvm.Errorf(cvm.Invalid, "revocation list of %s: %w", issuer.Subject.CommonName, err)
	}
	return nil
}

// Revoked reports whether the list names a serial number.
func (c *CRL) Revoked(serial *big.Int) bool {
	var buf [32]byte // the longest that RFC 5280 knows has 20
	if serial.BitLen() > 8*len(buf) {
		return c.revoked[string(serial.Bytes())]
	}
	return c.revoked[string(bytes.TrimLeft(serial.FillBytes(buf[:]), "\x00"))]
}

// Numbered reports whether the list says which of its issuer's lists it is: else
// nobody could tell that an older one was served.
func (c *CRL) Numbered() bool { return c.list.Number != nil && len(c.list.AuthorityKeyId) != 0 }
