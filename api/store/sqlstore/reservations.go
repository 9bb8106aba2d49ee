package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

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
		var held store.Room
		err := tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(vcpu), 0), COALESCE(SUM(memory_mib), 0), COALESCE(SUM(disk_gb), 0), COALESCE(SUM(gpus), 0) FROM reservations WHERE node_id = ?`, r.NodeID).
			Scan(&held.VCPU, &held.MemoryMiB, &held.DiskGB, &held.GPUs)
		if err != nil {
			return fmt.Errorf("reading reservations: %w", err)
		}
		var cvms store.Room
		err = notFound(tx.QueryRowContext(ctx, `SELECT vcpu, memory_mib, disk_gb, gpus FROM node_rooms WHERE node_id = ?`, r.NodeID).
			Scan(&cvms.VCPU, &cvms.MemoryMiB, &cvms.DiskGB, &cvms.GPUs))
		if err != nil && !errors.Is(err, store.ErrNotFound) { // it never had a CVM
			return fmt.Errorf("reading what a node promised: %w", err)
		}
		if !r.Room.Plus(cvms).Plus(held).Within(limit) {
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

// parseRoom reads "node vcpu memory disk gpus held".
func parseRoom(text string) (h nodeRoom, err error) {
	var n [5]int64
	for i := range n {
		word, rest, _ := strings.Cut(text, " ")
		if n[i], err = strconv.ParseInt(word, 10, 64); err != nil {
			return h, fmt.Errorf("reading what nodes promised: %w", err)
		}
		text = rest
	}
	return nodeRoom{text, n[0], store.Room{VCPU: int(n[1]), MemoryMiB: int(n[2]), DiskGB: int(n[3]), GPUs: int(n[4])}}, nil
}

// PromisedRoom sums what CVMs take and what is reserved, by node. It is one statement:
// a reservation that becomes a CVM meanwhile counts once. And it is one row: reading
// ten thousand takes several times as long.
func (d *DB) PromisedRoom(ctx context.Context, node int64) (store.Promised, error) {
	query, args := `SELECT node_id, vcpu, memory_mib, disk_gb, gpus, '' AS held FROM node_rooms`, []any{}
	held := ` UNION ALL SELECT node_id, vcpu, memory_mib, disk_gb, gpus, id FROM reservations WHERE expires_at > ?`
	if node != 0 {
		query, args, held = query+` WHERE node_id = ?`, append(args, node), held+` AND node_id = ?`
	}
	if args = append(args, ms(d.now())); node != 0 {
		args = append(args, node)
	}
	var all string
	err := d.db.QueryRowContext(ctx, `SELECT COALESCE(string_agg(node_id || ' ' || vcpu || ' ' || memory_mib || ' ' || disk_gb || ' ' || gpus || ' ' || held, ','), '') FROM (`+query+held+`) AS promised`, args...).Scan(&all)
	if err != nil {
		return store.Promised{}, fmt.Errorf("reading what nodes promised: %w", err)
	}
	out := store.Promised{Rooms: make(map[int64]store.Room, strings.Count(all, ",")+1), Held: map[string]bool{}}
	for word := range strings.SplitSeq(all, ",") {
		if word == "" {
			break // there is none
		}
		h, err := parseRoom(word)
		if err != nil {
			return store.Promised{}, err
		}
		out.Rooms[h.node] = out.Rooms[h.node].Plus(h.room)
		if h.held != "" {
			out.Held[h.held] = true
		}
	}
	return out, nil
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
