package vmmapi

import (
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Phases of an update. Only preparing and booting are under way; the others are
// how it ended.
const (
	UpdatePreparing  = "preparing"   // the running guest pulls what the new version needs
	UpdateBooting    = "booting"     // the new version starts; it is not confirmed yet
	UpdateDone       = "done"        // the new version was ready
	UpdateFailed     = "failed"      // preparing failed: nothing was changed
	UpdateRolledBack = "rolled-back" // the new version did not get ready: the old one is back
	UpdateCancelled  = "cancelled"   // somebody stopped the VM first: the old version is kept
	UpdateApplied    = "applied"     // the VM did not run: the next start takes it, unconfirmed
)

// UpdateRequest replaces parts of a VM; what is absent stays. An App replaces the
// old one whole: an absent environment or user config is cleared.
type UpdateRequest struct {
	App       *App       `json:"app,omitempty"`
	Resources *Resources `json:"resources,omitempty"` // a disk grows, it never shrinks
	Image     string     `json:"image,omitempty"`
	// ReadyWithinSeconds bounds the new version's way to ready; 0 is the node's default.
	ReadyWithinSeconds int `json:"ready_within_seconds,omitempty"`
}

// Update is the newest update of a VM.
type Update struct {
	Phase       string          `json:"phase"`
	ComposeHash cvm.ComposeHash `json:"compose_hash"` // of the new version
	Image       string          `json:"image,omitempty"`
	Resources   Resources       `json:"resources"`
	Progress    string          `json:"progress,omitempty"` // of the pull
	// Error is why it failed or was rolled back.
	Error       *VMError  `json:"error,omitempty"`
	RequestedAt time.Time `json:"requested_at"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
	// ReadyBy is when an unconfirmed new version is given up.
	ReadyBy time.Time `json:"ready_by,omitzero"`
}

// UnderWay reports whether the update has not ended.
func (u *Update) UnderWay() bool {
	return u != nil && (u.Phase == UpdatePreparing || u.Phase == UpdateBooting)
}

// Boot is one start of a VM's machine: how long each stage took and how it ended.
type Boot struct {
	Number      int             `json:"number"` // VM.Boots when it was the newest
	ComposeHash cvm.ComposeHash `json:"compose_hash"`
	Image       string          `json:"image,omitempty"`
	StartedAt   time.Time       `json:"started_at"`
	ReadyAt     time.Time       `json:"ready_at,omitzero"`
	EndedAt     time.Time       `json:"ended_at,omitzero"`
	Stages      []Stage         `json:"stages"`
	// Exit is how the run ended, Error why the boot failed.
	Exit  string   `json:"exit,omitempty"`
	Error *VMError `json:"error,omitempty"`
}

// Stage is one step of a boot.
type Stage struct {
	Name string `json:"name"` // as the guest calls it
	// Seconds since the machine's start when the host heard of the stage, and how long
	// it took: the guest's own measure where it sends one, else until the next stage.
	At       float64 `json:"at_seconds"`
	Duration float64 `json:"duration_seconds"`
	// Measured says that the duration is the guest's own.
	Measured bool `json:"measured,omitempty"`
}
