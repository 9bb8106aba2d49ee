package disk

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMountsBelow(t *testing.T) {
	const table = `21 1 0:20 / / rw - squashfs x rw
30 21 253:1 / /data rw,noatime - ext4 /dev/mapper/phala-data rw
31 30 253:1 /docker /data/docker rw - ext4 /dev/mapper/phala-data rw
32 21 0:31 / /data2 rw - tmpfs x rw
33 31 0:32 / /data/docker/a\040b rw - overlay x rw
short
`
	if got, want := mountsBelow(table, "/data"), []string{"/data/docker/a b", "/data/docker", "/data"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// busyDisk is a mounted file system on a block device of its own.
func busyDisk(t *testing.T) (at, device string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, at := filepath.Join(dir, "file"), filepath.Join(dir, "data")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 32<<20), os.Mkdir(at, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", file).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: mkfs.ext4: %v %s", err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("SKIPPED: this machine has no loop devices: %v %s", err, out)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() })
	if err := unix.Mount(device, at, "ext4", 0, ""); err != nil {
		t.Skipf("SKIPPED: mounting a loop device: %v", err)
	}
	t.Cleanup(func() {
		for unix.Unmount(at, unix.MNT_DETACH) == nil { // what a failed test left
		}
	})
	return at, device
}

// What dockerd leaves when it is killed while it starts: its directory mounted over
// itself, and something of a container's.
func TestReleaseAfterAnEngineThatWasKilled(t *testing.T) {
	at, device := busyDisk(t)
	docker, shm := filepath.Join(at, "docker"), filepath.Join(at, "docker", "shm")
	if err := os.MkdirAll(shm, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Mount(docker, docker, "", unix.MS_BIND, ""), unix.Mount("tmpfs", shm, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(at, 0); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("a plain unmount: %v, want busy", err)
	}
	if err := release(t.Context(), at, device); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(docker); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still mounted: %v", err)
	}
}

// A program that is ending is waited for; one that goes on keeps the disk, whether it
// sees the mount or has a copy of it in a namespace of its own.
func TestReleaseWaitsForWhoUsesIt(t *testing.T) {
	for _, c := range []struct {
		name string
		argv []string
	}{
		{"a directory in use", []string{"sh", "-c", "cd \"$1\" && echo there && cat", "sh"}},
		{"a copy of the mount", []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", "echo there && cat", "sh"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, device := busyDisk(t)
			cmd := exec.Command(c.argv[0], append(c.argv[1:], at)...)
			in, err1 := cmd.StdinPipe()
			out, err2 := cmd.StdoutPipe()
			if err := errors.Join(err1, err2, cmd.Start()); err != nil {
				t.Fatal(err)
			}
			var word [5]byte
			if n, err := out.Read(word[:]); err != nil || string(word[:n]) != "there" {
				_ = cmd.Wait()
				t.Skipf("SKIPPED: %s: %q %v", c.argv[0], word[:n], err)
			}
			short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := release(short, at, device); !errors.Is(err, unix.EBUSY) {
				t.Errorf("while it is in use: %v, want busy", err)
			}
			released := make(chan error, 1)
			go func() { released <- release(t.Context(), at, device) }()
			if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
				t.Error(err)
			}
			if err := <-released; err != nil {
				t.Errorf("after its end: %v", err)
			}
		})
	}
}
