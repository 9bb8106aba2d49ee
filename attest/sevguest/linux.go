package sevguest

import (
	"bytes"
	"context"
	"errors"
	"os"

	"github.com/google/go-configfs-tsm/report"
	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/client"

	"github.com/confidential-cloud/phala/attest/tdxguest"
	"github.com/confidential-cloud/phala/cvm"
)

// Config says where the kernel's files are. Empty fields mean a real guest's paths.
type Config struct {
	Reports string // directory of configfs-tsm report entries
	Node    string // device node of the guest requests that configfs-tsm does not have
}

// DeviceNode is a real guest's device node.
const DeviceNode = "/dev/sev-guest"

const providerName = "sev_guest"

// Linux is the kernel's SEV-SNP guest. Nothing is opened: what is missing shows in the
// call that needs it, with reason tee-missing.
func Linux(c Config) Source {
	if c.Reports == "" {
		c.Reports = tdxguest.Reports
	}
	if c.Node == "" {
		c.Node = DeviceNode
	}
	return linux{c}
}

type linux struct{ cfg Config }

// tries bounds how often a report that somebody else disturbed is asked for again.
const tries = 5

func (l linux) Report(ctx context.Context, reportData [64]byte, level uint) (out, table []byte, err error) {
	if _, err := os.Stat(l.cfg.Reports); err != nil {
		return nil, nil, missing("configfs-tsm: %w", err)
	}
	for range tries {
		if err = ctx.Err(); err != nil {
			return nil, nil, err
		}
		if out, table, err = l.report(reportData, level); report.GetGenerationErr(err) == nil {
			return out, table, err
		}
	}
	return nil, nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: others keep using the report entry").WithReason("tee-busy")
}

func (l linux) report(reportData [64]byte, level uint) (out, table []byte, err error) {
	files := tdxguest.Files(l.cfg.Reports)
	r, err := report.Create(files, &report.Request{InBlob: reportData[:], GetAuxBlob: true, Privilege: &report.Privilege{Level: level}})
	if err != nil {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: %w", err)
	}
	defer func() { err = errors.Join(err, r.Destroy()) }()
	res, err := r.Get()
	if err != nil {
		if report.GetGenerationErr(err) != nil {
			return nil, nil, err
		}
		return nil, nil, cvm.Errorf(cvm.Unavailable, "configfs-tsm: %w", err)
	}
	if name := string(bytes.TrimSpace([]byte(res.Provider))); name != providerName {
		return nil, nil, cvm.Errorf(cvm.Unsupported, "configfs-tsm: the TEE is %.40q, want %q", name, providerName)
	}
	if len(res.OutBlob) != abi.ReportSize {
		return nil, nil, cvm.Errorf(cvm.Invalid, "configfs-tsm: a report of %d bytes, want %d", len(res.OutBlob), abi.ReportSize)
	}
	return res.OutBlob, res.AuxBlob, nil
}

func (l linux) DerivedKey(ctx context.Context, fields uint64) (key []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(l.cfg.Node); err != nil {
		return nil, missing("%w", err)
	}
	d := &client.LinuxDevice{}
	if err := d.Open(l.cfg.Node); err != nil {
		return nil, missing("%w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return derive(d, fields)
}

// derive asks a device for a key of VMPL 0 under the chip's own key.
func derive(d client.Device, fields uint64) ([]byte, error) {
	if fields&^(FieldPolicy|FieldMeasurement) != 0 {
		return nil, cvm.Errorf(cvm.Invalid, "derived key: fields %#x", fields)
	}
	res, err := client.GetDerivedKeyAcknowledgingItsLimitations(d, &client.SnpDerivedKeyReq{
		UseVCEK:          true,
		GuestFieldSelect: client.GuestFieldSelect{GuestPolicy: fields&FieldPolicy != 0, Measurement: fields&FieldMeasurement != 0},
	})
	if err != nil {
		return nil, err
	}
	if res.Status != 0 {
		return nil, cvm.Errorf(cvm.Unavailable, "MSG_KEY_REQ: status %#x", res.Status)
	}
	return bytes.Clone(res.Data[:]), nil
}

func missing(format string, args ...any) error {
	return cvm.Errorf(cvm.Precondition, format, args...).WithReason("tee-missing").
		WithFix("a SEV-SNP guest with Linux 6.7 or newer, its module sev-guest and configfs mounted is needed, or a simulated TEE")
}

func fixOf(err error) string {
	var c *cvm.Error
	if errors.As(err, &c) {
		return c.Fix
	}
	return ""
}
