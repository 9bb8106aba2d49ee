package sqlstore

import (
	"context"
	"fmt"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

const attestationNames = `checksum, verified, tcb_status, summary, ppid, device_id, created_at, verified_at`

func scanAttestation(more ...func(*store.Attestation) any) func(scanner) (store.Attestation, error) {
	return func(r scanner) (a store.Attestation, err error) {
		var created, verified int64
		into := []any{&a.Checksum, &a.Verified, &a.TCBStatus, &a.Summary, &a.PPID, &a.DeviceID, &created, &verified}
		for _, m := range more {
			into = append(into, m(&a))
		}
		err = r.Scan(into...)
		a.CreatedAt, a.VerifiedAt = at(created), at(verified)
		return a, notFound(err)
	}
}

// PutAttestation stores a quote, or the newer verdict of one that is known.
func (d *DB) PutAttestation(ctx context.Context, a store.Attestation) (store.Attestation, error) {
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, "attestations"); err != nil {
			return err
		}
		a.VerifiedAt = d.now()
		var id, created int64
		err := tx.QueryRowContext(ctx, `INSERT INTO attestations (checksum, verified, tcb_status, summary, ppid, device_id, quote, collateral, created_at, verified_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (checksum) DO UPDATE SET verified = excluded.verified, tcb_status = excluded.tcb_status, summary = excluded.summary, collateral = excluded.collateral, verified_at = excluded.verified_at
			RETURNING id, created_at`,
			a.Checksum, flag(a.Verified), a.TCBStatus, a.Summary, a.PPID, a.DeviceID, a.Quote, a.Collateral, ms(a.VerifiedAt), ms(a.VerifiedAt)).Scan(&id, &created)
		if err != nil {
			return fmt.Errorf("storing attestation: %w", err)
		}
		a.CreatedAt = at(created)
		_, err = tx.ExecContext(ctx, `DELETE FROM attestations WHERE id <= (SELECT max(id) FROM attestations) - ?`, store.MaxAttestations)
		return err
	})
	return a, err
}

// Attestation finds one by its checksum.
func (d *DB) Attestation(ctx context.Context, checksum string) (store.Attestation, error) {
	scan := scanAttestation(func(a *store.Attestation) any { return &a.Quote }, func(a *store.Attestation) any { return &a.Collateral })
	return scan(d.db.QueryRowContext(ctx, `SELECT `+attestationNames+`, quote, collateral FROM attestations WHERE checksum = ?`, checksum))
}

// RecentAttestations lists them, newest first, without quote and collateral.
func (d *DB) RecentAttestations(ctx context.Context, skip, limit int) ([]store.Attestation, error) {
	return rows(ctx, d.db, scanAttestation(), `SELECT `+attestationNames+` FROM attestations ORDER BY id DESC LIMIT ? OFFSET ?`, limit, skip)
}

// PPIDs are those that verified quotes named, by device id.
func (d *DB) PPIDs(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	_, err := rows(ctx, d.db, func(r scanner) (device string, err error) {
		var ppid string
		err = r.Scan(&device, &ppid)
		out[device] = ppid
		return device, err
	}, `SELECT DISTINCT device_id, ppid FROM attestations WHERE verified = 1`)
	return out, err
}

// AppCVMs lists an app's live CVMs, whoever's they are, oldest first.
func (d *DB) AppCVMs(ctx context.Context, appID string) ([]store.CVM, error) {
	return rows(ctx, d.db, scanCVM, cvmColumns+`WHERE deleted_at = 0 AND app_id = ? ORDER BY id`, appID)
}
