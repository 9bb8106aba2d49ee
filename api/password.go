package api

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/confidential-cloud/phala/api/store"
)

// The cost of argon2id, the first recommendation of OWASP's cheat sheet; it is stored
// with each hash, so that it can grow.
const (
	argonMemory = 19 << 10 // KiB
	argonTime   = 2
	argonLanes  = 1
	argonSize   = 32
	maxHashing  = 4 // at once
	minPassword = 12
	maxPassword = 256
)

// hashPassword makes argon2id's text form of a password.
func (s *Server) hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	var key []byte
	err := s.hashingSlot(ctx, func() { key = argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, argonSize) })
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, enc(salt), enc(key)), err
}

// checkPassword tells whether a password is the one of a hash. No hash takes as long.
func (s *Server) checkPassword(ctx context.Context, hash, password string) (bool, error) {
	h, err := parseHash(hash)
	none := hash == ""
	if none {
		h, err = argonHash{argonMemory, argonTime, argonLanes, make([]byte, 16), make([]byte, argonSize)}, nil
	}
	if err != nil {
		return false, err
	}
	ok := false
	err = s.hashingSlot(ctx, func() {
		got := argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.lanes, uint32(len(h.key)))
		ok = subtle.ConstantTimeCompare(got, h.key) == 1
	})
	return ok && !none, err
}

func (s *Server) hashingSlot(ctx context.Context, fn func()) error {
	select {
	case s.hashing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.hashing }()
	fn()
	return nil
}

type argonHash struct {
	memory, time uint32
	lanes        uint8
	salt, key    []byte
}

func parseHash(s string) (h argonHash, err error) {
	if s == "" {
		return h, nil
	}
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, fmt.Errorf("not a hash of argon2id")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.lanes); err != nil || h.memory == 0 || h.time == 0 || h.lanes == 0 {
		return h, fmt.Errorf("not the cost of argon2id")
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	h.key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(h.salt) < 8 || len(h.key) < 16 {
		return h, fmt.Errorf("not a hash of argon2id")
	}
	return h, nil
}

// weakPassword says what is wrong with a new password, or nothing.
func weakPassword(password, username string) string {
	switch {
	case len(password) < minPassword:
		return fmt.Sprintf("a password has %d characters or more", minPassword)
	case len(password) > maxPassword:
		return fmt.Sprintf("a password has %d bytes at most", maxPassword)
	case username != "" && strings.Contains(strings.ToLower(password), strings.ToLower(username)):
		return "the password contains the username"
	case len(strings.Trim(password, password[:1])) == 0:
		return "the password is one character, repeated"
	}
	return ""
}

// firstPassword gives the admin a one-time password when there is none, and prints it
// where the configuration says. It is nowhere else.
func (s *Server) firstPassword(ctx context.Context) error {
	if s.cfg.Notice == nil {
		return nil
	}
	p, err := s.store.Admin(ctx)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	u, err := s.store.User(ctx, p.UserID)
	if err != nil || u.Password != "" {
		return err
	}
	password, err := s.oneTime(store.WithAudit(ctx, startDraft("first-password")), u.ID)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	_, err = fmt.Fprintf(s.cfg.Notice, "The admin of this cloud signs in as %s with the one-time password %s (it must be changed at once).\n", u.Username, password)
	return err
}

// oneTime gives a user a password that must be changed at once, and ends all sessions.
func (s *Server) oneTime(ctx context.Context, user int64) (string, error) {
	b := make([]byte, 15)
	_, _ = rand.Read(b) // never fails
	password := base64.RawURLEncoding.EncodeToString(b)
	hash, err := s.hashPassword(ctx, password)
	if err != nil {
		return "", err
	}
	return password, s.store.SetPassword(ctx, user, hash, true, 0)
}
