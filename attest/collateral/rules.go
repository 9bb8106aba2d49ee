package collateral

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// MaxCertificate bounds one certificate in DER, in bytes.
const MaxCertificate = 16 << 10

// Rules says how the certificates of a vendor other than Intel look.
type Rules struct {
	Algorithms []x509.SignatureAlgorithm // admitted signatures
	Critical   []string                  // critical extensions (dotted OIDs) that the caller reads itself
	MinRSA     int                       // bits; RSA keys below it are refused, and 0 refuses RSA
}

// ParseDER reads a chain of at most limit certificates, one DER value each, leaf first.
func ParseDER(chain [][]byte, limit int) ([]*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > limit {
		return nil, cvm.Errorf(cvm.Invalid, "certificate chain: %d certificates, want 1 to %d", len(chain), limit)
	}
	out := make([]*x509.Certificate, 0, len(chain))
	for i, der := range chain {
		if len(der) > MaxCertificate {
			return nil, cvm.Errorf(cvm.Invalid, "certificate %d: %d bytes, at most %d", i, len(der), MaxCertificate)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "certificate %d: %w", i, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// Verify checks a chain, leaf first, that ends in its self-signed root: names,
// CA constraints, path lengths, key sizes, validity at a time, signatures.
// Trust in the root is the caller's.
func (r Rules) Verify(chain []*x509.Certificate, at time.Time) error {
	for i, c := range chain {
		if err := r.shape(c, i, len(chain), at); err != nil {
			return err
		}
		issuer := chain[min(i+1, len(chain)-1)]
		if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
			return cvm.Errorf(cvm.Invalid, "%s: issued by %s, not by %s", name(c), c.Issuer, name(issuer))
		}
		if err := c.CheckSignatureFrom(issuer); err != nil {
			return cvm.Errorf(cvm.Invalid, "%s: %w", name(c), err)
		}
	}
	return nil
}

func (r Rules) shape(c *x509.Certificate, i, n int, at time.Time) error {
	switch {
	case at.Before(c.NotBefore) || at.After(c.NotAfter):
		return cvm.Errorf(cvm.Invalid, "%s: valid %s to %s", name(c), c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	case !slices.Contains(r.Algorithms, c.SignatureAlgorithm):
		return cvm.Errorf(cvm.Invalid, "%s: signed with %s", name(c), c.SignatureAlgorithm)
	case !c.BasicConstraintsValid && i > 0, (i == 0) == c.IsCA && n > 1:
		return cvm.Errorf(cvm.Invalid, "%s: CA is %v at place %d of the chain", name(c), c.IsCA, i)
	case i > 0 && c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return cvm.Errorf(cvm.Invalid, "%s: may not sign certificates", name(c))
	// i-1 certificates of a CA stand below this one.
	case i > 0 && (c.MaxPathLen > 0 || c.MaxPathLenZero) && i-1 > c.MaxPathLen:
		return cvm.Errorf(cvm.Invalid, "%s: path length exceeded", name(c))
	}
	if k, ok := c.PublicKey.(interface{ Size() int }); ok && (r.MinRSA == 0 || k.Size()*8 < r.MinRSA) {
		return cvm.Errorf(cvm.Invalid, "%s: an RSA key of %d bits", name(c), k.Size()*8)
	}
	for _, id := range c.UnhandledCriticalExtensions {
		if !slices.Contains(r.Critical, id.String()) {
			return cvm.Errorf(cvm.Invalid, "%s: unknown critical extension %s", name(c), id)
		}
	}
	return nil
}

// CheckRevoked looks up every certificate of a verified chain in its issuer's
// revocation list. A list that is missing, not current or not the issuer's refuses.
// It returns when the first of the lists ends.
func CheckRevoked(chain []*x509.Certificate, lists [][]byte, at time.Time) (until time.Time, err error) {
	if len(lists) > 2*len(chain) {
		return until, cvm.Errorf(cvm.Invalid, "%d revocation lists for %d certificates", len(lists), len(chain))
	}
	var parsed []*CRL
	for _, der := range lists {
		c, err := ParseCRL(der)
		if err != nil {
			return until, err
		}
		parsed = append(parsed, c)
	}
	for i, c := range chain[:len(chain)-1] {
		l := listOf(parsed, chain[i+1])
		if l == nil {
			return until, cvm.Errorf(cvm.Invalid, "no revocation list of %s", name(chain[i+1]))
		}
		if err := l.Verify(chain[i+1], at); err != nil {
			return until, err
		}
		if l.Revoked(c.SerialNumber) {
			return until, cvm.Errorf(cvm.Denied, "%s is revoked by %s", name(c), name(chain[i+1]))
		}
		if u := l.Window().Until; until.IsZero() || u.Before(until) {
			until = u
		}
	}
	return until, nil
}

func listOf(lists []*CRL, issuer *x509.Certificate) *CRL {
	for _, l := range lists {
		if bytes.Equal(l.list.RawIssuer, issuer.RawSubject) {
			return l
		}
	}
	return nil
}

// Extension returns the value of a certificate's extension; ok is false when it
// is not there exactly once.
func Extension(c *x509.Certificate, oid string) (value []byte, ok bool) {
	for _, e := range c.Extensions {
		if e.Id.String() == oid {
			if ok {
				return nil, false
			}
			value, ok = e.Value, true
		}
	}
	return value, ok
}

// StrictKeys refuses JSON with repeated, case-variant or non-ASCII keys at any
// depth, with data after its value, or nested deeper than 16.
func StrictKeys(b []byte) error { return checkKeys(b) }

func name(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return "certificate " + c.SerialNumber.Text(16)
}
