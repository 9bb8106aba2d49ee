package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

const lineNames = `id, workspace_id, key, kind, cvm_id, app_id, amount, started_at, ended_at, created_at, body`

func scanLine(r scanner) (e store.Entry, err error) {
	var from, to, created int64
	var body string
	if err := r.Scan(&e.ID, &e.WorkspaceID, &e.Key, &e.Kind, &e.CVMID, &e.AppID, &e.Amount, &from, &to, &created, &body); err != nil {
		return e, notFound(err)
	}
	e.From, e.To, e.CreatedAt = at(from), at(to), at(created)
	if err := json.Unmarshal([]byte(body), &e.EntryBody); err != nil {
		return e, fmt.Errorf("ledger line %d: stored body: %w", e.ID, err)
	}
	return e, nil
}

// addLine appends; what the workspace has written before under the same key is an error.
func addLine(ctx context.Context, tx *sqldb.Tx, e store.Entry) (id int64, err error) {
	body, err := json.Marshal(e.EntryBody)
	if err != nil {
		return 0, fmt.Errorf("encoding ledger line: %w", err)
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO ledger (workspace_id, key, kind, cvm_id, app_id, amount, started_at, ended_at, created_at, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		e.WorkspaceID, e.Key, e.Kind, e.CVMID, e.AppID, int64(e.Amount), ms(e.From), ms(e.To), ms(e.CreatedAt), string(body)).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("storing ledger line: %w", err)
	}
	return id, nil
}

// open makes the account of a workspace that has none.
func openAccount(ctx context.Context, tx *sqldb.Tx, workspace int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO accounts (workspace_id, tier, post_paid, state, since, paid, granted, used) VALUES (?, '', 0, ?, 0, 0, 0, 0)
		ON CONFLICT DO NOTHING`, workspace, billing.Active)
	if err != nil {
		return fmt.Errorf("opening account: %w", err)
	}
	return nil
}

// addUsage appends the lines of segments and takes their cost from the account.
func addUsage(ctx context.Context, tx *sqldb.Tx, c store.CVM, segments []billing.Segment, now time.Time) error {
	var used int64
	for _, s := range segments {
		used += int64(s.Amount)
		if _, err := addLine(ctx, tx, store.Entry{
			WorkspaceID: c.WorkspaceID, Key: fmt.Sprintf("cvm/%d/%d/%s/%d", c.ID, s.Seq, s.Kind, ms(s.From)), Kind: s.Kind, CVMID: c.ID, AppID: c.AppID,
			Amount: -s.Amount, From: s.From, To: s.To, CreatedAt: now,
			EntryBody: store.EntryBody{UUID: c.UUID, Name: c.Name, Size: &s.Size, Rate: s.Rate, Seq: s.Seq},
		}); err != nil {
			return err
		}
	}
	if err := openAccount(ctx, tx, c.WorkspaceID); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE accounts SET used = used + ? WHERE workspace_id = ?`, used, c.WorkspaceID); err != nil {
		return fmt.Errorf("storing account: %w", err)
	}
	return nil
}

// Lines lists a workspace's lines.
func (d *DB) Lines(ctx context.Context, workspace int64, q store.LedgerQuery) ([]store.Entry, error) {
	from, to := ms(q.From), int64(math.MaxInt64)
	if !q.To.IsZero() {
		to = ms(q.To)
	}
	query := `SELECT ` + lineNames + ` FROM ledger WHERE workspace_id = ? AND (? = '' OR app_id = ?) AND (? = 0 OR cvm_id = ?)
		AND (ended_at > ? OR started_at >= ?) AND started_at < ? ORDER BY started_at, id`
	args := []any{workspace, q.AppID, q.AppID, q.CVMID, q.CVMID, from, from, to}
	if q.Limit > 0 {
		query, args = query+` LIMIT ? OFFSET ?`, append(args, q.Limit, q.Offset)
	}
	return rows(ctx, d.db, scanLine, query, args...)
}

// AddMoney writes a line that is not usage, once for each key.
func (d *DB) AddMoney(ctx context.Context, e store.Entry) (store.Entry, error) {
	e.CreatedAt = at(ms(d.now()))
	e.From, e.To = e.CreatedAt, e.CreatedAt
	column := map[string]string{store.Credit: "paid", store.Correction: "paid", store.Grant: "granted"}[e.Kind]
	if column == "" {
		return e, fmt.Errorf("a ledger line of kind %q is not money", e.Kind)
	}
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, fmt.Sprintf("money %d", e.WorkspaceID)); err != nil {
			return err
		}
		old, err := rows(ctx, tx, scanLine, `SELECT `+lineNames+` FROM ledger WHERE workspace_id = ? AND key = ?`, e.WorkspaceID, e.Key)
		if err != nil {
			return err
		}
		if len(old) == 1 {
			if o := old[0]; o.Amount != e.Amount || o.Kind != e.Kind || o.Reason != e.Reason {
				return store.ErrKeyUsed
			}
			e = old[0]
			return nil
		}
		if e.ID, err = addLine(ctx, tx, e); err != nil {
			return err
		}
		if err := openAccount(ctx, tx, e.WorkspaceID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE accounts SET `+column+` = `+column+` + ? WHERE workspace_id = ?`, int64(e.Amount), e.WorkspaceID); err != nil {
			return fmt.Errorf("storing account: %w", err)
		}
		return nil
	})
	return e, err
}

const accountColumns = `SELECT workspace_id, tier, post_paid, state, since, paid, granted, used FROM accounts `

func scanAccount(r scanner) (a store.Account, err error) {
	var since int64
	err = r.Scan(&a.WorkspaceID, &a.Tier, &a.PostPaid, &a.State, &since, &a.Paid, &a.Granted, &a.Used)
	a.Since = at(since)
	return a, err
}

// Account reads one.
func (d *DB) Account(ctx context.Context, workspace int64) (store.Account, error) {
	all, err := rows(ctx, d.db, scanAccount, accountColumns+`WHERE workspace_id = ?`, workspace)
	if err != nil || len(all) == 0 {
		return store.Account{WorkspaceID: workspace, State: billing.Active}, err
	}
	return all[0], nil
}

// Accounts lists all.
func (d *DB) Accounts(ctx context.Context) ([]store.Account, error) {
	return rows(ctx, d.db, scanAccount, accountColumns+`ORDER BY workspace_id`)
}

// SetTerms stores tier and mode of payment.
func (d *DB) SetTerms(ctx context.Context, workspace int64, tier string, postPaid bool) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := openAccount(ctx, tx, workspace); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE accounts SET tier = ?, post_paid = ? WHERE workspace_id = ?`, tier, flag(postPaid), workspace); err != nil {
			return fmt.Errorf("storing account: %w", err)
		}
		return nil
	})
}

// MoveAccount stores a state, once.
func (d *DB) MoveAccount(ctx context.Context, a store.Account, state string, since time.Time) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE accounts SET state = ?, since = ? WHERE workspace_id = ? AND state = ? AND since = ?`,
			state, ms(since), a.WorkspaceID, a.State, ms(a.Since))
		if err != nil {
			return fmt.Errorf("storing account: %w", err)
		}
		if n, err := r.RowsAffected(); err != nil || n != 1 {
			return store.ErrMoved
		}
		event := store.HookOfAccount(a.State, state)
		if event == "" {
			return nil
		}
		return tellOf(ctx, tx, a.WorkspaceID, d.now(), cloudapi.HookAccount{State: state, Was: a.State, Balance: a.Balance().String()}, []string{event})
	})
}

// WorkspaceBySlug finds a workspace.
func (d *DB) WorkspaceBySlug(ctx context.Context, slug string) (id int64, name string, err error) {
	err = d.db.QueryRowContext(ctx, `SELECT id, name FROM workspaces WHERE slug = ?`, slug).Scan(&id, &name)
	return id, name, notFound(err)
}

// withinLimits refuses a change after which the workspace has more than it may.
// Changes that are checked wait for each other: two cannot both take the last place.
func withinLimits(ctx context.Context, tx *sqldb.Tx, c *store.Change) error {
	if c.Limits == nil || c.Limits.None() {
		return nil
	}
	if err := tx.Lock(ctx, fmt.Sprintf("limits %d", c.CVM.WorkspaceID)); err != nil {
		return err
	}
	h, err := held(ctx, tx, c.CVM.WorkspaceID)
	if err != nil {
		return err
	}
	if x := c.Limits.Check(h, sizeOf(*holds(c.CVM))); x != nil {
		return &store.LimitError{Excess: *x}
	}
	return nil
}
