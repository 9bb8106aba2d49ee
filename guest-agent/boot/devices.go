package boot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

// Devices is a TDX guest's own hardware: quotes from configfs-tsm, RTMRs through
// sysfs, the event log from ACPI. The paths are the reference's (dstack-core A.8),
// which its own simulators put fakes in place of.
type Devices struct {
	Report string // configfs-tsm report directory
	RTMR3  string // sysfs file that extends RTMR3
	Log    string // CCEL table

	mu sync.Mutex
}

// Default paths, and the environment variables that move them.
const (
	tsmReport = "/sys/kernel/config/tsm/report/com.intel.dcap"
	sysRTMR3  = "/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384"
	acpiCCEL  = "/sys/firmware/acpi/tables/data/CCEL"
	envReport = "DCAP_TDX_QUOTE_CONFIGFS_PATH"
	envRTMR   = "DCAP_TDX_RTMR_SYSFS_PATH"
	envCCEL   = "DSTACK_CCEL_FILE"
)

// maxOut bounds what the kernel may give us, in bytes.
const maxOut = 1 << 20

// NewDevices uses the default paths, or what getenv names.
func NewDevices(getenv func(string) string) *Devices {
	or := func(name, def string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return def
	}
	return &Devices{Report: or(envReport, tsmReport), RTMR3: or(envRTMR, sysRTMR3), Log: or(envCCEL, acpiCCEL)}
}

// Quote writes the report data and reads the quote. The generation tells whether
// somebody else used the directory in between; then it is tried again, a bounded
// number of times.
func (d *Devices) Quote(ctx context.Context, rd [64]byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.MkdirAll(d.Report, 0o700); err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	lock, err := os.Open(d.Report)
	if err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	for range 5 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q, again, err := d.quoteOnce(rd)
		if err != nil || !again {
			return q, err
		}
	}
	return nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: others keep using %s", d.Report)
}

func (d *Devices) quoteOnce(rd [64]byte) (q []byte, again bool, err error) {
	before, err := d.generation()
	if err != nil {
		return nil, false, err
	}
	if err := os.WriteFile(filepath.Join(d.Report, "inblob"), rd[:], 0o200); err != nil {
		return nil, false, fmt.Errorf("configfs-tsm: %w", err)
	}
	q, err = readBounded(filepath.Join(d.Report, "outblob"))
	if err != nil {
		return nil, false, fmt.Errorf("configfs-tsm: %w", err)
	}
	after, err := d.generation()
	if err != nil {
		return nil, false, err
	}
	// The report data inside is compared too: the generation is the kernel's word,
	// the quote's own bytes are the fact (offset 568 of a v4 quote).
	return q, after != before+1 || len(q) < 632 || !bytes.Equal(q[568:632], rd[:]), nil
}

func (d *Devices) generation() (uint64, error) {
	b, err := readBounded(filepath.Join(d.Report, "generation"))
	if err != nil {
		return 0, fmt.Errorf("configfs-tsm: %w", err)
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("configfs-tsm generation: %w", err)
	}
	return n, nil
}

// Extend extends RTMR3; the other registers are the firmware's.
func (d *Devices) Extend(_ context.Context, index int, digest cvm.Measurement) error {
	if index != 3 {
		return cvm.Errorf(cvm.Unsupported, "RTMR%d is not extended by the guest agent", index)
	}
	f, err := os.OpenFile(d.RTMR3, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("RTMR3: %w", err)
	}
	_, err = f.Write(digest[:])
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("RTMR3: %w", err)
	}
	return nil
}

// CCEL reads the firmware's event log.
func (d *Devices) CCEL(context.Context) ([]byte, error) { return readBounded(d.Log) }

// SealKey is not there: TDX derives no sealing keys.
func (d *Devices) SealKey(context.Context, []byte) ([]byte, error) {
	return nil, cvm.Errorf(cvm.Unsupported, "TDX has no sealing key")
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOut+1))
	if err != nil {
		return nil, err
	}
	if len(b) <= maxOut {
		return b, nil
	}
	return nil, cvm.Errorf(cvm.Invalid, "%s: more than %d bytes", path, maxOut)
}

var _ TEE = (*Devices)(nil)
