package ratls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
)

// Reasons of refusals, for cvm.ReasonOf.
const (
	ReasonRoot  = "peer-root-not-pinned"
	ReasonUsage = "peer-usage"
	ReasonApp   = "peer-app"
	// ReasonPeriod: the certificate is expired, not yet valid, or lives too long.
	ReasonPeriod = "peer-certificate-period"
	// ReasonSignature: the certificate is not signed by its own key or by its issuer.
	ReasonSignature = "peer-certificate-signature"
	// ReasonChannel: the connection cannot carry fresh evidence.
	ReasonChannel = "channel"
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

// Source gives an end's current certificate: certificates are short-lived, so a
// long-lived end has many.
type Source func() (*tls.Certificate, error)

// Fixed is the source of one certificate.
func Fixed(c tls.Certificate) Source {
	return func() (*tls.Certificate, error) { return &c, nil }
}

// ClientConfig is RA-TLS, client side: the server's certificate must carry
// evidence that verify accepts, and live at most MaxLifetime. cert, if not nil, is
// offered to the server. now is the clock.
func ClientConfig(cert Source, verify VerifyPeer, now func() time.Time) *tls.Config {
	c := base(func(cs tls.ConnectionState) error { return verifyEvidence(cs, verify, now) })
	c.Time = now
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert() }
	}
	return c
}

// ServerConfig is mutual RA-TLS, server side: the client must present a
// certificate with evidence that verify accepts, which lives at most MaxLifetime.
func ServerConfig(cert Source, verify VerifyPeer, now func() time.Time) *tls.Config {
	c := base(func(cs tls.ConnectionState) error { return verifyEvidence(cs, verify, now) })
	c.Time = now
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert() }
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

func verifyEvidence(cs tls.ConnectionState, verify VerifyPeer, now func() time.Time) error {
	if verify == nil || now == nil {
		return cvm.Errorf(cvm.Internal, "no verifier of evidence or no clock is configured")
	}
	if len(cs.PeerCertificates) == 0 {
		return cvm.Errorf(cvm.Unauthenticated, "the peer sent no certificate")
	}
	leaf := cs.PeerCertificates[0]
	if err := checkPeriod(leaf, now()); err != nil {
		return err
	}
	if err := checkSigned(cs.PeerCertificates); err != nil {
		return err
	}
	ev, ext, err := FromCertificate(leaf)
	if err != nil {
		return err
	}
	return verify(ev, ext, ReportData(leaf.RawSubjectPublicKeyInfo))
}

// checkPeriod: the evidence is no younger than the certificate, so the period of
// validity bounds the evidence's age.
func checkPeriod(c *x509.Certificate, at time.Time) error {
	if at.Before(c.NotBefore) || at.After(c.NotAfter) {
		return cvm.Errorf(cvm.Unauthenticated, "the peer's certificate is valid from %s to %s", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339)).
			WithReason(ReasonPeriod).WithFix("compare both clocks; the peer must renew its certificate")
	}
	if c.NotAfter.Sub(c.NotBefore) > MaxLifetime {
		return cvm.Errorf(cvm.Unauthenticated, "the peer's certificate lives %s, at most %s is believed", c.NotAfter.Sub(c.NotBefore), MaxLifetime).
			WithReason(ReasonPeriod).WithFix("evidence must be young: the peer must make short-lived certificates")
	}
	return nil
}

// checkSigned refuses a certificate that nobody made as it is. The chain proves
// nothing about the peer, but its bytes must be those that were signed.
func checkSigned(chain []*x509.Certificate) error {
	leaf := chain[0]
	for _, by := range chain[:min(2, len(chain))] {
		if by.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
			return nil
		}
	}
	return cvm.Errorf(cvm.Unauthenticated, "the peer's certificate is signed neither by its own key nor by the next in the chain").WithReason(ReasonSignature)
}
