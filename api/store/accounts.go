package store

import "context"

// Accounts are users, workspaces and keys.
type Accounts interface {
	// Admin returns the first workspace's admin, created at the first call.
	Admin(ctx context.Context) (Principal, error)
	// AddKey stores the sha256 of a key.
	AddKey(ctx context.Context, p Principal, name, prefix string, hash [32]byte) error
	// ByKey finds who a key belongs to and notes its use; ErrNotFound for unknown or revoked.
	ByKey(ctx context.Context, hash [32]byte) (Principal, error)
	// AddWorkspace makes a workspace with one user.
	AddWorkspace(ctx context.Context, name, username, email, role string) (Principal, error)
}
