package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// newPricesWait keeps a price list from counting for what is being metered meanwhile.
const newPricesWait = time.Minute

func holds(c store.CVM) *cloudapi.EventSize {
	return &cloudapi.EventSize{InstanceType: c.InstanceType, VCPU: c.VCPU, MemoryMB: c.MemoryMiB, DiskGB: c.DiskGB, GPUs: c.GPUs}
}

func sizeOf(h cloudapi.EventSize) billing.Size {
	return billing.Size{Type: h.InstanceType, VCPU: h.VCPU, MemoryMiB: h.MemoryMB, DiskGB: h.DiskGB, GPUs: h.GPUs}
}

// meterSoon notes that a CVM has events to read, in the transaction that adds them.
func meterSoon(ctx context.Context, tx *sqldb.Tx, id int64) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO meter_due (cvm_id) VALUES (?) ON CONFLICT DO NOTHING`, id); err != nil {
		return fmt.Errorf("storing what is to be metered: %w", err)
	}
	return nil
}

func scanID(r scanner) (id int64, err error) { return id, r.Scan(&id) }

// MeterDue reads new events.
func (d *DB) MeterDue(ctx context.Context, limit int) (int, error) {
	return d.meterAll(ctx, time.Time{}, `SELECT cvm_id FROM meter_due ORDER BY cvm_id LIMIT ?`, limit)
}

// CutDays closes what stands open up to a midnight.
func (d *DB) CutDays(ctx context.Context, midnight time.Time, limit int) (int, error) {
	return d.meterAll(ctx, midnight, `SELECT cvm_id FROM meters WHERE running = 1 AND at < ? ORDER BY cvm_id LIMIT ?`, ms(midnight), limit)
}

// meterAll meters each of the CVMs by itself: one that cannot be does not stop the others.
func (d *DB) meterAll(ctx context.Context, until time.Time, query string, args ...any) (n int, err error) {
	ids, err := rows(ctx, d.db, scanID, query, args...)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	prices, err := d.PriceLists(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, id := range ids {
		if err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error { return meter(ctx, tx, id, until, d.now(), prices) }); err != nil {
			errs = append(errs, fmt.Errorf("metering cvm %d: %w", id, err))
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// meter reads a CVM's new events, adds their lines and moves the cursor. It holds the
// lock that the CVM's changes hold: no event can come between with a lower number.
func meter(ctx context.Context, tx *sqldb.Tx, id int64, until, now time.Time, prices func(time.Time) billing.Prices) error {
	if err := tx.Lock(ctx, fmt.Sprintf("cvm %d", id)); err != nil {
		return err
	}
	c, err := scanCVM(tx.QueryRowContext(ctx, cvmColumns+`WHERE id = ?`, id))
	if err != nil {
		return err
	}
	m, err := readMeter(ctx, tx, id)
	if err != nil {
		return err
	}
	events, err := statusEvents(ctx, tx, id, m.Seq)
	if err != nil {
		return err
	}
	if len(events) == 0 && m.Seq == 0 && c.Live() { // it is older than metering is
		if events, err = beginMetering(ctx, tx, c, now); err != nil {
			return err
		}
	}
	before := m.Copy()
	var out []billing.Segment
	for _, e := range events {
		out = append(out, m.Apply(e, prices)...)
	}
	out = append(out, m.Until(until, prices)...)
	if err := addUsage(ctx, tx, c, out, now); err != nil {
		return err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding meter: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO meters (cvm_id, workspace_id, at, running, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (cvm_id) DO UPDATE SET at = excluded.at, running = excluded.running, body = excluded.body`,
		id, c.WorkspaceID, ms(m.At), flag(m.Open()), string(body)); err != nil {
		return fmt.Errorf("storing meter: %w", err)
	}
	if err := sumMeters(ctx, tx, c.WorkspaceID, before, m); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM meter_due WHERE cvm_id = ?`, id); err != nil {
		return fmt.Errorf("storing meter: %w", err)
	}
	return nil
}

func readMeter(ctx context.Context, tx *sqldb.Tx, id int64) (m billing.Meter, err error) {
	all, err := rows(ctx, tx, scanText, `SELECT body FROM meters WHERE cvm_id = ?`, id)
	if err != nil || len(all) == 0 {
		return m, err
	}
	if err := json.Unmarshal([]byte(all[0]), &m); err != nil {
		return m, fmt.Errorf("stored meter: %w", err)
	}
	return m, nil
}

func scanText(r scanner) (s string, err error) { return s, r.Scan(&s) }

type storedEvent struct {
	seq, time int64
	body      string
}

func scanStored(r scanner) (e storedEvent, err error) { return e, r.Scan(&e.seq, &e.time, &e.body) }

// statusEvents are the events after seq that say what the CVM holds.
func statusEvents(ctx context.Context, q queryer, id, after int64) (out []billing.Event, err error) {
	all, err := rows(ctx, q, scanStored, `SELECT seq, time, body FROM events WHERE cvm_id = ? AND seq > ? AND vm_seq IS NULL ORDER BY seq`, id, after)
	for _, s := range all {
		var e cloudapi.Event
		if err := json.Unmarshal([]byte(s.body), &e); err != nil {
			return nil, fmt.Errorf("stored event %d: %w", s.seq, err)
		}
		if e.Holds != nil {
			out = append(out, billing.Event{Seq: s.seq, At: at(s.time), Status: e.Status, Size: sizeOf(*e.Holds)})
		}
	}
	return out, err
}

// beginMetering adds the first event that metering reads to a CVM which is older.
func beginMetering(ctx context.Context, tx *sqldb.Tx, c store.CVM, now time.Time) ([]billing.Event, error) {
	e := cloudapi.Event{Time: now, Kind: cloudapi.EventStatus, Status: c.Status, Message: "metering begins", Generation: c.Generation, Holds: holds(c)}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding event: %w", err)
	}
	var seq int64
	if err := tx.QueryRowContext(ctx, `INSERT INTO events (cvm_id, time, generation, body) VALUES (?, ?, ?, ?) RETURNING seq`,
		c.ID, ms(now), c.Generation, string(body)).Scan(&seq); err != nil {
		return nil, fmt.Errorf("storing event: %w", err)
	}
	return []billing.Event{{Seq: seq, At: at(ms(now)), Status: c.Status, Size: sizeOf(*e.Holds)}}, nil
}

// Replay reads all events of a CVM again, up to where its meter stands.
func (d *DB) Replay(ctx context.Context, id int64) (out []billing.Segment, err error) {
	prices, err := d.PriceLists(ctx)
	if err != nil {
		return nil, err
	}
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		out = nil
		stands, err := readMeter(ctx, tx, id)
		if err != nil {
			return err
		}
		events, err := statusEvents(ctx, tx, id, 0)
		var m billing.Meter
		for _, e := range events {
			if e.Seq <= stands.Seq {
				out = append(out, m.Apply(e, prices)...)
			}
		}
		out = append(out, m.Until(stands.At, prices)...)
		return err
	})
	return out, err
}

// SetPrices appends a price list.
func (d *DB) SetPrices(ctx context.Context, p billing.Prices) error {
	body, err := json.Marshal(p) // map keys are sorted
	if err != nil {
		return fmt.Errorf("encoding prices: %w", err)
	}
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, "prices"); err != nil {
			return err
		}
		last, err := rows(ctx, tx, scanText, `SELECT body FROM price_lists ORDER BY id DESC LIMIT 1`)
		if err != nil || len(last) == 1 && last[0] == string(body) {
			return err
		}
		from := int64(0)
		if len(last) > 0 {
			from = ms(d.now().Add(newPricesWait))
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO price_lists (effective_at, body) VALUES (?, ?)`, from, string(body)); err != nil {
			return fmt.Errorf("storing prices: %w", err)
		}
		return nil
	})
}

// PriceLists finds price lists by time.
func (d *DB) PriceLists(ctx context.Context) (func(time.Time) billing.Prices, error) {
	all, err := rows(ctx, d.db, func(r scanner) (s storedEvent, err error) { return s, r.Scan(&s.time, &s.body) }, `SELECT effective_at, body FROM price_lists ORDER BY id`)
	if err != nil {
		return nil, err
	}
	lists := make([]billing.Prices, len(all))
	for i, s := range all {
		if err := json.Unmarshal([]byte(s.body), &lists[i]); err != nil {
			return nil, fmt.Errorf("stored prices: %w", err)
		}
	}
	return func(t time.Time) (p billing.Prices) {
		for i, s := range all {
			if i == 0 || s.time <= t.UnixMilli() {
				p = lists[i]
			}
		}
		return p
	}, nil
}

// RunningMeters lists what stands open.
func (d *DB) RunningMeters(ctx context.Context, workspace int64) ([]store.Running, error) {
	return rows(ctx, d.db, func(s scanner) (r store.Running, err error) {
		var body string
		if err := s.Scan(&r.CVMID, &r.WorkspaceID, &r.AppID, &r.UUID, &r.Name, &body); err != nil {
			return r, err
		}
		return r, json.Unmarshal([]byte(body), &r.Meter)
	}, `SELECT c.id, c.workspace_id, c.app_id, c.uuid, c.name, m.body FROM meters m JOIN cvms c ON c.id = m.cvm_id
		WHERE m.running = 1 AND (? = 0 OR m.workspace_id = ?) ORDER BY c.id`, workspace, workspace)
}

// hour in milliseconds: rates are per hour.
const hour = 3600_000

// standing is what a meter adds to the sums of its workspace.
type standing struct{ rate, hours, rest int64 }

func standingOf(m billing.Meter) (s standing) {
	if !m.Open() {
		return s
	}
	since := ms(m.At)
	for kind, rate := range m.Rates {
		r := int64(rate)
		if r > 0 {
			s.rate, s.hours, s.rest = s.rate+r, s.hours+r*(since/hour), s.rest+r*(since%hour)-m.Rest[kind]
		}
	}
	return s
}

// sumMeters moves the sums of a workspace from what a meter was to what it is.
func sumMeters(ctx context.Context, tx *sqldb.Tx, workspace int64, was, is billing.Meter) error {
	a, b := standingOf(was), standingOf(is)
	if a == b {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO meter_sums (workspace_id, rate, hours, rest) VALUES (?, ?, ?, ?)
		ON CONFLICT (workspace_id) DO UPDATE SET rate = meter_sums.rate + excluded.rate, hours = meter_sums.hours + excluded.hours, rest = meter_sums.rest + excluded.rest`,
		workspace, b.rate-a.rate, b.hours-a.hours, b.rest-a.rest); err != nil {
		return fmt.Errorf("storing what accrues: %w", err)
	}
	return nil
}

// Accruing is what stands open, as if it ended at a time, and what an hour of it costs.
// It is rounded once; lines are rounded for each kind of each CVM, so that they may be
// less, by less than a micro-unit each.
func (d *DB) Accruing(ctx context.Context, workspace int64, t time.Time) (amount, hourly billing.Micro, err error) {
	var s standing
	err = notFound(d.db.QueryRowContext(ctx, `SELECT rate, hours, rest FROM meter_sums WHERE workspace_id = ?`, workspace).Scan(&s.rate, &s.hours, &s.rest))
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil // nothing was metered yet
	}
	if err != nil {
		return 0, 0, fmt.Errorf("reading what accrues: %w", err)
	}
	x := new(big.Int).Mul(big.NewInt(s.rate), big.NewInt(ms(t)))
	x.Sub(x, new(big.Int).Mul(big.NewInt(s.hours), big.NewInt(hour)))
	x.Sub(x, big.NewInt(s.rest))
	// Meters may have been moved since t: they would count less than nothing.
	return billing.Micro(max(x.Quo(x, big.NewInt(hour)).Int64(), 0)), billing.Micro(s.rate), nil
}

// MeteredUntil tells whether nothing before a time is missing.
func (d *DB) MeteredUntil(ctx context.Context, workspace int64, t time.Time) (bool, error) {
	var n int
	err := d.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM meter_due x JOIN cvms c ON c.id = x.cvm_id LEFT JOIN meters m ON m.cvm_id = x.cvm_id WHERE c.workspace_id = ?
			AND EXISTS (SELECT 1 FROM events e WHERE e.cvm_id = x.cvm_id AND e.time < ? AND (m.at IS NULL OR e.time >= m.at)))
		+ (SELECT count(*) FROM meters WHERE workspace_id = ? AND running = 1 AND at < ?)`, workspace, ms(t), workspace, ms(t)).Scan(&n)
	return n == 0, err
}
