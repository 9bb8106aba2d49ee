package ratls

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"slices"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
)

// A certificate's evidence is as old as the certificate, and says nothing about
// who is at the other end of the wire but that it has the key. Fresh evidence is
// asked for over the connection it is to prove: its report data names that
// connection (RFC 9266), both TLS keys, who proves, and the verifier's nonce. A
// quote that was relayed from another connection, made for another nonce, or sent
// back to its maker is another report data.

// Sizes of nonces, in bytes.
const (
	MinNonce = 16
	MaxNonce = 64
)

// The exporter of RFC 9266 (tls-exporter channel binding).
const (
	exporterLabel = "EXPORTER-Channel-Binding"
	exporterSize  = 32
)

// Channel is an established TLS 1.3 connection as one of its ends sees it.
type Channel struct {
	exporter  []byte
	server    bool
	own, peer []byte // SPKI, DER; empty: no certificate
	ext       Extensions
}

// NewChannel reads a connection's state after the handshake. server says which end
// this is; own is this end's certificate key (DER SubjectPublicKeyInfo; empty for a
// client without one). TLS below 1.3 and resumed sessions are refused: their
// exporters do not cover this handshake's certificates.
func NewChannel(cs tls.ConnectionState, server bool, own []byte) (*Channel, error) {
	switch {
	case !cs.HandshakeComplete:
		return nil, cvm.Errorf(cvm.Precondition, "fresh evidence: the TLS handshake is not complete")
	case cs.Version != tls.VersionTLS13 || cs.DidResume:
		return nil, cvm.Errorf(cvm.Unauthenticated, "fresh evidence: a full TLS 1.3 handshake is needed").WithReason(ReasonChannel)
	case server && len(own) == 0:
		return nil, cvm.Errorf(cvm.Internal, "fresh evidence: a server has a certificate")
	}
	e, err := cs.ExportKeyingMaterial(exporterLabel, nil, exporterSize)
	if err != nil {
		return nil, cvm.Errorf(cvm.Unauthenticated, "fresh evidence: TLS exporter: %w", err).WithReason(ReasonChannel)
	}
	c := &Channel{exporter: e, server: server, own: own}
	if len(cs.PeerCertificates) != 0 {
		leaf := cs.PeerCertificates[0]
		c.peer = leaf.RawSubjectPublicKeyInfo
		if c.ext, err = ParseExtensions(leaf); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// bind is the report data of fresh evidence: SHA-512 over a tag, the prover's role
// ('s' or 'c'), and SHA-256 of exporter, prover's key, verifier's key and nonce.
func bind(exporter []byte, proverIsServer bool, prover, verifier, nonce []byte) [64]byte {
	role := byte('c')
	if proverIsServer {
		role = 's'
	}
	b := append([]byte("phala-ratls-fresh:v1:"), role)
	for _, part := range [][]byte{exporter, prover, verifier, nonce} {
		h := sha256.Sum256(part)
		b = append(b, h[:]...)
	}
	return sha512.Sum512(b)
}

func checkNonce(nonce []byte) error {
	if len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return cvm.Errorf(cvm.Invalid, "fresh evidence: nonce of %d bytes, want %d to %d", len(nonce), MinNonce, MaxNonce)
	}
	return nil
}

// Quote makes evidence over report data.
type Quote func(ctx context.Context, reportData [64]byte) (attest.Evidence, error)

// Prove answers the other end's nonce with this end's evidence, in its stripped
// wire form. This end must have a certificate.
func (c *Channel) Prove(ctx context.Context, nonce []byte, quote Quote) ([]byte, error) {
	if err := checkNonce(nonce); err != nil {
		return nil, err
	}
	if len(c.own) == 0 {
		return nil, cvm.Errorf(cvm.Precondition, "fresh evidence: this end has shown no key that it could vouch for")
	}
	ev, err := quote(ctx, bind(c.exporter, c.server, c.own, c.peer, nonce))
	if err != nil {
		return nil, err
	}
	return ev.Strip().Marshal()
}

// Check verifies the other end's answer to this end's nonce, which must have been
// made for this call alone. verify gets the report data that the answer must hold,
// and the (unverified) extensions of the peer's certificate.
func (c *Channel) Check(nonce, attestation []byte, verify VerifyPeer) error {
	if verify == nil {
		return cvm.Errorf(cvm.Internal, "no verifier of evidence is configured")
	}
	if err := checkNonce(nonce); err != nil {
		return err
	}
	if len(c.peer) == 0 {
		return cvm.Errorf(cvm.Unauthenticated, "fresh evidence: the peer sent no certificate").WithReason(ReasonChannel)
	}
	ev, err := attest.ParseEvidence(slices.Clone(attestation))
	if err != nil {
		return err
	}
	return verify(ev, c.ext, bind(c.exporter, !c.server, c.peer, c.own, nonce))
}
