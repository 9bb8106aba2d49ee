package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/vmm/machine"
)

// newest is the chroot of os/qemu-chroot.sh, which is made when it is missing and
// PHALA_VM=1 asks for it.
func newest(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../os/cache/qemu-chroot")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root may use a chroot")
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/qemu-system-x86_64")); err != nil {
		if os.Getenv("PHALA_VM") != "1" {
			t.Skip("SKIPPED: no QEMU 11 here (PHALA_VM=1, or os/qemu-chroot.sh os/cache/qemu-chroot)")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "../../os/qemu-chroot.sh", dir).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: QEMU 11 cannot be had: %v\n%s", err, out)
		}
	}
	return dir
}

// kvmNode lets QEMU in the chroot find what KVM there is.
func kvmNode(t *testing.T, root string) {
	t.Helper()
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return
	}
	err := unix.Mknod(filepath.Join(root, "dev/kvm"), unix.S_IFCHR|0o600, int(unix.Mkdev(10, 232))) //nolint:gosec // a device number
	if err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
}

// standIns are files that QEMU accepts without running them.
func standIns(t *testing.T, dir string) {
	t.Helper()
	kernel := make([]byte, 64<<10)
	kernel[0x1f1] = 1 // setup sectors
	copy(kernel[0x1fe:], "\x55\xaa")
	binary.LittleEndian.PutUint32(kernel[0x202:], 0x53726448) // "HdrS"
	binary.LittleEndian.PutUint16(kernel[0x206:], 0x020c)
	kernel[0x211] = 1 // loaded high
	binary.LittleEndian.PutUint32(kernel[0x22c:], 0x7fffffff)
	binary.LittleEndian.PutUint32(kernel[0x238:], 4096)
	qcow := make([]byte, 1<<20)
	for name, b := range map[string][]byte{
		"ovmf.fd": make([]byte, 2<<20), "bzImage": kernel, "initramfs.cpio.gz": make([]byte, 4096), "rootfs.img": qcow, "data.img": qcow,
		"shared.img": make([]byte, 1024), "model,a.img": qcow, "b.img": qcow,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", FormatQCOW2, filepath.Join(dir, "data.qcow2"), "1M").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: qemu-img: %v %s", err, out)
	}
}

// tryArgv starts QEMU with a command line and -S. It returns what QEMU said when it
// did not come up, or "" when its monitor answered.
func tryArgv(t *testing.T, root string, args []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	run := t.TempDir()
	files, done, err := listeners(ctx, run, qmpSock, linkSock)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	null, err := os.Open(os.DevNull) // in the place of /dev/vhost-vsock
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	files = append(files, null)
	name := append([]string{"qemu-system-x86_64"}, append(args, "-S")...)
	if root != "" {
		name = append([]string{"chroot", root}, name...)
	}
	cmd := exec.CommandContext(ctx, name[0], name[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles, cmd.WaitDelay = &out, &out, files, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); cancel() }()
	q, err := dialQMP(ctx, filepath.Join(run, qmpSock), ignoreEvents)
	if err != nil {
		_ = cmd.Process.Kill()
		<-ended
		if out.Len() == 0 {
			return "no answer: " + err.Error()
		}
		return out.String()
	}
	defer q.close()
	if err := q.execute(ctx, "quit", nil, nil); err != nil {
		t.Errorf("quit: %v", err)
	}
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("QEMU's end: %v %s", err, out.String())
	}
	return ""
}

// emulated is the same machine on this host: no KVM, memory it has, no GPUs.
func emulated(l Launch) Launch {
	l.Accel, l.TBSizeMiB, l.Hugepages = TCG, 32, false
	if l.MemoryMiB > 2048 {
		l.MemoryMiB = 256
		for i := range l.NUMA {
			l.NUMA[i].MemoryMiB = 256 / len(l.NUMA)
		}
	}
	return l
}

// hardwareMissing is the one thing that QEMU may find wrong with a command line for
// hardware that this host has not.
var (
	hardwareMissing = map[Accel]*regexp.Regexp{
		TDX: regexp.MustCompile(`vm-type TDX not supported by KVM|Could not access KVM kernel module`),
		SNP: regexp.MustCompile(`sev_common_kvm_init|SEV: |vm-type SEV-SNP not supported by KVM|Could not access KVM kernel module`),
		KVM: regexp.MustCompile(`failed to set MSR|Could not access KVM kernel module|annot allocate memory|^$`),
	}
	// vhostMissing is what it says of a vsock device whose file is no vhost.
	vhostMissing = regexp.MustCompile(`^[^ ]+: -device vhost-vsock-pci,guest-cid=20000,vhostfd=5[^:]*: [^\n]*vhost[^\n]*\n$`)
	vfioMissing  = regexp.MustCompile(`/dev/iommu does not exist|vfio .*: no such host device`)
)

func TestNewestQEMUTakesEveryCommandLine(t *testing.T) {
	root := newest(t)
	dir := filepath.Join(root, t.TempDir())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	standIns(t, dir)
	kvmNode(t, root)
	inside := strings.TrimPrefix(dir, root)
	for name, l := range cases(inside) {
		t.Run(name, func(t *testing.T) { takes(t, root, l) })
	}
}

func takes(t *testing.T, root string, l Launch) {
	if l.Accel != TCG {
		args, err := Argv(l)
		if err != nil {
			t.Fatal(err)
		}
		said := tryArgv(t, root, args)
		t.Logf("as it is: %s", said)
		missing := hardwareMissing[l.Accel]
		if len(l.GPUs) > 0 {
			missing = vfioMissing
		}
		vhost := l.CID != 0 && vhostMissing.MatchString(said)
		if !missing.MatchString(said) && !vhost || strings.Contains(said, "deprecated") {
			t.Errorf("QEMU says %q, want only that hardware is missing", said)
		}
	}
	args, err := Argv(emulated(l))
	if err != nil {
		t.Fatal(err)
	}
	if l.CID != 0 {
		if said := tryArgv(t, root, withoutGPUs(args, false)); !vhostMissing.MatchString(said) || !dislikesVSock(errors.New(said)) {
			t.Errorf("emulated, without a vhost: QEMU says %q", said)
		}
		args = withoutVSock(args)
	}
	said := tryArgv(t, root, withoutGPUs(args, false))
	if strings.Contains(said, "cannot bind memory to host NUMA nodes") { // a kernel without NUMA
		said = tryArgv(t, root, withoutGPUs(args, true))
	}
	if len(l.NICs) > 0 && l.NICs[0].Mode == machine.NICTap {
		if !strings.Contains(said, "could not configure /dev/net/tun (pt0123456789ab)") && !strings.Contains(said, "Could not open '/dev/net/tun'") && said != "" {
			t.Errorf("QEMU says %q", said)
		}
		return
	}
	if said != "" {
		t.Errorf("emulated: QEMU says %q", said)
	}
}

var vfio = regexp.MustCompile(`^vfio-pci,host=[^,]+,(bus=pci\.[0-9]+),iommufd=iommufd0$`)

// withoutGPUs puts a device that every host has behind each port of a GPU; unbound
// memory may be anywhere.
func withoutGPUs(args []string, unbound bool) (out []string) {
	for _, a := range args {
		a = vfio.ReplaceAllString(a, "virtio-rng-pci,$1")
		if a == "iommufd,id=iommufd0" {
			a = "memory-backend-ram,id=unused,size=1M"
		}
		if unbound && strings.HasPrefix(a, "memory-backend") {
			a, _, _ = strings.Cut(a, ",host-nodes=")
		}
		out = append(out, a)
	}
	return out
}

// withoutVSock has a device that every host has in the place of the vsock device.
func withoutVSock(args []string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		if rest, found := strings.CutPrefix(a, "vhost-vsock-pci,guest-cid=20000,vhostfd=5"); found {
			args[i] = "virtio-rng-pci" + rest
		}
	}
	return args
}

func TestHostQEMUTakesCommandLines(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("SKIPPED: no qemu-system-x86_64")
	}
	dir := t.TempDir()
	standIns(t, dir)
	for name, l := range cases(dir) {
		if l.Accel == TCG {
			t.Run(name, func(t *testing.T) { takes(t, "", l) })
		}
	}
}

// net.Listener of listeners must outlive this process's own copy: the socket's file
// stays.
func TestListenersStay(t *testing.T) {
	dir := t.TempDir()
	files, done, err := listeners(t.Context(), dir, qmpSock, linkSock)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if c, err := net.Dial("unix", filepath.Join(dir, qmpSock)); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	done()
	if _, err := os.Stat(filepath.Join(dir, qmpSock)); err != nil {
		t.Error(err)
	}
}
