package sqlstore

import (
	"context"
	"fmt"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

const userColumns = `SELECT u.id, u.username, u.email, u.role, u.password, u.must_change, u.totp, u.totp_on FROM users u `

func scanUser(row scanner) (u store.User, err error) {
	err = row.Scan(&u.ID, &u.Username, &u.Email, &u.Role, &u.Password, &u.MustChange, &u.TOTP, &u.TOTPOn)
	return u, notFound(err)
}

// User reads one.
func (d *DB) User(ctx context.Context, id int64) (store.User, error) {
	return scanUser(d.db.QueryRowContext(ctx, userColumns+`WHERE u.id = ?`, id))
}

// UserByName reads one.
func (d *DB) UserByName(ctx context.Context, username string) (store.User, error) {
	return scanUser(d.db.QueryRowContext(ctx, userColumns+`WHERE u.username = ?`, username))
}

// one runs a statement that must change exactly one row.
func (d *DB) one(ctx context.Context, what, q string, args ...any) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error { return oneOf(ctx, tx, what, q, args...) })
}

func oneOf(ctx context.Context, tx *sqldb.Tx, what, q string, args ...any) error {
	res, err := tx.ExecContext(ctx, q, args...)
	if err != nil {
		return fmt.Errorf("storing %s: %w", what, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return store.ErrNotFound
	}
	return nil
}

// UpdateUser changes username and email.
func (d *DB) UpdateUser(ctx context.Context, id int64, username, email string) error {
	err := d.one(ctx, "user", `UPDATE users SET username = ?, email = ? WHERE id = ?`, username, email, id)
	if sqldb.Unique(err, "users.username", "users_username_key") {
		return store.ErrTaken
	}
	return err
}

// SetPassword also ends all sessions but one.
func (d *DB) SetPassword(ctx context.Context, id int64, hash string, mustChange bool, keepSession int64) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := oneOf(ctx, tx, "password", `UPDATE users SET password = ?, must_change = ? WHERE id = ?`, hash, flag(mustChange), id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE sessions SET revoked_at = ? WHERE user_id = ? AND id <> ? AND revoked_at = 0`, ms(d.now()), id, keepSession)
		if err != nil {
			return fmt.Errorf("ending sessions: %w", err)
		}
		return nil
	})
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// ByIdentity finds the user of another provider's subject.
func (d *DB) ByIdentity(ctx context.Context, issuer, subject string) (store.User, error) {
	return scanUser(d.db.QueryRowContext(ctx, userColumns+`JOIN identities i ON i.user_id = u.id WHERE i.issuer = ? AND i.subject = ?`, issuer, subject))
}

// LinkIdentity gives a user a provider's subject.
func (d *DB) LinkIdentity(ctx context.Context, user int64, issuer, subject string) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error { return d.link(ctx, tx, user, issuer, subject) })
}

func (d *DB) link(ctx context.Context, tx *sqldb.Tx, user int64, issuer, subject string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO identities (issuer, subject, user_id, created_at) VALUES (?, ?, ?, ?)`, issuer, subject, user, ms(d.now()))
	if sqldb.Unique(err, "identities.issuer", "identities_pkey") {
		return store.ErrTaken
	}
	if err != nil {
		return fmt.Errorf("storing identity: %w", err)
	}
	return nil
}

// AddUserOf makes a user for a provider's subject, with a workspace.
func (d *DB) AddUserOf(ctx context.Context, username, email, issuer, subject string) (u store.User, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		ws, err := d.addWorkspace(ctx, tx, username, username)
		if err != nil {
			return err
		}
		id, err := d.addUser(ctx, tx, ws, username, email, "user")
		if err != nil {
			return err
		}
		if err := d.addMember(ctx, tx, ws, id, store.Owner); err != nil {
			return err
		}
		if err := d.link(ctx, tx, id, issuer, subject); err != nil {
			return err
		}
		u, err = scanUser(tx.QueryRowContext(ctx, userColumns+`WHERE u.id = ?`, id))
		return err
	})
	return u, err
}
