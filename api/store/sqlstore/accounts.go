package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

// principal reads users with the role in a workspace; both joins are inner: who is
// no member (any more) is nobody.
const (
	principalColumns = `u.id, u.username, u.email, u.role, u.must_change, u.totp_on, w.id, w.name, w.slug, m.role`
	principalJoins   = ` JOIN memberships m ON m.user_id = u.id AND m.workspace_id = w.id`
	principal        = `SELECT ` + principalColumns + ` FROM users u JOIN workspaces w ON w.id = u.workspace_id` + principalJoins
)

func principalFields(p *store.Principal) []any {
	return []any{&p.UserID, &p.Username, &p.Email, &p.Role, &p.MustChange, &p.TOTP, &p.WorkspaceID, &p.WorkspaceName, &p.WorkspaceSlug, &p.Member}
}

func scanPrincipal(row *sql.Row) (p store.Principal, err error) {
	err = row.Scan(principalFields(&p)...)
	p.Scopes = store.AllScopes
	return p, notFound(err)
}

// Admin returns the first workspace's admin, created at the first call.
func (d *DB) Admin(ctx context.Context) (store.Principal, error) {
	p, err := scanPrincipal(d.db.QueryRowContext(ctx, principal+` WHERE u.role = 'admin' ORDER BY u.id LIMIT 1`))
	if !errors.Is(err, store.ErrNotFound) {
		return p, err
	}
	p, err = d.AddWorkspace(ctx, "default", "admin", "", "admin")
	if sqldb.Unique(err, "workspaces.slug", "workspaces_slug_key") { // another process was first
		return scanPrincipal(d.db.QueryRowContext(ctx, principal+` WHERE u.role = 'admin' ORDER BY u.id LIMIT 1`))
	}
	return p, err
}

// AddWorkspace makes a workspace with one user.
func (d *DB) AddWorkspace(ctx context.Context, name, username, email, role string) (p store.Principal, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		now := ms(d.now())
		var ws, id int64
		err := tx.QueryRowContext(ctx, `INSERT INTO workspaces (name, slug, created_at) VALUES (?, ?, ?) RETURNING id`, name, name, now).Scan(&ws)
		if err != nil {
			return fmt.Errorf("storing workspace: %w", err)
		}
		err = tx.QueryRowContext(ctx, `INSERT INTO users (workspace_id, username, email, role, created_at) VALUES (?, ?, ?, ?, ?) RETURNING id`,
			ws, username, email, role, now).Scan(&id)
		if err != nil {
			return fmt.Errorf("storing user: %w", err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO memberships (workspace_id, user_id, role, joined_at) VALUES (?, ?, ?, ?)`, ws, id, store.Owner, now)
		if err != nil {
			return fmt.Errorf("storing membership: %w", err)
		}
		p, err = scanPrincipal(tx.QueryRowContext(ctx, principal+` WHERE u.id = ?`, id))
		return err
	})
	return p, err
}

// AddKey stores the sha256 of a key.
func (d *DB) AddKey(ctx context.Context, p store.Principal, name, prefix string, hash [32]byte) error {
	_, err := d.db.ExecContext(ctx, `INSERT INTO api_keys (user_id, workspace_id, name, prefix, hash, created_at) VALUES (?, ?, ?, ?, ?, ?)`,
		p.UserID, p.WorkspaceID, name, prefix, hash[:], ms(d.now()))
	if err != nil {
		return fmt.Errorf("storing key: %w", err)
	}
	return nil
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
		if _, err := d.db.ExecContext(ctx, `UPDATE api_keys SET last_used_at = ? WHERE id = ?`, now, p.KeyID); err != nil {
			return store.Principal{}, fmt.Errorf("noting the use of a key: %w", err)
		}
	}
	return p, nil
}
