package sqlstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

const hookColumns = `SELECT id, public_id, workspace_id, url, name, events, enabled, secret, created_at, updated_at FROM webhooks `

func scanHook(r scanner) (h store.Webhook, err error) {
	var events string
	var created, updated int64
	err = r.Scan(&h.ID, &h.PublicID, &h.WorkspaceID, &h.URL, &h.Name, &events, &h.Enabled, &h.Secret, &created, &updated)
	h.Events, h.CreatedAt, h.UpdatedAt = strings.Fields(events), at(created), at(updated)
	return h, notFound(err)
}

// AddWebhook stores a new one.
func (d *DB) AddWebhook(ctx context.Context, h store.Webhook) (store.Webhook, error) {
	h.CreatedAt = d.now()
	h.UpdatedAt = h.CreatedAt
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		return tx.QueryRowContext(ctx, `INSERT INTO webhooks (public_id, workspace_id, url, name, events, enabled, secret, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			h.PublicID, h.WorkspaceID, h.URL, h.Name, strings.Join(h.Events, " "), flag(h.Enabled), h.Secret, ms(h.CreatedAt), ms(h.UpdatedAt)).Scan(&h.ID)
	})
	if err != nil {
		return h, fmt.Errorf("storing webhook: %w", err)
	}
	return h, nil
}

// WebhooksOf lists a workspace's.
func (d *DB) WebhooksOf(ctx context.Context, workspace int64) ([]store.Webhook, error) {
	return rows(ctx, d.db, scanHook, hookColumns+`WHERE workspace_id = ? ORDER BY id`, workspace)
}

// Webhook reads one by its public id.
func (d *DB) Webhook(ctx context.Context, workspace int64, publicID string) (store.Webhook, error) {
	return scanHook(d.db.QueryRowContext(ctx, hookColumns+`WHERE workspace_id = ? AND public_id = ?`, workspace, publicID))
}

// WebhookByID reads one.
func (d *DB) WebhookByID(ctx context.Context, id int64) (store.Webhook, error) {
	return scanHook(d.db.QueryRowContext(ctx, hookColumns+`WHERE id = ?`, id))
}

// SaveWebhook stores what may change of one.
func (d *DB) SaveWebhook(ctx context.Context, h store.Webhook) (store.Webhook, error) {
	h.UpdatedAt = d.now()
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE webhooks SET url = ?, name = ?, events = ?, enabled = ?, secret = ?, updated_at = ? WHERE id = ?`,
			h.URL, h.Name, strings.Join(h.Events, " "), flag(h.Enabled), h.Secret, ms(h.UpdatedAt), h.ID)
		return err
	})
	if err != nil {
		return h, fmt.Errorf("storing webhook: %w", err)
	}
	return h, nil
}

// DeleteWebhook removes one with its deliveries.
func (d *DB) DeleteWebhook(ctx context.Context, id int64) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		for _, q := range []string{`DELETE FROM webhook_deliveries WHERE webhook_id = ?`, `DELETE FROM webhooks WHERE id = ?`} {
			if _, err := tx.ExecContext(ctx, q, id); err != nil {
				return fmt.Errorf("deleting webhook: %w", err)
			}
		}
		return nil
	})
}

const deliveryNames = `id, webhook_id, event_id, event, original, status, attempts, url, response, error, duration_ms, created_at, delivered_at, next_at, body`

func scanDelivery(r scanner) (v store.Delivery, err error) {
	var took, created, delivered, next int64
	err = r.Scan(&v.ID, &v.WebhookID, &v.EventID, &v.Event, &v.Original, &v.Status, &v.Attempts, &v.URL, &v.Response, &v.Error, &took, &created, &delivered, &next, &v.Body)
	v.Duration, v.CreatedAt, v.Delivered, v.NextAt = time.Duration(took)*time.Millisecond, at(created), at(delivered), at(next)
	return v, notFound(err)
}

// AddDelivery stores one.
func (d *DB) AddDelivery(ctx context.Context, v store.Delivery) (store.Delivery, error) {
	v.CreatedAt, v.Status = d.now(), store.DeliveryPending
	if v.NextAt.IsZero() {
		v.NextAt = v.CreatedAt
	}
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) (err error) {
		v.ID, err = addDelivery(ctx, tx, v)
		return err
	})
	return v, err
}

func addDelivery(ctx context.Context, tx *sqldb.Tx, v store.Delivery) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO webhook_deliveries (webhook_id, event_id, event, original, status, attempts, url, response, error, duration_ms, created_at, delivered_at, next_at, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, 0, '', 0, ?, 0, ?, ?) RETURNING id`,
		v.WebhookID, v.EventID, v.Event, v.Original, store.DeliveryPending, v.Attempts, v.URL, ms(v.CreatedAt), ms(v.NextAt), v.Body).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("storing delivery: %w", err)
	}
	return id, nil
}

// Deliveries lists a webhook's, newest first.
func (d *DB) Deliveries(ctx context.Context, webhook int64, limit, offset int) ([]store.Delivery, error) {
	return rows(ctx, d.db, scanDelivery, `SELECT `+deliveryNames+` FROM webhook_deliveries WHERE webhook_id = ? ORDER BY id DESC LIMIT ? OFFSET ?`, webhook, limit, offset)
}

// Delivery finds one by its event id.
func (d *DB) Delivery(ctx context.Context, webhook int64, eventID string) (store.Delivery, error) {
	return scanDelivery(d.db.QueryRowContext(ctx, `SELECT `+deliveryNames+` FROM webhook_deliveries WHERE webhook_id = ? AND event_id = ?`, webhook, eventID))
}

// ClaimDeliveries takes what is due; two processes do not get the same.
func (d *DB) ClaimDeliveries(ctx context.Context, lease time.Duration, limit int) (out []store.Delivery, err error) {
	now := d.now()
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, "webhook deliveries"); err != nil {
			return err
		}
		out, err = rows(ctx, tx, scanDelivery, `UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = ? WHERE id IN
			(SELECT id FROM webhook_deliveries WHERE status = 'pending' AND next_at <= ? ORDER BY next_at, id LIMIT ?) RETURNING `+deliveryNames,
			ms(now.Add(lease)), ms(now), limit)
		return err
	})
	return out, err
}

// FinishDelivery stores the outcome of an attempt.
func (d *DB) FinishDelivery(ctx context.Context, v store.Delivery) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE webhook_deliveries SET status = ?, url = ?, response = ?, error = ?, duration_ms = ?, delivered_at = ?, next_at = ? WHERE id = ?`,
			v.Status, v.URL, v.Response, v.Error, v.Duration.Milliseconds(), ms(v.Delivered), ms(v.NextAt), v.ID)
		if err != nil {
			return fmt.Errorf("storing delivery: %w", err)
		}
		return nil
	})
}

// PruneDeliveries forgets finished ones.
func (d *DB) PruneDeliveries(ctx context.Context, before time.Time) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM webhook_deliveries WHERE status <> 'pending' AND created_at < ?`, ms(before))
		return err
	})
}

// WebhookStats counts finished deliveries.
func (d *DB) WebhookStats(ctx context.Context, webhook int64) (s store.HookStats, err error) {
	var average, longest, last int64
	err = d.db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(CASE WHEN status = 'success' THEN 1 ELSE 0 END), 0), coalesce(CAST(avg(duration_ms) AS INTEGER), 0),
		coalesce(max(duration_ms), 0), coalesce(max(delivered_at), 0) FROM webhook_deliveries WHERE webhook_id = ? AND status <> 'pending'`, webhook).
		Scan(&s.Total, &s.Success, &average, &longest, &last)
	s.Failed, s.Average, s.Longest, s.Last = s.Total-s.Success, time.Duration(average)*time.Millisecond, time.Duration(longest)*time.Millisecond, at(last)
	return s, err
}

// saveHooks adds the deliveries of what a change finished or began.
func saveHooks(ctx context.Context, tx *sqldb.Tx, c *store.Change) error {
	var events []string
	for _, o := range c.Begun {
		if o.Kind == store.Deploy {
			events = append(events, store.HookCreated)
		}
	}
	for _, o := range c.Ops {
		if e := store.HookOf(o.Kind, o.State); e != "" && o.FinishedAt.Equal(c.At) {
			events = append(events, e)
		}
	}
	return tell(ctx, tx, c.CVM, c.At, events)
}

// tell adds the deliveries of what happened to a CVM.
func tell(ctx context.Context, tx *sqldb.Tx, c store.CVM, now time.Time, events []string) error {
	return tellOf(ctx, tx, c.WorkspaceID, now, hookData(c), events)
}

// tellOf adds a delivery for each event and each webhook that wants it.
func tellOf(ctx context.Context, tx *sqldb.Tx, workspace int64, now time.Time, data any, events []string) error {
	if len(events) == 0 {
		return nil
	}
	hooks, err := rows(ctx, tx, scanHook, hookColumns+`WHERE workspace_id = ? AND enabled = 1 ORDER BY id`, workspace)
	if err != nil || len(hooks) == 0 {
		return err
	}
	var ws cloudapi.HookWorkspace
	if err := tx.QueryRowContext(ctx, `SELECT slug, name FROM workspaces WHERE id = ?`, workspace).Scan(&ws.ID, &ws.Name); err != nil {
		return fmt.Errorf("reading workspace: %w", err)
	}
	for _, event := range events {
		for _, h := range hooks {
			if !slices.Contains(h.Events, event) {
				continue
			}
			v := store.Delivery{WebhookID: h.ID, EventID: NewEventID(), Event: event, URL: h.URL, CreatedAt: now, NextAt: now}
			v.Body, err = json.Marshal(cloudapi.HookEvent{ID: v.EventID, Event: event, Version: "1", CreatedAt: now.UTC(), Workspace: ws, Data: data})
			if err != nil {
				return errors.Join(errors.New("encoding webhook event"), err)
			}
			if _, err := addDelivery(ctx, tx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// NewEventID names an event.
func NewEventID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return "evt_" + hex.EncodeToString(b)
}

// hookData is what an event says of its CVM: nothing that the app keeps private.
func hookData(c store.CVM) cloudapi.HookCVM {
	out := cloudapi.HookCVM{ID: c.ID, VMUUID: strings.ReplaceAll(c.UUID, "-", ""), Name: c.Name, AppID: c.AppID, InstanceID: c.InstanceID,
		Status: c.Status, ComposeHash: c.ComposeHash, Generation: c.Generation}
	if c.Error != nil {
		out.Error = c.Error.Message
	}
	return out
}
