// Package store is what the cloud API remembers: accounts, CVMs, their operations
// and events. The interface has one implementation per database; all must pass
// storetest.
//
// The one rule that matters: everything that happens to a CVM goes through Change,
// which reads, decides and writes in one transaction, together with the events and
// the job that will do the work.
package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

// ErrNotFound is returned when nothing has that id.
var ErrNotFound = errors.New("not found")

// ErrNameTaken is returned when a live CVM of the workspace has the name.
var ErrNameTaken = errors.New("name is taken")

// ErrAppTaken is returned when the app belongs to another workspace.
var ErrAppTaken = errors.New("app belongs to another workspace")

// Principal is who a request comes from.
type Principal struct {
	UserID        int64
	Username      string
	Email         string
	Role          string // of the whole cloud: admin (who operates it) or user
	WorkspaceID   int64
	WorkspaceName string
	WorkspaceSlug string
	Member        Role  // in the workspace
	KeyID         int64 // 0: a session
	SessionID     int64 // 0: a key
	Scopes        string
	// DefaultVersion is the API version of a key's requests that name none.
	DefaultVersion string
	MustChange     bool // the password, before anything else
	TOTP           bool // a second factor is set up
	SteppedAt      time.Time
}

// Operator tells whether the caller runs this cloud.
func (p Principal) Operator() bool { return p.Role == "admin" }

// CVM is one confidential VM. Everything in it may be seen by the operator:
// EncryptedEnv is ciphertext for the app.
type CVM struct {
	ID          int64
	WorkspaceID int64
	UserID      int64
	UUID        string // the VMM's id, dashed v4
	Name        string
	AppID       string // 40 hex
	InstanceID  string // 40 hex, or "" until the guest told
	NodeID      int64
	Status      string // cloudapi.Status*
	Generation  int    // number of the newest operation
	CreatedAt   time.Time
	UpdatedAt   time.Time
	DeletedAt   time.Time // zero while it lives

	Body
}

// Body is the part of a CVM that no query looks into (one JSON column).
type Body struct {
	InstanceType    string                 `json:"instance_type,omitempty"`
	VCPU            int                    `json:"vcpu"`
	MemoryMiB       int                    `json:"memory_mib"`
	DiskGB          int                    `json:"disk_gb"`
	Image           string                 `json:"image,omitempty"`
	Listed          bool                   `json:"listed,omitempty"`
	AppCompose      []byte                 `json:"app_compose"`
	ComposeHash     string                 `json:"compose_hash"`
	EncryptedEnv    []byte                 `json:"encrypted_env,omitempty"`
	EnvSignature    *cloudapi.EnvSignature `json:"env_signature,omitempty"`
	ContractAddress string                 `json:"contract_address,omitempty"`
	DeployerAddress string                 `json:"deployer_address,omitempty"`
	BootProgress    string                 `json:"boot_progress,omitempty"`
	Error           *cloudapi.CVMError     `json:"error,omitempty"`
	StartedAt       time.Time              `json:"started_at,omitzero"`
	StoppedAt       time.Time              `json:"stopped_at,omitzero"`
	UserConfig      string                 `json:"user_config,omitempty"` // handed to the guest as it is, unmeasured
	DeleteAt        time.Time              `json:"delete_at,omitzero"`    // when to delete it
	Face            *Face                  `json:"face,omitempty"`        // of AppCompose, or of an earlier one
	GPUs            int                    `json:"gpus,omitempty"`        // cards of its own, of the product GPU
	GPU             string                 `json:"gpu,omitempty"`         // vendor:device
}

// Live reports whether the CVM has not been deleted.
func (c CVM) Live() bool { return c.DeletedAt.IsZero() }

// Kinds of operations.
const (
	Deploy   = "deploy"
	Start    = "start"
	Stop     = "stop"
	Shutdown = "shutdown"
	Restart  = "restart"
	Update   = "update"
	Delete   = "delete"
)

// States of an operation.
const (
	Pending    = "pending"
	Done       = "done"
	Failed     = "failed"
	Superseded = "superseded" // a later stop or delete made it pointless
)

// Operation is one thing somebody asked of a CVM.
type Operation struct {
	CVMID      int64
	Generation int
	Kind       string
	State      string
	CreatedAt  time.Time
	FinishedAt time.Time

	OperationBody
}

// OperationBody is the part no query looks into.
type OperationBody struct {
	CorrelationID string `json:"correlation_id"`
	By            string `json:"by"`                // username
	Volumes       string `json:"volumes,omitempty"` // delete: keep or delete
	// BootsBefore is the VM's boot count when the step that starts it was first about
	// to be taken, plus one; zero means it was not yet. A job that runs again after a
	// crash compares it, so that one operation starts a VM once.
	BootsBefore int   `json:"boots_before,omitempty"`
	ByID        int64 `json:"by_id,omitempty"` // user id
	// StayDown: the change waits for the next start, the operation starts nothing.
	StayDown bool `json:"stay_down,omitempty"`
	AppPut   bool `json:"app_put,omitempty"` // the new compose or env reached the VMM
	// Before is the version that a failed update goes back to; gone when it has ended.
	Before *Version `json:"before,omitempty"`
	// UpdateAsked: the node was asked to update, or was about to be; its newest update
	// until then was asked for at LastUpdate.
	UpdateAsked bool      `json:"update_asked,omitempty"`
	LastUpdate  time.Time `json:"last_update,omitzero"`
}

// Open reports whether the operation still has work to do.
func (o Operation) Open() bool { return o.FinishedAt.IsZero() }

// Provision is a prepared app-compose, waiting for its commit.
type Provision struct {
	WorkspaceID  int64
	CVMID        int64 // 0: a new CVM
	ComposeHash  string
	ExpiresAt    time.Time
	CommittedCVM int64 // the CVM that the commit made

	ProvisionBody
}

// ProvisionBody is the part no query looks into.
type ProvisionBody struct {
	Name          string `json:"name"`
	AppCompose    []byte `json:"app_compose"`
	InstanceType  string `json:"instance_type,omitempty"`
	VCPU          int    `json:"vcpu,omitempty"`
	MemoryMiB     int    `json:"memory_mib,omitempty"`
	DiskGB        int    `json:"disk_gb,omitempty"`
	GPUs          int    `json:"gpus,omitempty"`
	GPU           string `json:"gpu,omitempty"` // vendor:device
	Image         string `json:"image,omitempty"`
	NodeID        int64  `json:"node_id,omitempty"` // 0: wherever there is room at commit
	Region        string `json:"region,omitempty"`
	Listed        bool   `json:"listed,omitempty"`
	MinConfidence string `json:"min_confidence,omitempty"`
	Chosen        bool   `json:"chosen,omitempty"`  // the node was not asked for
	ByName        bool   `json:"by_name,omitempty"` // an update that POST /cvms commits
}

// Revision is an app-compose that a CVM was told to run.
type Revision struct {
	ID          int64
	CVMID       int64
	AppID       string
	Generation  int
	ComposeHash string
	Kind        string
	CreatedAt   time.Time
	AppCompose  []byte
}

// Node is a VMM that the config names; its id never changes.
type Node struct {
	ID  int64
	URL string
}

// VMEvent is an event as a VMM numbered it; storing it twice stores it once.
type VMEvent struct {
	Seq   int64
	Event cloudapi.Event
}

// Enqueue inserts the job for an operation in the transaction that creates it.
type Enqueue func(ctx context.Context, tx *sql.Tx, cvmID int64, generation int) error

// Change is a CVM inside a transaction.
type Change struct {
	CVM CVM
	Ops []Operation // the open ones, oldest first; edit them in place
	At  time.Time

	Events   []cloudapi.Event
	VMEvents []VMEvent
	Begun    []Operation
	Revised  bool // store AppCompose as a revision
	// Limits of the workspace, checked with all it has after the change; nil: unchecked.
	Limits *billing.Limits
	// Reservation becomes the CVM's own room; ErrReservationGone if it has expired.
	Reservation string
	Spend       int64 // the prepared change that this commits; ErrSpent if it cannot be
}

// Emit records an event of the CVM's present generation.
func (c *Change) Emit(e cloudapi.Event) {
	e.Time = c.At
	if e.Generation == 0 {
		e.Generation = c.CVM.Generation
	}
	c.Events = append(c.Events, e)
}

// SetStatus changes the status and says so in an event, if it is a change.
func (c *Change) SetStatus(s, message string) {
	if c.CVM.Status == s {
		return
	}
	c.CVM.Status = s
	c.Emit(cloudapi.Event{Kind: cloudapi.EventStatus, Status: s, Message: message, Error: c.CVM.Error})
}

// Begin starts an operation: the CVM's next generation.
func (c *Change) Begin(kind string, b OperationBody) {
	c.CVM.Generation++
	o := Operation{CVMID: c.CVM.ID, Generation: c.CVM.Generation, Kind: kind, State: Pending, CreatedAt: c.At, OperationBody: b}
	c.Begun = append(c.Begun, o)
	c.Emit(cloudapi.Event{Kind: cloudapi.EventOperation, Message: kind + " requested by " + b.By})
}

// Op finds the open operation of a generation, or nil.
func (c *Change) Op(generation int) *Operation {
	for i := range c.Ops {
		if c.Ops[i].Generation == generation {
			return &c.Ops[i]
		}
	}
	return nil
}

// Finish ends the operation.
func (c *Change) Finish(o *Operation, state string) {
	o.State, o.FinishedAt, o.Before = state, c.At, nil
}

// CVMs are the machines and what happens to them.
type CVMs interface {
	// Create stores a CVM and its first operation, made by fn; it marks the provision
	// (workspace, 0, compose hash) as committed. ErrNameTaken, ErrAppTaken.
	Create(ctx context.Context, c CVM, enqueue Enqueue, fn func(*Change) error) (CVM, error)
	// Change runs fn on a CVM in one transaction; nothing is stored when it fails.
	Change(ctx context.Context, id int64, enqueue Enqueue, fn func(*Change) error) (CVM, error)
	// CVM reads one, deleted or not.
	CVM(ctx context.Context, id int64) (CVM, error)
	// Find resolves a reference as clients write it (see Match) in a workspace: live
	// CVMs, or, when there is none and deleted is set, the newest deleted one.
	Find(ctx context.Context, workspace int64, ref string, deleted bool) ([]CVM, error)
	// List returns the live CVMs of a workspace (0: of all), newest first.
	List(ctx context.Context, workspace int64) ([]CVM, error)
	// OpenOps returns a CVM's unfinished operations, oldest first.
	OpenOps(ctx context.Context, id int64) ([]Operation, error)
	// Operation reads one operation.
	Operation(ctx context.Context, id int64, generation int) (Operation, error)
	// Unfinished lists the operations of all CVMs that are not finished.
	Unfinished(ctx context.Context) ([]Operation, error)
	// Events returns a CVM's events with a higher seq, oldest first, at most limit.
	Events(ctx context.Context, id, after int64, limit int) ([]cloudapi.Event, error)
	// LastSeq is the seq of a CVM's newest event, or 0.
	LastSeq(ctx context.Context, id int64) (int64, error)
	// Revisions lists what an app's CVMs were told to run, newest first.
	Revisions(ctx context.Context, workspace int64, appID string) ([]Revision, error)
	// Watch signals after each change of a CVM until stop is called. Signals may be
	// merged, and with several API processes those of others are missing: also poll.
	Watch(id int64) (signal <-chan struct{}, stop func())
}

// Provisions are prepared app-composes.
type Provisions interface {
	PutProvision(ctx context.Context, p Provision) error
	// Provision returns one that has not expired, or ErrNotFound.
	Provision(ctx context.Context, workspace, cvm int64, composeHash string) (Provision, error)
}

// Store is all of it.
type Store interface {
	Accounts
	CVMs
	Listings
	Provisions
	PreparedChanges
	History
	Deletions
	Answers
	Webhooks
	Attestations
	Reservations
	Nodes
	Metering
	Ledger
	// NodeID gives a VMM's URL its lasting id.
	NodeID(ctx context.Context, url string) (int64, error)
	Close() error
}
