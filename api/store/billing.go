package store

import (
	"context"
	"errors"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
)

// ErrKeyUsed is returned when an idempotency key was used for something else.
var ErrKeyUsed = errors.New("the idempotency key was used for another amount, kind or reason")

// ErrMoved is returned when an account's state changed meanwhile.
var ErrMoved = errors.New("the account moved on")

// LimitError is returned when a workspace would have more than it may.
type LimitError struct{ billing.Excess }

func (e *LimitError) Error() string { return "over the workspace's limit of " + e.What }

// Kinds of ledger entries beside the kinds of usage.
const (
	Credit     = "credit"     // money came in
	Grant      = "grant"      // given, and spent first
	Correction = "correction" // of what was paid, up or down
)

// Entry is one line of the ledger. Lines are only ever added.
type Entry struct {
	ID          int64
	WorkspaceID int64
	Key         string // unique in the workspace: the same thing is written once
	Kind        string
	CVMID       int64
	AppID       string
	Amount      billing.Micro // below zero for usage
	From, To    time.Time     // of usage; else when it was written
	CreatedAt   time.Time

	EntryBody
}

// EntryBody is the part no query looks into.
type EntryBody struct {
	UUID   string        `json:"uuid,omitempty"` // of the CVM
	Name   string        `json:"name,omitempty"`
	Size   *billing.Size `json:"size,omitempty"`
	Rate   billing.Micro `json:"rate,omitempty"` // an hour
	Seq    int64         `json:"seq,omitempty"`  // of the event that began it
	Reason string        `json:"reason,omitempty"`
	By     string        `json:"by,omitempty"` // username
}

// Account is a workspace's money.
type Account struct {
	WorkspaceID int64
	Tier        string // "" is the cloud's default
	PostPaid    bool
	State       string // billing.Active and so on
	Since       time.Time

	Paid, Granted, Used billing.Micro // sums of the ledger; Used is above zero
}

// Balance is what is left.
func (a Account) Balance() billing.Micro { return a.Paid + a.Granted - a.Used }

// Running is a meter that stands open: usage that is not in the ledger yet.
type Running struct {
	CVMID       int64
	WorkspaceID int64
	AppID       string
	UUID, Name  string
	Meter       billing.Meter
}

// Metering turns the CVMs' numbered events into the ledger: each event once, with a
// cursor per CVM that moves in the transaction of the lines.
type Metering interface {
	// MeterDue reads the new events of at most limit CVMs, and tells how many it read.
	MeterDue(ctx context.Context, limit int) (int, error)
	// CutDays closes what stands open up to a midnight, of at most limit CVMs.
	CutDays(ctx context.Context, midnight time.Time, limit int) (int, error)
	// Replay reads all events of a CVM again: what its lines should be.
	Replay(ctx context.Context, cvm int64) ([]billing.Segment, error)
	// SetPrices makes a price list count a minute from now (the first one: since ever),
	// if it is another one than the last.
	SetPrices(ctx context.Context, p billing.Prices) error
	// PriceLists returns the function that finds the price list of a time.
	PriceLists(ctx context.Context) (func(at time.Time) billing.Prices, error)
	// RunningMeters lists what stands open in a workspace (0: in all).
	RunningMeters(ctx context.Context, workspace int64) ([]Running, error)
	// Accruing sums what stands open in a workspace, as if it ended at a time, at the
	// prices that it was opened with, and what an hour of it costs. It may be more than
	// the lines will be, by less than a micro-unit for each kind of each CVM.
	Accruing(ctx context.Context, workspace int64, at time.Time) (amount, hourly billing.Micro, err error)
	// MeteredUntil tells whether the ledger of a workspace is complete up to a time.
	MeteredUntil(ctx context.Context, workspace int64, at time.Time) (bool, error)
}

// LedgerQuery chooses lines; zero fields do not restrict.
type LedgerQuery struct {
	AppID         string
	CVMID         int64
	From, To      time.Time // lines that touch [From, To)
	Limit, Offset int       // Limit 0: all
}

// Ledger is the workspaces' money. Nothing in it is ever changed or removed.
type Ledger interface {
	// Lines lists a workspace's, oldest first.
	Lines(ctx context.Context, workspace int64, q LedgerQuery) ([]Entry, error)
	// AddMoney writes a line that is not usage, once for each key: the second time it
	// returns the first line. ErrKeyUsed.
	AddMoney(ctx context.Context, e Entry) (Entry, error)
	// Account reads a workspace's account.
	Account(ctx context.Context, workspace int64) (Account, error)
	// Accounts lists those of all workspaces that have CVMs or lines.
	Accounts(ctx context.Context) ([]Account, error)
	// SetTerms stores tier and mode of payment.
	SetTerms(ctx context.Context, workspace int64, tier string, postPaid bool) error
	// MoveAccount stores a state, if the account still has the one that a was read
	// with; ErrMoved.
	MoveAccount(ctx context.Context, a Account, state string, since time.Time) error
	// WorkspaceBySlug finds a workspace's id and name.
	WorkspaceBySlug(ctx context.Context, slug string) (id int64, name string, err error)
}
