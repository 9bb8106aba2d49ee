package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// PutNodeProof stores a node's proof in place of an earlier one, with its event.
func (d *DB) PutNodeProof(ctx context.Context, p store.NodeProof, e cloudapi.NodeEvent) error {
	body, err := json.Marshal(p.NodeProof)
	if err != nil {
		return fmt.Errorf("encoding a node's proof: %w", err)
	}
	checks, err := json.Marshal(p.Checks)
	if err != nil {
		return fmt.Errorf("encoding a node's proof: %w", err)
	}
	return d.withNodeEvent(ctx, e, func(tx *sqldb.Tx) (bool, error) {
		_, err := tx.ExecContext(ctx, `INSERT INTO node_proofs (node_id, expires_at, told, body, fresh, evidence, checks) VALUES (?, ?, 0, ?, ?, ?, ?)
			ON CONFLICT (node_id) DO UPDATE SET expires_at = excluded.expires_at, told = 0, body = excluded.body, fresh = excluded.fresh, evidence = excluded.evidence, checks = excluded.checks`,
			p.NodeID, ms(p.ExpiresAt), string(body), p.Fresh, p.Attestation, string(checks))
		return true, err
	})
}

// DropNodeProof forgets a node's proof.
func (d *DB) DropNodeProof(ctx context.Context, e cloudapi.NodeEvent) error {
	return d.withNodeEvent(ctx, e, func(tx *sqldb.Tx) (bool, error) {
		n, err := affected(tx.ExecContext(ctx, `DELETE FROM node_proofs WHERE node_id = ?`, e.NodeID))
		if err == nil && n == 0 {
			err = store.ErrNotFound
		}
		return true, err
	})
}

// EndNodeProof records once that a proof's time is over.
func (d *DB) EndNodeProof(ctx context.Context, when time.Time, e cloudapi.NodeEvent) (ended bool, err error) {
	err = d.withNodeEvent(ctx, e, func(tx *sqldb.Tx) (bool, error) {
		n, err := affected(tx.ExecContext(ctx, `UPDATE node_proofs SET told = 1 WHERE node_id = ? AND told = 0 AND expires_at <= ?`, e.NodeID, ms(when)))
		ended = n > 0
		return ended, err
	})
	return ended, err
}

// AddNodeEvent records an event, unless it says what the newest one says.
func (d *DB) AddNodeEvent(ctx context.Context, e cloudapi.NodeEvent) error {
	return d.withNodeEvent(ctx, e, func(tx *sqldb.Tx) (bool, error) {
		last, err := rows(ctx, tx, scanNodeEvent, `SELECT seq, node_id, time, body FROM node_events WHERE node_id = ? ORDER BY seq DESC LIMIT 1`, e.NodeID)
		return len(last) == 0 || last[0].Kind != e.Kind || last[0].Message != e.Message, err
	})
}

// withNodeEvent does fn and records the event with it, if fn says so.
func (d *DB) withNodeEvent(ctx context.Context, e cloudapi.NodeEvent, fn func(*sqldb.Tx) (bool, error)) error {
	when := d.now()
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding a node's event: %w", err)
	}
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, fmt.Sprintf("node %d", e.NodeID)); err != nil {
			return err
		}
		if add, err := fn(tx); err != nil || !add {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO node_events (node_id, time, body) VALUES (?, ?, ?)`, e.NodeID, ms(when), string(body)); err != nil {
			return fmt.Errorf("storing a node's event: %w", err)
		}
		return nil
	})
}

func scanNodeProof(whole bool) func(scanner) (store.NodeProof, error) {
	return func(r scanner) (p store.NodeProof, err error) {
		var id int64
		var body, checks string
		into := []any{&id, &p.Told, &body}
		if whole {
			into = append(into, &p.Fresh, &p.Attestation, &checks)
		}
		if err := r.Scan(into...); err != nil {
			return p, notFound(err)
		}
		p.NodeID = int(id)
		err = json.Unmarshal([]byte(body), &p.NodeProof)
		if whole && err == nil {
			err = json.Unmarshal([]byte(checks), &p.Checks)
		}
		if err != nil {
			return p, fmt.Errorf("the proof of node %d: %w", id, err)
		}
		return p, nil
	}
}

// NodeProof reads a node's proof whole.
func (d *DB) NodeProof(ctx context.Context, node int64) (store.NodeProof, error) {
	return scanNodeProof(true)(d.db.QueryRowContext(ctx, `SELECT node_id, told, body, fresh, evidence, checks FROM node_proofs WHERE node_id = ?`, node))
}

// NodeProofs reads all proofs, without evidence and checks.
func (d *DB) NodeProofs(ctx context.Context) ([]store.NodeProof, error) {
	return rows(ctx, d.db, scanNodeProof(false), `SELECT node_id, told, body FROM node_proofs ORDER BY node_id`)
}

func scanNodeEvent(r scanner) (e cloudapi.NodeEvent, err error) {
	var seq, node, when int64
	var body string
	if err := r.Scan(&seq, &node, &when, &body); err != nil {
		return e, err
	}
	err = json.Unmarshal([]byte(body), &e)
	e.Seq, e.NodeID, e.Time = seq, node, at(when)
	return e, err
}

// NodeEvents returns a node's events after one, oldest first.
func (d *DB) NodeEvents(ctx context.Context, node, after int64, limit int) ([]cloudapi.NodeEvent, error) {
	return rows(ctx, d.db, scanNodeEvent, `SELECT seq, node_id, time, body FROM node_events WHERE node_id = ? AND seq > ? ORDER BY seq LIMIT ?`, node, after, limit)
}

// LastNodeEvent is the seq of the newest event of all nodes.
func (d *DB) LastNodeEvent(ctx context.Context) (seq int64, err error) {
	err = d.db.QueryRowContext(ctx, `SELECT COALESCE(MAX(seq), 0) FROM node_events`).Scan(&seq)
	return seq, err
}

// affected is how many rows a statement changed.
func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
