package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

const deviceColumns = `SELECT id, client, scopes, address, state, user_id, workspace_id, polled_at, poll_interval, expires_at FROM device_logins `

func scanDevice(r scanner) (v store.Device, err error) {
	var polled, interval, expires int64
	err = r.Scan(&v.ID, &v.Client, &v.Scopes, &v.Address, &v.State, &v.UserID, &v.WorkspaceID, &polled, &interval, &expires)
	v.PolledAt, v.Interval, v.ExpiresAt = at(polled), time.Duration(interval)*time.Millisecond, at(expires)
	return v, notFound(err)
}

// AddDevice also forgets those that expired a day ago.
func (d *DB) AddDevice(ctx context.Context, device, code [32]byte, v store.Device) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM device_logins WHERE expires_at < ?`, ms(d.now().Add(-24*time.Hour))); err != nil {
			return fmt.Errorf("forgetting device logins: %w", err)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO device_logins (device_hash, code_hash, client, scopes, address, state, poll_interval, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			device[:], code[:], v.Client, v.Scopes, v.Address, store.DevicePending, v.Interval.Milliseconds(), ms(v.ExpiresAt))
		if sqldb.Unique(err, "device_logins.code_hash", "device_logins_code_hash_key") {
			return store.ErrTaken
		}
		if err != nil {
			return fmt.Errorf("storing device login: %w", err)
		}
		return nil
	})
}

// DeviceByCode finds one that waits.
func (d *DB) DeviceByCode(ctx context.Context, code [32]byte) (store.Device, error) {
	return scanDevice(d.db.QueryRowContext(ctx, deviceColumns+`WHERE code_hash = ? AND state = 'pending' AND expires_at > ?`, code[:], ms(d.now())))
}

// Decide approves or denies one that waits.
func (d *DB) Decide(ctx context.Context, id int64, p store.Principal, approve bool) error {
	state := store.DeviceDenied
	if approve {
		state = store.DeviceApproved
	}
	return d.one(ctx, "device login", `UPDATE device_logins SET state = ?, user_id = ?, workspace_id = ? WHERE id = ? AND state = 'pending' AND expires_at > ?`,
		state, p.UserID, p.WorkspaceID, id, ms(d.now()))
}

// Poll runs fn on a device and stores what it changed.
func (d *DB) Poll(ctx context.Context, device [32]byte, fn func(*store.Device) (*store.Key, error)) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, fmt.Sprintf("device %x", device[:8])); err != nil {
			return err
		}
		v, err := scanDevice(tx.QueryRowContext(ctx, deviceColumns+`WHERE device_hash = ?`, device[:]))
		if err != nil {
			return err
		}
		key, err := fn(&v)
		if err != nil {
			return err
		}
		if key != nil {
			if _, err := d.addKey(ctx, tx, v.UserID, v.WorkspaceID, *key); err != nil {
				return err
			}
		}
		return oneOf(ctx, tx, "device login", `UPDATE device_logins SET state = ?, polled_at = ?, poll_interval = ? WHERE id = ?`,
			v.State, ms(v.PolledAt), v.Interval.Milliseconds(), v.ID)
	})
}

// AddSSHKey stores a key.
func (d *DB) AddSSHKey(ctx context.Context, k store.SSHKey) (store.SSHKey, error) {
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		now := ms(d.now())
		k.CreatedAt, k.UpdatedAt = at(now), at(now)
		err := tx.QueryRowContext(ctx, `INSERT INTO ssh_keys (user_id, name, public_key, fingerprint, key_type, source, profile, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			k.UserID, k.Name, k.PublicKey, k.Fingerprint, k.Type, k.Source, k.Profile, now, now).Scan(&k.ID)
		if sqldb.Unique(err, "ssh_keys.user_id", "ssh_keys_one") {
			return store.ErrTaken
		}
		if err != nil {
			return fmt.Errorf("storing SSH key: %w", err)
		}
		return nil
	})
	return k, err
}

// SSHKeysOf lists a user's keys, newest first.
func (d *DB) SSHKeysOf(ctx context.Context, user int64) ([]store.SSHKey, error) {
	return rows(ctx, d.db, func(r scanner) (k store.SSHKey, err error) {
		var created, updated int64
		err = r.Scan(&k.ID, &k.UserID, &k.Name, &k.PublicKey, &k.Fingerprint, &k.Type, &k.Source, &k.Profile, &created, &updated)
		k.CreatedAt, k.UpdatedAt = at(created), at(updated)
		return k, err
	}, `SELECT id, user_id, name, public_key, fingerprint, key_type, source, profile, created_at, updated_at FROM ssh_keys WHERE user_id = ? ORDER BY id DESC`, user)
}

// RemoveSSHKey forgets one.
func (d *DB) RemoveSSHKey(ctx context.Context, user, id int64) error {
	return d.one(ctx, "SSH key", `DELETE FROM ssh_keys WHERE id = ? AND user_id = ?`, id, user)
}
