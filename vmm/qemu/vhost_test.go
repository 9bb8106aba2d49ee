package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/internal/cpio"
)

// TestMain is also the first process of the host that TestAHostWithVHost boots.
func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		os.Exit(m.Run())
	}
	for _, x := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}} {
		if err := errors.Join(os.MkdirAll(x[1], 0o755), unix.Mount(x[0], x[1], x[0], 0, "")); err != nil {
			fmt.Println("mount", x[1], err)
		}
	}
	for _, name := range vhostModules {
		f, err := os.Open("/modules/" + filepath.Base(name) + ".ko")
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
		}
		if err != nil {
			fmt.Println("module", name, err)
		}
	}
	_ = os.Setenv("PATH", "/usr/bin:/usr/sbin")
	fmt.Println("ENDED with code", m.Run())
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// What a host needs for machines with vsock, below the kernel's modules.
var vhostModules = []string{"net/vmw_vsock/vsock", "net/vmw_vsock/vmw_vsock_virtio_transport_common", "drivers/vhost/vhost_iotlb", "drivers/vhost/vhost", "drivers/vhost/vhost_vsock"}

// madeImage is the tiny image in the host that TestAHostWithVHost boots.
const madeImage = "/image"

// TestMachineOverVSock: a machine whose only way to its host is vsock, through a real
// vhost-vsock: launched, asked, adopted by the next VMM, ended.
func TestMachineOverVSock(t *testing.T) {
	if f, err := openVSock(testCID); err != nil {
		t.Skipf("SKIPPED: no vhost-vsock on this host (%v); PHALA_VM=1 go test -run TestAHostWithVHost runs this test inside an emulated one", err)
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	n.cfg.HostLink = LinkVSock
	d := n.driver()
	first := n.launch(d)
	w := wait(t, first)
	if r := first.(*instance).rec; r.CID != testCID || !r.NoSerial {
		t.Fatalf("launched with %+v", r)
	}
	n.checkGuest(first)
	if !CIDInUse(testCID) || CIDInUse(testCID+1) {
		t.Error("the kernel knows nothing of the machine's context id")
	}
	if _, err := n.driver().vsockFor(n.m); err == nil {
		t.Error("a second machine got the same context id")
	}
	w.cancel()
	<-w.exit
	again, alive, err := n.driver().Adopt(t.Context(), vmID)
	if err != nil || !alive {
		t.Fatalf("adopt: alive %t, %v", alive, err)
	}
	w = wait(t, again)
	ask(t, again, "/off")
	if e := w.end(t); e.Detail != "the guest powered off" {
		t.Errorf("%+v", e)
	}
	if CIDInUse(testCID) {
		t.Error("the context id of a machine that ended is in use")
	}
}

// TestAHostWithVHost boots a host with the image's kernel, its vhost-vsock and the newest
// QEMU, and runs TestMachineOverVSock in it: an emulated machine in an emulated machine.
func TestAHostWithVHost(t *testing.T) {
	if os.Getenv("PHALA_VM") != "1" {
		t.Skip("SKIPPED: an emulated machine in an emulated machine (PHALA_VM=1)")
	}
	for _, tool := range []string{"qemu-system-x86_64", "xz"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("SKIPPED: no " + tool)
		}
	}
	root, work := newest(t), t.TempDir()
	image := tinyImage(t, work)
	self := filepath.Join(work, "init")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", self, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var a cpio.Archive
	for _, dir := range []string{"usr/bin/qemu-system-x86_64", "usr/bin/qemu-img", "usr/lib", "usr/lib64", "usr/share/qemu", "usr/share/seabios"} {
		addTree(t, &a, filepath.Join(root, dir), dir)
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		a.Add(name, cpio.Link|0o777, 0, 0, []byte("usr/"+name))
	}
	addTree(t, &a, image, madeImage[1:])
	a.Add("modules", cpio.Dir|0o755, 0, 0, nil)
	kernel := filepath.Join(image, "bzImage")
	for _, name := range vhostModules {
		a.Add("modules/"+filepath.Base(name)+".ko", cpio.File|0o644, 0, 0, kernelModule(t, readFile(t, kernel), name))
	}
	a.Add("init", cpio.File|0o755, 0, 0, readFile(t, self))
	initrd, err := a.Gzip()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(work, "initrd"), initrd)
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", TCGCPU, "-M", "q35,hpet=off", "-m", "5G", "-smp", "2", "-nodefaults", "-nographic",
		"-no-reboot", "-serial", "stdio", "-kernel", kernel, "-initrd", filepath.Join(work, "initrd"),
		"-append", "console=ttyS0 panic=1 oops=panic tsc=reliable no_timer_check quiet -- -test.v -test.timeout=24m -test.run=OverVSock|TheKernelKeeps").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"--- PASS: TestMachineOverVSock ", "--- PASS: TestTheKernelKeepsContextIDs ", "ENDED with code 0"} {
		if !strings.Contains(string(out), want) {
			t.Fatalf("the host does not say %q:\n%s", want, out)
		}
	}
	t.Logf("%s", out)
}

// addTree adds a directory as it is.
func addTree(t *testing.T, a *cpio.Archive, from, to string) {
	t.Helper()
	for i := range strings.Split(to, "/") {
		if i > 0 {
			a.Add(strings.Join(strings.Split(to, "/")[:i], "/"), cpio.Dir|0o755, 0, 0, nil)
		}
	}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch mode := int(info.Mode().Perm()); {
		case e.IsDir():
			a.Add(name, cpio.Dir|mode, 0, 0, nil)
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			a.Add(name, cpio.Link|0o777, 0, 0, []byte(target))
		case e.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			a.Add(name, cpio.File|mode, 0, 0, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// kernelModule is one of the modules of a kernel, from what the image was built of.
func kernelModule(t *testing.T, kernel []byte, name string) []byte {
	t.Helper()
	said := kernel[0x200+int(binary.LittleEndian.Uint16(kernel[0x20e:])):] // its version, with more words behind it
	version, _, _ := strings.Cut(string(said[:64]), " ")
	found, _ := filepath.Glob("../../os/cache/boot-*/usr/lib/modules/" + version + "/kernel/" + name + ".ko.xz")
	if len(found) == 0 {
		t.Skipf("SKIPPED: no module %s of kernel %s in os/cache (make image)", name, version)
	}
	out, err := exec.CommandContext(t.Context(), "xz", "-dc", found[0]).Output()
	if err != nil {
		t.Fatalf("xz %s: %v", found[0], err)
	}
	return out
}
