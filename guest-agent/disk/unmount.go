package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/internal/run"
)

// How long programs that are ending may still use the disk, and how often it is tried.
const (
	busyWait  = 15 * time.Second
	busyPause = 50 * time.Millisecond
)

// release unmounts the disk and whatever is mounted below, innermost first: an engine
// that was killed while it started leaves its own directory mounted over itself, and the
// file systems of its containers. It returns when the file system has ended wherever it
// was mounted, so that nothing is written after the generation has moved; never by
// detaching what is busy.
func release(ctx context.Context, at, device string) error {
	at, err := filepath.EvalSymlinks(at) // the kernel's table has no links
	if err != nil {
		return fmt.Errorf("data disk: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	for {
		err := unmountBelow(at)
		if err == nil {
			err = unused(device)
		}
		if err == nil || !errors.Is(err, unix.EBUSY) || run.Pause(ctx, busyPause) != nil {
			return err
		}
	}
}

func unmountBelow(at string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("data disk: mounts: %w", err)
	}
	for _, m := range mountsBelow(string(table), at) {
		if err := unix.Unmount(m, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("data disk: unmounting %s: %w", m, err)
		}
	}
	return nil
}

// mountsBelow are the mount points of proc_pid_mountinfo(5) at and below a directory,
// the newest first.
func mountsBelow(table, at string) (out []string) {
	escaped := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if m := escaped.Replace(f[4]); m == at || strings.HasPrefix(m, at+"/") {
			out = append(out, m)
		}
	}
	slices.Reverse(out)
	return out
}

// unused reports EBUSY while a block device is mounted in any mount namespace, a
// container's for one.
func unused(device string) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("data disk: %s: %w", device, err)
	}
	return unix.Close(fd)
}
