package store

import (
	"context"
	"errors"
	"time"
)

// Accounts are the people, what they belong to and how they sign in.
type Accounts interface {
	Users
	Keys
	Sessions
	Factors
	Workspaces
	Invitations
	SSHKeys
	Devices
	Attempts
	Audits
}

// ErrTaken is returned when somebody has that username or slug.
var ErrTaken = errors.New("taken")

// ErrLastOwner is returned for a change that leaves a workspace without an owner.
var ErrLastOwner = errors.New("a workspace needs an owner")

// User is somebody with an account.
type User struct {
	ID         int64
	Username   string
	Email      string
	Role       string // admin or user, of the whole cloud
	Password   string // argon2id, or "" for none
	MustChange bool
	TOTP       []byte // sealed; nil for none
	TOTPOn     bool   // the user has shown that the device knows it
}

// Users are the people.
type Users interface {
	// Admin returns the first workspace's admin, created at the first call.
	Admin(ctx context.Context) (Principal, error)
	// AddWorkspace makes a workspace with one new user, its owner.
	AddWorkspace(ctx context.Context, name, username, email, role string) (Principal, error)
	User(ctx context.Context, id int64) (User, error)
	UserByName(ctx context.Context, username string) (User, error)
	// UpdateUser changes username and email; ErrTaken.
	UpdateUser(ctx context.Context, id int64, username, email string) error
	// SetPassword also ends all sessions but one (0: all).
	SetPassword(ctx context.Context, id int64, hash string, mustChange bool, keepSession int64) error
	// ByIdentity finds the user of another provider's subject.
	ByIdentity(ctx context.Context, issuer, subject string) (User, error)
	// LinkIdentity gives a user a provider's subject; ErrTaken if it has one already.
	LinkIdentity(ctx context.Context, user int64, issuer, subject string) error
	// AddUserOf makes a user for a provider's subject, with a workspace; ErrTaken.
	AddUserOf(ctx context.Context, username, email, issuer, subject string) (User, error)
}

// Key is an API key, without itself.
type Key struct {
	ID         int64
	UserID     int64
	Name       string
	Prefix     string
	Hash       [32]byte
	Scopes     string // with spaces between
	Version    string // default_version, or ""
	CreatedAt  time.Time
	LastUsedAt time.Time
	ExpiresAt  time.Time // zero: never
	RevokedAt  time.Time
}

// Keys are API keys.
type Keys interface {
	// AddKey stores the sha256 of a key of a user in a workspace.
	AddKey(ctx context.Context, p Principal, k Key) (Key, error)
	// ByKey finds who a key belongs to and notes its use; ErrNotFound for unknown,
	// revoked or expired.
	ByKey(ctx context.Context, hash [32]byte) (Principal, error)
	// KeysOf lists a user's keys in a workspace that are not revoked.
	KeysOf(ctx context.Context, user, workspace int64) ([]Key, error)
	// RevokeKey ends a key of a user in a workspace.
	RevokeKey(ctx context.Context, user, workspace, id int64) error
}

// Session is a browser that signed in.
type Session struct {
	ID        int64
	UserAgent string
	CreatedAt time.Time
	SeenAt    time.Time
	ExpiresAt time.Time
}

// Sessions are the browsers that signed in.
type Sessions interface {
	// AddSession stores the sha256 of a session's token. fresh: with a second factor.
	AddSession(ctx context.Context, user int64, hash [32]byte, agent string, ttl time.Duration, fresh bool) error
	// BySession finds who a session belongs to, in the workspace with that slug or
	// (slug "") the user's own. One not seen for idle is over.
	BySession(ctx context.Context, hash [32]byte, slug string, idle time.Duration) (Principal, error)
	SessionsOf(ctx context.Context, user int64) ([]Session, error)
	EndSession(ctx context.Context, user, id int64) error
	// StepUp notes that the caller proved a second factor just now.
	StepUp(ctx context.Context, p Principal) error
}

// Factors are second factors.
type Factors interface {
	// SetTOTP stores a sealed secret (nil: none) and new backup codes' hashes.
	SetTOTP(ctx context.Context, user int64, sealed []byte, on bool, codes [][32]byte) error
	// UseTOTPStep takes a time step once: false for one that is not newer than the last.
	UseTOTPStep(ctx context.Context, user, step int64) (bool, error)
	// UseBackupCode takes a code once: false for one that is not there.
	UseBackupCode(ctx context.Context, user int64, hash [32]byte) (bool, error)
	// BackupCodes counts the codes that are left.
	BackupCodes(ctx context.Context, user int64) (int, error)
	SetBackupCodes(ctx context.Context, user int64, codes [][32]byte) error
}

// Workspace is one a user belongs to.
type Workspace struct {
	ID        int64
	Name      string
	Slug      string
	Role      Role
	Default   bool
	CreatedAt time.Time
}

// Membership is one of a workspace's people.
type Membership struct {
	UserID   int64
	Username string
	Email    string
	Role     Role
	JoinedAt time.Time
	Creator  bool
}

// Workspaces own CVMs.
type Workspaces interface {
	// WorkspacesOf lists a user's workspaces with a higher id, at most limit.
	WorkspacesOf(ctx context.Context, user, after int64, limit int) ([]Workspace, error)
	// CreateWorkspace makes one that the user owns; ErrTaken.
	CreateWorkspace(ctx context.Context, user int64, name, slug string) (Workspace, error)
	Members(ctx context.Context, workspace int64) ([]Membership, error)
	// SetRole changes a member's role; "" removes the member. ErrNotFound, ErrLastOwner.
	SetRole(ctx context.Context, workspace, user int64, role Role) error
}

// Invitation is a way into a workspace.
type Invitation struct {
	ID         int64
	Workspace  Workspace
	Inviter    User
	Email      string
	Role       Role
	CreatedAt  time.Time
	ExpiresAt  time.Time
	AcceptedAt time.Time
	RevokedAt  time.Time
}

// Invitations are ways into workspaces.
type Invitations interface {
	AddInvitation(ctx context.Context, inviter Principal, email string, role Role, hash [32]byte, ttl time.Duration) (Invitation, error)
	InvitationsTo(ctx context.Context, workspace int64) ([]Invitation, error)
	// Invitation reads one by its token's hash, used or not.
	Invitation(ctx context.Context, hash [32]byte) (Invitation, error)
	RevokeInvitation(ctx context.Context, workspace, id int64) error
	// Accept makes a user a member, once; with user 0 it makes the user first (ErrTaken).
	// ErrNotFound for an invitation that is not open.
	Accept(ctx context.Context, hash [32]byte, user int64, username, password string) (Invitation, error)
}

// SSHKey is a user's public key.
type SSHKey struct {
	ID          int64
	UserID      int64
	Name        string
	PublicKey   string
	Fingerprint string
	Type        string
	Source      string // manual or github
	Profile     string // whose profile it came from
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// SSHKeys are users' public keys.
type SSHKeys interface {
	// AddSSHKey stores a key; ErrTaken if the user has it.
	AddSSHKey(ctx context.Context, k SSHKey) (SSHKey, error)
	SSHKeysOf(ctx context.Context, user int64) ([]SSHKey, error)
	RemoveSSHKey(ctx context.Context, user, id int64) error
}

// States of a device login.
const (
	DevicePending  = "pending"
	DeviceApproved = "approved"
	DeviceDenied   = "denied"
	DeviceTaken    = "taken"
)

// Device is a program that asks to be signed in (RFC 8628).
type Device struct {
	ID          int64
	Client      string
	Scopes      string
	Address     string
	State       string
	UserID      int64
	WorkspaceID int64
	PolledAt    time.Time
	Interval    time.Duration
	ExpiresAt   time.Time
}

// Devices are programs that ask to be signed in.
type Devices interface {
	// AddDevice also forgets those that expired a day ago; ErrTaken for a code in use.
	AddDevice(ctx context.Context, device, code [32]byte, d Device) error
	// DeviceByCode finds one that waits and has not expired.
	DeviceByCode(ctx context.Context, code [32]byte) (Device, error)
	// Decide approves or denies one that waits.
	Decide(ctx context.Context, id int64, p Principal, approve bool) error
	// Poll runs fn on a device and stores what it changed; fn's key, if any, is stored
	// for the approver in the same transaction.
	Poll(ctx context.Context, device [32]byte, fn func(*Device) (*Key, error)) error
}

// Attempts count wrong guesses.
type Attempts interface {
	// Attempts counts since the window began, and tells when it ends.
	Attempts(ctx context.Context, subject string, window time.Duration) (int, time.Time, error)
	// Attempt counts one more.
	Attempt(ctx context.Context, subject string, window time.Duration) error
	Forgive(ctx context.Context, subject string) error
}
