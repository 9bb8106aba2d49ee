package vm

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const clockSource = "sys/devices/system/clocksource/clocksource0/current_clocksource"

// steadyClock leaves the TSC of an emulated processor, whose frequency the kernel
// measured by loops that a busy host interrupts (time then runs several times too
// fast, and leases with it), for the ACPI timer, whose frequency is known. Never on a
// machine with a TEE: there the TSC is the one clock that the host does not hold.
func steadyClock(root string, log *slog.Logger) error {
	cpu, err := os.ReadFile(filepath.Join(root, "proc/cpuinfo"))
	if err != nil || Hardware(root) != "" || !strings.Contains(string(cpu), "QEMU TCG CPU") {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, clockSource), []byte("acpi_pm"), 0o644); err != nil { //nolint:gosec // the kernel's file
		return fmt.Errorf("clock of an emulated processor: %w", err)
	}
	rtc, err := os.Open(filepath.Join(root, "dev/rtc0"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // the time is off by what it gained during the boot
	}
	if err != nil {
		return err
	}
	defer rtc.Close() //nolint:errcheck // only read
	now, err := unix.IoctlGetRTCTime(int(rtc.Fd()))
	if err != nil {
		return fmt.Errorf("real-time clock: %w", err)
	}
	t := time.Date(int(now.Year)+1900, time.Month(now.Mon+1), int(now.Mday), int(now.Hour), int(now.Min), int(now.Sec), 0, time.UTC)
	log.Info("emulated processor: time by the ACPI timer", "was_off_by", time.Since(t).Round(time.Second))
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}
