package qemu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/cpio"
	"github.com/confidential-cloud/phala/vmm/confine"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
)

const vmID = "5f1f8a64-0c55-4b2e-8a5e-0d3c7f0b9a11"

// tinyImage is an image whose guest is testdata/guest: firmware and kernel of a built
// image, its own initramfs.
func tinyImage(t *testing.T, parent string) string {
	t.Helper()
	if os.Getpid() == 1 { // see TestAHostWithVHost
		return madeImage
	}
	built, _ := filepath.Glob("../../build/images/phala-*/bzImage")
	if len(built) == 0 {
		t.Skip("SKIPPED: no built image (make image)")
	}
	from := filepath.Dir(built[0])
	dir := filepath.Join(parent, "phala-tiny")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	init := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := measure.Files{Firmware: readFile(t, filepath.Join(from, "ovmf.fd")), Kernel: readFile(t, built[0]),
		Initrd: initramfs(t, from, readFile(t, init)), Cmdline: "console=ttyS0 panic=1 oops=panic quiet tsc=reliable no_timer_check"}
	m, err := measure.New(files)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := m.Document()
	if err != nil {
		t.Fatal(err)
	}
	meta, _ := json.Marshal(image.Metadata{BIOS: "ovmf.fd", Kernel: "bzImage", Cmdline: files.Cmdline, Initrd: "initramfs.cpio.gz", Rootfs: "rootfs.img", Version: "0", SharedRO: true, Driver: "qemu"})
	var sums bytes.Buffer
	for _, f := range []struct {
		name string
		b    []byte
	}{{"bzImage", files.Kernel}, {"initramfs.cpio.gz", files.Initrd}, {measure.DocumentFile, doc}, {image.MetadataFile, meta}, {"ovmf.fd", files.Firmware}} {
		writeFile(t, filepath.Join(dir, f.name), f.b)
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(f.b), f.name)
	}
	writeFile(t, filepath.Join(dir, "rootfs.img"), make([]byte, 1<<20))
	writeFile(t, filepath.Join(dir, image.SumsFile), sums.Bytes())
	writeFile(t, filepath.Join(dir, image.DigestFile), fmt.Appendf(nil, "%x\n", sha256.Sum256(sums.Bytes())))
	return dir
}

// initramfs holds init and the modules that the tests need.
func initramfs(t *testing.T, built string, init []byte) []byte {
	t.Helper()
	mods := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "unsquashfs", "-q", "-n", "-f", "-d", mods, filepath.Join(built, "rootfs.img"), "usr/lib/modules").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: unsquashfs: %v %s", err, out)
	}
	var a cpio.Archive
	a.Add("init", cpio.File|0o755, 0, 0, init)
	a.Add("modules", cpio.Dir|0o755, 0, 0, nil)
	for _, n := range []string{"virtio_blk", "button", "evdev", "vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"} {
		found, _ := filepath.Glob(filepath.Join(mods, "usr/lib/modules/*/kernel/*/*/"+n+".ko"))
		if len(found) == 1 {
			a.Add("modules/"+n+".ko", cpio.File|0o644, 0, 0, readFile(t, found[0]))
		}
	}
	b, err := a.Gzip()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// node is a host with simulated hardware and one machine.
type node struct {
	t   *testing.T
	cfg Config
	m   machine.Machine
	im  *image.Image
}

func newNode(t *testing.T) *node {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("SKIPPED: no " + tool)
		}
	}
	run, err := os.MkdirTemp("", "pq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	// Hypervisors have user ids of their own, which must find their files.
	if err := os.Chmod(run, 0o711); err != nil { //nolint:gosec // search only
		t.Fatal(err)
	}
	im, err := image.Open(tinyImage(t, run))
	if err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(run, "control.sock")
	h, err := simtee.New(simtee.Config{Dir: t.TempDir(), ControlSock: control})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-h.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.Accel, o.AllowSimulated, o.TBSizeMiB = TCG, true, 64
	n := &node{t: t, im: im, cfg: Config{Options: o, Dir: filepath.Join(run, "machines"), Confine: walls(t), TEE: simtee.NewControl(control)}}
	shared, vmRun := t.TempDir(), filepath.Join(run, "vm")
	if err := os.MkdirAll(vmRun, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(shared, "app-compose.json"), []byte(`{"hello":"guest"}`))
	n.m = machine.Machine{ID: vmID, Name: "tiny", Boot: 1, Image: machine.Image{Name: im.Name, Dir: im.Dir, Hash: im.Hash},
		Size: machine.Size{VCPU: 1, MemoryMiB: 2048, DiskMiB: 8}, Shared: shared, Run: vmRun, NICs: []machine.NIC{userNIC(1)},
		VMConfig: fmt.Sprintf(`{"os_image_hash":%q,"cpu_count":1,"memory_size":%d,"tdx_attestation_variant":"lite","hotplug_off":true,"host_share_mode":"tar"}`, im.Hash, 2048<<20), MRConfigID: cvm.Measurement{1, 9}}
	n.m.CID = testCID
	if n.cfg.Confine != nil {
		n.m.UID = testUID + 1
	}
	return n
}

const (
	testUID = 61234
	testCID = 29999
)

// walls are those of vmm/confine: a user of its own for QEMU, without groups of the
// kernel's, which not every machine lets a test make.
func walls(t *testing.T) *confine.Confiner {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	c := confine.Default()
	c.FirstUID, c.UIDs, c.Cgroup = testUID, 4, ""
	w, err := confine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (n *node) driver() *Driver {
	n.t.Helper()
	d, err := New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = d.Remove(context.Background(), vmID, false) })
	return d
}

// patience is how long a guest may take to boot: emulated, or emulated by an emulated
// host (TestAHostWithVHost).
func patience() time.Duration {
	if os.Getpid() == 1 {
		return 20 * time.Minute
	}
	return 2 * time.Minute
}

// waiting waits for the run in the background, as the VMM does.
type waiting struct {
	cancel context.CancelFunc
	exit   chan machine.Exit
	err    chan error
}

func wait(t *testing.T, i machine.Instance) *waiting {
	ctx, cancel := context.WithTimeout(context.Background(), patience()+time.Minute)
	t.Cleanup(cancel)
	w := &waiting{cancel: cancel, exit: make(chan machine.Exit, 1), err: make(chan error, 1)}
	go func() {
		e, err := i.Wait(ctx)
		w.exit <- e
		w.err <- err
	}()
	return w
}

func (w *waiting) end(t *testing.T) machine.Exit {
	t.Helper()
	e := <-w.exit
	if err := <-w.err; err != nil {
		t.Fatalf("waiting: %v", err)
	}
	return e
}

// ask calls the guest until it answers.
func ask(t *testing.T, i machine.Instance, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience())
	defer cancel()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return i.DialGuest(ctx) }}}
	for {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://guest"+path, nil)
		resp, err := c.Do(req)
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s %s %v", path, resp.Status, b, err)
			}
			return string(b)
		}
		if ctx.Err() != nil {
			out, _ := i.Console(context.Background(), machine.ConsoleOptions{Tail: 30})
			b, _ := io.ReadAll(out)
			t.Fatalf("%s: %v\nconsole: %s", path, err, b)
		}
	}
}

func (n *node) launch(d *Driver) machine.Instance {
	n.t.Helper()
	i, err := d.Launch(n.t.Context(), n.m)
	if err != nil {
		n.t.Fatal(err)
	}
	n.m.Boot++
	return i
}

// A machine from its launch to its removal, with the VMM going away in between.
func TestMachine(t *testing.T) {
	n := newNode(t)
	d := n.driver()
	desc, err := d.Describe(t.Context())
	if err != nil || !desc.Simulated || desc.Accel != "tcg" || desc.DeviceID == (cvm.DeviceID{}) || !strings.Contains(strings.Join(desc.Warnings, " "), "SIMULATED") {
		t.Fatalf("%+v %v", desc, err)
	}
	n.refused(d)
	first := n.launch(d)
	w := wait(t, first)
	n.checkGuest(first)
	if n.m.UID != 0 {
		if b := readFile(t, fmt.Sprintf("/proc/%d/status", first.(*instance).rec.Process.PID)); !strings.Contains(string(b), fmt.Sprintf("Uid:\t%d\t", n.m.UID)) {
			t.Errorf("QEMU does not run as user %d", n.m.UID)
		}
	}

	// The VMM goes away; the guest ends; the next VMM still sees how.
	ask(t, first, "/off")
	w.cancel()
	<-w.exit
	again, alive, err := n.driver().Adopt(t.Context(), vmID)
	if err != nil || !alive {
		t.Fatalf("adopt: alive %t, %v", alive, err)
	}
	if e := wait(t, again).end(t); e.Code != 0 || e.Requested || e.OOMKilled || e.Detail != "the guest powered off" {
		t.Errorf("a guest that powered off: %+v", e)
	}
	third, alive, err := n.driver().Adopt(t.Context(), vmID)
	if err != nil || alive {
		t.Fatalf("adopt of an ended run: alive %t, %v", alive, err)
	}
	if e := wait(t, third).end(t); e.Detail != "the guest powered off" {
		t.Errorf("the same end, told again: %+v", e)
	}
	n.secondBoot(d)
	n.removed(d)
}

// checkGuest looks at the machine from inside.
func (n *node) checkGuest(i machine.Instance) {
	t := n.t
	t.Helper()
	got := ask(t, i, "/disks")
	for _, want := range []string{"phala-rootfs ro=1 2048", "phala-data ro=0 16384", "phala-shared ro=1 "} {
		if !strings.Contains(got, want) {
			t.Errorf("disks of the guest: %s, want %s", got, want)
		}
	}
	if got := ask(t, i, "/shared"); got != `{"hello":"guest"}` {
		t.Errorf("app-compose in the guest: %s", got)
	}
	file := func(name string) []byte { return readFile(t, filepath.Join(n.im.Dir, name)) }
	want, err := simtee.MeasureLaunch(simtee.TDLaunch{Firmware: file("ovmf.fd"), Kernel: file("bzImage"), Initrd: file("initramfs.cpio.gz"), Cmdline: n.im.Meta.Cmdline, VMConfig: n.m.VMConfig})
	if err != nil {
		t.Fatal(err)
	}
	quote := []byte(ask(t, i, "/quote"))
	for what, reg := range map[string]cvm.Measurement{"MRTD": want.MRTD, "RTMR0": want.RTMR[0], "RTMR1": want.RTMR[1], "RTMR2": want.RTMR[2], "MRCONFIGID": n.m.MRConfigID} {
		if reg == (cvm.Measurement{}) || !bytes.Contains(quote, reg[:]) {
			t.Errorf("the guest's quote does not have %s %s", what, reg)
		}
	}
}

// secondBoot grows the disk, presses the power button, and kills QEMU of a third run.
func (n *node) secondBoot(d *Driver) {
	t := n.t
	t.Helper()
	n.m.Size.DiskMiB = 16
	i := n.launch(d)
	w := wait(t, i)
	if got := ask(t, i, "/disks"); !strings.Contains(got, "phala-data ro=0 32768") {
		t.Errorf("disks after growing: %s", got)
	}
	if err := i.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if e := w.end(t); !e.Requested || e.Code != 0 || e.Detail != "the guest powered off" {
		t.Errorf("a guest whose power button was pressed: %+v", e)
	}
	console, err := i.Console(t.Context(), machine.ConsoleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	if b, _ := io.ReadAll(console); strings.Count(string(b), "tiny guest: up") != 2 || !bytes.Contains(b, []byte("power button")) {
		t.Errorf("console: %s", b)
	}
	n.m.Size.DiskMiB = 4 // never shrinks
	i = n.launch(d)
	w = wait(t, i)
	if st, err := os.Stat(d.paths(vmID).data); err != nil || st.Size() != 16<<20 {
		t.Errorf("data disk: %v %v", st, err)
	}
	if err := unix.Kill(i.(*instance).rec.Process.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := w.end(t); e.Code != 137 || e.Requested || !strings.Contains(e.Detail, "signal: killed") {
		t.Errorf("a QEMU that was killed: %+v", e)
	}
}

// removed: a removed machine leaves nothing but, when asked, its disk.
func (n *node) removed(d *Driver) {
	t := n.t
	t.Helper()
	d.vsock = func(uint32) (*os.File, error) { return os.Open(os.DevNull) }
	over := n.launch(d).(*instance) // QEMU does not take that for a vhost, and does without
	if over.rec.CID != 0 || over.rec.NoSerial {
		t.Errorf("launched with %+v", over.rec)
	}
	d.vsock = openVSock
	i := n.launch(d).(*instance) // ends what was left running
	<-over.gone
	if err := d.Remove(t.Context(), vmID, true); err != nil {
		t.Fatal(err)
	}
	<-i.gone
	left, _ := filepath.Glob(filepath.Join(n.cfg.Dir, vmID, "*"))
	if len(left) != 1 || filepath.Base(left[0]) != "data.img" {
		t.Errorf("left of a machine whose disk is kept: %q", left)
	}
	for range 2 { // removing what does not exist succeeds
		if err := d.Remove(t.Context(), vmID, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{filepath.Join(n.cfg.Dir, "*"), filepath.Join(n.m.Run, "*")} {
		if left, _ := filepath.Glob(pattern); len(left) != 0 {
			t.Errorf("left over: %q", left)
		}
	}
	if err := unix.Kill(i.rec.Process.PID, 0); err == nil {
		t.Errorf("process %d still runs", i.rec.Process.PID)
	}
	if err := n.cfg.TEE.DestroyTD(t.Context(), tdName(vmID)); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("the machine's TD is still there: %v", err)
	}
	if _, _, err := d.Adopt(t.Context(), vmID); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("adopting a removed machine: %v", err)
	}
}
