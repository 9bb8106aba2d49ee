package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/api/store/sqlstore"
	"github.com/confidential-cloud/phala/cvm"
)

// Reset names whose password is made anew.
type Reset struct {
	Username string // "" is the first workspace's admin
	// Factor also removes the second factor: for somebody who has lost it.
	Factor bool
}

// ResetPassword prints a one-time password of a user to out and ends all sessions of
// theirs; API keys stay. It is for whoever runs the server and can read its database:
// the API may run meanwhile. The audit log tells of it. Errors: not_found for no such
// user, invalid for a database that is not there.
func ResetPassword(ctx context.Context, cfg Config, r Reset, out io.Writer) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("cloud API: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Log, now: cfg.Now, hashing: make(chan struct{}, 1)}
	if s.now == nil {
		s.now = time.Now
	}
	if cfg.DatabaseURL == "" {
		// Opening would make an empty one where the path is wrong.
		if _, err := os.Stat(cfg.Database().Path); errors.Is(err, fs.ErrNotExist) {
			return cvm.Errorf(cvm.Invalid, "there is no database at %s", cfg.Database().Path).WithFix("give the configuration that the cloud API runs with: phala-api -c FILE reset-password")
		}
	}
	db, err := sqlstore.Open(ctx, cfg.Database(), s.now)
	if err != nil {
		return fmt.Errorf("cloud API: %w", err)
	}
	s.store = db
	return errors.Join(s.reset(ctx, r, out), db.Close())
}

func (s *Server) reset(ctx context.Context, r Reset, out io.Writer) error {
	u, workspace, err := s.resetWhom(ctx, r.Username)
	if err != nil {
		return err
	}
	d := startDraft("reset-password")
	d.Chain, d.Entry.User, d.Entry.Via, d.Entry.Target = workspace, u.Username, "server", u.Username
	ctx = store.WithAudit(ctx, d)
	if r.Factor && u.TOTPOn {
		if err := s.store.SetTOTP(ctx, u.ID, nil, false, nil); err != nil {
			return err
		}
	}
	password, err := s.oneTime(ctx, u.ID)
	if err != nil {
		return err
	}
	s.forgive(ctx, limitLogin(), u.Username) // wrong guesses of before
	if _, err := fmt.Fprintf(out, "%s signs in with the one-time password %s (it must be changed at once). All of their browsers are signed out; API keys stay.\n", u.Username, password); err != nil {
		return err
	}
	if u.TOTPOn && !r.Factor {
		_, err = fmt.Fprintln(out, "Their second factor is still needed; reset-password -second-factor removes it.")
	}
	return err
}

// resetWhom finds a user, and the workspace whose audit log tells of it.
func (s *Server) resetWhom(ctx context.Context, username string) (u store.User, workspace int64, err error) {
	if username == "" {
		p, err := s.store.Admin(ctx)
		if err != nil {
			return u, 0, fmt.Errorf("admin: %w", err)
		}
		u, err = s.store.User(ctx, p.UserID)
		return u, p.WorkspaceID, err
	}
	name := strings.ToLower(username)
	u, err = s.store.UserByName(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return u, 0, cvm.Errorf(cvm.NotFound, "nobody is called %q; nothing was changed", username)
	}
	if err != nil {
		return u, 0, err
	}
	all, err := s.store.WorkspacesOf(ctx, u.ID, 0, 1)
	if len(all) > 0 {
		workspace = all[0].ID
	}
	return u, workspace, err
}
