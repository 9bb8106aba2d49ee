package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// probeTime bounds each question to a service or a program.
const probeTime = 10 * time.Second

// Probe is what of a host is no file. Fields that are nil ask this machine.
type Probe struct {
	// Run executes a program of the host and returns what it prints.
	Run func(ctx context.Context, path string, args ...string) (string, error)
	// Dial connects: network is tcp, unix or vsock (address: a port of the host).
	Dial func(ctx context.Context, network, address string) error
	// Disk says how many bytes are free below dir, and on which file system.
	Disk func(dir string) (free int64, fs string, err error)
	// Clock says whether the kernel's clock is synchronised, and its error bound.
	Clock func() (synced bool, bound time.Duration, err error)
}

func (p Probe) orReal(root string) Probe {
	if p.Run == nil {
		p.Run = run
	}
	if p.Dial == nil {
		p.Dial = func(ctx context.Context, network, address string) error {
			if network == "unix" {
				address = filepath.Join(root, address)
			}
			return dial(ctx, network, address)
		}
	}
	if p.Disk == nil {
		p.Disk = func(dir string) (int64, string, error) { return disk(filepath.Join(root, dir)) }
	}
	if p.Clock == nil {
		p.Clock = kernelClock
	}
	return p
}

func run(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var out bytes.Buffer
	c := exec.CommandContext(ctx, path, args...)
	c.Stdout, c.Stderr, c.WaitDelay = &out, &out, time.Second
	err := c.Run()
	return out.String(), err
}

func dial(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if network == "vsock" {
		return dialVsock(address)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return c.Close()
}

// dialVsock connects to a port of this host over the loopback transport.
func dialVsock(port string) error {
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	t := unix.NsecToTimeval(int64(2 * time.Second))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &t)
	return unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: uint32(n)})
}

// disk asks for the nearest directory that exists.
func disk(dir string) (int64, string, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	for errors.Is(err, unix.ENOENT) && dir != "/" {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &st)
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", 0x2fc12fc1: "zfs", unix.FUSE_SUPER_MAGIC: "fuse"}
	name := names[int64(st.Type)] //nolint:unconvert // its type differs between architectures
	if name == "" {
		name = fmt.Sprintf("type %#x", st.Type)
	}
	return int64(st.Bavail) * st.Bsize, name, err //nolint:gosec // a disk's size
}

func kernelClock() (bool, time.Duration, error) {
	var x unix.Timex
	state, err := unix.Adjtimex(&x)
	return state != unix.TIME_ERROR && x.Status&unix.STA_UNSYNC == 0, time.Duration(x.Maxerror) * time.Microsecond, err
}

const maxRead = 4 << 20

func (e *exam) path(p string) string { return filepath.Join(e.cfg.Root, p) }

// read returns a file's text without white space around it, or "".
func (e *exam) read(p string) string {
	f, err := os.Open(e.path(p))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxRead))
	return strings.TrimSpace(string(b))
}

func (e *exam) exists(p string) bool {
	_, err := os.Stat(e.path(p))
	return err == nil
}

// openable reports whether a device is there and may be opened.
func (e *exam) openable(p string) error {
	f, err := os.OpenFile(e.path(p), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// names lists a directory.
func (e *exam) names(dir string) (out []string) {
	entries, _ := os.ReadDir(e.path(dir))
	for _, x := range entries {
		out = append(out, x.Name())
	}
	return out
}

// first is the first of the paths that exists, or "".
func (e *exam) first(paths ...string) string {
	for _, p := range paths {
		if p != "" && e.exists(p) {
			return p
		}
	}
	return ""
}

// kernelLog reads the kernel's ring buffer, without waiting for new lines, or what
// the boot left of it.
func (e *exam) kernelLog() string {
	fd, err := unix.Open(e.path("/dev/kmsg"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return e.read("/var/log/dmesg")
	}
	defer func() { _ = unix.Close(fd) }()
	var out bytes.Buffer
	buf := make([]byte, 8192)
	for out.Len() < maxRead {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EPIPE) { // overwritten meanwhile: go on with the next
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		out.Write(buf[:n])
	}
	return out.String() + "\n" + e.read("/var/log/dmesg")
}

// logged finds the last line of the kernel's log that holds text.
func (e *exam) logged(text string) string {
	i := strings.LastIndex(e.log, text)
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(e.log[i:], "\n")
	return line
}

// link is the last word of what a symbolic link points to, or "".
func (e *exam) link(p string) string {
	to, err := os.Readlink(e.path(p))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}
