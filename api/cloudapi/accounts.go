package cloudapi

import "time"

// LoginRequest signs a browser in.
type LoginRequest struct {
	Username string  `json:"username" maxLength:"254"`
	Password string  `json:"password" maxLength:"256"`
	TOTPCode *string `json:"totp_code,omitempty" doc:"of the second factor, or a backup code"`
}

// PasswordRequest sets a password.
type PasswordRequest struct {
	Password        string  `json:"password" maxLength:"256"`
	CurrentPassword *string `json:"current_password,omitempty"`
	TOTPCode        *string `json:"totp_code,omitempty"`
}

// UserUpdate changes the caller's own name and address.
type UserUpdate struct {
	Username *string `json:"username,omitempty" maxLength:"64"`
	Email    *string `json:"email,omitempty" maxLength:"254"`
}

// StepUpRequest proves a second factor again.
type StepUpRequest struct {
	TOTPCode string `json:"totp_code" maxLength:"64" doc:"of the second factor, or a backup code"`
}

// FactorSetup is a new second factor, shown once.
type FactorSetup struct {
	Secret string `json:"secret" doc:"base32"`
	URI    string `json:"otpauth_uri"`
}

// FactorRequest proves that a second factor works.
type FactorRequest struct {
	Code string `json:"verification_code" maxLength:"64"`
}

// BackupCodes are shown once; each works once.
type BackupCodes struct {
	Codes []string `json:"backup_codes"`
}

// Session is a browser that signed in.
type Session struct {
	ID         string    `json:"id"`
	JTI        string    `json:"jti"`
	UserAgent  *string   `json:"user_agent"`
	CreatedAt  time.Time `json:"created_at"`
	LastSeenAt time.Time `json:"last_seen_at"`
	IsCurrent  bool      `json:"is_current"`
	Revoked    bool      `json:"revoked"`
	DeviceKind string    `json:"device_kind" enum:"Mobile,Desktop,Unknown"`
	DeviceOS   string    `json:"device_os"`
	Label      string    `json:"device_label"`
}

// Sessions are the browsers that are signed in.
type Sessions struct {
	Sessions []Session `json:"sessions"`
	Total    int       `json:"total"`
}

// Token is an API key; Token itself only in the answer that makes it.
type Token struct {
	ID             int64      `json:"id"`
	Name           string     `json:"name"`
	Token          *string    `json:"token"`
	TokenPrefix    *string    `json:"token_prefix"`
	IsActive       bool       `json:"is_active"`
	CreatedAt      time.Time  `json:"created_at"`
	LastUsedAt     *time.Time `json:"last_used_at"`
	ExpiresAt      *time.Time `json:"expires_at"`
	DefaultVersion *string    `json:"default_version"`
	TeamName       *string    `json:"team_name"`
	TeamSlug       *string    `json:"team_slug"`
	Scopes         []string   `json:"scopes"`
}

// TokenCreate makes an API key.
type TokenCreate struct {
	Name           string   `json:"name" minLength:"1" maxLength:"100"`
	ExpiresInDays  *int     `json:"expires_in_days,omitempty" minimum:"1" maximum:"3650" doc:"null: never"`
	Scopes         []string `json:"scopes,omitempty" doc:"area:read, area:write, area:*; default is all that the caller has"`
	DefaultVersion *string  `json:"default_version,omitempty" enum:"2025-10-28,2026-01-21"`
}

// WorkspaceInfo is a workspace with the caller's place in it.
type WorkspaceInfo struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Slug      *string   `json:"slug"`
	Tier      string    `json:"tier"`
	Role      string    `json:"role"`
	IsDefault bool      `json:"is_default"`
	CreatedAt time.Time `json:"created_at"`
}

// WorkspaceCreate makes a workspace that the caller owns.
type WorkspaceCreate struct {
	Name string `json:"name" minLength:"1" maxLength:"100"`
	Slug string `json:"slug" minLength:"3" maxLength:"50" pattern:"^[a-z0-9-]+$"`
}

// Pagination is how lists with a cursor go on.
type Pagination struct {
	HasMore    bool    `json:"has_more"`
	NextCursor *string `json:"next_cursor"`
	Total      *int    `json:"total"`
}

// Workspaces are the caller's.
type Workspaces struct {
	Data       []WorkspaceInfo `json:"data"`
	Pagination Pagination      `json:"pagination"`
}

// Quota is a limit; -1 is none.
type Quota struct {
	Limit     int `json:"limit"`
	Remaining int `json:"remaining"`
}

// QuotaSet is a workspace's limits.
type QuotaSet struct {
	VMSlots  Quota `json:"vm_slots"`
	VCPU     Quota `json:"vcpu"`
	MemoryMB Quota `json:"memory_mb"`
	DiskGB   Quota `json:"disk_gb"`
	GPUs     Quota `json:"gpus"` // ours
}

// ReservedGPU is a workspace's own GPUs.
type ReservedGPU struct {
	GPUs          Quota `json:"gpus"`
	InUse         int   `json:"in_use"`
	Misconfigured int   `json:"misconfigured"`
}

// Quotas is the answer of GET /workspaces/{slug}/quotas.
type Quotas struct {
	TeamSlug      string      `json:"team_slug"`
	Tier          string      `json:"tier"`
	Quotas        QuotaSet    `json:"quotas"`
	ReservedNodes Quota       `json:"reserved_nodes"`
	ReservedGPU   ReservedGPU `json:"reserved_gpu"`
	AsOf          time.Time   `json:"as_of"`
}

// WorkspaceMember is one of a workspace's people.
type WorkspaceMember struct {
	UserID    string    `json:"user_id"`
	Username  string    `json:"username"`
	Email     *string   `json:"email"`
	Role      string    `json:"role"`
	JoinedAt  time.Time `json:"joined_at"`
	IsCreator bool      `json:"is_creator"`
}

// RoleUpdate changes a member's role.
type RoleUpdate struct {
	Role string `json:"role" doc:"owner, admin, member or viewer"`
}

// InvitationCreate invites somebody.
type InvitationCreate struct {
	Email string `json:"email,omitempty" maxLength:"254" doc:"for your own record: the token goes to them by you"`
	Role  string `json:"role" doc:"owner, admin, member or viewer; not above your own"`
}

// Invitation is a way into a workspace; Token only in the answer that makes it.
type Invitation struct {
	ID           int64     `json:"id"`
	Email        *string   `json:"email"`
	Role         string    `json:"role"`
	Status       string    `json:"status" enum:"PENDING,ACCEPTED,EXPIRED,REVOKED"`
	Token        string    `json:"token"`
	InviterName  string    `json:"inviter_name"`
	InviterEmail string    `json:"inviter_email"`
	CreatedAt    time.Time `json:"created_at"`
	ExpiresAt    time.Time `json:"expires_at"`
}

// InvitationDetail is what somebody who has the token sees.
type InvitationDetail struct {
	Email        *string   `json:"email"`
	TeamName     string    `json:"team_name"`
	TeamSlug     *string   `json:"team_slug"`
	InviterName  string    `json:"inviter_name"`
	InviterEmail string    `json:"inviter_email"`
	Role         string    `json:"role"`
	ExpiresAt    time.Time `json:"expires_at"`
	Status       string    `json:"status"`
}

// InvitationRegister makes an account with an invitation.
type InvitationRegister struct {
	Username string `json:"username" minLength:"2" maxLength:"64"`
	Password string `json:"password" maxLength:"256"`
}

// InvitationAccepted is where an accepted invitation leads.
type InvitationAccepted struct {
	Message       string `json:"message"`
	WorkspaceSlug string `json:"workspace_slug"`
	WorkspaceName string `json:"workspace_name"`
}

// SSHKeyCreate adds a public key.
type SSHKeyCreate struct {
	Name      string `json:"name" minLength:"1" maxLength:"100"`
	PublicKey string `json:"public_key" maxLength:"16384"`
}

// SSHKey is a user's public key.
type SSHKey struct {
	ID           string     `json:"id"`
	UserID       string     `json:"user_id"`
	Name         string     `json:"name"`
	PublicKey    string     `json:"public_key"`
	Fingerprint  string     `json:"fingerprint"`
	KeyType      string     `json:"key_type"`
	Source       string     `json:"source"`
	LastSyncedAt *time.Time `json:"last_synced_at"`
	CreatedAt    time.Time  `json:"created_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
}

// ProfileImport adds the keys of a public profile.
type ProfileImport struct {
	Username string `json:"github_username" minLength:"1" maxLength:"39"`
}

// ProfileImported is what an import did.
type ProfileImported struct {
	Username    string   `json:"github_username"`
	KeysAdded   int      `json:"keys_added"`
	KeysSkipped int      `json:"keys_skipped"`
	Errors      []string `json:"errors"`
}

// ProfileSynced is what bringing imported keys up to date did.
type ProfileSynced struct {
	SyncedCount int      `json:"synced_count"`
	KeysAdded   int      `json:"keys_added"`
	KeysUpdated int      `json:"keys_updated"`
	KeysRemoved int      `json:"keys_removed"`
	Errors      []string `json:"errors"`
}

// DeviceCodeRequest begins a device login (RFC 8628).
type DeviceCodeRequest struct {
	ClientID string `json:"client_id,omitempty" default:"phala-cli" maxLength:"64"`
	Scope    string `json:"scope,omitempty" default:"user:profile cvms:* nodes:*" maxLength:"512"`
}

// DeviceCode is what the device shows and polls with.
type DeviceCode struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"`
	ExpiresIn               int    `json:"expires_in"`
	Interval                int    `json:"interval"`
}

// DeviceTokenRequest polls.
type DeviceTokenRequest struct {
	DeviceCode string `json:"device_code" maxLength:"128"`
	GrantType  string `json:"grant_type,omitempty" default:"urn:ietf:params:oauth:grant-type:device_code"`
}

// DeviceToken is the API key that was approved.
type DeviceToken struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	Scope       string `json:"scope"`
}

// DeviceError is why there is no token (yet), under detail.
type DeviceError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// DeviceAuthorize approves or denies a device.
type DeviceAuthorize struct {
	UserCode      string  `json:"user_code" maxLength:"32"`
	WorkspaceSlug *string `json:"workspace_slug,omitempty"`
	TOTPCode      *string `json:"totp_code,omitempty"`
	Deny          bool    `json:"deny,omitempty"`
}
