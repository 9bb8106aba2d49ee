package ratls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"strings"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
)

// Reasons of refusals, for cvm.ReasonOf.
const (
	ReasonRoot  = "peer-root-not-pinned"
	ReasonUsage = "peer-usage"
	ReasonApp   = "peer-app"
)

// PinnedClient verifies a server by its chain to a root known by its DER
// SubjectPublicKeyInfo (the server must send the root), and the leaf's usage (and
// app id, if not nil) exactly. No attestation is made, and host names do not count.
// clientCert, if not nil, is offered to the server.
func PinnedClient(rootSPKI []byte, usage string, appID *cvm.AppID, clientCert *tls.Certificate) *tls.Config {
	c := base(func(cs tls.ConnectionState) error {
		return VerifyPinned(cs.PeerCertificates, rootSPKI, usage, appID, x509.ExtKeyUsageServerAuth)
	})
	if clientCert != nil {
		c.Certificates = []tls.Certificate{*clientCert}
	}
	return c
}

// PinnedServer demands a client certificate whose chain ends in a root known by
// its DER SubjectPublicKeyInfo and whose leaf has the usage. Read the app from
// ParseExtensions of the connection's peer certificate.
func PinnedServer(cert tls.Certificate, rootSPKI []byte, usage string) *tls.Config {
	c := base(func(cs tls.ConnectionState) error {
		return VerifyPinned(cs.PeerCertificates, rootSPKI, usage, nil, x509.ExtKeyUsageClientAuth)
	})
	c.Certificates = []tls.Certificate{cert}
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// base is TLS 1.3 whose only judge is verify: it runs on every connection, also
// resumed ones (which are switched off).
func base(verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		InsecureSkipVerify:     true, // #nosec G402 -- VerifyConnection decides, not the system's roots
		SessionTicketsDisabled: true,
		VerifyConnection:       verify,
	}
}

// VerifyPinned checks a presented chain (leaf first, root last) against a pinned
// root key. A "kms:" leaf must come from the root itself; between an "app:" leaf
// and the root only CAs with usage app:ca and the leaf's app id may stand.
func VerifyPinned(chain []*x509.Certificate, rootSPKI []byte, usage string, appID *cvm.AppID, eku x509.ExtKeyUsage) error {
	if len(rootSPKI) == 0 || usage == "" {
		return cvm.Errorf(cvm.Internal, "no root is pinned or no usage is required")
	}
	if len(chain) < 2 || len(chain) > 4 {
		return cvm.Errorf(cvm.Unauthenticated, "the peer sent %d certificates, want leaf to root", len(chain)).WithReason(ReasonRoot)
	}
	leaf, middle, root := chain[0], chain[1:len(chain)-1], chain[len(chain)-1]
	if !bytes.Equal(root.RawSubjectPublicKeyInfo, rootSPKI) {
		return cvm.Errorf(cvm.Unauthenticated, "the peer's root is not the pinned one").WithReason(ReasonRoot).
			WithFix("this is not the service that the app's key_provider_id (or the trust profile) names")
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{eku}}
	opts.Roots.AddCert(root)
	for _, c := range middle {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return cvm.Errorf(cvm.Unauthenticated, "the peer's certificate: %w", err).WithReason(ReasonRoot)
	}
	ext, err := ParseExtensions(leaf)
	if err != nil {
		return err
	}
	if ext.Usage != usage {
		return cvm.Errorf(cvm.Unauthenticated, "the peer's certificate is for %q, want %q", ext.Usage, usage).WithReason(ReasonUsage)
	}
	if appID != nil && (ext.AppID == nil || *ext.AppID != *appID) {
		return cvm.Errorf(cvm.Unauthenticated, "the peer is another app than %s", appID).WithReason(ReasonApp)
	}
	return verifyMiddle(middle, usage, ext.AppID)
}

// verifyMiddle keeps an app's CA from speaking for the KMS or for another app.
func verifyMiddle(middle []*x509.Certificate, usage string, app *cvm.AppID) error {
	if strings.HasPrefix(usage, "kms:") && len(middle) != 0 {
		return cvm.Errorf(cvm.Unauthenticated, "a %s certificate must come from the root itself", usage).WithReason(ReasonUsage)
	}
	for _, c := range middle {
		ext, err := ParseExtensions(c)
		if err != nil {
			return err
		}
		if ext.Usage != UsageAppCA || ext.AppID == nil || app == nil || *ext.AppID != *app {
			return cvm.Errorf(cvm.Unauthenticated, "the peer's CA is not that of its app").WithReason(ReasonApp)
		}
	}
	return nil
}

// VerifyPeer decides on a peer's evidence. binding is the report data its
// certificate's key demands: use it as attest.Policy.ReportData.
type VerifyPeer func(ev attest.Evidence, ext Extensions, binding [64]byte) error

// ClientConfig is RA-TLS, client side: the server's certificate must carry
// evidence that verify accepts. cert, if not nil, is offered to the server.
func ClientConfig(cert *tls.Certificate, verify VerifyPeer) *tls.Config {
	c := base(func(cs tls.ConnectionState) error { return verifyEvidence(cs, verify) })
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c
}

// ServerConfig is mutual RA-TLS, server side: the client must present a
// certificate with evidence that verify accepts.
func ServerConfig(cert tls.Certificate, verify VerifyPeer) *tls.Config {
	c := base(func(cs tls.ConnectionState) error { return verifyEvidence(cs, verify) })
	c.Certificates = []tls.Certificate{cert}
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

func verifyEvidence(cs tls.ConnectionState, verify VerifyPeer) error {
	if verify == nil {
		return cvm.Errorf(cvm.Internal, "no verifier of evidence is configured")
	}
	if len(cs.PeerCertificates) == 0 {
		return cvm.Errorf(cvm.Unauthenticated, "the peer sent no certificate")
	}
	leaf := cs.PeerCertificates[0]
	// The chain proves nothing here; this checks the period of validity only.
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	opts.Roots.AddCert(leaf)
	if _, err := leaf.Verify(opts); err != nil {
		return cvm.Errorf(cvm.Unauthenticated, "the peer's certificate: %w", err)
	}
	ev, ext, err := FromCertificate(leaf)
	if err != nil {
		return err
	}
	return verify(ev, ext, ReportData(leaf.RawSubjectPublicKeyInfo))
}
