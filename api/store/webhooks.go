package store

import (
	"context"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
)

// Events that webhooks are told of.
const (
	HookCreated         = "cvm.created"
	HookStarted         = "cvm.started"
	HookCreateFailed    = "cvm.create_failed"
	HookRestarted       = "cvm.restarted"
	HookUpdated         = "cvm.updated"
	HookStopped         = "cvm.stopped"
	HookDeleted         = "cvm.deleted"
	HookPendingApproval = "cvm.update.pending_approval"
	HookBalanceLow      = "billing.balance_low"   // it is at the warning's mark
	HookBalanceEmpty    = "billing.balance_empty" // the grace runs
	HookSuspended       = "billing.suspended"     // CVMs are stopped, disks kept
	HookResumed         = "billing.resumed"       // what that stopped starts again
	HookAbandoned       = "billing.abandoned"     // CVMs are deleted
	HookTest            = "webhook.test"          // only when asked for
)

// HookEvents are the events one may subscribe to.
func HookEvents() []string {
	return []string{HookCreated, HookStarted, HookCreateFailed, HookRestarted, HookUpdated, HookStopped, HookDeleted, HookPendingApproval,
		HookBalanceLow, HookBalanceEmpty, HookSuspended, HookResumed, HookAbandoned}
}

// HookOf is the event that an operation is at its end, "" for none.
func HookOf(kind, state string) string {
	switch {
	case kind == Deploy && state == Failed:
		return HookCreateFailed
	case state != Done:
		return ""
	}
	return map[string]string{Deploy: HookStarted, Start: HookStarted, Restart: HookRestarted, Update: HookUpdated, Stop: HookStopped, Shutdown: HookStopped, Delete: HookDeleted}[kind]
}

// HookOfAccount is the event that an account's move from one state to another is, ""
// for none.
func HookOfAccount(was, is string) string {
	switch {
	case billing.Stops(was) && !billing.Stops(is):
		return HookResumed
	case was == is:
		return ""
	}
	return map[string]string{billing.Warned: HookBalanceLow, billing.Empty: HookBalanceEmpty, billing.Suspended: HookSuspended, billing.Abandoned: HookAbandoned}[is]
}

// States of a delivery.
const (
	DeliveryPending = "pending"
	DeliverySuccess = "success"
	DeliveryFailed  = "failed"
)

// Webhook is where a workspace is told of events.
type Webhook struct {
	ID          int64
	PublicID    string
	WorkspaceID int64
	URL         string
	Name        string
	Events      []string
	Enabled     bool
	Secret      []byte // sealed
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Delivery is one event for one webhook: at least once, with the same event id.
type Delivery struct {
	ID        int64
	WebhookID int64
	EventID   string
	Event     string
	Original  string // event id that this one repeats
	Status    string
	Attempts  int
	URL       string // of the last attempt
	Response  int    // status of its answer, 0: none
	Error     string
	Duration  time.Duration
	CreatedAt time.Time
	Delivered time.Time
	NextAt    time.Time // when to try (again)
	Body      []byte    // the exact bytes that are sent and signed
}

// HookStats count a webhook's finished deliveries.
type HookStats struct {
	Total, Success, Failed int
	Average, Longest       time.Duration
	Last                   time.Time
}

// Webhooks are the webhooks and what is to be delivered. CVMs.Change adds the
// deliveries of what it finishes, in its transaction.
type Webhooks interface {
	AddWebhook(ctx context.Context, h Webhook) (Webhook, error)
	// WebhooksOf lists a workspace's, oldest first.
	WebhooksOf(ctx context.Context, workspace int64) ([]Webhook, error)
	// Webhook reads one by its public id; ErrNotFound also for another workspace's.
	Webhook(ctx context.Context, workspace int64, publicID string) (Webhook, error)
	WebhookByID(ctx context.Context, id int64) (Webhook, error)
	SaveWebhook(ctx context.Context, h Webhook) (Webhook, error)
	// DeleteWebhook removes it with its deliveries.
	DeleteWebhook(ctx context.Context, id int64) error
	// AddDelivery stores one that is due at NextAt, or now.
	AddDelivery(ctx context.Context, d Delivery) (Delivery, error)
	// Deliveries lists a webhook's, newest first.
	Deliveries(ctx context.Context, webhook int64, limit, offset int) ([]Delivery, error)
	// Delivery finds one by its event id.
	Delivery(ctx context.Context, webhook int64, eventID string) (Delivery, error)
	// ClaimDeliveries takes at most limit that are due, for as long as lease: nobody
	// else gets them meanwhile. Each is an attempt.
	ClaimDeliveries(ctx context.Context, lease time.Duration, limit int) ([]Delivery, error)
	// FinishDelivery stores the outcome of an attempt.
	FinishDelivery(ctx context.Context, d Delivery) error
	// PruneDeliveries forgets finished ones from before.
	PruneDeliveries(ctx context.Context, before time.Time) error
	WebhookStats(ctx context.Context, webhook int64) (HookStats, error)
}
