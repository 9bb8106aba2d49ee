package api

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/store"
)

// Vectors of RFC 6238, appendix B (SHA-1), their last six digits. DO NOT CHANGE.
func TestTOTPVectors(t *testing.T) {
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		secret := []byte("12345678901234567890")
		if got := totp(secret, at/totpPeriod); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
		for diff, ok := range map[int64]bool{0: true, totpPeriod: true, -totpPeriod: true, 2 * totpPeriod: false, -2 * totpPeriod: false} {
			if got := totpStep(secret, want, time.Unix(at+diff, 0)) != 0; at+diff > 0 && got != ok {
				t.Errorf("at %d%+d: %v", at, diff, got)
			}
		}
	}
}

func TestPasswordHashes(t *testing.T) {
	s := &Server{hashing: make(chan struct{}, 1)}
	h, err := s.hashPassword(t.Context(), "some password")
	if err != nil || !strings.HasPrefix(h, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatal(h, err)
	}
	for p, want := range map[string]bool{"some password": true, "Some password": false, "": false} {
		if ok, err := s.checkPassword(t.Context(), h, p); ok != want || err != nil {
			t.Errorf("%q: %v, %v", p, ok, err)
		}
	}
	if ok, err := s.checkPassword(t.Context(), "", ""); ok || err != nil {
		t.Errorf("no hash took a password: %v, %v", ok, err)
	}
	for _, bad := range []string{"x", "$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=0,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=8,t=1,p=1$$", "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA$"} {
		if ok, err := s.checkPassword(t.Context(), bad, ""); ok || err == nil {
			t.Errorf("%q: %v, %v", bad, ok, err)
		}
	}
}

func TestSealer(t *testing.T) {
	c := Config{Dir: t.TempDir()}
	a, err := openSealer(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openSealer(c)
	if err != nil {
		t.Fatal(err)
	}
	sealed := a.seal("x", 1, []byte("secret"))
	if got, err := again.open("x", 1, sealed); err != nil || string(got) != "secret" {
		t.Errorf("%s, %v", got, err)
	}
	if st, err := os.Stat(c.Dir + "/secrets.key"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	other, err := openSealer(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte{}, sealed...)
	changed[len(changed)-1] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"other use":   func() ([]byte, error) { return a.open("y", 1, sealed) },
		"other row":   func() ([]byte, error) { return a.open("x", 2, sealed) },
		"other key":   func() ([]byte, error) { return other.open("x", 1, sealed) },
		"changed":     func() ([]byte, error) { return a.open("x", 1, changed) },
		"short":       func() ([]byte, error) { return a.open("x", 1, sealed[:8]) },
		"nothing":     func() ([]byte, error) { return a.open("x", 1, nil) },
		"only random": func() ([]byte, error) { return a.open("x", 1, sealed[:24]) },
	} {
		if b, err := open(); err == nil {
			t.Errorf("%s: %q", name, b)
		}
	}
	if _, err := openSealer(Config{SecretsKeyFile: c.Dir + "/none"}); err == nil {
		t.Error("a missing configured key was made up")
	}
	if err := os.WriteFile(c.Dir+"/bad", []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSealer(Config{SecretsKeyFile: c.Dir + "/bad"}); err == nil {
		t.Error("a short key was taken")
	}
}

// An operation that does not say who may use it is not registered, and the server
// does not start.
func TestAnOperationWithoutAccessIsRefused(t *testing.T) {
	for name, a := range map[string]access{"nothing": {}, "no scope": {role: store.Viewer}, "no role": {scope: "cvms:read"}, "odd role": {role: "king", scope: "cvms:read"},
		"odd scope": {role: store.Viewer, scope: "cvms:all"}, "odd area": {role: store.Viewer, scope: "moon:read"}} {
		s := &Server{log: slog.New(slog.DiscardHandler)}
		if s.guard(&huma.Operation{Method: "POST", Path: "/x"}, a) || len(s.refused) != 1 || len(s.guards) != 0 {
			t.Errorf("%s: %v", name, s.refused)
		}
	}
}

func TestAddress(t *testing.T) {
	s := &Server{cfg: Config{TrustedProxies: []string{"10.0.0.0/8"}}}
	for _, tt := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1"},
		{"192.0.2.1:5", "198.51.100.1", "192.0.2.1"}, // not a proxy of ours: it may say what it wants
		{"10.0.0.1:5", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.1:5", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"},
		{"10.0.0.1:5", "nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "", "10.0.0.1"},
	} {
		if got := s.address(tt.remote, tt.forwarded); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func FuzzSSHKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me")
	f.Add(`command="x" ssh-rsa AAAA`)
	f.Fuzz(func(t *testing.T, line string) {
		k, _, err := parseSSHKey(line)
		if err != nil {
			return
		}
		again, _, err := parseSSHKey(k.PublicKey)
		if err != nil || again != k || strings.ContainsAny(k.PublicKey, "\n\r") {
			t.Errorf("%q: %+v, then %+v, %v", line, k, again, err)
		}
	})
}

func FuzzUserCode(f *testing.F) {
	f.Add("BCDF-GHJK")
	f.Add(" bcdf ghjk ")
	f.Fuzz(func(t *testing.T, code string) {
		a, ok := codeHash(code)
		b, ok2 := codeHash(strings.ToUpper(code) + "-")
		if ok && ok2 && a != b && strings.ToUpper(code) == strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' {
				r -= 'a' - 'A'
			}
			return r
		}, code) {
			t.Errorf("%q: two hashes", code)
		}
	})
}
