package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// audit appends the entry of the request that a transaction belongs to. It runs last
// in every transaction, so that the chain's lock is held for the commit only.
func (d *DB) audit(ctx context.Context, tx *sqldb.Tx) error {
	draft := store.AuditOf(ctx)
	if draft == nil || draft.Quiet {
		return nil
	}
	if err := tx.Lock(ctx, fmt.Sprintf("audit %d", draft.Chain)); err != nil {
		return err
	}
	head, err := auditHead(ctx, tx, draft.Chain)
	if err != nil {
		return err
	}
	e := draft.Entry
	e.Seq, e.Prev, e.Time = head.Seq+1, head.Hash, d.now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding audit entry: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO audit_entries (chain, seq, body) VALUES (?, ?, ?)`, draft.Chain, e.Seq, string(line)); err != nil {
		return fmt.Errorf("storing audit entry: %w", err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO audit_heads (chain, seq, hash) VALUES (?, ?, ?)
		ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash`, draft.Chain, e.Seq, cloudapi.AuditHash(line))
	if err != nil {
		return fmt.Errorf("storing audit head: %w", err)
	}
	draft.Written++
	return nil
}

type rowQueryer interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

func auditHead(ctx context.Context, q rowQueryer, chain int64) (head cloudapi.AuditHead, err error) {
	err = q.QueryRowContext(ctx, `SELECT seq, hash FROM audit_heads WHERE chain = ?`, chain).Scan(&head.Seq, &head.Hash)
	if err := notFound(err); err != nil && !errors.Is(err, store.ErrNotFound) {
		return head, fmt.Errorf("reading audit head: %w", err)
	}
	return head, nil
}

// Audit appends an entry by itself.
func (d *DB) Audit(ctx context.Context, draft *store.AuditDraft) error {
	return sqldb.Transact(store.WithAudit(ctx, draft), d.db, func(*sqldb.Tx) error { return nil })
}

// AuditLines returns a log's lines.
func (d *DB) AuditLines(ctx context.Context, chain, after int64, limit int) ([][]byte, error) {
	return rows(ctx, d.db, func(r scanner) ([]byte, error) {
		var line string
		err := r.Scan(&line)
		return []byte(line), err
	}, `SELECT body FROM audit_entries WHERE chain = ? AND seq > ? ORDER BY seq LIMIT ?`, chain, after, limit)
}

// AuditHead is the end of a log as it was stored.
func (d *DB) AuditHead(ctx context.Context, chain int64) (cloudapi.AuditHead, error) {
	return auditHead(ctx, d.db, chain)
}
