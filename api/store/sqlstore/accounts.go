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
	return []any{&p.UserID, &p.Username, &p.Email, &p.Role, &p.MustChange, &p.TOTP, &p.WorkspaceID, &p.WorkspaceName, &p.WorkspaceSlug, (*string)(&p.Member)}
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

func (d *DB) addUser(ctx context.Context, tx *sqldb.Tx, workspace int64, username, email, role string) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO users (workspace_id, username, email, role, created_at) VALUES (?, ?, ?, ?, ?) RETURNING id`,
		workspace, username, email, role, ms(d.now())).Scan(&id)
	if sqldb.Unique(err, "users.username", "users_username_key") {
		return 0, store.ErrTaken
	}
	if err != nil {
		return 0, fmt.Errorf("storing user: %w", err)
	}
	return id, nil
}

func (d *DB) addMember(ctx context.Context, tx *sqldb.Tx, workspace, user int64, role store.Role) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO memberships (workspace_id, user_id, role, joined_at) VALUES (?, ?, ?, ?)`, workspace, user, string(role), ms(d.now()))
	if sqldb.Unique(err, "memberships.workspace_id", "memberships_pkey") {
		return store.ErrTaken
	}
	if err != nil {
		return fmt.Errorf("storing membership: %w", err)
	}
	return nil
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
		if id, err = d.addUser(ctx, tx, ws, username, email, role); err != nil {
			return err
		}
		if err := d.addMember(ctx, tx, ws, id, store.Owner); err != nil {
			return err
		}
		p, err = scanPrincipal(tx.QueryRowContext(ctx, principal+` WHERE u.id = ?`, id))
		return err
	})
	return p, err
}
