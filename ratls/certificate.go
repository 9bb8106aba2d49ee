package ratls

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
)

// Template says what a certificate is for. NotBefore and NotAfter are mandatory.
type Template struct {
	CommonName   string
	Organization string
	AltNames     []string // DNS names or IP addresses
	ServerAuth   bool
	ClientAuth   bool
	NotBefore    time.Time
	NotAfter     time.Time
	Extensions   Extensions
}

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// PEM is the authority's certificate.
func (a *Authority) PEM() string { return PEM(a.Cert.Raw) }

// PEM wraps a certificate in DER.
func PEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// NewRoot makes a self-signed root CA that may issue one level of CAs (path length 1).
func NewRoot(key crypto.Signer, t Template) (*Authority, error) {
	return newCA(key, t, 1, nil)
}

// NewTempCA makes a self-signed CA that issues leaves only (path length 0).
func NewTempCA(key crypto.Signer, t Template) (*Authority, error) {
	return newCA(key, t, 0, nil)
}

// IssueCA makes a CA certificate below a, with path length 0.
func (a *Authority) IssueCA(key crypto.Signer, t Template) (*Authority, error) {
	return newCA(key, t, 0, a)
}

func newCA(key crypto.Signer, t Template, pathLen int, issuer *Authority) (*Authority, error) {
	c, err := t.certificate(key.Public())
	if err != nil {
		return nil, err
	}
	c.IsCA, c.MaxPathLen, c.MaxPathLenZero = true, pathLen, pathLen == 0
	c.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if issuer == nil {
		issuer = &Authority{Cert: c, Key: key}
	}
	der, err := issuer.sign(c, key.Public())
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{Cert: cert, Key: key}, err
}

// Issue signs a leaf for pub and returns its DER.
func (a *Authority) Issue(pub crypto.PublicKey, t Template) ([]byte, error) {
	c, err := t.certificate(pub)
	if err != nil {
		return nil, err
	}
	return a.sign(c, pub)
}

func (a *Authority) sign(c *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, a.Cert, pub, a.Key)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "certificate %q: %w", c.Subject.CommonName, err)
	}
	return der, nil
}

// certificate is the x509 template without what makes a CA.
func (t Template) certificate(pub crypto.PublicKey) (*x509.Certificate, error) {
	if t.NotBefore.IsZero() || !t.NotBefore.Before(t.NotAfter) {
		return nil, cvm.Errorf(cvm.Invalid, "certificate %q: not_before must be earlier than not_after", t.CommonName)
	}
	spki, err := SPKI(pub)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "certificate %q: public key: %w", t.CommonName, err)
	}
	ext, err := t.Extensions.Encode()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: t.CommonName}, NotBefore: t.NotBefore, NotAfter: t.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, SubjectKeyId: id[:20], ExtraExtensions: ext,
		SerialNumber: t.serial(spki),
	}
	if t.Organization != "" {
		c.Subject.Organization = []string{t.Organization}
	}
	for _, n := range t.AltNames {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else if n != "" {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	if t.ServerAuth {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if t.ClientAuth {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	return c, nil
}

// serial is a digest of what is certified, so that the same certificate keeps its
// number and two different ones do not share one.
func (t Template) serial(spki []byte) *big.Int {
	b := slices.Concat(spki, []byte(t.CommonName), []byte{0}, []byte(t.NotBefore.UTC().Format(time.RFC3339Nano)),
		[]byte(t.NotAfter.UTC().Format(time.RFC3339Nano)), t.Extensions.Attestation)
	h := sha256.Sum256(b)
	h[0] = h[0]&0x7f | 0x40 // positive, always 16 bytes
	return new(big.Int).SetBytes(h[:16])
}

// NewCertificate makes a self-signed certificate that carries the evidence in its
// stripped form; the evidence's report data must be ReportData of key's SPKI, and
// the certificate lives at most MaxLifetime.
func NewCertificate(key crypto.Signer, ev attest.Evidence, t Template) (tls.Certificate, error) {
	spki, err := SPKI(key.Public())
	if err != nil {
		return tls.Certificate{}, cvm.Errorf(cvm.Invalid, "certificate key: %w", err)
	}
	if ev.ReportData != ReportData(spki) {
		return tls.Certificate{}, cvm.Errorf(cvm.Invalid, "the evidence is not bound to the certificate's key")
	}
	if t.NotAfter.Sub(t.NotBefore) > MaxLifetime {
		return tls.Certificate{}, cvm.Errorf(cvm.Invalid, "certificate %q: a life of %s, at most %s is believed", t.CommonName, t.NotAfter.Sub(t.NotBefore), MaxLifetime)
	}
	if t.Extensions.Attestation, err = ev.Strip().Marshal(); err != nil {
		return tls.Certificate{}, err
	}
	c, err := t.certificate(key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := (&Authority{Cert: c, Key: key}).sign(c, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	return TLSCertificate(key, der)
}

// TLSCertificate puts a key and its chain (DER, leaf first) together.
func TLSCertificate(key crypto.Signer, chain ...[]byte) (tls.Certificate, error) {
	if len(chain) == 0 {
		return tls.Certificate{}, cvm.Errorf(cvm.Invalid, "certificate chain is empty")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return tls.Certificate{}, cvm.Errorf(cvm.Invalid, "certificate: %w", err)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}

// ParsePEM reads the certificates of a PEM text, leaf first.
func ParsePEM(text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, cvm.Errorf(cvm.Invalid, "PEM block %q, want CERTIFICATE", b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "certificate: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "no certificate in the PEM text")
	}
	return out, nil
}
