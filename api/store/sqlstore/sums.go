package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// heldBy is what a live CVM counts for in its workspace; one without an id is not made yet.
func heldBy(c store.CVM) (h billing.Held) {
	if c.ID == 0 || !c.Live() {
		return h
	}
	return h.Add(sizeOf(*holds(c)), 1)
}

// taken is what a live CVM counts for on its node.
func taken(c store.CVM) store.Room {
	if !c.Live() {
		return store.Room{}
	}
	return c.Takes()
}

// count moves the sums of nodes and of the workspace from what a CVM was to what it
// is. (A CVM that is made was the zero value: it held nothing.)
func count(ctx context.Context, tx *sqldb.Tx, was, is store.CVM) error {
	type delta struct {
		node int64
		room store.Room
	}
	moves := []delta{{is.NodeID, taken(is)}}
	if old := taken(was); was.NodeID == is.NodeID {
		moves[0].room = moves[0].room.Minus(old)
	} else {
		moves = append(moves, delta{was.NodeID, store.Room{}.Minus(old)})
	}
	// In one order, so that two changes do not wait for each other.
	slices.SortFunc(moves, func(a, b delta) int { return cmp.Compare(a.node, b.node) })
	for _, m := range moves {
		if m.room == (store.Room{}) {
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO node_rooms (node_id, vcpu, memory_mib, disk_gb, gpus) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (node_id) DO UPDATE SET vcpu = node_rooms.vcpu + excluded.vcpu, memory_mib = node_rooms.memory_mib + excluded.memory_mib,
			disk_gb = node_rooms.disk_gb + excluded.disk_gb, gpus = node_rooms.gpus + excluded.gpus`, m.node, m.room.VCPU, m.room.MemoryMiB, m.room.DiskGB, m.room.GPUs); err != nil {
			return fmt.Errorf("storing what a node promised: %w", err)
		}
	}
	a, b := heldBy(was), heldBy(is)
	d := billing.Held{CVMs: b.CVMs - a.CVMs, VCPU: b.VCPU - a.VCPU, MemoryMB: b.MemoryMB - a.MemoryMB, DiskGB: b.DiskGB - a.DiskGB, GPUs: b.GPUs - a.GPUs}
	if d == (billing.Held{}) {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO workspace_sums (workspace_id, cvms, apps, vcpu, memory_mib, disk_gb, gpus) VALUES (?, ?, 0, ?, ?, ?, ?)
		ON CONFLICT (workspace_id) DO UPDATE SET cvms = workspace_sums.cvms + excluded.cvms, vcpu = workspace_sums.vcpu + excluded.vcpu,
		memory_mib = workspace_sums.memory_mib + excluded.memory_mib, disk_gb = workspace_sums.disk_gb + excluded.disk_gb, gpus = workspace_sums.gpus + excluded.gpus`,
		is.WorkspaceID, d.CVMs, d.VCPU, d.MemoryMB, d.DiskGB, d.GPUs)
	if err == nil && d.CVMs != 0 { // behind the line's lock: no other CVM of the workspace comes or goes meanwhile
		_, err = tx.ExecContext(ctx, `UPDATE workspace_sums SET apps = apps + ? WHERE workspace_id = ?
			AND NOT EXISTS (SELECT 1 FROM cvms WHERE workspace_id = ? AND app_id = ? AND deleted_at = 0 AND id <> ?)`,
			d.CVMs, is.WorkspaceID, is.WorkspaceID, is.AppID, is.ID)
	}
	if err != nil {
		return fmt.Errorf("storing what a workspace holds: %w", err)
	}
	return nil
}

// Held is what the live CVMs of a workspace hold together.
func (d *DB) Held(ctx context.Context, workspace int64) (billing.Held, error) {
	return held(ctx, d.db, workspace)
}

func held(ctx context.Context, q rowQueryer, workspace int64) (h billing.Held, err error) {
	err = notFound(q.QueryRowContext(ctx, `SELECT cvms, vcpu, memory_mib, disk_gb, gpus FROM workspace_sums WHERE workspace_id = ?`, workspace).
		Scan(&h.CVMs, &h.VCPU, &h.MemoryMB, &h.DiskGB, &h.GPUs))
	if errors.Is(err, store.ErrNotFound) {
		return h, nil // it never had a CVM
	}
	if err != nil {
		return h, fmt.Errorf("reading what a workspace holds: %w", err)
	}
	return h, nil
}
