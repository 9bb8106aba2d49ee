package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

const cvmColumns = `SELECT id, workspace_id, user_id, uuid, name, app_id, instance_id, node_id, status, generation, created_at, updated_at, deleted_at, body FROM cvms `

type scanner interface{ Scan(...any) error }

func scanCVM(row scanner) (c store.CVM, err error) {
	var body string
	var created, updated, deleted int64
	if err := row.Scan(&c.ID, &c.WorkspaceID, &c.UserID, &c.UUID, &c.Name, &c.AppID, &c.InstanceID, &c.NodeID,
		&c.Status, &c.Generation, &created, &updated, &deleted, &body); err != nil {
		return c, notFound(err)
	}
	c.CreatedAt, c.UpdatedAt, c.DeletedAt = at(created), at(updated), at(deleted)
	if err := json.Unmarshal([]byte(body), &c.Body); err != nil {
		return c, fmt.Errorf("cvm %d: stored body: %w", c.ID, err)
	}
	return c, nil
}

type queryer interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

func rows[T any](ctx context.Context, q queryer, scan func(scanner) (T, error), query string, args ...any) (out []T, err error) {
	rs, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	defer rs.Close()
	for rs.Next() {
		v, err := scan(rs)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rs.Err()
}

// CVM reads one, deleted or not.
func (d *DB) CVM(ctx context.Context, id int64) (store.CVM, error) {
	return scanCVM(d.db.QueryRowContext(ctx, cvmColumns+`WHERE id = ?`, id))
}

// Find resolves a reference in a workspace.
func (d *DB) Find(ctx context.Context, workspace int64, ref string, deleted bool) ([]store.CVM, error) {
	m := store.ParseRef(ref)
	where, args := `workspace_id = ? AND `, []any{workspace}
	switch {
	case m.UUID != "":
		where, args = where+`uuid = ?`, append(args, m.UUID)
	case m.AppOrInstance != "":
		where, args = where+`(app_id = ? OR instance_id = ?)`, append(args, m.AppOrInstance, m.AppOrInstance)
	case m.Instance != "":
		where, args = where+`instance_id = ?`, append(args, m.Instance)
	case m.ID != 0:
		where, args = where+`id = ?`, append(args, m.ID)
	default:
		where, args = where+`name = ?`, append(args, m.Name)
	}
	live, err := rows(ctx, d.db, scanCVM, cvmColumns+`WHERE deleted_at = 0 AND `+where+` ORDER BY id`, args...)
	if err != nil || len(live) > 0 || !deleted {
		return live, err
	}
	return rows(ctx, d.db, scanCVM, cvmColumns+`WHERE deleted_at > 0 AND `+where+` ORDER BY id DESC LIMIT 1`, args...)
}

// List returns the live CVMs of a workspace (0: of all), newest first.
func (d *DB) List(ctx context.Context, workspace int64) ([]store.CVM, error) {
	return rows(ctx, d.db, scanCVM, cvmColumns+`WHERE deleted_at = 0 AND (? = 0 OR workspace_id = ?) ORDER BY id DESC`, workspace, workspace)
}

const opColumns = `SELECT cvm_id, generation, kind, state, created_at, finished_at, body FROM operations `

func scanOp(row scanner) (o store.Operation, err error) {
	var body string
	var created, finished int64
	if err := row.Scan(&o.CVMID, &o.Generation, &o.Kind, &o.State, &created, &finished, &body); err != nil {
		return o, notFound(err)
	}
	o.CreatedAt, o.FinishedAt = at(created), at(finished)
	if err := json.Unmarshal([]byte(body), &o.OperationBody); err != nil {
		return o, fmt.Errorf("operation %d/%d: stored body: %w", o.CVMID, o.Generation, err)
	}
	return o, nil
}

// OpenOps returns a CVM's unfinished operations, oldest first.
func (d *DB) OpenOps(ctx context.Context, id int64) ([]store.Operation, error) {
	return openOps(ctx, d.db, id)
}

func openOps(ctx context.Context, q queryer, id int64) ([]store.Operation, error) {
	return rows(ctx, q, scanOp, opColumns+`WHERE cvm_id = ? AND finished_at = 0 ORDER BY generation`, id)
}

// Operation reads one operation.
func (d *DB) Operation(ctx context.Context, id int64, generation int) (store.Operation, error) {
	return scanOp(d.db.QueryRowContext(ctx, opColumns+`WHERE cvm_id = ? AND generation = ?`, id, generation))
}

// Unfinished lists the operations of all CVMs that are not finished.
func (d *DB) Unfinished(ctx context.Context) ([]store.Operation, error) {
	return rows(ctx, d.db, scanOp, opColumns+`WHERE finished_at = 0 ORDER BY cvm_id, generation`)
}

func scanEvent(row scanner) (e cloudapi.Event, err error) {
	var body string
	var seq, when int64
	if err := row.Scan(&seq, &when, &body); err != nil {
		return e, notFound(err)
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		return e, fmt.Errorf("event %d: stored body: %w", seq, err)
	}
	e.Seq, e.Time = seq, at(when)
	return e, nil
}

// Events returns a CVM's events with a higher seq, oldest first.
func (d *DB) Events(ctx context.Context, id, after int64, limit int) ([]cloudapi.Event, error) {
	return rows(ctx, d.db, scanEvent, `SELECT seq, time, body FROM events WHERE cvm_id = ? AND seq > ? ORDER BY seq LIMIT ?`, id, after, limit)
}

// LastSeq is the seq of a CVM's newest event, or 0.
func (d *DB) LastSeq(ctx context.Context, id int64) (seq int64, err error) {
	err = d.db.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM events WHERE cvm_id = ?`, id).Scan(&seq)
	return seq, err
}

func scanRevision(row scanner) (r store.Revision, err error) {
	var created int64
	err = row.Scan(&r.ID, &r.CVMID, &r.AppID, &r.Generation, &r.ComposeHash, &r.Kind, &created, &r.AppCompose)
	r.CreatedAt = at(created)
	return r, notFound(err)
}

// Revisions lists what an app's CVMs were told to run, newest first.
func (d *DB) Revisions(ctx context.Context, workspace int64, appID string) ([]store.Revision, error) {
	return rows(ctx, d.db, scanRevision, `SELECT id, cvm_id, app_id, generation, compose_hash, kind, created_at, app_compose
		FROM revisions WHERE workspace_id = ? AND app_id = ? ORDER BY id DESC`, workspace, appID)
}
