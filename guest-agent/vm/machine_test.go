package vm

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/internal/cpio"
)

// TestClockOfAMachine boots an emulated machine whose kernel measured its TSC, and one
// whose kernel is made to take it for seven times slower than it is.
func TestClockOfAMachine(t *testing.T) {
	if os.Getenv("PHALA_VM") != "1" {
		t.Skip("SKIPPED: boots two machines (PHALA_VM=1)")
	}
	kernels, _ := filepath.Glob("../../build/images/phala-*/bzImage")
	if len(kernels) == 0 {
		t.Skip("SKIPPED: no built image (make image)")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("SKIPPED: QEMU is not installed")
	}
	initrd := clockInit(t)
	for _, c := range []struct{ name, cmdline, word string }{
		{"as the kernel measured it", "", "the TSC agrees with the real-time clock"},
		{"measured seven times too slow", " tsc_early_khz=350000", "source=acpi_pm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, times := bootClock(t, kernels[0], initrd, c.cmdline)
			if len(times) != 2 || !strings.Contains(out, "CLOCK end") {
				t.Fatalf("the machine did not come to its end:\n%s", out)
			}
			// A kernel that measured wrongly by itself is as good a test; it says so.
			if !strings.Contains(out, c.word) && !strings.Contains(out, "source=acpi_pm") {
				t.Errorf("want %q:\n%s", c.word, out)
			}
			// A host that is late reads its own clock late: only what is ahead is wrong.
			for i, at := range times {
				if ahead := at.guest.Sub(at.host); ahead > 3*time.Second {
					t.Errorf("the machine's time at reading %d is %s ahead:\n%s", i, ahead, out)
				}
			}
			guest, host := times[1].guest.Sub(times[0].guest), times[1].host.Sub(times[0].host)
			if guest > 2*host {
				t.Errorf("the machine counted %s in %s", guest, host)
			}
		})
	}
}

// clockInit is an initramfs of testdata/clock.
func clockInit(t *testing.T) string {
	t.Helper()
	init := filepath.Join(t.TempDir(), "init")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "./testdata/clock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		t.Fatal(err)
	}
	var a cpio.Archive
	a.Add("init", cpio.File|0o755, 0, 0, program)
	b, err := a.Gzip()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reading is one of both clocks.
type reading struct{ guest, host time.Time }

func bootClock(t *testing.T, kernel, initrd, cmdline string) (console string, times []reading) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-M", "q35,hpet=off", "-m", "512M", "-smp", "2", "-nodefaults", "-nographic",
		"-no-reboot", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=1 oops=panic tsc=reliable no_timer_check quiet"+cmdline)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if _, s, ok := strings.Cut(lines.Text(), "CLOCK time="); ok {
			if ns, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64); err == nil {
				times = append(times, reading{time.Unix(0, ns), time.Now()})
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, all.String())
	}
	return all.String(), times
}
