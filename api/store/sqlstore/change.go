package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// Create stores a CVM and its first operation.
func (d *DB) Create(ctx context.Context, c store.CVM, enqueue store.Enqueue, fn func(*store.Change) error) (store.CVM, error) {
	var out store.CVM
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, "app "+c.AppID); err != nil {
			return err
		}
		var foreign int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM cvms WHERE app_id = ? AND workspace_id <> ?`, c.AppID, c.WorkspaceID).Scan(&foreign); err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		if foreign > 0 {
			return store.ErrAppTaken
		}
		now := d.now()
		c.CreatedAt, c.UpdatedAt = now, now
		body, err := json.Marshal(c.Body)
		if err != nil {
			return fmt.Errorf("encoding cvm: %w", err)
		}
		err = tx.QueryRowContext(ctx, `INSERT INTO cvms (workspace_id, user_id, uuid, name, app_id, instance_id, node_id, status, generation, created_at, updated_at, body)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?) RETURNING id`,
			c.WorkspaceID, c.UserID, c.UUID, c.Name, c.AppID, c.InstanceID, c.NodeID, c.Status, ms(now), ms(now), string(body)).Scan(&c.ID)
		if sqldb.Unique(err, "cvms.name", "cvms_live_name") {
			return store.ErrNameTaken
		}
		if err != nil {
			return fmt.Errorf("storing cvm: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE provisions SET committed_cvm = ? WHERE workspace_id = ? AND cvm_id = 0 AND compose_hash = ?
			AND committed_cvm NOT IN (SELECT id FROM cvms WHERE deleted_at = 0 AND app_id = ?)`, // a replica does not take its source's place
			c.ID, c.WorkspaceID, c.ComposeHash, c.AppID); err != nil {
			return fmt.Errorf("storing provision: %w", err)
		}
		out, err = d.apply(ctx, tx, c.ID, true, enqueue, fn)
		return err
	})
	if err != nil {
		return store.CVM{}, err
	}
	d.signal(out.ID)
	return out, nil
}

// Change runs fn on a CVM in one transaction.
func (d *DB) Change(ctx context.Context, id int64, enqueue store.Enqueue, fn func(*store.Change) error) (out store.CVM, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		out, err = d.apply(ctx, tx, id, false, enqueue, fn)
		return err
	})
	if err != nil {
		return store.CVM{}, err
	}
	d.signal(id)
	return out, nil
}

func (d *DB) apply(ctx context.Context, tx *sqldb.Tx, id int64, made bool, enqueue store.Enqueue, fn func(*store.Change) error) (store.CVM, error) {
	var c store.Change
	var err error
	// Changes of one CVM wait for each other, so that its events commit in their order
	// and with times in that order.
	if err := tx.Lock(ctx, fmt.Sprintf("cvm %d", id)); err != nil {
		return c.CVM, err
	}
	c.At = d.now()
	if c.CVM, err = scanCVM(tx.QueryRowContext(ctx, cvmColumns+`WHERE id = ?`, id)); err != nil {
		return c.CVM, err
	}
	if c.Ops, err = openOps(ctx, tx, id); err != nil {
		return c.CVM, err
	}
	before := c.CVM
	if err := fn(&c); err != nil {
		return c.CVM, err
	}
	if err := d.redeem(ctx, tx, &c); err != nil {
		return c.CVM, err
	}
	if err := spend(ctx, tx, &c); err != nil {
		return c.CVM, err
	}
	if err := schedule(ctx, tx, before.DeleteAt, &c); err != nil {
		return c.CVM, err
	}
	if err := saveCVM(ctx, tx, &c); err != nil {
		return c.CVM, err
	}
	if made {
		before = store.CVM{} // it was nothing
	}
	if err := count(ctx, tx, before, c.CVM); err != nil {
		return c.CVM, err
	}
	if err := spell(ctx, tx, before, c.CVM); err != nil {
		return c.CVM, err
	}
	if err := withinLimits(ctx, tx, &c); err != nil {
		return c.CVM, err
	}
	if err := saveOps(ctx, tx, &c, enqueue); err != nil {
		return c.CVM, err
	}
	if err := saveHooks(ctx, tx, &c); err != nil {
		return c.CVM, err
	}
	return c.CVM, saveEvents(ctx, tx, &c)
}

func saveCVM(ctx context.Context, tx *sqldb.Tx, c *store.Change) error {
	v := &c.CVM
	v.UpdatedAt = c.At
	body, err := json.Marshal(v.Body)
	if err != nil {
		return fmt.Errorf("encoding cvm: %w", err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE cvms SET name = ?, instance_id = ?, node_id = ?, status = ?, generation = ?, updated_at = ?, deleted_at = ?, body = ? WHERE id = ?`,
		v.Name, v.InstanceID, v.NodeID, v.Status, v.Generation, ms(v.UpdatedAt), ms(v.DeletedAt), string(body), v.ID)
	if sqldb.Unique(err, "cvms.name", "cvms_live_name") {
		return store.ErrNameTaken
	}
	if err != nil {
		return fmt.Errorf("storing cvm: %w", err)
	}
	if !c.Revised || len(c.Begun) == 0 {
		return nil
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO revisions (cvm_id, workspace_id, app_id, generation, compose_hash, kind, created_at, app_compose) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		v.ID, v.WorkspaceID, v.AppID, v.Generation, v.ComposeHash, c.Begun[0].Kind, ms(c.At), v.AppCompose)
	if err != nil {
		return fmt.Errorf("storing revision: %w", err)
	}
	return nil
}

func saveOps(ctx context.Context, tx *sqldb.Tx, c *store.Change, enqueue store.Enqueue) error {
	for _, o := range append(c.Ops, c.Begun...) {
		body, err := json.Marshal(o.OperationBody)
		if err != nil {
			return fmt.Errorf("encoding operation: %w", err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO operations (cvm_id, generation, kind, state, created_at, finished_at, body) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (cvm_id, generation) DO UPDATE SET state = excluded.state, finished_at = excluded.finished_at, body = excluded.body`,
			c.CVM.ID, o.Generation, o.Kind, o.State, ms(o.CreatedAt), ms(o.FinishedAt), string(body))
		if err != nil {
			return fmt.Errorf("storing operation: %w", err)
		}
	}
	for _, o := range c.Begun {
		if enqueue == nil {
			return fmt.Errorf("operation %s begun without a job queue", o.Kind)
		}
		if err := enqueue(ctx, tx.SQL, c.CVM.ID, o.Generation); err != nil {
			return fmt.Errorf("enqueueing %s: %w", o.Kind, err)
		}
	}
	return nil
}

func saveEvents(ctx context.Context, tx *sqldb.Tx, c *store.Change) error {
	insert := func(vmSeq any, e cloudapi.Event) error {
		t := e.Time
		body, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encoding event: %w", err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO events (cvm_id, vm_seq, time, generation, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			c.CVM.ID, vmSeq, ms(t), e.Generation, string(body))
		if err != nil {
			return fmt.Errorf("storing event: %w", err)
		}
		return nil
	}
	// The VM's own events happened before what we conclude from them.
	for _, e := range c.VMEvents {
		if err := insert(e.Seq, e.Event); err != nil {
			return err
		}
	}
	metered := false
	for _, e := range c.Events {
		if e.Status != "" {
			e.Holds, metered = holds(c.CVM), true
		}
		if err := insert(nil, e); err != nil {
			return err
		}
	}
	if !metered {
		return nil
	}
	return meterSoon(ctx, tx, c.CVM.ID)
}
