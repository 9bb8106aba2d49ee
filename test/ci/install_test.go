package ci

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installed runs the installer as a step does, with a program that is served here.
func installed(t *testing.T, url, sum string) (dir, out string, code int) {
	t.Helper()
	for _, p := range []string{"bash", "curl", "sha256sum"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", templates+"install.sh")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "RUNNER_TEMP=" + dir, "GITHUB_PATH=" + filepath.Join(dir, "path"), "PHALA_URL=" + url, "PHALA_SHA256=" + sum}
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return dir, string(b), cmd.ProcessState.ExitCode()
}

// TestInstall: only the program of the checksum is installed, and nothing is left of
// another.
func TestInstall(t *testing.T) {
	program := []byte("#!/bin/sh\necho phala\n")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/phala" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(program)
	}))
	t.Cleanup(web.Close)
	h := sha256.Sum256(program)
	sum := hex.EncodeToString(h[:])
	dir, out, code := installed(t, web.URL+"/phala", sum)
	if code != 0 {
		t.Fatalf("exit %d %s", code, out)
	}
	if b, err := exec.CommandContext(t.Context(), filepath.Join(dir, "phala-bin", "phala")).Output(); err != nil || string(b) != "phala\n" {
		t.Errorf("%q %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "path")); err != nil || string(b) != filepath.Join(dir, "phala-bin")+"\n" {
		t.Errorf("%q %v", b, err)
	}
	for name, tt := range map[string]struct{ url, sum, want string }{
		"another program": {web.URL + "/phala", strings.Repeat("0", 64), "it was not installed"},
		"no checksum":     {web.URL + "/phala", "", "64 hex digits"},
		"a short one":     {web.URL + "/phala", sum[:40], "64 hex digits"},
		"no URL":          {"", sum, "no URL"},
		"no TLS":          {"http://mirror.example/phala", sum, "must begin with https://"},
		"not there":       {web.URL + "/none", sum, "could not be downloaded"},
	} {
		dir, out, code := installed(t, tt.url, tt.sum)
		left, err := filepath.Glob(filepath.Join(dir, "phala-bin", "*"))
		hidden, err2 := filepath.Glob(filepath.Join(dir, "phala-bin", ".phala.*"))
		if code == 0 || !strings.Contains(out, tt.want) || len(left)+len(hidden) != 0 || err != nil || err2 != nil {
			t.Errorf("%s: exit %d, left %q\n%s", name, code, left, out)
		}
	}
}
