package store

import (
	"context"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
)

// ListQuery chooses live CVMs of a workspace; zero fields do not restrict.
type ListQuery struct {
	Workspace     int64
	Node          int64
	App           string   // app id
	Search        string   // within the name, or the beginning of app id, uuid or instance id; whatever the case
	Status        []string // one of these
	Offset, Limit int      // of a page; Limit 0 is all
}

// Resident is what comparing a CVM with its node looks at first.
type Resident struct {
	ID         int64
	UUID       string
	InstanceID string
	Status     string
	UpdatedAt  time.Time
}

// Listings read what a page shows, so that its cost does not grow with all that is
// not on it.
type Listings interface {
	// Page returns the CVMs of a page, newest first, and how many match.
	Page(ctx context.Context, q ListQuery) (page []CVM, total int, err error)
	// Older returns CVMs that match, newest first: at most limit of those before one (its
	// id; 0: from the newest). Offset and Limit of the query have no part in it.
	Older(ctx context.Context, q ListQuery, before int64, limit int) ([]CVM, error)
	// AppPage returns the CVMs of a page of apps, those with the newest CVM first,
	// each app's together and newest first, and how many apps match. Only CVMs that
	// match are returned.
	AppPage(ctx context.Context, q ListQuery) (page [][]CVM, total int, err error)
	// OnNodes returns the live CVMs of some nodes, by node.
	OnNodes(ctx context.Context, nodes []int64) (map[int64][]Resident, error)
	// NameTaken tells whether a live CVM of the workspace has the name.
	NameTaken(ctx context.Context, workspace int64, name string) (bool, error)
	// OpenOpsOf returns the unfinished operations of several CVMs, oldest first.
	OpenOpsOf(ctx context.Context, ids []int64) (map[int64][]Operation, error)
	// Held is what the live CVMs of a workspace hold together.
	Held(ctx context.Context, workspace int64) (billing.Held, error)
	// NodeIDs is NodeID for many, in their order.
	NodeIDs(ctx context.Context, urls []string) ([]int64, error)
}
