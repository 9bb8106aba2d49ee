// Package cloudapi holds the wire types of the public REST API (/api/v1) and a
// thin client. Shapes follow the public contract of Phala Cloud, so that existing
// CLIs and SDKs work; what is ours is marked "ours" and is always an additional,
// optional field or an additional path.
//
// Authentication: X-API-Key: <key>, or Authorization: Bearer <key>.
// X-Phala-Version chooses between the two shapes that a few answers have;
// this package's client asks for VersionCurrent and knows only those shapes
// (types ending in V1 are the older ones, for the server).
//
// A pointer without omitempty is a key that is always present and may be null; a
// field with omitempty is absent when it has no value. The difference matters to
// the contract's clients.
package cloudapi

import "time"

// Versions of the public contract (X-Phala-Version).
const (
	VersionLegacy  = "2025-10-28"
	VersionCurrent = "2026-01-21"
)

// Prefix is the path prefix of the API; an "API prefix" in a CLI profile is the
// whole URL including it.
const Prefix = "/api/v1"

// Status words of a CVM.
const (
	StatusCreating   = "creating"
	StatusStarting   = "starting"
	StatusRunning    = "running"
	StatusUpdating   = "updating"
	StatusRestarting = "restarting"
	StatusStopping   = "stopping"
	StatusStopped    = "stopped"
	StatusDeleting   = "deleting"
	StatusFailed     = "failed" // CVMError says why
	StatusDeleted    = "deleted"
)

// Page is a page of a list.
type Page[T any] struct {
	Items    []T `json:"items"`
	Total    int `json:"total"`
	Page     int `json:"page"`
	PageSize int `json:"page_size"`
	Pages    int `json:"pages"`
}

// EnvSignature is the owner's signature over an encrypted environment (ours, T11):
// keys.SignEnv over the app id, the counter and sha256 of the encrypted bytes.
type EnvSignature struct {
	Counter   uint64 `json:"counter" minimum:"1" doc:"grows with every new environment; the KMS refuses one that goes back"`
	Signer    string `json:"signer" pattern:"^0x[0-9a-fA-F]{40}$" doc:"address named in the app-compose's env_signers"`
	Signature string `json:"signature" pattern:"^(0x)?[0-9a-fA-F]{130}$" doc:"65 bytes, hex"`
}

// CVMError is why a CVM is not running (ours). Reason is kmsapi's or the VMM's word.
type CVMError struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Stage   string `json:"stage,omitempty"`
	Fix     string `json:"fix,omitempty"`
}

// Kinds of events.
const (
	EventStatus    = "status"     // the CVM's status changed; Status is the new one
	EventProgress  = "progress"   // a boot stage, in the guest agent's words
	EventError     = "error"      // Error says what happened
	EventRetry     = "retry"      // a step is tried again (for example: the VMM does not answer)
	EventOperation = "operation"  // somebody asked for something (start, update, ...)
	EventVM        = "vm"         // anything else the VMM tells
	EventDeleted   = "deleted"    // the end of the story
	EventSchedule  = "scheduling" // where the CVM was placed, and why
)

// Event is one thing that happened to a CVM (ours); stored, never overwritten.
type Event struct {
	Seq        int64     `json:"seq"`
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"`
	Status     string    `json:"status,omitempty"`
	Message    string    `json:"message"`
	Generation int       `json:"generation" doc:"which of the CVM's operations this belongs to"`
	Error      *CVMError `json:"error,omitempty"`
	// Holds is what the CVM held when the status was so: what metering reads.
	Holds *EventSize `json:"holds,omitempty" doc:"what the CVM held at this status; metering reads it"`
}

// EventSize is what a CVM holds.
type EventSize struct {
	InstanceType string `json:"instance_type,omitempty"`
	VCPU         int    `json:"vcpu"`
	MemoryMB     int    `json:"memory_mb"`
	DiskGB       int    `json:"disk_gb"`
	GPUs         int    `json:"gpus,omitempty"`
}

// Done ends a progress stream (ours).
type Done struct {
	Status string    `json:"status"`
	Target string    `json:"target"`
	Seq    int64     `json:"seq"`
	Error  *CVMError `json:"error,omitempty"`
}
