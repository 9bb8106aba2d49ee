package vm

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/internal/hostshare"
)

// Serial numbers of the machine's disks, and the name of the link's port.
const (
	SerialData   = "phala-data"
	SerialShared = "phala-shared"
	PortName     = "phala.link"
)

// IsVM reports whether a kernel command line is the image's: what a container sees
// there is its host's.
func IsVM(cmdline string) bool {
	return slices.ContainsFunc(strings.Fields(cmdline), func(f string) bool { return strings.HasPrefix(f, "dstack.rootfs_hash=") })
}

// Disk is the device ("/dev/vdb") of the disk with a serial number below the root of a
// file system ("/" but in tests). Two with one number are refused: which is meant would
// be the host's choice.
func Disk(root, serial string) (string, error) {
	entries, err := os.ReadDir(filepath.Join(root, "sys/block"))
	if err != nil {
		return "", cvm.Errorf(cvm.Internal, "disks: %w", err).WithReason(ReasonSystem)
	}
	var found []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(root, "sys/block", e.Name(), "serial"))
		if err == nil && strings.TrimRight(string(b), "\x00\n") == serial {
			found = append(found, "/dev/"+e.Name())
		}
	}
	switch len(found) {
	case 0:
		return "", cvm.Errorf(cvm.NotFound, "the host gave this machine no disk with the serial number %s", serial).WithReason("disk-missing")
	case 1:
		return found[0], nil
	}
	return "", cvm.Errorf(cvm.Invalid, "the disks %s all have the serial number %s", strings.Join(found, " "), serial).WithReason("disk-missing")
}

// ReadShared unpacks the host-shared files from their disk into dir, which is below a
// tmpfs.
func ReadShared(dir string) error {
	dev, err := Disk("/", SerialShared)
	if err != nil {
		return err
	}
	f, err := os.Open(dev)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "host-shared files: %w", err).WithReason(hostshare.Reason)
	}
	defer f.Close()
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return hostshare.Unpack(f, dir)
}

// The real TEEs that Hardware tells.
const (
	HardwareTDX = "tdx"
	HardwareSNP = "sev-snp"
)

// NeedTEE says what the kernel lacks of the hardware's interfaces, with reason
// ReasonTEE; nil when everything that this guest asks is there.
func NeedTEE(root, hardware string) error {
	need := map[string][][2]string{
		HardwareTDX: {{"sys/kernel/config/tsm/report", "configfs-tsm (module tdx_guest, Linux 6.7)"}, {"sys/devices/virtual/misc/tdx_guest/measurements", "runtime registers in sysfs (module tdx_guest, Linux 6.16)"}},
		HardwareSNP: {{"sys/kernel/config/tsm/report", "configfs-tsm (modules tsm_report and sev-guest, Linux 6.7)"}},
	}[hardware]
	for _, n := range need {
		if _, err := os.Stat(filepath.Join(root, n[0])); err != nil {
			return cvm.Errorf(cvm.Precondition, "this machine is %s hardware, but its kernel shows no /%s", hardware, n[0]).WithReason(ReasonTEE).
				WithFix("the image's kernel must have " + n[1] + ", and configfs mounted")
		}
	}
	return nil
}

// Hardware says which real TEE this machine is, "" for none. It
// asks the processor and the kernel, never the host: a simulated device is for machines
// where this is "".
func Hardware(root string) string {
	exists := func(p string) bool { _, err := os.Stat(filepath.Join(root, p)); return err == nil }
	cpu, _ := os.ReadFile(filepath.Join(root, "proc/cpuinfo"))
	flags := cpuFlags(string(cpu))
	switch {
	case flags["tdx_guest"], exists("dev/tdx_guest"), exists("sys/devices/virtual/misc/tdx_guest"):
		return HardwareTDX
	// The platform device is the kernel's own, there without the module that drives it.
	case exists("dev/sev-guest"), exists("sys/devices/virtual/misc/sev-guest"), exists("sys/bus/platform/devices/sev-guest"), exists("sys/devices/system/cpu/sev"):
		return HardwareSNP
	}
	return ""
}

func cpuFlags(cpuinfo string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(cpuinfo) {
		if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			for _, f := range strings.Fields(v) {
				out[f] = true
			}
			break // all processors are alike
		}
	}
	return out
}

// portFor is how long a machine that has both channels looks at its port before it
// tries vsock again.
const portFor = time.Second

// OpenLink connects to the host: over vsock where the machine has the device and the
// host answers, else by the virtio-serial port, once the host is connected to it.
func OpenLink(ctx context.Context) (io.ReadWriteCloser, error) {
	name, perr := port("/")
	for ctx.Err() == nil {
		c, err := hostlink.DialVSock(ctx)
		switch {
		case err == nil:
			return c, nil
		case perr != nil: // vsock alone, or nothing
			return nil, errors.Join(err, perr)
		case cvm.CodeOf(err) == cvm.NotFound:
			return openPort(ctx, name)
		}
		soon, cancel := context.WithTimeout(ctx, portFor)
		c, err = openPort(soon, name)
		late := soon.Err() != nil
		cancel()
		if err == nil || !late {
			return c, err
		}
	}
	return nil, ctx.Err()
}

// openPort opens the virtio-serial port once the host is connected to it.
func openPort(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	// Without O_NONBLOCK a reader could not be interrupted by Close.
	fd, err := unix.Open("/dev/"+name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "the link's port /dev/%s: %w", name, err)
	}
	// A port that no host is connected to reports a hang-up.
	connected := func() bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}} //nolint:gosec // a file descriptor
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1 && p[0].Revents&unix.POLLHUP == 0
	}
	if err := wait(ctx, 50*time.Millisecond, connected); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// port is the device name of the link's port.
func port(root string) (string, error) {
	dir := filepath.Join(root, "sys/class/virtio-ports")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", cvm.Errorf(cvm.Internal, "virtio-serial ports: %w", err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name(), "name"))
		if err == nil && strings.TrimSpace(string(b)) == PortName {
			return e.Name(), nil
		}
	}
	return "", cvm.Errorf(cvm.NotFound, "the machine has no virtio-serial port %s", PortName)
}
