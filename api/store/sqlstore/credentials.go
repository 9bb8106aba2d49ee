package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// AddKey stores the sha256 of a key.
func (d *DB) AddKey(ctx context.Context, p store.Principal, k store.Key) (store.Key, error) {
	err := sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) (err error) {
		k, err = d.addKey(ctx, tx, p.UserID, p.WorkspaceID, k)
		return err
	})
	return k, err
}

func (d *DB) addKey(ctx context.Context, tx *sqldb.Tx, user, workspace int64, k store.Key) (store.Key, error) {
	now := d.now()
	k.UserID, k.CreatedAt = user, at(ms(now))
	err := tx.QueryRowContext(ctx, `INSERT INTO api_keys (user_id, workspace_id, name, prefix, hash, created_at, scopes, expires_at, default_version)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		user, workspace, k.Name, k.Prefix, k.Hash[:], ms(now), k.Scopes, ms(k.ExpiresAt), k.Version).Scan(&k.ID)
	if err != nil {
		return store.Key{}, fmt.Errorf("storing key: %w", err)
	}
	return k, nil
}

// ByKey finds who a key belongs to. Its use is noted at most once a minute.
func (d *DB) ByKey(ctx context.Context, hash [32]byte) (p store.Principal, err error) {
	var used, stepped int64
	now := ms(d.now())
	row := d.db.QueryRowContext(ctx, `SELECT `+principalColumns+`, k.id, k.last_used_at, k.scopes, k.default_version, k.stepped_at
		FROM api_keys k JOIN users u ON u.id = k.user_id JOIN workspaces w ON w.id = k.workspace_id`+principalJoins+`
		WHERE k.hash = ? AND k.revoked_at = 0 AND (k.expires_at = 0 OR k.expires_at > ?)`, hash[:], now)
	err = row.Scan(append(principalFields(&p), &p.KeyID, &used, &p.Scopes, &p.DefaultVersion, &stepped)...)
	if err != nil {
		return store.Principal{}, notFound(err)
	}
	p.SteppedAt = at(stepped)
	if now-used > 60_000 {
		if _, err := d.db.ExecContext(ctx, `UPDATE api_keys SET last_used_at = ? WHERE id = ? AND last_used_at = ?`, now, p.KeyID, used); err != nil {
			return store.Principal{}, fmt.Errorf("noting the use of a key: %w", err)
		}
	}
	return p, nil
}

// KeysOf lists a user's keys in a workspace.
func (d *DB) KeysOf(ctx context.Context, user, workspace int64) ([]store.Key, error) {
	return rows(ctx, d.db, func(r scanner) (k store.Key, err error) {
		var created, used, expires int64
		err = r.Scan(&k.ID, &k.UserID, &k.Name, &k.Prefix, &k.Scopes, &k.Version, &created, &used, &expires)
		k.CreatedAt, k.LastUsedAt, k.ExpiresAt = at(created), at(used), at(expires)
		return k, err
	}, `SELECT id, user_id, name, prefix, scopes, default_version, created_at, last_used_at, expires_at FROM api_keys
		WHERE user_id = ? AND workspace_id = ? AND revoked_at = 0 ORDER BY id DESC`, user, workspace)
}

// RevokeKey ends a key.
func (d *DB) RevokeKey(ctx context.Context, user, workspace, id int64) error {
	return d.one(ctx, "key", `UPDATE api_keys SET revoked_at = ? WHERE id = ? AND user_id = ? AND workspace_id = ? AND revoked_at = 0`, ms(d.now()), id, user, workspace)
}

// AddSession stores the sha256 of a session's token.
func (d *DB) AddSession(ctx context.Context, user int64, hash [32]byte, agent string, ttl time.Duration, fresh bool) error {
	now := d.now()
	stepped := int64(0)
	if fresh {
		stepped = ms(now)
	}
	_, err := d.db.ExecContext(ctx, `INSERT INTO sessions (user_id, hash, user_agent, created_at, seen_at, expires_at, stepped_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		user, hash[:], agent, ms(now), ms(now), ms(now.Add(ttl)), stepped)
	if err != nil {
		return fmt.Errorf("storing session: %w", err)
	}
	return nil
}

// BySession finds who a session belongs to. Its use is noted at most once a minute.
func (d *DB) BySession(ctx context.Context, hash [32]byte, slug string, idle time.Duration) (p store.Principal, err error) {
	var seen, stepped int64
	now := d.now()
	q := `SELECT ` + principalColumns + `, s.id, s.seen_at, s.stepped_at
		FROM sessions s JOIN users u ON u.id = s.user_id JOIN memberships m ON m.user_id = u.id JOIN workspaces w ON w.id = m.workspace_id
		WHERE s.hash = ? AND s.revoked_at = 0 AND s.expires_at > ? AND s.seen_at > ?`
	args := []any{hash[:], ms(now), ms(now.Add(-idle))}
	if slug != "" {
		q, args = q+` AND w.slug = ?`, append(args, slug)
	}
	// The user's own workspace first, then the oldest.
	row := d.db.QueryRowContext(ctx, q+` ORDER BY CASE WHEN w.id = u.workspace_id THEN 0 ELSE 1 END, w.id LIMIT 1`, args...)
	if err := row.Scan(append(principalFields(&p), &p.SessionID, &seen, &stepped)...); err != nil {
		return store.Principal{}, notFound(err)
	}
	p.Scopes, p.SteppedAt = store.AllScopes, at(stepped)
	if ms(now)-seen > 60_000 {
		if _, err := d.db.ExecContext(ctx, `UPDATE sessions SET seen_at = ? WHERE id = ?`, ms(now), p.SessionID); err != nil {
			return store.Principal{}, fmt.Errorf("noting the use of a session: %w", err)
		}
	}
	return p, nil
}

// SessionsOf lists a user's sessions that are not over.
func (d *DB) SessionsOf(ctx context.Context, user int64) ([]store.Session, error) {
	return rows(ctx, d.db, func(r scanner) (s store.Session, err error) {
		var created, seen, expires int64
		err = r.Scan(&s.ID, &s.UserAgent, &created, &seen, &expires)
		s.CreatedAt, s.SeenAt, s.ExpiresAt = at(created), at(seen), at(expires)
		return s, err
	}, `SELECT id, user_agent, created_at, seen_at, expires_at FROM sessions WHERE user_id = ? AND revoked_at = 0 AND expires_at > ? ORDER BY id DESC`, user, ms(d.now()))
}

// EndSession ends one.
func (d *DB) EndSession(ctx context.Context, user, id int64) error {
	return d.one(ctx, "session", `UPDATE sessions SET revoked_at = ? WHERE id = ? AND user_id = ? AND revoked_at = 0`, ms(d.now()), id, user)
}

// StepUp notes that the caller proved a second factor just now.
func (d *DB) StepUp(ctx context.Context, p store.Principal) error {
	if p.KeyID != 0 {
		return d.one(ctx, "step-up", `UPDATE api_keys SET stepped_at = ? WHERE id = ?`, ms(d.now()), p.KeyID)
	}
	return d.one(ctx, "step-up", `UPDATE sessions SET stepped_at = ? WHERE id = ?`, ms(d.now()), p.SessionID)
}

// SetTOTP stores a sealed secret and new backup codes' hashes.
func (d *DB) SetTOTP(ctx context.Context, user int64, sealed []byte, on bool, codes [][32]byte) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := oneOf(ctx, tx, "second factor", `UPDATE users SET totp = ?, totp_on = ? WHERE id = ?`, sealed, flag(on), user); err != nil {
			return err
		}
		return setCodes(ctx, tx, user, codes)
	})
}

// SetBackupCodes replaces a user's backup codes.
func (d *DB) SetBackupCodes(ctx context.Context, user int64, codes [][32]byte) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error { return setCodes(ctx, tx, user, codes) })
}

func setCodes(ctx context.Context, tx *sqldb.Tx, user int64, codes [][32]byte) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM backup_codes WHERE user_id = ?`, user); err != nil {
		return fmt.Errorf("storing backup codes: %w", err)
	}
	for _, c := range codes {
		if _, err := tx.ExecContext(ctx, `INSERT INTO backup_codes (user_id, hash) VALUES (?, ?)`, user, c[:]); err != nil {
			return fmt.Errorf("storing backup codes: %w", err)
		}
	}
	return nil
}

// UseTOTPStep takes a time step once.
func (d *DB) UseTOTPStep(ctx context.Context, user, step int64) (bool, error) {
	return used(d.one(ctx, "second factor", `UPDATE users SET totp_step = ? WHERE id = ? AND totp_step < ?`, step, user, step))
}

// UseBackupCode takes a code once.
func (d *DB) UseBackupCode(ctx context.Context, user int64, hash [32]byte) (bool, error) {
	return used(d.one(ctx, "backup code", `DELETE FROM backup_codes WHERE user_id = ? AND hash = ?`, user, hash[:]))
}

func used(err error) (bool, error) {
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// BackupCodes counts the codes that are left.
func (d *DB) BackupCodes(ctx context.Context, user int64) (n int, err error) {
	err = d.db.QueryRowContext(ctx, `SELECT count(*) FROM backup_codes WHERE user_id = ?`, user).Scan(&n)
	return n, err
}

// Attempts counts since the window began.
func (d *DB) Attempts(ctx context.Context, subject string, window time.Duration) (n int, end time.Time, err error) {
	var since int64
	err = d.db.QueryRowContext(ctx, `SELECT count, since FROM attempts WHERE subject = ?`, subject).Scan(&n, &since)
	if err := notFound(err); err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, end, fmt.Errorf("reading attempts: %w", err)
	}
	end = at(since).Add(window)
	if !end.After(d.now()) {
		return 0, d.now().Add(window), nil
	}
	return n, end, nil
}

// Attempt counts one more; a window that ended begins anew.
func (d *DB) Attempt(ctx context.Context, subject string, window time.Duration) error {
	now := d.now()
	old := ms(now.Add(-window))
	_, err := d.db.ExecContext(ctx, `INSERT INTO attempts (subject, count, since) VALUES (?, 1, ?) ON CONFLICT (subject) DO UPDATE SET
		count = CASE WHEN attempts.since > ? THEN attempts.count + 1 ELSE 1 END,
		since = CASE WHEN attempts.since > ? THEN attempts.since ELSE excluded.since END`, subject, ms(now), old, old)
	if err != nil {
		return fmt.Errorf("storing attempt: %w", err)
	}
	return nil
}

// Forgive forgets the wrong guesses.
func (d *DB) Forgive(ctx context.Context, subject string) error {
	_, err := d.db.ExecContext(ctx, `DELETE FROM attempts WHERE subject = ?`, subject)
	return err
}
