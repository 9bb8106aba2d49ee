package hostlink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/cpio"
)

// TestMain is also the first process of the machine that TestVSockInAMachine boots.
func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		os.Exit(m.Run())
	}
	for _, x := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		if err := errors.Join(os.MkdirAll(x[1], 0o755), unix.Mount(x[0], x[1], x[0], 0, "")); err != nil {
			fmt.Println("mount", x[1], err)
		}
	}
	for _, name := range vsockModules {
		f, err := os.Open("/" + name + ".ko")
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
		}
		if err != nil {
			fmt.Println("module", name, err)
		}
	}
	fmt.Println("ENDED with code", m.Run())
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// The loopback transport, for which a machine needs no device.
var vsockModules = []string{"vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback"}

const (
	loopback = unix.VMADDR_CID_LOCAL
	port1    = 5000
)

// needLoopback skips where this kernel does not lead the host's context id to itself.
func needLoopback(t *testing.T) {
	t.Helper()
	if cid, err := localCID(); err != nil || cid != loopback {
		t.Skipf("SKIPPED: no loopback of AF_VSOCK on this machine (context id %d, %v); TestVSockInAMachine runs this test inside an emulated one", cid, err)
	}
}

// vsides are a host and a guest that meet over vsock.
func vsides(t *testing.T, port uint32) *sides {
	t.Helper()
	s := start(t)
	s.host = newRelay(Host, Config{RunDir: s.hostDir}, func(ctx context.Context) (io.ReadWriteCloser, error) { return acceptVSock(ctx, loopback, port) })
	s.guest = NewGuest(Config{RunDir: s.guestDir, Open: func(ctx context.Context) (io.ReadWriteCloser, error) { return dialVSock(ctx, port, bindPrivileged) }})
	return s
}

func TestVSock(t *testing.T) {
	needLoopback(t)
	s := vsides(t, port1)
	stopHost, stopGuest := up(t, s.host), up(t, s.guest)
	for range 3 {
		s.works(t)
		stopHost()
		stopHost = up(t, s.host)
		s.works(t)
		stopGuest()
		stopGuest = up(t, s.guest)
	}
	s.works(t)
	big := bytes.Repeat([]byte("vsock"), 1<<18)
	c, err := s.host.DialGuest(t.Context())
	ask(t, c, err, string(big), "guest.sock:"+string(big))
	// Who has its guest listens no more: nobody else gets in.
	if c, err := dialVSock(t.Context(), port1, bindPrivileged); err == nil {
		c.Close()
		t.Error("a second connection was taken while the first one lasts")
	}
}

// The guest falls from vsock to its port and back, as the host has them.
func TestVSockBesideAPort(t *testing.T) {
	needLoopback(t)
	s := start(t)
	accept := func(ctx context.Context) (io.ReadWriteCloser, error) { return acceptVSock(ctx, loopback, port1) }
	var dialled atomic.Int64
	guest := NewGuest(Config{RunDir: s.guestDir, Open: func(ctx context.Context) (io.ReadWriteCloser, error) {
		c, err := dialVSock(ctx, port1, bindPrivileged)
		if err == nil {
			dialled.Add(1)
			return c, nil
		}
		return s.p.openGuest(ctx)
	}})
	both := func() *Relay {
		s.host = newRelay(Host, Config{RunDir: s.hostDir}, accept, s.p.openHost)
		return s.host
	}
	stop := up(t, s.newHost()) // has the port only
	up(t, guest)
	s.works(t)
	if dialled.Load() != 0 {
		t.Fatal("the guest has vsock with nobody")
	}
	stop()
	stop = up(t, both())
	s.works(t)
	if dialled.Load() != 1 {
		t.Errorf("the guest took vsock %d times, want once", dialled.Load())
	}
	stop()
	up(t, s.newHost())
	s.works(t)
}

// TestAStrangersContext: the host takes the machine's own connection, from a privileged
// port, and no other.
func TestAStrangersContext(t *testing.T) {
	needLoopback(t)
	for name, c := range map[string]struct {
		cid  uint32
		bind func(fd int) error
		ok   bool
	}{
		"the machine itself":                {loopback, bindPrivileged, true},
		"another machine":                   {1000, bindPrivileged, false},
		"another machine, by one":           {loopback + 2, bindPrivileged, false},
		"a process of it without the right": {loopback, anyPort, false},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			conn, err := acceptVSock(ctx, c.cid, port1)
			if err == nil {
				_, err = conn.Write([]byte("hello"))
				defer conn.Close()
			}
			got <- err
		}()
		var conn io.ReadWriteCloser
		var err error
		for range 200 { // until the listener is there
			if conn, err = dialVSock(ctx, port1, c.bind); !errors.Is(err, unix.ECONNRESET) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: it was not closed: %v", name, err)
		}
		select {
		case err := <-got:
			if !c.ok || err != nil {
				t.Errorf("%s: the host took it: %v", name, err)
			}
		default:
			if c.ok && <-got != nil {
				t.Errorf("%s: refused", name)
			}
		}
		cancel()
		if !c.ok {
			if err := <-got; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: the listener ended with %v", name, err)
			}
		}
		if conn != nil {
			conn.Close()
		}
	}
}

// anyPort leaves the port to the kernel, as a process must that may not have a
// privileged one.
func anyPort(int) error { return nil }

// Without a device a guest knows at once, and turns to its port.
func TestNoVSockDevice(t *testing.T) {
	if cid, err := localCID(); err == nil && cid >= FirstCID && cid <= LastCID {
		t.Skipf("SKIPPED: this is a machine with a vsock device (context id %d)", cid)
	}
	if c, err := DialVSock(t.Context()); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("%v, %v", c, err)
	}
}

// TestVSockInAMachine boots a machine whose first process is this test, with the
// kernel's own loopback for both ends.
func TestVSockInAMachine(t *testing.T) {
	if os.Getpid() == 1 {
		t.Skip("SKIPPED: this is the machine")
	}
	kernels, _ := filepath.Glob("../../build/images/phala-*/bzImage")
	if len(kernels) == 0 {
		t.Skip("SKIPPED: no built image (make image)")
	}
	for _, tool := range []string{"qemu-system-x86_64", "xz"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("SKIPPED: no " + tool)
		}
	}
	self := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", self, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // it runs without a file system
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	var a cpio.Archive
	a.Add("init", cpio.File|0o755, 0, 0, program)
	for _, name := range vsockModules {
		a.Add(name+".ko", cpio.File|0o644, 0, 0, module(t, kernels[0], name))
	}
	initrd, err := a.Gzip()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(path, initrd, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max,-erms,-fsrm,-smap,-la57", "-M", "q35,hpet=off", "-m", "512M", "-smp", "2", "-nodefaults", "-nographic",
		"-no-reboot", "-serial", "stdio", "-kernel", kernels[0], "-initrd", path,
		"-append", "console=ttyS0 panic=1 oops=panic tsc=reliable no_timer_check quiet -- -test.v -test.timeout=4m -test.run=VSock|Stranger").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"--- PASS: TestVSock ", "--- PASS: TestVSockBesideAPort ", "--- PASS: TestAStrangersContext ", "--- PASS: TestNoVSockDevice ", "ENDED with code 0"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the machine does not say %q:\n%s", want, out)
			break
		}
	}
}

// module is one of the kernel's modules, from what the image was built of.
func module(t *testing.T, kernel, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(kernel)
	if err != nil || len(b) < 0x300 {
		t.Fatalf("%s: %d bytes, %v", kernel, len(b), err)
	}
	said := b[0x200+int(binary.LittleEndian.Uint16(b[0x20e:])):] // the kernel's version, with more words behind it
	version, _, _ := strings.Cut(string(said[:64]), " ")
	found, _ := filepath.Glob("../../os/cache/boot-*/usr/lib/modules/" + version + "/kernel/net/vmw_vsock/" + name + ".ko.xz")
	if len(found) == 0 {
		t.Skipf("SKIPPED: no module %s of kernel %s in os/cache (make image)", name, version)
	}
	out, err := exec.CommandContext(t.Context(), "xz", "-dc", found[0]).Output()
	if err != nil {
		t.Fatalf("xz %s: %v", found[0], err)
	}
	return out
}
