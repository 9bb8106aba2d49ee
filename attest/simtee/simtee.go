// Package simtee is a software TEE vendor and machine: its own root, genuine
// TDX quote format, PCS-shaped collateral, and TDs whose RTMRs only ever extend.
// It proves nothing about hardware: only a policy that names its root admits it,
// as the simulated platform.
//
// The machine runs apart from what it measures: New and Hardware.Run serve a
// control socket (Control) for the VMM and one device socket (Device) per TD.
package simtee

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// Config of the simulated machine.
type Config struct {
	Dir            string           // state: the seed file (0600). Empty: Seed must be set and nothing is stored
	Seed           []byte           // 32 bytes; empty: read from Dir, made at first start
	ControlSock    string           // unix socket of the control API; empty: not served
	CollateralAddr string           // TCP address of the collateral service; empty: not served
	Clock          func() time.Time // nil: time.Now
	Log            *slog.Logger     // nil: discarded
	Faults         Faults           // bad evidence on purpose, for tests
}

// Faults makes the vendor or the platform misbehave, so that tests can show the
// refusals. The zero value is a healthy platform.
type Faults struct {
	TCBStatus     string   // status of the matching platform TCB level; "" is UpToDate
	Advisories    []string // of that level
	ModuleStatus  string   // status of the TDX module's level
	QEStatus      string   // status of the QE's level
	RevokePCK     bool     // the PCK certificate is on the CRL
	RevokeCA      bool     // the PCK CA certificate is on the root CRL
	RevokeTCB     bool     // the TCB signing certificate is on the root CRL
	NoMatchingTCB bool     // every level asks for more than the platform has
	Expired       bool     // collateral ended a day ago
	Future        bool     // collateral begins in a day
	OtherFMSPC    bool     // TCB info for another FMSPC
}

// Shape is what a TD starts with.
type Shape struct {
	MRTD       cvm.Measurement    `json:"mrtd"`
	RTMR       [3]cvm.Measurement `json:"rtmr"` // RTMR0-2 as the firmware left them
	MRConfigID cvm.Measurement    `json:"mr_config_id"`
	Attributes uint64             `json:"attributes"` // 0: DefaultAttributes
	XFAM       uint64             `json:"xfam"`       // 0: DefaultXFAM
	CCEL       []byte             `json:"ccel"`
	// SockMode is the mode of the device socket; 0: 0600.
	SockMode uint32 `json:"sock_mode,omitempty"`
}

// What a sound TD has.
const (
	DefaultAttributes uint64 = 1 << 28 // SEPT_VE_DISABLE
	DefaultXFAM       uint64 = 0xe718e7
	AttributeDebug    uint64 = 1
)

// Hardware is the machine.
type Hardware struct{ cfg Config }

// New makes the machine's keys from its seed.
func New(cfg Config) (*Hardware, error) { return &Hardware{cfg: cfg}, nil }

// Run serves the control socket, the device sockets and the collateral service until ctx ends.
func (h *Hardware) Run(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// Ready is closed when everything listens.
func (h *Hardware) Ready() <-chan struct{} { return nil }

// RootSPKI is the sha256 of the vendor root's SubjectPublicKeyInfo.
func (h *Hardware) RootSPKI() [32]byte { return [32]byte{} }

// RootPEM is the vendor root certificate.
func (h *Hardware) RootPEM() []byte { return nil }

// DeviceID is sha256 of the machine's PPID.
func (h *Hardware) DeviceID() cvm.DeviceID { return cvm.DeviceID{} }

// CollateralURL is the base URL of the collateral service once Ready; "" before.
func (h *Hardware) CollateralURL() string { return "" }

// Handler is the collateral service (PCS v4 paths).
func (h *Hardware) Handler() http.Handler { return http.NotFoundHandler() }

// Collateral is what the service would hand out at a time.
func (h *Hardware) Collateral(at time.Time) (collateral.Set, error) { return collateral.Set{}, nil }

// NewTD starts a TD in this process, without sockets (tests, in-process members).
func (h *Hardware) NewTD(name string, s Shape) (*TD, error) { return nil, nil }

// DestroyTD forgets a TD.
func (h *Hardware) DestroyTD(name string) error { return nil }

// TD is a trust domain. Its methods are those of Device.
type TD struct{}

// Quote signs a quote over report data.
func (t *TD) Quote(ctx context.Context, reportData [64]byte) ([]byte, error) { return nil, nil }

// Extend extends RTMR2 or RTMR3.
func (t *TD) Extend(ctx context.Context, index int, digest cvm.Measurement) error { return nil }

// CCEL returns the firmware's event log.
func (t *TD) CCEL(ctx context.Context) ([]byte, error) { return nil, nil }

// SealKey derives 32 bytes from the hardware's secret, MRTD, RTMR0-2 and context.
func (t *TD) SealKey(ctx context.Context, context []byte) ([]byte, error) { return nil, nil }

// Control is the VMM's client of a running Hardware.
type Control struct{ sock string }

// NewControl uses the control socket at sock.
func NewControl(sock string) *Control { return &Control{sock: sock} }

// CreateTD starts a TD and its device socket at the path sock.
func (c *Control) CreateTD(ctx context.Context, name, sock string, s Shape) error { return nil }

// DestroyTD forgets a TD and removes its socket.
func (c *Control) DestroyTD(ctx context.Context, name string) error { return nil }

// Info describes the machine.
func (c *Control) Info(ctx context.Context) (Info, error) { return Info{}, nil }

// Info describes a machine.
type Info struct {
	RootSPKI      string       `json:"root_spki"` // hex sha256
	DeviceID      cvm.DeviceID `json:"device_id"`
	CollateralURL string       `json:"collateral_url"`
}

// Device is the guest's client of its TD (what configfs-tsm, sysfs and CCEL offer).
type Device struct{ sock string }

// NewDevice uses the device socket at sock.
func NewDevice(sock string) *Device { return &Device{sock: sock} }

// Quote signs a quote over report data.
func (d *Device) Quote(ctx context.Context, reportData [64]byte) ([]byte, error) { return nil, nil }

// Extend extends RTMR2 or RTMR3.
func (d *Device) Extend(ctx context.Context, index int, digest cvm.Measurement) error { return nil }

// CCEL returns the firmware's event log.
func (d *Device) CCEL(ctx context.Context) ([]byte, error) { return nil, nil }

// SealKey derives 32 bytes from the hardware's secret, MRTD, RTMR0-2 and context.
func (d *Device) SealKey(ctx context.Context, context []byte) ([]byte, error) { return nil, nil }
