package vm

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestChronydMayTalkForYears: what it says is not kept in memory.
func TestChronydMayTalkForYears(t *testing.T) {
	dir := t.TempDir()
	done := filepath.Join(dir, "done")
	script := "#!/bin/sh\nhead -c 67108864 /dev/zero | tr '\\0' x\ntouch " + done + "\n"
	if err := os.WriteFile(filepath.Join(dir, "chronyd"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var log strings.Builder
	c := &Clock{Log: slog.New(slog.NewTextHandler(&log, nil)), Dir: filepath.Join(dir, "run")}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	go func() { ended <- c.Run(ctx, true) }()
	if err := wait(t.Context(), 10*time.Millisecond, func() bool { _, err := os.Stat(done); return err == nil }); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d MB were taken to hear 64", grown>>20)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
