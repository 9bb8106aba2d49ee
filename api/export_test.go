package api

import "testing"

// TOTP is the code of a time step.
func TOTP(secret []byte, step int64) string { return totp(secret, step) }

// KeyOfNewWorkspace makes a stranger.
func (s *Server) KeyOfNewWorkspace(t *testing.T, name string) string {
	t.Helper()
	p, err := s.store.AddWorkspace(t.Context(), name, name, "", "user")
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.newKey(t.Context(), p, "test")
	if err != nil {
		t.Fatal(err)
	}
	return key
}
