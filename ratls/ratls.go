// Package ratls binds TLS to attestation as the reference does: X.509 extensions
// that carry the evidence and the issuer's claims, report data that names the TLS
// key, certificate builders, and tls.Config builders for both sides.
//
// Two kinds of trust, not to be confused: ClientConfig and ServerConfig believe
// the peer's evidence (and nothing else), PinnedClient and PinnedServer believe a
// pinned root's chain (and no evidence). Over either, Channel asks for evidence
// that was made for this very connection.
package ratls

import (
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"time"
)

// Values of the CERT_USAGE extension.
const (
	UsageAppCA     = "app:ca"
	UsageAppCustom = "app:custom"
	UsageKMSRPC    = "kms:rpc"
	UsageKMSRaft   = "kms:raft" // ours: members among themselves
)

// How long certificates live whose evidence is believed: they are made Backdate
// before their time, for clocks that are behind, and live Lifetime. Nothing that
// lives longer than MaxLifetime is made or believed. (Certificates below a pinned
// root are another matter: their period is their issuer's.)
const (
	Backdate    = time.Hour
	Lifetime    = 24 * time.Hour
	MaxLifetime = Backdate + Lifetime
)

// ReportData is the 64 bytes that bind a quote to a TLS key: SHA-512 of
// "ratls-cert:" and the DER SubjectPublicKeyInfo.
func ReportData(spki []byte) [64]byte {
	return sha512.Sum512(append([]byte("ratls-cert:"), spki...))
}

// SPKI is the DER SubjectPublicKeyInfo of a public key.
func SPKI(pub crypto.PublicKey) ([]byte, error) { return x509.MarshalPKIXPublicKey(pub) }
