package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/vmm/confine"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// startWithin bounds the time from QEMU's start to its monitor's answer: huge pages
// are allocated, and for TDX memory is accepted, in between.
const startWithin = 2 * time.Minute

// runRecord is launch.json: the run that the machine's directory is about.
type runRecord struct {
	Process   process `json:"process"`
	Run       string  `json:"run"` // the run directory
	Boot      int     `json:"boot"`
	Console   int64   `json:"console"`             // where this run begins in the console's log,
	Stderr    int64   `json:"stderr"`              // and in QEMU's own
	Simulated bool    `json:"simulated"`           // it has a TD at the simulated hardware
	CID       uint32  `json:"cid,omitempty"`       // of its vsock device, if it has one
	NoSerial  bool    `json:"no_serial,omitempty"` // it has no virtio-serial port
}

// link is how the run reaches its host.
func (r *runRecord) link(log *slog.Logger) hostlink.HostConfig {
	c := hostlink.HostConfig{CID: r.CID, RunDir: r.Run, Log: log}
	if !r.NoSerial {
		c.Sock = filepath.Join(r.Run, linkSock)
	}
	return c
}

// Launch starts QEMU and returns when its monitor answers.
func (d *Driver) Launch(ctx context.Context, m machine.Machine) (machine.Instance, error) {
	if !idRE.MatchString(m.ID) {
		return nil, cvm.Errorf(cvm.Invalid, "machine id %q: want a lowercase UUID", m.ID)
	}
	if sock := filepath.Join(m.Run, linkSock); len(sock) > maxSockPath || !filepath.IsAbs(sock) {
		return nil, cvm.Errorf(cvm.Invalid, "run directory %s is too long for a unix socket, or not absolute", m.Run).WithFix("set a shorter run_dir")
	}
	h, err := d.probe(ctx)
	if err != nil {
		return nil, err
	}
	accel, err := d.accelFor(h, m)
	if err != nil {
		return nil, err
	}
	im, err := openImage(m.Image)
	if err != nil {
		return nil, err
	}
	if err := describes(m, h, accel); err != nil {
		return nil, err
	}
	p := d.paths(m.ID)
	l := d.launchOf(m, h, accel, im, p)
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := d.endLeftOver(m.ID); err != nil { // which has the context id as well
		return nil, err
	}
	vsock, err := d.vsockFor(m)
	if err != nil {
		return nil, err
	}
	if vsock != nil {
		defer vsock.Close()
		l.CID, l.VSockFD = m.CID, 5
		if d.cfg.HostLink == LinkVSock {
			l.LinkFD, l.VSockFD = 0, 4
		}
	}
	if err := d.prepareFiles(ctx, m, p); err != nil {
		return nil, err
	}
	if !accel.hardware() {
		if err := d.createTD(ctx, m, &l); err != nil {
			return nil, err
		}
	}
	inst, err := d.start(ctx, m, l, p, vsock)
	if err != nil && vsock != nil && d.cfg.HostLink == LinkAuto && dislikesVSock(err) {
		d.log.Warn("QEMU did not start with a vsock device: the host link is a virtio-serial port", "vm", m.ID, "error", err)
		l.CID, l.VSockFD = 0, 0
		inst, err = d.start(ctx, m, l, p, nil)
	}
	if err != nil {
		clean := context.WithoutCancel(ctx)
		d.forget(clean, m.ID, m.Run, !accel.hardware())
		return nil, err
	}
	return inst, nil
}

// accelFor: only who configured the node may let machines run without protection.
func (d *Driver) accelFor(h *host, m machine.Machine) (Accel, error) {
	if !m.NoTEE || !h.accel.hardware() {
		return h.accel, nil
	}
	if !d.cfg.AllowSimulated {
		return "", cvm.Errorf(cvm.Denied, "machine %s asks for no TEE, and this node does not allow that", m.ID).WithReason("no-tee-denied").
			WithFix("deploy without no_tee, or set qemu.allow_simulated on the node")
	}
	return KVM, nil
}

// describes checks that vm_config, by which a verifier judges the machine, is about
// this machine: what is shown and what runs must not differ by a mistake of the host.
func describes(m machine.Machine, h *host, accel Accel) error {
	c, err := measure.ParseVMConfig(m.VMConfig)
	if err != nil {
		return err
	}
	gpus, switches := uint32(0), uint32(0)
	for _, g := range m.GPUs {
		if g.Switch {
			switches++
		} else {
			gpus++
		}
	}
	var differs string
	switch {
	case c.OSImageHash != m.Image.Hash:
		differs = "image"
	case c.Variant != Variant:
		differs = "tdx_attestation_variant"
	case int(c.CPUCount) != m.Size.VCPU || c.MemorySize != uint64(m.Size.MemoryMiB)<<20: //nolint:gosec // bounded by check
		differs = "size"
	case c.NumGPUs != gpus || c.NumNVSwitches != switches:
		differs = "GPUs"
	case int(max(c.NumNICs, 1)) != max(len(m.NICs), 1):
		differs = "network cards"
	case int(c.NumVerityVolumes) != len(m.Volumes):
		differs = "volumes"
	case c.HugePages != m.Hugepages || !c.HotplugOff || c.HostShareMode != shareMode:
		differs = "devices"
	case accel.hardware() && c.QEMUVersion != h.version:
		differs = "QEMU version"
	default:
		return nil
	}
	return cvm.Errorf(cvm.Unavailable, "vm_config does not describe machine %s: its %s differs", m.ID, differs).WithReason("vm-config").
		WithFix("was this host still being probed, or QEMU updated? Try again, or restart the VMM")
}

func openImage(mi machine.Image) (*image.Image, error) {
	im, err := image.Open(mi.Dir)
	if err != nil {
		return nil, err
	}
	if im.Hash != mi.Hash {
		return nil, cvm.Errorf(cvm.Precondition, "guest image %s is %s now, and was %s", mi.Name, im.Hash, mi.Hash).WithReason("image-broken")
	}
	if im.Meta.Driver == "container" {
		return nil, cvm.Errorf(cvm.Precondition, "guest image %s is for the container driver", mi.Name).WithReason("image-wrong-driver").WithFix("use an image made for virtual machines (`make image`)")
	}
	return im, im.Verify()
}

func (d *Driver) launchOf(m machine.Machine, h *host, accel Accel, im *image.Image, p paths) Launch {
	file := func(name string) string { return filepath.Join(im.Dir, name) }
	l := Launch{
		ID: m.ID, Accel: accel, TBSizeMiB: d.cfg.TBSizeMiB,
		Firmware: file(im.Meta.BIOS), Kernel: file(im.Meta.Kernel), Initrd: file(im.Meta.Initrd), Rootfs: file(im.Meta.Rootfs), Cmdline: im.Meta.Cmdline,
		DataDisk: p.data, DataFormat: d.cfg.DiskFormat, SharedDisk: p.shared,
		VCPU: m.Size.VCPU, MemoryMiB: m.Size.MemoryMiB, NICs: m.NICs, GPUs: m.GPUs, NUMA: m.NUMA, Hugepages: m.Hugepages, Limits: m.Limits,
		SerialLog: p.serial, PIDFile: p.pid, QMPFD: 3, LinkFD: 4,
		MRConfigID: m.MRConfigID, QGSPort: d.cfg.QGSPort, HostData: [32]byte(m.MRConfigID[1:33]), SEV: h.sev,
	}
	if accel == SNP && im.Meta.BIOSSEV != "" {
		l.Firmware = file(im.Meta.BIOSSEV)
	}
	for _, v := range m.Volumes {
		l.Volumes = append(l.Volumes, v.Path)
	}
	return l
}

func (d *Driver) prepareFiles(ctx context.Context, m machine.Machine, p paths) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return cvm.Errorf(cvm.Unavailable, "machine directory: %w", err).WithReason("disk")
	}
	if err := d.ensureDisk(ctx, p, m.Size); err != nil {
		return err
	}
	if err := packShared(p, m.Shared); err != nil {
		return err
	}
	for _, name := range []string{p.serial, p.pid} { // QEMU may make no file
		f, err := openOwn(name, os.O_WRONLY|os.O_APPEND)
		if err != nil {
			return fmt.Errorf("machine files: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("machine files: %w", err)
		}
	}
	return nil
}

// openOwn opens a file of the machine's directory, which it makes if need be. It
// follows no link.
func openOwn(name string, flags int) (*os.File, error) {
	return os.OpenFile(name, flags|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// wall leaves QEMU its disk and its console, and nothing else of the directory: not
// the names in it, and not what the VMM writes there.
func wall(cage *confine.Cage, p paths) error {
	return errors.Join(cage.Enter(p.dir), cage.Own(p.data, p.serial, p.pid), cage.Show(p.shared))
}

// createTD measures what is about to be started, and nothing else.
func (d *Driver) createTD(ctx context.Context, m machine.Machine, l *Launch) error {
	td := simtee.TDLaunch{Cmdline: l.Cmdline, VMConfig: m.VMConfig}
	for path, dst := range map[string]*[]byte{l.Firmware: &td.Firmware, l.Kernel: &td.Kernel, l.Initrd: &td.Initrd} {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("measuring the launch: %w", err)
		}
		*dst = b
	}
	shape, err := simtee.MeasureLaunch(td)
	if err != nil {
		return fmt.Errorf("measuring the launch: %w", err)
	}
	shape.MRConfigID, shape.SockMode = m.MRConfigID, 0o600
	if err := d.cfg.TEE.DestroyTD(ctx, tdName(m.ID)); err != nil && cvm.CodeOf(err) != cvm.NotFound { // of an earlier boot
		d.log.Warn("forgetting the TD of the last boot", "vm", m.ID, "error", err)
	}
	if err := d.cfg.TEE.CreateTD(ctx, tdName(m.ID), filepath.Join(m.Run, filepath.Base(guestapi.TEESock)), shape); err != nil {
		return cvm.Errorf(cvm.CodeOf(err), "making the simulated TD: %w", err).WithReason("tee-unavailable").WithFix("is the simulated TEE hardware running?")
	}
	return nil
}

// start runs QEMU in its walls.
func (d *Driver) start(ctx context.Context, m machine.Machine, l Launch, p paths, vsock *os.File) (*instance, error) {
	names := []string{qmpSock, linkSock}
	if l.LinkFD == 0 {
		names = names[:1]
	}
	args, err := Argv(l)
	if err != nil {
		return nil, err
	}
	files, done, err := listeners(ctx, m.Run, names...)
	if err != nil {
		return nil, err
	}
	defer done()
	if vsock != nil {
		files = append(files, vsock)
	}
	stderr, err := openOwn(p.stderr, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return nil, fmt.Errorf("log of QEMU: %w", err)
	}
	defer stderr.Close()
	stdout, err := openOwn(p.stdout, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return nil, fmt.Errorf("output of QEMU: %w", err)
	}
	defer stdout.Close()
	cage, err := d.cfg.Confine.Prepare(m)
	if err != nil {
		return nil, err
	}
	if err := wall(cage, p); err != nil {
		return nil, errors.Join(err, cage.Started(0))
	}
	cmd := exec.Command(d.cfg.Binary, args...) //nolint:noctx // it outlives the call, and the VMM
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = stdout, stderr, files
	cage.Command(cmd)
	rec := runRecord{Run: m.Run, Boot: m.Boot, Console: size(p.serial), Stderr: size(p.stderr), Simulated: !l.Accel.hardware(), CID: l.CID, NoSerial: l.LinkFD == 0}
	if err := startOn(cmd, m.NUMA); err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "starting QEMU: %w", errors.Join(err, cage.Started(0))).WithReason("qemu-start")
	}
	return d.started(ctx, m.ID, cmd, cage, rec, p)
}

// started writes down what runs and waits for its monitor.
func (d *Driver) started(ctx context.Context, id string, cmd *exec.Cmd, cage *confine.Cage, rec runRecord, p paths) (*instance, error) {
	child := &child{cmd: cmd, done: make(chan struct{})}
	go child.wait()
	fail := func(err error) (*instance, error) {
		_ = cmd.Process.Kill()
		<-child.done
		return nil, err
	}
	if err := cage.Started(cmd.Process.Pid); err != nil {
		return fail(err)
	}
	pidfd, err := openChild(cmd.Process.Pid, &rec)
	if err != nil {
		<-child.done
		return nil, d.startError(err, child, rec, p)
	}
	if err := writeJSON(p.launch, rec); err != nil {
		_ = pidfd.Close()
		return fail(err)
	}
	inst := d.instance(id, rec, pidfd, child)
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	go func() { // QEMU that ends now never answers
		select {
		case <-inst.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	q, err := dialQMP(ctx, filepath.Join(rec.Run, qmpSock), ignoreEvents)
	if err != nil {
		_ = cmd.Process.Kill()
		<-child.done
		<-inst.gone
		return nil, d.startError(err, child, rec, p)
	}
	return inst, q.close()
}

func openChild(pid int, rec *runRecord) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if rec.Process, err = identify(pid); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// startError says what QEMU said.
func (d *Driver) startError(err error, c *child, rec runRecord, p paths) error {
	said := tailText(p.stderr, rec.Stderr, 600)
	if said == "" {
		said = err.Error()
	}
	code, fix := cvm.Unavailable, ""
	switch {
	case strings.Contains(said, "annot set up guest memory"), strings.Contains(said, "annot allocate memory"), strings.Contains(said, "nsufficient free host memory"):
		code, fix = cvm.Exhausted, "the host has too little free memory (or huge pages) for this machine"
	case strings.Contains(said, "/dev/kvm"), strings.Contains(said, "KVM kernel module"):
		fix = "may the user of this machine open /dev/kvm? See confine.groups"
	case strings.Contains(said, "Permission denied"):
		fix = "the user of this machine must be able to read the image and to search the directories above its own"
	case strings.Contains(said, "vfio"):
		code, fix = cvm.Precondition, "is the device bound to vfio-pci? Run `phala node doctor`"
	case strings.Contains(said, "Could not set up host forwarding rule"):
		code, fix = cvm.Conflict, "a host port of this machine is in use"
	}
	return cvm.Errorf(code, "QEMU did not start (%s): %s", c.status(), said).WithReason("qemu-start").WithFix(fix)
}

// startOn starts the command on the CPUs of its NUMA nodes: a child inherits the
// thread's.
func startOn(cmd *exec.Cmd, nodes []machine.NUMANode) error {
	var set unix.CPUSet
	for _, n := range nodes {
		for _, c := range n.HostCPUs {
			set.Set(c)
		}
	}
	if set.Count() == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	var before unix.CPUSet
	if err := errors.Join(unix.SchedGetaffinity(0, &before), unix.SchedSetaffinity(0, &set)); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("choosing CPUs: %w", err)
	}
	err := cmd.Start()
	if unix.SchedSetaffinity(0, &before) == nil {
		runtime.UnlockOSThread() // otherwise the thread ends with its goroutine
	}
	return err
}

// listeners makes the machine's sockets, which QEMU inherits. done closes what this
// process holds of them.
func listeners(ctx context.Context, run string, names ...string) (files []*os.File, done func(), err error) {
	done = func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	for _, name := range names {
		path := filepath.Join(run, name)
		f, err := listenFile(ctx, path)
		if err != nil {
			done()
			return nil, nil, cvm.Errorf(cvm.Unavailable, "socket %s: %w", path, err).WithReason("run-dir")
		}
		files = append(files, f)
	}
	return files, done, nil
}

func listenFile(ctx context.Context, path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	defer func() { _ = u.Close() }() // the copy stays open
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return u.File()
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// writeJSON replaces a file whole.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// sockets of a machine in its run directory.
func sockets(run string) []string {
	return []string{filepath.Join(run, qmpSock), filepath.Join(run, linkSock)}
}
