package store

import (
	"context"
	"errors"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// More kinds of operations.
const (
	Resize  = "resize"
	Upgrade = "upgrade" // another guest image
)

// Cancelled is the state of an operation that somebody gave up.
const Cancelled = "cancelled"

// ErrSpent is returned when a prepared change was committed or superseded meanwhile.
var ErrSpent = errors.New("the prepared change is spent")

// States of a prepared change.
const (
	Waiting   = "waiting"
	Committed = "committed"
	Replaced  = "superseded" // a newer one of its slot was prepared
)

// Prepared is a change that waits until governance allows its compose hash. Its
// commit token is the credential: only the sha256 is kept.
type Prepared struct {
	ID          int64
	Token       [32]byte // sha256 of the token
	WorkspaceID int64
	CVMID       int64
	// Slot holds one waiting change: preparing another one in it supersedes the first.
	Slot        string
	ComposeHash string
	State       string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	// CommittedCVM and CommittedGeneration are the operation that the commit began.
	CommittedCVM        int64
	CommittedGeneration int

	PreparedBody
}

// PreparedBody is the part no query looks into.
type PreparedBody struct {
	UserID int64  `json:"user_id"`
	By     string `json:"by"`   // username
	Base   string `json:"base"` // the CVM's compose hash that Patch was made from
	Patch  Patch  `json:"patch"`
	NodeID int64  `json:"node_id,omitempty"` // of a replica
}

// Patch is what one update changes; what is zero stays as it is.
type Patch struct {
	AppCompose   []byte                 `json:"app_compose,omitempty"`
	ComposeHash  string                 `json:"compose_hash,omitempty"`
	SetEnv       bool                   `json:"set_env,omitempty"`
	EncryptedEnv []byte                 `json:"encrypted_env,omitempty"`
	EnvSignature *cloudapi.EnvSignature `json:"env_signature,omitempty"`
	UserConfig   *string                `json:"user_config,omitempty"`
	InstanceType *string                `json:"instance_type,omitempty"`
	VCPU         int                    `json:"vcpu,omitempty"`
	MemoryMiB    int                    `json:"memory_mib,omitempty"`
	DiskGB       int                    `json:"disk_gb,omitempty"`
	Image        string                 `json:"image,omitempty"`
}

// Apply writes the patch into a CVM's body, and tells whether the app-compose became
// another one.
func (p Patch) Apply(b *Body) (revised bool) {
	if p.AppCompose != nil {
		revised = p.ComposeHash != b.ComposeHash
		b.AppCompose, b.ComposeHash = p.AppCompose, p.ComposeHash
	}
	if p.SetEnv {
		b.EncryptedEnv, b.EnvSignature = p.EncryptedEnv, p.EnvSignature
	}
	if p.UserConfig != nil {
		b.UserConfig = *p.UserConfig
	}
	if p.InstanceType != nil {
		b.InstanceType = *p.InstanceType
	}
	b.VCPU, b.MemoryMiB, b.DiskGB = or(p.VCPU, b.VCPU), or(p.MemoryMiB, b.MemoryMiB), or(p.DiskGB, b.DiskGB)
	b.Image = or(p.Image, b.Image)
	return revised
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// PreparedChanges are what waits for governance. A prepared change is spent by
// Change.Spend, in the transaction of what it begins.
type PreparedChanges interface {
	// Prepare stores one and supersedes the waiting ones of its CVM and slot.
	Prepare(ctx context.Context, p Prepared) error
	// PreparedByToken finds one by the sha256 of its token, whatever its state.
	PreparedByToken(ctx context.Context, token [32]byte) (Prepared, error)
	// PreparedFor finds the newest one of a CVM's slot with a compose hash.
	PreparedFor(ctx context.Context, cvm int64, slot, composeHash string) (Prepared, error)
	// WaitingChanges lists those of a CVM's slot that can still be committed.
	WaitingChanges(ctx context.Context, cvm int64, slot string) ([]Prepared, error)
}

// OpsQuery chooses operations; zero fields do not restrict.
type OpsQuery struct {
	Before   int // generation
	Kinds    []string
	From, To time.Time
	Limit    int
}

// History is what was asked of a CVM and what came of it.
type History interface {
	// Operations lists a CVM's operations, newest first, and counts all that match but for Before.
	Operations(ctx context.Context, id int64, q OpsQuery) (ops []Operation, total int, err error)
	// EventsOf returns the events of one operation, oldest first, at most limit.
	EventsOf(ctx context.Context, id int64, generation, limit int) ([]cloudapi.Event, error)
	// Revision reads one revision of a workspace's app.
	Revision(ctx context.Context, workspace int64, appID string, id int64) (Revision, error)
}

// Deletions are CVMs that are to be deleted at a time (Body.DeleteAt).
type Deletions interface {
	// DueDeletions lists live CVMs whose time has come.
	DueDeletions(ctx context.Context) ([]int64, error)
}

// Answer is what a request with an idempotency key was answered.
type Answer struct {
	Request [32]byte // sha256 of the request
	Status  int      // 0: it is being answered
	Body    []byte   // sealed for the one who asked
}

// Answers remembers answers for a day.
type Answers interface {
	// Reserve says that a request is being answered, unless the scope (caller and key)
	// has an answer or is being answered already: then it returns that one and false. A
	// reservation that is older than two minutes is of a process that died.
	Reserve(ctx context.Context, scope, request [32]byte) (Answer, bool, error)
	// Answered stores the answer; Status 0 forgets the reservation.
	Answered(ctx context.Context, scope [32]byte, a Answer) error
}
