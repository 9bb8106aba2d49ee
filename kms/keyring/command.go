package keyring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
	"github.com/confidential-cloud/phala/ledger"
)

// Version of commands. A member that meets another one halts: skipping it would
// give it another state than the others have.
const Version = 1

// Kinds of commands.
const (
	KindBootstrap = "bootstrap"
	KindJoin      = "join"
	KindDecide    = "decide"
	KindSummary   = "summary"
)

// Command is one entry of the raft log. The proposer sets everything that is not
// a function of the state.
type Command struct {
	V      int       `json:"v"`
	Kind   string    `json:"kind"`
	Time   time.Time `json:"time"`   // the proposer's clock
	Member string    `json:"member"` // the proposer

	Bootstrap *Bootstrap `json:"bootstrap,omitempty"`
	Join      *Join      `json:"join,omitempty"`
	Decide    *Decide    `json:"decide,omitempty"`
	Summary   *Summary   `json:"summary,omitempty"`
}

// Bootstrap founds the cluster.
type Bootstrap struct {
	Origin string `json:"origin"` // of the ledger's checkpoints
	Epoch  Epoch  `json:"epoch"`
	Member Member `json:"member"`
	// Leaf describes the founding boot (kind and time are set by Apply).
	Leaf ledger.Leaf `json:"leaf"`
}

// Join adds a member, or changes the addresses of one whose keys are the same.
type Join struct {
	Member Member `json:"member"`
	// Wrapped holds each epoch's root, encrypted to the member.
	Wrapped map[uint32][]byte `json:"wrapped"`
	Leaf    ledger.Leaf       `json:"leaf"`
}

// Decide records a decision about an app. With Lease set it is an allow.
type Decide struct {
	Leaf         ledger.Leaf `json:"leaf"`
	Nonce        string      `json:"nonce,omitempty"` // hex sha256 of the nonce to redeem
	NonceExpires time.Time   `json:"nonce_expires"`
	Once         []Once      `json:"once,omitempty"`
	Lease        *Lease      `json:"lease,omitempty"`
	Heights      *Heights    `json:"heights,omitempty"`
}

// Once is something that an allow redeems for good: the launch of a machine whose
// evidence shows no phase, the key of a client that sends no nonce.
type Once struct {
	ID string `json:"id"` // hex sha256 over what it is and its bytes
	// By is who may have it again, because the answer was lost: the client's key (hex
	// sha256). Empty: nobody.
	By string `json:"by,omitempty"`
}

// Heights is how far a chain had come when it was asked.
type Heights struct {
	Chain string `json:"chain"` // source, chain id and contract
	Final uint64 `json:"final"`
	Head  uint64 `json:"head"`
}

// Summary counts refusals of evidence that no vendor signed (T12).
type Summary struct {
	Count   uint64            `json:"count"`
	Reasons map[string]uint64 `json:"reasons"`
}

// Member is one KMS node as the ledger knows it.
type Member struct {
	ID          string   `json:"id"`
	URLs        []string `json:"urls"`
	Raft        string   `json:"raft"`
	TLSKey      []byte   `json:"tls_key"`      // DER SubjectPublicKeyInfo of its RA-TLS key
	WrapKey     []byte   `json:"wrap_key"`     // X25519: what root secrets are encrypted to
	VerifierKey string   `json:"verifier_key"` // note verifier key: signs checkpoints
	JoinLeaf    int64    `json:"join_leaf"`
}

// sameKeys reports whether two records are of the same member.
func (m Member) sameKeys(o Member) bool {
	return m.ID == o.ID && bytes.Equal(m.TLSKey, o.TLSKey) && bytes.Equal(m.WrapKey, o.WrapKey) && m.VerifierKey == o.VerifierKey
}

// Epoch is one generation of root secrets.
type Epoch struct {
	Number  uint32            `json:"number"`
	RootCA  []byte            `json:"root_ca"` // DER certificate
	K256    []byte            `json:"k256"`    // compressed public key
	Ticket  []byte            `json:"ticket"`  // ed25519 public key
	Wrapped map[string][]byte `json:"wrapped"` // member id -> the root, encrypted to it
}

// Lease is a release that was recorded, and the right to renew it.
type Lease struct {
	ID          string          `json:"id"`
	AppID       cvm.AppID       `json:"app_id"`
	InstanceID  cvm.InstanceID  `json:"instance_id"`
	ComposeHash cvm.ComposeHash `json:"compose_hash"`
	MRBoot      []byte          `json:"mr_boot"`    // renewals must show the same boot
	ClientKey   string          `json:"client_key"` // hex sha256 of the TLS client SPKI
	PortPolicy  []byte          `json:"port_policy,omitempty"`
	Simulated   bool            `json:"simulated"`
	Epoch       uint32          `json:"epoch"`
	Issued      time.Time       `json:"issued"`
	NoNonce     bool            `json:"no_nonce,omitempty"` // released over the reference's wire: not renewed
	// Launch names the launch, where no register does: renewals must show the same.
	Launch string `json:"launch,omitempty"`
	// Boot is what the authority was asked: later certificates ask again.
	Boot governance.BootRequest `json:"boot"`
	Leaf int64                  `json:"leaf"`
	// EnvCounter and EnvSHA256 are checked against the app's high-water mark when
	// EnvTracked is set (the compose names env_signers).
	EnvTracked bool   `json:"env_tracked"`
	EnvCounter uint64 `json:"env_counter"`
	EnvSHA256  string `json:"env_sha256"`
}

// Encode writes the command for the raft log.
func (c Command) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encoding a command: %w", err)
	}
	return b, nil
}

// ParseCommand reads a command strictly.
func ParseCommand(b []byte) (Command, error) {
	var c Command
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("command: %w", err)
	}
	if d.More() {
		return c, fmt.Errorf("command: trailing data")
	}
	if c.V != Version {
		return c, fmt.Errorf("command: version %d is not known to this code (it knows %d)", c.V, Version)
	}
	bodies := map[string]bool{
		KindBootstrap: c.Bootstrap != nil, KindJoin: c.Join != nil, KindDecide: c.Decide != nil, KindSummary: c.Summary != nil,
	}
	if set, known := bodies[c.Kind]; !known || !set {
		return c, fmt.Errorf("command: kind %q is not known or has no body", c.Kind)
	}
	return c, nil
}

// Result is what applying a command gave.
type Result struct {
	Leaf int64 `json:"leaf"` // index of the leaf it wrote, -1 for none
	// Reason is set when the state refused the command: a kmsapi reason, or one of ours.
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Reasons of refusals that are not in kmsapi.
const (
	ReasonBootstrapped  = "already-bootstrapped"
	ReasonNotFounded    = "not-bootstrapped"
	ReasonMemberTaken   = "member-id-taken"
	ReasonChainWentBack = "chain-went-back"
)
