package cloudapi

// CurrentUser is the answer of GET /auth/me.
type CurrentUser struct {
	User      User      `json:"user"`
	Workspace Workspace `json:"workspace"`
	Credits   Credits   `json:"credits"`
}

// User is the person behind a key.
type User struct {
	Username        string `json:"username"`
	Email           string `json:"email"`
	Role            string `json:"role" enum:"admin,user"`
	Avatar          string `json:"avatar"`
	EmailVerified   bool   `json:"email_verified"`
	TOTPEnabled     bool   `json:"totp_enabled"`
	HasBackupCodes  bool   `json:"has_backup_codes"`
	FlagHasPassword bool   `json:"flag_has_password"`
	// MustChangePassword: nothing else works before (sessions only).
	MustChangePassword bool `json:"must_change_password,omitempty"`
}

// Workspace is what owns CVMs.
type Workspace struct {
	ID     string  `json:"id"`
	Name   string  `json:"name"`
	Slug   *string `json:"slug"`
	Tier   string  `json:"tier"`
	Role   string  `json:"role"`
	Avatar *string `json:"avatar"`
}

// Credits is the workspace's balance, decimal strings.
type Credits struct {
	Balance           string  `json:"balance"`
	GrantedBalance    string  `json:"granted_balance"`
	IsPostPaid        bool    `json:"is_post_paid"`
	OutstandingAmount *string `json:"outstanding_amount"`
}

// CurrentUserV1 is the 2025-10-28 shape.
type CurrentUserV1 struct {
	Username       string  `json:"username"`
	Email          string  `json:"email"`
	Credits        float64 `json:"credits"`
	GrantedCredits float64 `json:"granted_credits"`
	Avatar         string  `json:"avatar"`
	TeamName       string  `json:"team_name"`
	TeamTier       string  `json:"team_tier"`
}
