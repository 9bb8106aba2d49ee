// Package kmsapi holds the wire types of the KMS's own API (/v1) and its client.
// Guests, the gateway, the cloud API, the CLI and verifiers speak it.
//
// Transport: HTTPS. The server's chain ends in the KMS root CA, whose
// SubjectPublicKeyInfo is the identity that app-compose's key_provider_id pins;
// its leaf carries usage "kms:rpc". /v1/nonce, /v1/release, /v1/renew and
// /v1/sign-cert need a TLS client certificate (self-signed will do): its key is
// what the nonce, the evidence and the lease are bound to.
package kmsapi

import (
	"crypto/sha256"
	"crypto/sha512"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/ledger"
)

// Paths of the API.
const (
	PathNonce    = "/v1/nonce"     // POST {} -> Nonce
	PathRelease  = "/v1/release"   // POST ReleaseRequest -> Release
	PathRenew    = "/v1/renew"     // POST RenewRequest -> Renewal
	PathSignCert = "/v1/sign-cert" // POST SignCertRequest -> SignCertResponse
	PathEnvKey   = "/v1/env-key/"  // GET + app id -> EnvKey
	PathMeta     = "/v1/meta"      // GET -> Meta
	PathStatus   = "/v1/status"    // GET -> Status
	// Ledger, public: GET /ledger/checkpoint (signed note), /ledger/leaf/{index},
	// /ledger/proof/inclusion?index=&size=, /ledger/proof/consistency?old=&new=,
	// /ledger/tile/... (C2SP tlog-tiles).
	PathLedger = "/ledger/"
)

// NonceMaxAge is how long a nonce may be used.
const NonceMaxAge = 60 * time.Second

// Nonce is a fresh challenge, bound to the TLS client key that asked for it.
type Nonce struct {
	Nonce   []byte    `json:"nonce"`
	Expires time.Time `json:"expires"`
}

// EvidenceContext is what the guest binds to its evidence beside its TLS key.
// Its exact JSON bytes travel in ReleaseRequest.Context; report_data covers them.
type EvidenceContext struct {
	EnvSHA256      string `json:"env_sha256"`              // hex sha256 of .encrypted-env; "" when there is none
	EnvCounter     uint64 `json:"env_counter"`             // T11: never goes back
	EnvSigner      string `json:"env_signer,omitempty"`    // 0x-address
	EnvSignature   string `json:"env_signature,omitempty"` // hex, 65 bytes, over keys.EnvMessage
	DiskGeneration uint64 `json:"disk_generation"`         // T7
	WireGuardKey   []byte `json:"wireguard_key,omitempty"` // 32 bytes: goes into the route ticket
}

// ReleaseRequest asks for an app's keys at boot, in phase release.
type ReleaseRequest struct {
	Nonce       []byte `json:"nonce"`
	Attestation []byte `json:"attestation"` // attest.Evidence encoding (V0 or V1)
	Context     []byte `json:"context"`     // exact JSON bytes of EvidenceContext
	AppCompose  []byte `json:"app_compose"` // exact bytes; hashed and compared with the event
}

// ReportDataRelease is the 64 bytes a release quote must carry. spki is the DER
// SubjectPublicKeyInfo of the TLS client key.
func ReportDataRelease(nonce, spki, context []byte) [64]byte {
	return reportData("phala-kms-release:v1:", nonce, spki, context)
}

// ReportDataRenew is the 64 bytes a renewal quote must carry.
func ReportDataRenew(nonce, spki []byte, leaseID string) [64]byte {
	return reportData("phala-kms-renew:v1:", nonce, spki, []byte(leaseID))
}

func reportData(tag string, nonce, spki, context []byte) [64]byte {
	n, k, c := sha256.Sum256(nonce), sha256.Sum256(spki), sha256.Sum256(context)
	b := append([]byte(tag), n[:]...)
	b = append(b, k[:]...)
	return sha512.Sum512(append(b, c[:]...))
}

// Release is what an allowed boot receives.
type Release struct {
	AppID        cvm.AppID     `json:"app_id"`
	DiskKey      keys.Secret   `json:"disk_crypt_key"`
	EnvKey       keys.Secret   `json:"env_crypt_key"` // X25519 private key
	AppKey       keys.Secret   `json:"k256_key"`
	AppKeySig    []byte        `json:"k256_signature"` // 65 bytes, by the KMS root k256 key
	GatewayAppID string        `json:"gateway_app_id"`
	OSImageHash  cvm.ImageHash `json:"os_image_hash"`
	RootCA       string        `json:"root_ca"` // PEM
	Epoch        uint32        `json:"epoch"`

	Lease        Lease          `json:"lease"`
	Certificates []string       `json:"certificates"`     // PEM leaf, app CA, root: over the TLS client key, short-lived
	Ticket       []byte         `json:"ticket,omitempty"` // signed RouteTicket, when the context names a WireGuard key
	TicketKey    []byte         `json:"ticket_key"`       // ed25519 public key that signs tickets
	Receipt      ledger.Receipt `json:"receipt"`
}

// Lease is the right to go on running. It is bound to the TLS client key.
type Lease struct {
	ID      string        `json:"id"`
	Expires time.Time     `json:"expires"`
	TTL     time.Duration `json:"ttl_ns"` // renew at half of it
}

// RenewRequest proves the lease key (by the TLS client certificate) and a fresh
// quote in phase running.
type RenewRequest struct {
	LeaseID      string `json:"lease_id"`
	Nonce        []byte `json:"nonce"`
	Attestation  []byte `json:"attestation"`
	WireGuardKey []byte `json:"wireguard_key,omitempty"`
}

// Renewal extends a lease and brings a new ticket and certificate.
type Renewal struct {
	Lease        Lease    `json:"lease"`
	Certificates []string `json:"certificates"`
	Ticket       []byte   `json:"ticket,omitempty"`
}

// RouteTicket is what the gateway routes on: JSON, signed by the KMS's ticket key
// (ed25519 over "phala-route-ticket:v1:" || JSON bytes). On the wire:
// {"ticket": base64(JSON bytes), "signature": base64}.
type RouteTicket struct {
	AppID        cvm.AppID      `json:"app_id"`
	InstanceID   cvm.InstanceID `json:"instance_id"`
	WireGuardKey []byte         `json:"wireguard_key"` // 32 bytes
	ComposeHash  string         `json:"compose_hash"`
	// PortPolicy is the measured port_policy of the app-compose, as JSON (may be empty).
	PortPolicy []byte    `json:"port_policy,omitempty"`
	Simulated  bool      `json:"simulated"`
	IssuedAt   time.Time `json:"issued_at"`
	Expires    time.Time `json:"expires"`
}

// SignCertRequest asks for a certificate for the app, authorized by a live lease
// (proved by the TLS client certificate).
type SignCertRequest struct {
	LeaseID    string    `json:"lease_id"`
	PublicKey  []byte    `json:"public_key"` // DER SPKI, P-256
	Proof      []byte    `json:"proof"`      // ASN.1 ECDSA by that key over sha256("phala-sign-cert:v1:" || SPKI || JSON of Config)
	Config     []byte    `json:"config"`     // exact JSON of CertConfig
	Extensions []CertExt `json:"extensions,omitempty"`
}

// CertConfig says what the certificate is for.
type CertConfig struct {
	Subject    string   `json:"subject"`
	OrgName    string   `json:"org_name,omitempty"`
	AltNames   []string `json:"alt_names,omitempty"`
	ServerAuth bool     `json:"server_auth"`
	ClientAuth bool     `json:"client_auth"`
	AppInfo    bool     `json:"app_info"`             // add the APP_INFO extension
	Evidence   []byte   `json:"evidence,omitempty"`   // stripped attestation for the ATTESTATION extension
	NotBefore  uint64   `json:"not_before,omitempty"` // unix seconds
	NotAfter   uint64   `json:"not_after,omitempty"`  // unix seconds
}

// CertExt is reserved for extensions that later versions allow; none are today.
type CertExt struct{}

// SignCertResponse is leaf, app CA, root.
type SignCertResponse struct {
	Certificates []string `json:"certificates"`
}

// EnvKey is the app's environment encryption key, signed by the KMS root k256 key
// as the reference does (both message forms).
type EnvKey struct {
	PublicKey   []byte `json:"public_key"` // X25519, 32 bytes
	Signature   []byte `json:"signature"`
	SignatureV1 []byte `json:"signature_v1"`
	Timestamp   uint64 `json:"timestamp"` // unix seconds
}

// Meta describes this KMS. Nothing in it is to be believed without a pin: it is
// what a first-time profile shows to a person, and what a report compares.
type Meta struct {
	RootCA       string         `json:"root_ca"`       // PEM
	RootSPKI     string         `json:"root_spki"`     // hex DER: the key_provider_id
	K256PubKey   []byte         `json:"k256_pubkey"`   // compressed, 33 bytes
	TicketKey    []byte         `json:"ticket_key"`    // ed25519
	LedgerOrigin string         `json:"ledger_origin"` // checkpoint origin line
	Members      []Member       `json:"members"`
	Governance   GovernanceMeta `json:"governance"`
	Simulated    bool           `json:"simulated"`
	Epoch        uint32         `json:"epoch"`
	Warnings     []string       `json:"warnings,omitempty"` // for example NO ANTI-ROLLBACK
}

// GovernanceMeta names the authority.
type GovernanceMeta struct {
	Source       string `json:"source"`
	ChainID      uint64 `json:"chain_id,omitempty"`
	Contract     string `json:"contract,omitempty"`
	GatewayAppID string `json:"gateway_app_id,omitempty"`
}

// Member is one KMS node.
type Member struct {
	ID          string `json:"id"`
	VerifierKey string `json:"verifier_key"` // note verifier key (C2SP signed-note): signs checkpoints
	RPC         string `json:"rpc"`          // base URL
	Raft        string `json:"raft"`
	JoinLeaf    int64  `json:"join_leaf"`
}

// Status is this member's view of the cluster's health.
type Status struct {
	ID         string        `json:"id"`
	State      string        `json:"state"` // starting, leader, follower, candidate, stopped
	Leader     string        `json:"leader"`
	Quorum     bool          `json:"quorum"`
	Members    int           `json:"members"`
	LedgerSize int64         `json:"ledger_size"`
	Staleness  time.Duration `json:"chain_staleness_ns"`
	Warnings   []string      `json:"warnings,omitempty"`
}

// Reasons of refusals (cvm.Error.Reason), shown by the CLI and in deny leaves.
const (
	ReasonEvidence        = "evidence-rejected"
	ReasonRoot            = "evidence-root-not-admitted"
	ReasonPhase           = "evidence-wrong-phase"
	ReasonBinding         = "evidence-not-bound-to-this-connection"
	ReasonNonceUsed       = "nonce-already-used"
	ReasonLaunchRedeemed  = "launch-redeemed" // SEV-SNP: keys are released once per launch
	ReasonNonceExpired    = "nonce-expired"
	ReasonGovernance      = "governance-denied" // Message carries the contract's text
	ReasonChainStale      = "chain-stale"
	ReasonNoQuorum        = "kms-no-quorum"
	ReasonComposeMismatch = "compose-hash-mismatch"
	ReasonEnvSwapped      = "env-signature-invalid"
	ReasonEnvRolledBack   = "env-counter-rolled-back"
	ReasonLeaseUnknown    = "lease-unknown"
	ReasonRateLimited     = "rate-limited"
)
