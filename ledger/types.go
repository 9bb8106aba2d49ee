// Package ledger is the public, append-only log of every decision the KMS makes:
// an RFC 6962 Merkle tree of JSON leaves, C2SP signed-note checkpoints with the
// signatures of a majority of members, inclusion and consistency proofs. It is
// the library of both sides: the KMS appends with it, anyone verifies with it.
package ledger

import (
	"encoding/json"
	"time"
)

// Kinds of leaves (T12).
const (
	KindBootstrap  = "bootstrap"
	KindJoin       = "join"
	KindRemove     = "remove"
	KindAllow      = "allow" // keys were released
	KindDeny       = "deny"
	KindSummary    = "summary" // refusals of evidence that no vendor signed, counted
	KindEpoch      = "epoch"
	KindRevocation = "revocation"
	KindGeneration = "generation"
)

// Leaf is one entry. Its canonical form is what the tree hashes: see Leaf.Encode.
type Leaf struct {
	Version int       `json:"v"`
	Kind    string    `json:"kind"`
	Time    time.Time `json:"time"` // the proposer's clock, UTC, whole seconds
	Member  string    `json:"member"`

	AppID       string `json:"app_id,omitempty"`
	InstanceID  string `json:"instance_id,omitempty"`
	ComposeHash string `json:"compose_hash,omitempty"`
	ImageHash   string `json:"os_image_hash,omitempty"`
	DeviceID    string `json:"device_id,omitempty"`
	MRSystem    string `json:"mr_system,omitempty"`
	MRAggregate string `json:"mr_aggregated,omitempty"`
	Platform    string `json:"platform,omitempty"`
	TCBStatus   string `json:"tcb_status,omitempty"`
	// EvidenceHash is hex sha256 over report_data || RTMR3 || MRTD: content, not bytes,
	// because quotes are malleable.
	EvidenceHash string `json:"evidence,omitempty"`
	ClientKey    string `json:"client_key,omitempty"` // hex sha256 of the TLS client SPKI
	EnvSHA256    string `json:"env_sha256,omitempty"`
	EnvCounter   uint64 `json:"env_counter,omitempty"`
	EnvSigned    bool   `json:"env_signed,omitempty"` // false on an allow with an env: UNSIGNED ENV
	NoNonce      bool   `json:"no_nonce,omitempty"`   // reference wire: NO NONCE
	Epoch        uint32 `json:"epoch"`
	LeaseID      string `json:"lease_id,omitempty"`

	Reason     string          `json:"reason,omitempty"`     // machine word of a deny
	Detail     string          `json:"detail,omitempty"`     // text of a deny
	Governance json.RawMessage `json:"governance,omitempty"` // governance.View of the decision
	Count      uint64          `json:"count,omitempty"`      // summary: how many refusals
	Note       json.RawMessage `json:"note,omitempty"`       // kind-specific facts (join: verifier key)
}

// LaunchNote is the note of an allow whose evidence shows no phase of the boot: keys
// were released to that launch, once.
type LaunchNote struct {
	Phase  string `json:"phase"`  // unproven
	Launch string `json:"launch"` // claim.Claims.LaunchID
}

// Receipt is what a release hands out so that anyone can check that its decision
// is in the ledger: the leaf's exact bytes, its place, the proof, and a checkpoint
// (a signed note) that covers it.
type Receipt struct {
	Leaf       []byte   `json:"leaf"`
	Index      int64    `json:"index"`
	TreeSize   int64    `json:"tree_size"`
	Proof      [][]byte `json:"proof"` // RFC 6962 inclusion proof, 32 bytes each
	Checkpoint []byte   `json:"checkpoint"`
}
