// Package qemu runs CVMs as virtual machines of QEMU: with Intel TDX or AMD SEV-SNP
// where the host has them, with plain KVM or pure emulation and the simulated TEE
// (attest/simtee) where that is allowed, for development and tests.
//
// The driver keeps no state in memory that matters: a machine's directory below
// Config.Dir has its disk, its console and which process runs it, so that a new VMM
// adopts what an earlier one started. QEMU runs in a session of its own, in the
// walls that vmm/confine makes, with its sockets inherited: it can write to its
// disk and its console and to nothing else. A guest that ended is held until the
// driver has seen why.
//
// While somebody waits for an Instance (the VMM always does), the host link
// (internal/hostlink) is served from the machine's run directory.
package qemu

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/confine"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Options are the [qemu] section of the VMM's file.
type Options struct {
	Binary    string `toml:"binary"`     // default qemu-system-x86_64 of the search path
	ImgBinary string `toml:"img_binary"` // default qemu-img; for disk_format qcow2
	// Accel is tdx, snp, kvm or tcg; "auto" takes the best that works on this host.
	Accel Accel `toml:"accel"`
	// AllowSimulated admits hosts without TDX and SEV-SNP: the TEE is then simulated,
	// and proves nothing.
	AllowSimulated bool   `toml:"allow_simulated"`
	TBSizeMiB      int    `toml:"tb_size"` // translation cache of tcg per VM, in MiB
	DiskFormat     string `toml:"disk_format"`
	// QGSPort is the vsock port of the host's quote service (TDX); 0: none.
	QGSPort uint32 `toml:"qgs_port"`
	// HostLink is auto, vsock or virtio-serial. Machines have context ids of vsock from
	// CIDStart on, CIDPoolSize of them.
	HostLink    HostLink `toml:"host_link"`
	CIDStart    uint32   `toml:"cid_start"`
	CIDPoolSize int      `toml:"cid_pool_size"`
}

// Auto lets the driver choose the accelerator.
const Auto Accel = "auto"

// DefaultOptions are for hosts with a TEE.
func DefaultOptions() Options {
	return Options{Binary: "qemu-system-x86_64", ImgBinary: "qemu-img", Accel: Auto, TBSizeMiB: 256, DiskFormat: FormatRaw, QGSPort: 4050,
		HostLink: LinkAuto, CIDStart: 20000, CIDPoolSize: 10000}
}

// Validate returns all problems at once.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if !slices.Contains([]Accel{Auto, TDX, SNP, KVM, TCG}, o.Accel) {
		bad("qemu.accel %q: want auto, tdx, snp, kvm or tcg", o.Accel)
	}
	if (o.Accel == KVM || o.Accel == TCG) && !o.AllowSimulated {
		bad("qemu.accel %s has no TEE: machines would run with a simulated one; set qemu.allow_simulated if that is what you want", o.Accel)
	}
	if o.TBSizeMiB < 16 || o.TBSizeMiB > 4096 {
		bad("qemu.tb_size %d: want 16 to 4096 MiB", o.TBSizeMiB)
	}
	if o.DiskFormat != FormatRaw && o.DiskFormat != FormatQCOW2 {
		bad("qemu.disk_format %q: want raw or qcow2", o.DiskFormat)
	}
	if o.Binary == "" || o.ImgBinary == "" {
		bad("qemu.binary, qemu.img_binary: must be set")
	}
	return errors.Join(append(errs, o.validateLink())...)
}

// Config of the driver.
type Config struct {
	Options
	Dir     string            // the machines' directories, absolute
	TEE     TEE               // the simulated hardware; needed where the host has no TEE
	Confine *confine.Confiner // nil: no walls
	Log     *slog.Logger
}

// TEE is what the driver asks of the simulated hardware (simtee.Control).
type TEE interface {
	CreateTD(ctx context.Context, name, sock string, s simtee.Shape) error
	DestroyTD(ctx context.Context, name string) error
	Info(ctx context.Context) (simtee.Info, error)
}

// Driver implements machine.Driver.
type Driver struct {
	cfg   Config
	log   *slog.Logger
	vsock func(cid uint32) (*os.File, error)

	mu   sync.Mutex
	host *host // what probing found, once it succeeded
}

var _ machine.Driver = (*Driver)(nil)

// New checks the configuration. The host is probed when it is first needed: a QEMU
// that is not there yet is an error of the calls.
func New(cfg Config) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(cfg.Dir) {
		return nil, cvm.Errorf(cvm.Invalid, "qemu driver: directory %q is not absolute", cfg.Dir)
	}
	if cfg.AllowSimulated && cfg.TEE == nil {
		return nil, cvm.Errorf(cvm.Invalid, "qemu driver: allow_simulated without simulated hardware").WithFix("set tee_socket to the control socket of the simulated TEE")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	// Hypervisors with user ids of their own pass through it to their machine's.
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil { //nolint:gosec // search only
		return nil, cvm.Errorf(cvm.Unavailable, "qemu driver: %w", err)
	}
	return &Driver{cfg: cfg, log: cfg.Log, vsock: openVSock}, nil
}

// Describe probes the host.
func (d *Driver) Describe(ctx context.Context) (machine.Description, error) {
	out := machine.Description{Name: "qemu", Variant: Variant, HostShareMode: shareMode, HotplugOff: true}
	h, err := d.probe(ctx)
	if err != nil {
		return out, err
	}
	out.Accel, out.QEMUVersion = string(h.accel), h.version
	if h.accel.hardware() {
		return out, nil
	}
	// Nothing measures what QEMU of a simulated TEE builds.
	out.QEMUVersion = ""
	out.Simulated = true
	out.Warnings = append(out.Warnings, "SIMULATED TEE: this host has neither TDX nor SEV-SNP in use; its machines prove nothing about hardware")
	out.Warnings = append(out.Warnings, h.notes...)
	if h.accel == TCG {
		out.Warnings = append(out.Warnings, "machines are emulated (tcg): ten times slower than with KVM, or more")
	}
	info, err := d.cfg.TEE.Info(ctx)
	if err != nil {
		return out, cvm.Errorf(cvm.Unavailable, "asking the simulated TEE hardware: %w", err)
	}
	out.DeviceID = info.DeviceID
	return out, nil
}

// Variant of vm_config: registers follow from the image's own document.
const Variant = measure.VariantLite

// shareMode of vm_config: host-shared files come as a tar on a disk.
const shareMode = "tar"

// paths of one machine.
type paths struct {
	dir, data, shared, serial, stdout, stderr, pid, launch, exit string
}

func (d *Driver) paths(id string) paths {
	dir := filepath.Join(d.cfg.Dir, id)
	f := func(name string) string { return filepath.Join(dir, name) }
	return paths{dir: dir, data: f("data.img"), shared: f("shared.img"), serial: f("serial.log"), stdout: f("qemu.out"), stderr: f("qemu.log"),
		pid: f("qemu.pid"), launch: f("launch.json"), exit: f("exit.json")}
}

// Sockets in a machine's run directory.
const (
	qmpSock  = "qmp.sock"
	linkSock = "link.sock"

	// maxSockPath is what a unix socket address holds, without its closing zero byte.
	maxSockPath = 107
)

// tdName names the machine at the simulated hardware.
func tdName(id string) string { return "vm-" + id }
