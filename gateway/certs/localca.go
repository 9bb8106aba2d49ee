package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/confidential-cloud/phala/cvm"
)

// Files of a local CA in its directory.
const (
	CACertFile = "ca.pem"
	CAKeyFile  = "ca-key.pem" // PKCS#8, mode 0600, in the clear: a development CA
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 90 * 24 * time.Hour
	backdate     = time.Hour // for clients whose clock is behind
)

// CA says where a local CA's files are.
type CA struct {
	CertFile, KeyFile string
	Certificate       *x509.Certificate
}

// EnsureCA opens the local development CA in dir, or makes it at the first start.
// With domains it may sign names under these only (an X.509 name constraint), so
// that trusting it trusts it for nothing else; domains of an existing CA that do
// not cover the wanted ones are an error that says what to do.
func EnsureCA(dir string, domains ...string) (CA, error) {
	ca := CA{CertFile: filepath.Join(dir, CACertFile), KeyFile: filepath.Join(dir, CAKeyFile)}
	_, err := os.Stat(ca.CertFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = makeCA(dir, ca, domains)
	}
	if err != nil {
		return CA{}, fmt.Errorf("local CA in %s: %w", dir, err)
	}
	i, err := loadCA(ca.CertFile, ca.KeyFile)
	if err != nil {
		return CA{}, err
	}
	ca.Certificate = i.cert
	return ca, i.covers(domains)
}

func makeCA(dir string, ca CA, domains []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Phala development"}, CommonName: "Phala local CA " + now.UTC().Format("2006-01-02")},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:            x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomains: domains, PermittedDNSDomainsCritical: len(domains) > 0,
	}
	cert, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	// The key first: a certificate without its key would be taken for a whole CA.
	if err := os.WriteFile(ca.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(ca.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644)
}

// localIssuer signs with a CA that lies in files.
type localIssuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var _ certmagic.Issuer = (*localIssuer)(nil)

func loadCA(certFile, keyFile string) (*localIssuer, error) {
	c, err := readPEM(certFile, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(c)
	if err != nil {
		return nil, fmt.Errorf("local CA %s: %w", certFile, err)
	}
	k, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("local CA key %s: not PKCS#8", keyFile)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, cvm.Errorf(cvm.Invalid, "local CA key %s does not belong to %s", keyFile, certFile).
			WithFix("remove both files; the next start makes a new CA")
	}
	if !cert.IsCA {
		return nil, cvm.Errorf(cvm.Invalid, "%s is not a CA certificate", certFile)
	}
	return &localIssuer{cert: cert, key: key}, nil
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	blk, _ := pem.Decode(b)
	if blk == nil || blk.Type != kind {
		return nil, cvm.Errorf(cvm.Invalid, "%s holds no PEM block %q", path, kind)
	}
	return blk.Bytes, nil
}

func (i *localIssuer) covers(domains []string) error {
	if len(i.cert.PermittedDNSDomains) == 0 {
		return nil
	}
	for _, d := range domains {
		ok := false
		for _, p := range i.cert.PermittedDNSDomains {
			ok = ok || d == p || (len(d) > len(p) && d[len(d)-len(p)-1:] == "."+p)
		}
		if !ok {
			return cvm.Errorf(cvm.Precondition, "the local CA may sign names under %v only, not %s", i.cert.PermittedDNSDomains, d).
				WithFix("remove " + CACertFile + " and " + CAKeyFile + " to make a new CA for this domain, and trust that one")
		}
	}
	return nil
}

// IssuerKey names this CA in the store: certificates of another CA are not reused.
func (i *localIssuer) IssuerKey() string {
	h := sha256.Sum256(i.cert.Raw)
	return "local-" + hex.EncodeToString(h[:8])
}

// Issue signs what certmagic asks for.
func (i *localIssuer) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(leafLifetime),
		DNSNames: csr.DNSNames, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(csr.DNSNames) > 0 && len(csr.DNSNames[0]) <= 64 {
		t.Subject.CommonName = csr.DNSNames[0]
	}
	der, err := x509.CreateCertificate(rand.Reader, t, i.cert, csr.PublicKey, i.key)
	if err != nil {
		return nil, fmt.Errorf("signing %v: %w", csr.DNSNames, err)
	}
	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
