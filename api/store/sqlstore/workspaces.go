package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/internal/sqldb"
)

func (d *DB) addWorkspace(ctx context.Context, tx *sqldb.Tx, name, slug string) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO workspaces (name, slug, created_at) VALUES (?, ?, ?) RETURNING id`, name, slug, ms(d.now())).Scan(&id)
	if sqldb.Unique(err, "workspaces.slug", "workspaces_slug_key") {
		return 0, store.ErrTaken
	}
	if err != nil {
		return 0, fmt.Errorf("storing workspace: %w", err)
	}
	return id, nil
}

// CreateWorkspace makes one that the user owns.
func (d *DB) CreateWorkspace(ctx context.Context, user int64, name, slug string) (w store.Workspace, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		id, err := d.addWorkspace(ctx, tx, name, slug)
		if err != nil {
			return err
		}
		w = store.Workspace{ID: id, Name: name, Slug: slug, Role: store.Owner, CreatedAt: at(ms(d.now()))}
		return d.addMember(ctx, tx, id, user, store.Owner)
	})
	return w, err
}

// WorkspacesOf lists a user's workspaces.
func (d *DB) WorkspacesOf(ctx context.Context, user, after int64, limit int) ([]store.Workspace, error) {
	return rows(ctx, d.db, func(r scanner) (w store.Workspace, err error) {
		var created, own int64
		err = r.Scan(&w.ID, &w.Name, &w.Slug, &created, (*string)(&w.Role), &own)
		w.CreatedAt, w.Default = at(created), own == w.ID
		return w, err
	}, `SELECT w.id, w.name, w.slug, w.created_at, m.role, u.workspace_id FROM memberships m
		JOIN workspaces w ON w.id = m.workspace_id JOIN users u ON u.id = m.user_id
		WHERE m.user_id = ? AND w.id > ? ORDER BY w.id LIMIT ?`, user, after, limit)
}

// Members lists a workspace's people, in the order they came.
func (d *DB) Members(ctx context.Context, workspace int64) ([]store.Membership, error) {
	out, err := rows(ctx, d.db, func(r scanner) (m store.Membership, err error) {
		var joined int64
		err = r.Scan(&m.UserID, &m.Username, &m.Email, (*string)(&m.Role), &joined)
		m.JoinedAt = at(joined)
		return m, err
	}, `SELECT u.id, u.username, u.email, m.role, m.joined_at FROM memberships m JOIN users u ON u.id = m.user_id
		WHERE m.workspace_id = ? ORDER BY m.joined_at, u.id`, workspace)
	if len(out) > 0 && out[0].Role == store.Owner {
		out[0].Creator = true
	}
	return out, err
}

// SetRole changes a member's role, or removes the member.
func (d *DB) SetRole(ctx context.Context, workspace, user int64, role store.Role) error {
	return sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		if err := tx.Lock(ctx, fmt.Sprintf("members %d", workspace)); err != nil {
			return err
		}
		var err error
		if role == "" {
			err = oneOf(ctx, tx, "member", `DELETE FROM memberships WHERE workspace_id = ? AND user_id = ?`, workspace, user)
		} else {
			err = oneOf(ctx, tx, "member", `UPDATE memberships SET role = ? WHERE workspace_id = ? AND user_id = ?`, string(role), workspace, user)
		}
		if err != nil {
			return err
		}
		var owners int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM memberships WHERE workspace_id = ? AND role = 'owner'`, workspace).Scan(&owners); err != nil {
			return fmt.Errorf("reading owners: %w", err)
		}
		if owners == 0 {
			return store.ErrLastOwner
		}
		return nil
	})
}

const invitationColumns = `SELECT i.id, i.email, i.role, i.created_at, i.expires_at, i.accepted_at, i.revoked_at, w.id, w.name, w.slug, u.id, u.username, u.email
	FROM invitations i JOIN workspaces w ON w.id = i.workspace_id JOIN users u ON u.id = i.inviter_id `

func scanInvitation(r scanner) (i store.Invitation, err error) {
	var created, expires, accepted, revoked int64
	err = r.Scan(&i.ID, &i.Email, (*string)(&i.Role), &created, &expires, &accepted, &revoked,
		&i.Workspace.ID, &i.Workspace.Name, &i.Workspace.Slug, &i.Inviter.ID, &i.Inviter.Username, &i.Inviter.Email)
	i.CreatedAt, i.ExpiresAt, i.AcceptedAt, i.RevokedAt = at(created), at(expires), at(accepted), at(revoked)
	return i, notFound(err)
}

// AddInvitation stores the sha256 of an invitation's token.
func (d *DB) AddInvitation(ctx context.Context, p store.Principal, email string, role store.Role, hash [32]byte, ttl time.Duration) (i store.Invitation, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		now := d.now()
		_, err := tx.ExecContext(ctx, `INSERT INTO invitations (workspace_id, inviter_id, email, role, hash, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			p.WorkspaceID, p.UserID, email, string(role), hash[:], ms(now), ms(now.Add(ttl)))
		if err != nil {
			return fmt.Errorf("storing invitation: %w", err)
		}
		i, err = scanInvitation(tx.QueryRowContext(ctx, invitationColumns+`WHERE i.hash = ?`, hash[:]))
		return err
	})
	return i, err
}

// InvitationsTo lists a workspace's invitations, newest first.
func (d *DB) InvitationsTo(ctx context.Context, workspace int64) ([]store.Invitation, error) {
	return rows(ctx, d.db, scanInvitation, invitationColumns+`WHERE i.workspace_id = ? ORDER BY i.id DESC`, workspace)
}

// Invitation reads one by its token's hash.
func (d *DB) Invitation(ctx context.Context, hash [32]byte) (store.Invitation, error) {
	return scanInvitation(d.db.QueryRowContext(ctx, invitationColumns+`WHERE i.hash = ?`, hash[:]))
}

// RevokeInvitation ends one that waits.
func (d *DB) RevokeInvitation(ctx context.Context, workspace, id int64) error {
	return d.one(ctx, "invitation", `UPDATE invitations SET revoked_at = ? WHERE id = ? AND workspace_id = ? AND revoked_at = 0 AND accepted_at = 0`, ms(d.now()), id, workspace)
}

// Accept makes a user a member, once. The inviter must still be a member who may give
// that role.
func (d *DB) Accept(ctx context.Context, hash [32]byte, user int64, username, password string) (i store.Invitation, err error) {
	err = sqldb.Transact(ctx, d.db, func(tx *sqldb.Tx) error {
		now := ms(d.now())
		if err := oneOf(ctx, tx, "invitation", `UPDATE invitations SET accepted_at = ? WHERE hash = ? AND accepted_at = 0 AND revoked_at = 0 AND expires_at > ?`, now, hash[:], now); err != nil {
			return err
		}
		if i, err = scanInvitation(tx.QueryRowContext(ctx, invitationColumns+`WHERE i.hash = ?`, hash[:])); err != nil {
			return err
		}
		var inviter string
		err := tx.QueryRowContext(ctx, `SELECT role FROM memberships WHERE workspace_id = ? AND user_id = ?`, i.Workspace.ID, i.Inviter.ID).Scan(&inviter)
		if err != nil {
			return notFound(err)
		}
		if !store.Role(inviter).Allows(i.Role) || !store.Role(inviter).Allows(store.Admin) {
			return store.ErrNotFound
		}
		if user == 0 {
			if user, err = d.addUser(ctx, tx, i.Workspace.ID, username, i.Email, "user"); err != nil {
				return err
			}
			if err := oneOf(ctx, tx, "password", `UPDATE users SET password = ? WHERE id = ?`, password, user); err != nil {
				return err
			}
		}
		return d.addMember(ctx, tx, i.Workspace.ID, user, i.Role)
	})
	return i, err
}
