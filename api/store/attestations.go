package store

import (
	"context"
	"time"
)

// Attestation is a quote that somebody had verified: genuine, whatever its verdict.
type Attestation struct {
	Checksum   string // hex sha256 of Quote
	Verified   bool   // the vendor's rules were satisfied at VerifiedAt
	TCBStatus  string
	Summary    string // the verdict in a sentence
	PPID       string // hex: the processor
	DeviceID   string // hex sha256 of the PPID
	Quote      []byte
	Collateral []byte // what it was judged by (JSON of the tool contract)
	CreatedAt  time.Time
	VerifiedAt time.Time
}

// MaxAttestations is how many quotes are kept; the oldest are forgotten first.
const MaxAttestations = 2000

// Attestations are the verified quotes of anybody.
type Attestations interface {
	// PutAttestation stores a quote, or the newer verdict of one that is known.
	PutAttestation(ctx context.Context, a Attestation) (Attestation, error)
	// Attestation finds one by its checksum.
	Attestation(ctx context.Context, checksum string) (Attestation, error)
	// RecentAttestations lists them, newest first, without quote and collateral.
	RecentAttestations(ctx context.Context, skip, limit int) ([]Attestation, error)
	// PPIDs are those that verified quotes named, by device id.
	PPIDs(ctx context.Context) (map[string]string, error)
	// AppCVMs lists an app's live CVMs, whoever's they are, oldest first.
	AppCVMs(ctx context.Context, appID string) ([]CVM, error)
}
