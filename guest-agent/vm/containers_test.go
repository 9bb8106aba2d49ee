package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What is left of containers is killed, and is gone when EndContainers returns.
func TestEndContainers(t *testing.T) {
	dir := t.TempDir()
	if err := EndContainers(t.Context(), filepath.Join(dir, "none")); err != nil {
		t.Errorf("a cgroup that does not exist: %v", err)
	}
	kill, events := filepath.Join(dir, "cgroup.kill"), filepath.Join(dir, "cgroup.events")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(kill, "")
	write(events, "populated 1\nfrozen 0\n")
	over, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := EndContainers(over, dir); err == nil {
		t.Error("processes that do not end were taken for ended")
	}
	if b, err := os.ReadFile(kill); err != nil || string(b) != "1" {
		t.Errorf("told to the kernel: %q %v", b, err)
	}
	done := make(chan error, 1)
	go func() { done <- EndContainers(t.Context(), dir) }()
	next := filepath.Join(dir, "next")
	write(next, "populated 0\nfrozen 0\n")
	if err := os.Rename(next, events); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
