package vm

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Of an input event: struct timeval (16 bytes), type, code, value.
const (
	eventSize = 24
	evKey     = 1
	keyPower  = 116
	keySleep  = 142
)

// pressed reads input events and reports whether the power button went down.
func pressed(b []byte) bool {
	for len(b) >= eventSize {
		kind, code, value := binary.NativeEndian.Uint16(b[16:]), binary.NativeEndian.Uint16(b[18:]), binary.NativeEndian.Uint32(b[20:])
		if kind == evKey && (code == keyPower || code == keySleep) && value == 1 {
			return true
		}
		b = b[eventSize:]
	}
	return false
}

// WatchPower calls press when the machine's power button is pressed (the host's ACPI
// shutdown), until ctx ends.
func WatchPower(ctx context.Context, log *slog.Logger, press func()) {
	names := powerInputs("/sys/class/input")
	if len(names) == 0 {
		log.Warn("there is no power button; the host can stop this machine over the link only")
	}
	for _, n := range names {
		f, err := os.OpenFile(filepath.Join("/dev/input", n), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			log.Warn("power button", "err", err)
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = f.Close() })
		go func() {
			defer stop()
			b := make([]byte, 64*eventSize)
			for {
				n, err := f.Read(b)
				if err != nil {
					return
				}
				if pressed(b[:n]) {
					log.Info("the power button was pressed")
					press()
				}
			}
		}()
	}
}

// powerInputs are the event devices that are ACPI power buttons.
func powerInputs(class string) []string {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "event") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "device/name"))
		if err == nil && strings.Contains(string(b), "Power Button") {
			out = append(out, e.Name())
		}
	}
	return out
}

// How long the processes that are left may take, in PowerOff.
const (
	politely = 3 * time.Second
	firmly   = 2 * time.Second
)

// PowerOff ends what still runs, unmounts what can be unmounted and switches the
// machine off. Only PID 1 may call it; it does not return.
func PowerOff(log *slog.Logger) {
	for _, k := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, politely}, {unix.SIGKILL, firmly}} {
		_ = unix.Kill(-1, k.sig)
		ctx, cancel := context.WithTimeout(context.Background(), k.wait)
		err := wait(ctx, 20*time.Millisecond, alone)
		cancel()
		if err == nil {
			break
		}
	}
	unix.Sync()
	unmountAll(log)
	unix.Sync()
	log.Info("power off")
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	log.Error("the machine does not switch off", "err", err)
	select {} // PID 1 must not end: that is a kernel panic
}

// alone collects every child and reports whether none is left.
func alone() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.EINTR || pid > 0 {
			continue
		}
		return err == unix.ECHILD
	}
}

// unmountAll unmounts every file system that can hold data, newest first; what is busy
// is made read-only.
func unmountAll(log *slog.Logger) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		log.Warn("unmounting", "err", err)
		return
	}
	for _, m := range dataMounts(string(b)) {
		if err := unix.Unmount(m, 0); err == nil {
			continue
		}
		if err := unix.Mount("", m, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			log.Warn("unmounting", "path", m, "err", err)
		}
	}
}

// dataMounts are the mount points of /proc/self/mounts that lie on a disk or on
// another mount of one, innermost first.
func dataMounts(table string) []string {
	var out []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] == "/" {
			continue
		}
		switch f[2] {
		case "ext4", "xfs", "btrfs", "overlay", "nsfs", "zfs":
			out = append(out, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[1]))
		}
	}
	slices.Reverse(out)
	return out
}
