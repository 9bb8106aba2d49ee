package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

const (
	keyPrefix  = "phak_"
	tokenBytes = 32
)

// NewAdminKey makes a new API key for the first workspace's admin (made at the
// first call). It is returned once; only its hash is kept.
func (s *Server) NewAdminKey(ctx context.Context, name string) (string, error) {
	p, err := s.store.Admin(ctx)
	if err != nil {
		return "", fmt.Errorf("cloud API: admin: %w", err)
	}
	return s.newKey(ctx, p, name)
}

func (s *Server) newKey(ctx context.Context, p store.Principal, name string) (string, error) {
	key, k := makeKey(name)
	if _, err := s.store.AddKey(ctx, p, k); err != nil {
		return "", fmt.Errorf("cloud API: key: %w", err)
	}
	return key, nil
}

// makeKey makes a key that may do all that its user may, and what is kept of it.
func makeKey(name string) (string, store.Key) {
	key, hash := newToken(keyPrefix)
	return key, store.Key{Name: name, Prefix: key[:len(keyPrefix)+6], Hash: hash, Scopes: store.AllScopes}
}

// newToken makes a secret of 256 bits and the hash that is kept of it.
func newToken(prefix string) (string, [32]byte) {
	b := make([]byte, tokenBytes)
	_, _ = rand.Read(b) // never fails
	token := prefix + base64.RawURLEncoding.EncodeToString(b)
	return token, sha256.Sum256([]byte(token))
}

// ValidKey tells whether an API key is good.
func (s *Server) ValidKey(ctx context.Context, key string) (bool, error) {
	_, err := s.store.ByKey(ctx, sha256.Sum256([]byte(key)))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// firstKey writes an admin key to the configured file when there is none.
func (s *Server) firstKey(ctx context.Context) error {
	if s.cfg.AdminKeyFile == "" {
		return nil
	}
	if b, err := os.ReadFile(s.cfg.AdminKeyFile); err == nil {
		ok, err := s.ValidKey(ctx, strings.TrimSpace(string(b)))
		if err == nil && !ok {
			err = fmt.Errorf("the key in %s is not one of this database: remove the file to get a new key", s.cfg.AdminKeyFile)
		}
		return err
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("admin key file: %w", err)
	}
	key, err := s.NewAdminKey(ctx, "first start")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.cfg.AdminKeyFile, []byte(key+"\n"), 0o600); err != nil {
		return fmt.Errorf("admin key file: %w", err)
	}
	s.log.Info("wrote the first admin API key", "file", s.cfg.AdminKeyFile)
	return nil
}

type principalKey struct{}

// who is the caller; every operation that is not public has one.
func who(ctx context.Context) store.Principal {
	p, _ := ctx.Value(principalKey{}).(store.Principal)
	return p
}

func deny(hc huma.Context, status int, detail any) {
	hc.SetHeader("Content-Type", "application/json")
	hc.SetStatus(status)
	_ = json.NewEncoder(hc.BodyWriter()).Encode(&apiError{status, detail})
}

// Versioned is the header that chooses between the shapes of an answer.
type Versioned struct {
	Version string `header:"X-Phala-Version" doc:"2026-01-21 (default) or 2025-10-28"`
}

func (v Versioned) legacy() bool { return v.Version == cloudapi.VersionLegacy }

func (s *Server) me(ctx context.Context, in *Versioned) (any, error) {
	p := who(ctx)
	a, accruing, _, err := s.worth(ctx, p.WorkspaceID)
	if err != nil {
		return nil, err
	}
	tier, _ := s.cfg.Billing.tier(a.Tier)
	paid, granted := split(a, accruing)
	if in.legacy() {
		return cloudapi.CurrentUserV1{Username: p.Username, Email: p.Email, Credits: paid.Float(), GrantedCredits: granted.Float(), TeamName: p.WorkspaceName, TeamTier: tier}, nil
	}
	u, err := s.store.User(ctx, p.UserID)
	if err != nil {
		return nil, err
	}
	codes, err := s.store.BackupCodes(ctx, p.UserID)
	if err != nil {
		return nil, err
	}
	var owed *string
	if sum := paid + granted; a.PostPaid && sum < 0 {
		owed = ptr((-sum).String())
	}
	return cloudapi.CurrentUser{
		User: cloudapi.User{Username: p.Username, Email: p.Email, Role: p.Role, EmailVerified: p.Email != "",
			TOTPEnabled: u.TOTPOn, HasBackupCodes: codes > 0, FlagHasPassword: u.Password != "", MustChangePassword: u.MustChange},
		Workspace: cloudapi.Workspace{ID: workspaceID(p), Name: p.WorkspaceName, Slug: ptr(p.WorkspaceSlug), Tier: tier, Role: string(p.Member)},
		Credits:   cloudapi.Credits{Balance: paid.String(), GrantedBalance: granted.String(), IsPostPaid: a.PostPaid, OutstandingAmount: owed},
	}, nil
}

const tier = "self-hosted"

func workspaceID(p store.Principal) string { return wksID(p.WorkspaceID) }

func wksID(id int64) string { return fmt.Sprintf("wks_%d", id) }

func userID(id int64) string { return fmt.Sprintf("usr_%d", id) }
