package store

import (
	"context"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// NodeProof is what a node proved of its platform, and what shows it.
type NodeProof struct {
	cloudapi.NodeEvidence
	Told bool // its end was recorded
}

// Nodes are what the hosts of the cloud proved, and what happened to them.
type Nodes interface {
	// PutNodeProof stores a node's proof in place of an earlier one, with its event.
	PutNodeProof(ctx context.Context, p NodeProof, e cloudapi.NodeEvent) error
	// DropNodeProof forgets it; ErrNotFound when there is none.
	DropNodeProof(ctx context.Context, e cloudapi.NodeEvent) error
	// NodeProof reads one whole, or ErrNotFound.
	NodeProof(ctx context.Context, node int64) (NodeProof, error)
	// NodeProofs reads all without evidence and checks.
	NodeProofs(ctx context.Context) ([]NodeProof, error)
	// EndNodeProof records that a proof's time is over, once for each proof: ended
	// says whether this call did.
	EndNodeProof(ctx context.Context, at time.Time, e cloudapi.NodeEvent) (ended bool, err error)
	// AddNodeEvent records an event, unless it says what the node's newest one says.
	AddNodeEvent(ctx context.Context, e cloudapi.NodeEvent) error
	// NodeEvents returns a node's events with a higher seq, oldest first.
	NodeEvents(ctx context.Context, node, after int64, limit int) ([]cloudapi.NodeEvent, error)
	// LastNodeEvent is the seq of the newest event of all nodes, or 0: each change of a
	// proof makes one.
	LastNodeEvent(ctx context.Context) (int64, error)
}
