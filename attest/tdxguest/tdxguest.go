// Package tdxguest is a TDX guest's own hardware on Linux: quotes from
// configfs-tsm, runtime registers through sysfs, the firmware's event log from
// ACPI. Every path is configurable, so that a simulated TEE (attest/simtee/teefs)
// can stand in for the kernel without another line of guest code.
//
// It is also where go-tdx-guest may be linked, which is in tests only: its quote
// client has fixed paths, registers a global flag and writes to stdout.
package tdxguest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/go-configfs-tsm/report"
	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// Config says where the kernel's files are. Empty fields mean a real guest's paths.
type Config struct {
	Reports   string // directory of configfs-tsm report entries
	Entry     string // name of the one entry to use (made if absent), as the reference does; "": a new entry for each quote
	Registers string // directory of measurement registers (rtmr3:sha384)
	Log       string // CCEL table data
}

// A real guest's paths.
const (
	Reports   = "/sys/kernel/config/tsm/report"
	Registers = "/sys/devices/virtual/misc/tdx_guest/measurements"
	Log       = "/sys/firmware/acpi/tables/data/CCEL"
)

// Environment variables of the reference that move the files: those of a report
// entry, of RTMR3 and of the event log.
const (
	EnvEntry = "DCAP_TDX_QUOTE_CONFIGFS_PATH"
	EnvRTMR3 = "DCAP_TDX_RTMR_SYSFS_PATH"
	EnvLog   = "DSTACK_CCEL_FILE"
)

// FromEnv reads the reference's environment variables.
func FromEnv(getenv func(string) string) (c Config, err error) {
	if p := getenv(EnvEntry); p != "" {
		c.Reports, c.Entry = filepath.Dir(p), filepath.Base(p)
	}
	if p := getenv(EnvRTMR3); p != "" {
		if filepath.Base(p) != registerFile(3) {
			return c, cvm.Errorf(cvm.Invalid, "%s=%s: want a file named %s", EnvRTMR3, p, registerFile(3))
		}
		c.Registers = filepath.Dir(p)
	}
	c.Log = getenv(EnvLog)
	return c, nil
}

// Device is the guest's hardware; it is safe for concurrent use.
type Device struct {
	cfg Config
	mu  sync.Mutex // the shared entry's
}

// New fills the config's empty fields. Nothing is opened: what is missing shows in
// the call that needs it.
func New(c Config) *Device {
	or := func(v *string, def string) {
		if *v == "" {
			*v = def
		}
	}
	or(&c.Reports, Reports)
	or(&c.Registers, Registers)
	or(&c.Log, Log)
	return &Device{cfg: c}
}

// provider is what the kernel calls a TDX guest's report provider.
const provider = "tdx_guest"

// tries bounds how often a report that somebody else disturbed is asked for again.
const tries = 5

// Quote signs report data. The quote is read back and must hold that data: a shared
// entry may be written by others, and a kernel's word (the generation) is only a
// hint. Without a TDX kernel the error is a precondition.
func (d *Device) Quote(ctx context.Context, reportData [64]byte) ([]byte, error) {
	if _, err := os.Stat(d.cfg.Reports); err != nil {
		return nil, cvm.Errorf(cvm.Precondition, "configfs-tsm: %w", err).WithReason("tee-missing").
			WithFix("a TDX guest with Linux 6.7 or newer and configfs mounted is needed, or a simulated TEE")
	}
	unlock, err := d.lockEntry()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for range tries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q, err := d.quote(reportData)
		if err == nil || report.GetGenerationErr(err) == nil && !errors.Is(err, errOtherData) {
			return q, err
		}
	}
	return nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: others keep using the report entry").WithReason("tee-busy")
}

var errOtherData = errors.New("the quote holds other report data")

func (d *Device) quote(reportData [64]byte) (q []byte, err error) {
	r, err := d.open()
	if err != nil {
		return nil, err
	}
	if d.cfg.Entry == "" {
		defer func() {
			if derr := r.Destroy(); err == nil && derr != nil {
				err = cvm.Errorf(cvm.Unavailable, "configfs-tsm: %w", derr)
			}
		}()
	}
	r.InBlob = reportData[:]
	resp, err := r.Get()
	if g := report.GetGenerationErr(err); g != nil {
		return nil, g
	}
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: %w", err)
	}
	if got := string(bytes.TrimSpace([]byte(resp.Provider))); got != provider {
		return nil, cvm.Errorf(cvm.Unsupported, "configfs-tsm: the TEE is %.40q, want %q", got, provider)
	}
	p, err := tdx.ParseQuote(resp.OutBlob)
	if err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	if p.Body.ReportData != reportData {
		return nil, errOtherData
	}
	return resp.OutBlob, nil
}

// open makes a report entry, or opens the configured one.
func (d *Device) open() (*report.OpenReport, error) {
	c := client{d.cfg.Reports}
	if d.cfg.Entry == "" {
		r, err := report.CreateOpenReport(c)
		if err != nil {
			return nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: %w", err)
		}
		return r, nil
	}
	r, err := report.UnsafeWrap(c, c.virtual(d.cfg.Entry))
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: %w", err)
	}
	return r, nil
}

// lockEntry keeps others who honour the lock out of the configured entry, and
// makes it if it is absent.
func (d *Device) lockEntry() (unlock func(), err error) {
	if d.cfg.Entry == "" {
		return func() {}, nil
	}
	d.mu.Lock()
	defer func() {
		if err != nil {
			d.mu.Unlock()
		}
	}()
	path := filepath.Join(d.cfg.Reports, d.cfg.Entry)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	f, err := os.Open(path) //nolint:gosec // the operator's path
	if err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("configfs-tsm: locking the report entry: %w", err)
	}
	return func() { _ = f.Close(); d.mu.Unlock() }, nil
}

func registerFile(index int) string { return fmt.Sprintf("rtmr%d:sha384", index) }

// Extend extends RTMR2 or RTMR3; the other registers are the firmware's.
func (d *Device) Extend(_ context.Context, index int, digest cvm.Measurement) error {
	if index != 2 && index != 3 {
		return cvm.Errorf(cvm.Denied, "RTMR%d cannot be extended by the guest", index)
	}
	if err := write(filepath.Join(d.cfg.Registers, registerFile(index)), digest[:]); err != nil {
		return cvm.Errorf(cvm.Unavailable, "RTMR%d: %w", index, err).WithReason("tee-missing").
			WithFix("a TDX guest with Linux 6.16 or newer is needed (measurement registers in sysfs), or a simulated TEE")
	}
	return nil
}

// CCEL reads the firmware's event log (table data).
func (d *Device) CCEL(context.Context) ([]byte, error) {
	b, err := read(d.cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("CCEL: %w", err)
	}
	return b, nil
}

// SealKey is refused: TDX derives no sealing keys.
func (d *Device) SealKey(context.Context, []byte) ([]byte, error) {
	return nil, cvm.Errorf(cvm.Unsupported, "TDX has no sealing key")
}
