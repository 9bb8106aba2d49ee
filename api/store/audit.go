package store

import (
	"context"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// Audits are the audit logs, one for each workspace; 0 is nobody's. Nothing changes
// or removes an entry.
type Audits interface {
	// Audit appends an entry by itself: for a request that changed nothing else.
	Audit(ctx context.Context, d *AuditDraft) error
	// AuditLines returns a log's lines with a higher seq, oldest first, at most limit.
	AuditLines(ctx context.Context, chain, after int64, limit int) ([][]byte, error)
	// AuditHead is the end of a log as it was stored; zero for an empty one.
	AuditHead(ctx context.Context, chain int64) (cloudapi.AuditHead, error)
}

// AuditDraft is what a request's audit entries say. Each transaction of the store
// under a context that carries one appends an entry, or fails.
type AuditDraft struct {
	Chain   int64 // the workspace
	Entry   cloudapi.AuditEntry
	Written int // entries so far
	// Quiet: what happens is bookkeeping so far (a poll that finds nothing).
	Quiet bool
}

// Actor says who it was.
func (d *AuditDraft) Actor(p Principal) {
	d.Chain, d.Entry.User = p.WorkspaceID, p.Username
	switch {
	case p.KeyID != 0:
		d.Entry.Via, d.Entry.ViaID = "key", p.KeyID
	case p.SessionID != 0:
		d.Entry.Via, d.Entry.ViaID = "session", p.SessionID
	}
}

type auditKey struct{}

// WithAudit returns a context under which changes are recorded; nil stops recording,
// for bookkeeping that nobody asked for (when a key was used, how often a guess was
// wrong).
func WithAudit(ctx context.Context, d *AuditDraft) context.Context {
	return context.WithValue(ctx, auditKey{}, d)
}

// AuditOf returns the draft a context carries, or nil.
func AuditOf(ctx context.Context) *AuditDraft {
	d, _ := ctx.Value(auditKey{}).(*AuditDraft)
	return d
}
