package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

const preparedColumns = `SELECT id, token, workspace_id, cvm_id, slot, compose_hash, state, created_at, expires_at, committed_cvm, committed_generation, body FROM prepared_changes `

func scanPrepared(row scanner) (p store.Prepared, err error) {
	var token []byte
	var body string
	var created, expires int64
	if err := row.Scan(&p.ID, &token, &p.WorkspaceID, &p.CVMID, &p.Slot, &p.ComposeHash, &p.State, &created, &expires,
		&p.CommittedCVM, &p.CommittedGeneration, &body); err != nil {
		return p, notFound(err)
	}
	copy(p.Token[:], token)
	p.CreatedAt, p.ExpiresAt = at(created), at(expires)
	if err := json.Unmarshal([]byte(body), &p.PreparedBody); err != nil {
		return p, fmt.Errorf("prepared change %d: stored body: %w", p.ID, err)
	}
	return p, nil
}

// Prepare stores a change and supersedes the waiting ones of its CVM and slot. What
// a superseded change carried is forgotten.
func (d *DB) Prepare(ctx context.Context, p store.Prepared) error {
	body, err := json.Marshal(p.PreparedBody)
	if err != nil {
		return fmt.Errorf("encoding prepared change: %w", err)
	}
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, fmt.Sprintf("cvm %d", p.CVMID)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM prepared_changes WHERE expires_at <= ?`, ms(d.now().Add(-24*time.Hour))); err != nil {
			return fmt.Errorf("forgetting old prepared changes: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE prepared_changes SET state = ?, body = '{}' WHERE cvm_id = ? AND slot = ? AND state = ?`,
			store.Replaced, p.CVMID, p.Slot, store.Waiting); err != nil {
			return fmt.Errorf("superseding prepared changes: %w", err)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO prepared_changes (token, workspace_id, cvm_id, slot, compose_hash, state, created_at, expires_at, body)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, p.Token[:], p.WorkspaceID, p.CVMID, p.Slot, p.ComposeHash, store.Waiting, ms(d.now()), ms(p.ExpiresAt), string(body))
		if err != nil {
			return fmt.Errorf("storing prepared change: %w", err)
		}
		c, err := scanCVM(tx.QueryRowContext(ctx, cvmColumns+`WHERE id = ?`, p.CVMID))
		if err != nil {
			return err
		}
		return tell(ctx, tx, c, d.now(), []string{store.HookPendingApproval})
	})
}

// PreparedByToken finds a prepared change by the sha256 of its token.
func (d *DB) PreparedByToken(ctx context.Context, token [32]byte) (store.Prepared, error) {
	return scanPrepared(d.db.QueryRowContext(ctx, preparedColumns+`WHERE token = ?`, token[:]))
}

// PreparedFor finds the newest prepared change of a CVM's slot with a compose hash.
func (d *DB) PreparedFor(ctx context.Context, cvm int64, slot, composeHash string) (store.Prepared, error) {
	return scanPrepared(d.db.QueryRowContext(ctx, preparedColumns+`WHERE cvm_id = ? AND slot = ? AND compose_hash = ? ORDER BY id DESC LIMIT 1`, cvm, slot, composeHash))
}

// WaitingChanges lists prepared changes that can still be committed.
func (d *DB) WaitingChanges(ctx context.Context, cvm int64, slot string) ([]store.Prepared, error) {
	return rows(ctx, d.db, scanPrepared, preparedColumns+`WHERE cvm_id = ? AND slot = ? AND state = ? AND expires_at > ? ORDER BY id`, cvm, slot, store.Waiting, ms(d.now()))
}

// spend marks the change's prepared change as committed, once.
func spend(ctx context.Context, tx *sqldb.Tx, c *store.Change) error {
	if c.Spend == 0 {
		return nil
	}
	r, err := tx.ExecContext(ctx, `UPDATE prepared_changes SET state = ?, committed_cvm = ?, committed_generation = ?, body = '{}' WHERE id = ? AND state = ? AND expires_at > ?`,
		store.Committed, c.CVM.ID, c.CVM.Generation, c.Spend, store.Waiting, ms(c.At))
	if err != nil {
		return fmt.Errorf("spending prepared change: %w", err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return store.ErrSpent
	}
	return nil
}

// schedule keeps the table of deletions in step with the CVM.
func schedule(ctx context.Context, tx *sqldb.Tx, before time.Time, c *store.Change) (err error) {
	switch {
	case !c.CVM.Live() || c.CVM.DeleteAt.IsZero() && !before.IsZero():
		_, err = tx.ExecContext(ctx, `DELETE FROM scheduled_deletions WHERE cvm_id = ?`, c.CVM.ID)
	case !c.CVM.DeleteAt.Equal(before):
		_, err = tx.ExecContext(ctx, `INSERT INTO scheduled_deletions (cvm_id, delete_at) VALUES (?, ?)
			ON CONFLICT (cvm_id) DO UPDATE SET delete_at = excluded.delete_at`, c.CVM.ID, ms(c.CVM.DeleteAt))
	}
	if err != nil {
		return fmt.Errorf("storing scheduled deletion: %w", err)
	}
	return nil
}

// DueDeletions lists live CVMs whose time has come.
func (d *DB) DueDeletions(ctx context.Context) ([]int64, error) {
	return rows(ctx, d.db, func(r scanner) (id int64, err error) { return id, r.Scan(&id) },
		`SELECT cvm_id FROM scheduled_deletions WHERE delete_at <= ? ORDER BY delete_at LIMIT 1000`, ms(d.now()))
}

// Operations lists a CVM's operations, newest first.
func (d *DB) Operations(ctx context.Context, id int64, q store.OpsQuery) (ops []store.Operation, total int, err error) {
	where, args := `WHERE cvm_id = ?`, []any{id}
	and := func(cond string, a ...any) { where, args = where+` AND `+cond, append(args, a...) }
	if !q.From.IsZero() {
		and(`created_at >= ?`, ms(q.From))
	}
	if !q.To.IsZero() {
		and(`created_at <= ?`, ms(q.To))
	}
	if len(q.Kinds) > 0 {
		marks := ""
		var kinds []any
		for i, k := range q.Kinds {
			if i > 0 {
				marks += ", "
			}
			marks, kinds = marks+"?", append(kinds, k)
		}
		and(`kind IN (`+marks+`)`, kinds...)
	}
	if err := d.db.QueryRowContext(ctx, `SELECT count(*) FROM operations `+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("counting operations: %w", err)
	}
	if q.Before > 0 {
		and(`generation < ?`, q.Before)
	}
	ops, err = rows(ctx, d.db, scanOp, opColumns+where+` ORDER BY generation DESC LIMIT ?`, append(args, q.Limit)...)
	return ops, total, err
}

// EventsOf returns the events of one operation, oldest first.
func (d *DB) EventsOf(ctx context.Context, id int64, generation, limit int) ([]cloudapi.Event, error) {
	return rows(ctx, d.db, scanEvent, `SELECT seq, time, body FROM events WHERE cvm_id = ? AND generation = ? ORDER BY seq LIMIT ?`, id, generation, limit)
}

// Revision reads one revision of a workspace's app.
func (d *DB) Revision(ctx context.Context, workspace int64, appID string, id int64) (store.Revision, error) {
	return scanRevision(d.db.QueryRowContext(ctx, `SELECT id, cvm_id, app_id, generation, compose_hash, kind, created_at, app_compose
		FROM revisions WHERE workspace_id = ? AND app_id = ? AND id = ?`, workspace, appID, id))
}

const (
	answerAge      = 24 * time.Hour
	reservationAge = 2 * time.Minute
)

// Reserve says that a request is being answered, or finds its answer.
func (d *DB) Reserve(ctx context.Context, scope, request [32]byte) (a store.Answer, fresh bool, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		now := d.now()
		// Two statements, so that each finds its rows by an index.
		if _, err := tx.ExecContext(ctx, `DELETE FROM idempotent_answers WHERE created_at <= ?`, ms(now.Add(-answerAge))); err != nil {
			return fmt.Errorf("forgetting old answers: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM idempotent_answers WHERE status = 0 AND created_at <= ?`, ms(now.Add(-reservationAge))); err != nil {
			return fmt.Errorf("forgetting old answers: %w", err)
		}
		r, err := tx.ExecContext(ctx, `INSERT INTO idempotent_answers (scope, request, status, created_at) VALUES (?, ?, 0, ?) ON CONFLICT (scope) DO NOTHING`,
			scope[:], request[:], ms(now))
		if err != nil {
			return fmt.Errorf("reserving an answer: %w", err)
		}
		if n, err := r.RowsAffected(); err != nil || n == 1 {
			fresh = err == nil
			return err
		}
		var req []byte
		err = tx.QueryRowContext(ctx, `SELECT request, status, body FROM idempotent_answers WHERE scope = ?`, scope[:]).Scan(&req, &a.Status, &a.Body)
		copy(a.Request[:], req)
		return notFound(err)
	})
	return a, fresh, err
}

// Answered stores the answer, or forgets the reservation.
func (d *DB) Answered(ctx context.Context, scope [32]byte, a store.Answer) (err error) {
	if a.Status == 0 {
		_, err = d.db.ExecContext(ctx, `DELETE FROM idempotent_answers WHERE scope = ? AND status = 0`, scope[:])
	} else {
		_, err = d.db.ExecContext(ctx, `UPDATE idempotent_answers SET status = ?, body = ? WHERE scope = ?`, a.Status, a.Body, scope[:])
	}
	if err != nil {
		return fmt.Errorf("storing an answer: %w", err)
	}
	return nil
}
