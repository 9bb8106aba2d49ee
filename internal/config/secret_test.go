package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

func TestSecretsOfOthersAreNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if _, err := ReadSecret(path); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("nothing there: %v", err)
	}
	if err := os.WriteFile(path, []byte("hush-hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadSecret(path); err != nil || string(b) != "hush-hush" {
		t.Errorf("%q %v", b, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSecret(path); cvm.CodeOf(err) != cvm.Denied || strings.Contains(err.Error(), "hush") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := ReadSecret(t.TempDir()); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("a directory: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, maxSecret+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(path, 0o400)
	if _, err := ReadSecret(path); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a long one: %v", err)
	}
}

func TestSecretsOfAnotherOwnerAreNotRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can give files away")
	}
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("hush-hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(path); cvm.CodeOf(err) != cvm.Denied || !strings.Contains(err.Error(), "12345") {
		t.Errorf("another's: %v", err)
	}
}
