package sqlstore

import (
	"context"
	"fmt"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// HoldRoom stores a reservation if there is room for it.
func (d *DB) HoldRoom(ctx context.Context, r store.Reservation, limit store.Room) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, fmt.Sprintf("room on node %d", r.NodeID)); err != nil {
			return err
		}
		now := ms(d.now())
		if _, err := tx.ExecContext(ctx, `DELETE FROM reservations WHERE expires_at <= ?`, now); err != nil {
			return fmt.Errorf("forgetting old reservations: %w", err)
		}
		sum := r.Room
		var held store.Room
		err := tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(vcpu), 0), COALESCE(SUM(memory_mib), 0), COALESCE(SUM(disk_gb), 0), COALESCE(SUM(gpus), 0) FROM reservations WHERE node_id = ?`, r.NodeID).
			Scan(&held.VCPU, &held.MemoryMiB, &held.DiskGB, &held.GPUs)
		if err != nil {
			return fmt.Errorf("reading reservations: %w", err)
		}
		promised, err := rows(ctx, tx, scanRoom, `SELECT '', node_id, vcpu, memory_mib, disk_gb, gpus FROM node_rooms WHERE node_id = ?`, r.NodeID)
		if err != nil {
			return err
		}
		for _, p := range promised {
			sum = sum.Plus(p.room)
		}
		if !sum.Plus(held).Within(limit) {
			return store.ErrNoRoom
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO reservations (id, node_id, vcpu, memory_mib, disk_gb, gpus, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			r.ID, r.NodeID, r.Room.VCPU, r.Room.MemoryMiB, r.Room.DiskGB, r.Room.GPUs, ms(r.ExpiresAt))
		if err != nil {
			return fmt.Errorf("storing reservation: %w", err)
		}
		return nil
	})
}

// FreeRoom gives a reservation back.
func (d *DB) FreeRoom(ctx context.Context, id string) error {
	if _, err := d.db.ExecContext(ctx, `DELETE FROM reservations WHERE id = ?`, id); err != nil {
		return fmt.Errorf("releasing reservation: %w", err)
	}
	return nil
}

type nodeRoom struct {
	held string // the reservation's id; "" for CVMs
	node int64
	room store.Room
}

func scanRoom(s scanner) (h nodeRoom, err error) {
	return h, s.Scan(&h.held, &h.node, &h.room.VCPU, &h.room.MemoryMiB, &h.room.DiskGB, &h.room.GPUs)
}

// PromisedRoom sums what CVMs take and what is reserved, by node. It is one statement:
// a reservation that becomes a CVM meanwhile counts once.
func (d *DB) PromisedRoom(ctx context.Context, node int64) (store.Promised, error) {
	query, args := `SELECT '' AS held, node_id, vcpu, memory_mib, disk_gb, gpus FROM node_rooms`, []any{}
	held := ` UNION ALL SELECT id, node_id, vcpu, memory_mib, disk_gb, gpus FROM reservations WHERE expires_at > ?`
	if node != 0 {
		query, args, held = query+` WHERE node_id = ?`, append(args, node), held+` AND node_id = ?`
	}
	if args = append(args, ms(d.now())); node != 0 {
		args = append(args, node)
	}
	all, err := rows(ctx, d.db, scanRoom, query+held, args...)
	out := store.Promised{Rooms: make(map[int64]store.Room, len(all)), Held: map[string]bool{}}
	for _, h := range all {
		out.Rooms[h.node] = out.Rooms[h.node].Plus(h.room)
		if h.held != "" {
			out.Held[h.held] = true
		}
	}
	return out, err
}

// ReplicasOf counts an app's live CVMs by node.
func (d *DB) ReplicasOf(ctx context.Context, appID string) (map[int64]int, error) {
	type count struct {
		node int64
		n    int
	}
	all, err := rows(ctx, d.db, func(s scanner) (c count, err error) { return c, s.Scan(&c.node, &c.n) },
		`SELECT node_id, COUNT(*) FROM cvms WHERE deleted_at = 0 AND app_id = ? GROUP BY node_id`, appID)
	out := make(map[int64]int, len(all))
	for _, c := range all {
		out[c.node] = c.n
	}
	return out, err
}

// redeem ends the reservation that a change turns into its CVM's own room.
func (d *DB) redeem(ctx context.Context, tx *sqldb.Tx, c *store.Change) error {
	if c.Reservation == "" {
		return nil
	}
	// Under the lock of HoldRoom: nobody counts between the reservation and the CVM.
	if err := tx.Lock(ctx, fmt.Sprintf("room on node %d", c.CVM.NodeID)); err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, `DELETE FROM reservations WHERE id = ? AND node_id = ? AND expires_at > ?`, c.Reservation, c.CVM.NodeID, ms(c.At))
	if err != nil {
		return fmt.Errorf("redeeming reservation: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return store.ErrReservationGone
	}
	return nil
}
