// Package sevguest asks a real SEV-SNP guest's hardware for reports, through
// go-sev-guest: /dev/sev-guest or configfs-tsm. It verifies nothing (attest/sevsnp does);
// the library is also the oracle of this package's tests. It has not met hardware yet.
package sevguest

import (
	"bytes"
	"errors"

	"github.com/google/go-configfs-tsm/report"
	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/client"
	sevpb "github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/confidential-cloud/phala/attest/tdxguest"
	"github.com/confidential-cloud/phala/cvm"
)

// Device is a guest's source of reports.
type Device struct{ quotes client.QuoteProvider }

// Open finds the guest's device. Without one the error carries code unsupported.
func Open() (*Device, error) {
	p, err := client.GetQuoteProvider()
	if err != nil {
		return nil, cvm.Errorf(cvm.Unsupported, "SEV-SNP: %w", err).
			WithFix("this is no SEV-SNP guest, or its kernel lacks the sev-guest module or configfs")
	}
	return &Device{p}, nil
}

// New is a device over another source of reports.
func New(p client.QuoteProvider) *Device { return &Device{p} }

// Report asks for a report over report data, and for the certificates that the
// host offers with it (DER: VCEK or VLEK, ASK, ARK; hints, never trusted; often none).
func (d *Device) Report(reportData [64]byte) (report []byte, certs [][]byte, err error) {
	raw, err := d.quotes.GetRawQuote(reportData)
	if err != nil {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "SEV-SNP report: %w", err)
	}
	if len(raw) < abi.ReportSize {
		return nil, nil, cvm.Errorf(cvm.Invalid, "SEV-SNP report: the device gave %d bytes, want %d", len(raw), abi.ReportSize)
	}
	return bytes.Clone(raw[:abi.ReportSize]), offered(raw[abi.ReportSize:]), nil
}

// OpenAt is a device over configfs-tsm whose directory of report entries is at a
// path. Level is the privilege level (VMPL) that reports are asked for at.
func OpenAt(reports string, level uint) *Device { return &Device{configfs{reports, level}} }

// configfs asks through configfs-tsm. The library's own provider does the same at a
// fixed path.
type configfs struct {
	reports string
	level   uint
}

var _ client.QuoteProvider = configfs{}

const providerName = "sev_guest"

// IsSupported reports whether the kernel makes SEV-SNP reports there.
func (c configfs) IsSupported() bool {
	r, err := report.Create(tdxguest.Files(c.reports), &report.Request{})
	if err != nil {
		return false
	}
	name, err := r.ReadOption("provider")
	return errors.Join(err, r.Destroy()) == nil && string(bytes.TrimSpace(name)) == providerName
}

// GetRawQuote is a report with the host's certificate table behind it.
func (c configfs) GetRawQuote(reportData [64]byte) (raw []byte, err error) {
	r, err := report.Create(tdxguest.Files(c.reports), &report.Request{InBlob: reportData[:], GetAuxBlob: true, Privilege: &report.Privilege{Level: c.level}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Destroy()) }()
	res, err := r.Get()
	if err != nil {
		return nil, err
	}
	if name := string(bytes.TrimSpace([]byte(res.Provider))); name != providerName {
		return nil, cvm.Errorf(cvm.Unsupported, "configfs-tsm: the TEE is %.40q, want %q", name, providerName)
	}
	if len(res.OutBlob) != abi.ReportSize {
		return nil, cvm.Errorf(cvm.Invalid, "configfs-tsm: a report of %d bytes, want %d", len(res.OutBlob), abi.ReportSize)
	}
	return append(res.OutBlob, res.AuxBlob...), nil
}

// Product is asked of nobody here: reports name their processor.
func (configfs) Product() *sevpb.SevProduct { return &sevpb.SevProduct{} }

// offered are the certificates of the host's table; none when it is damaged: they
// are hints. The bounds are checked first: the library adds them up in 32 bits.
func offered(raw []byte) (certs [][]byte) {
	head, err := abi.ParseSnpCertTableHeader(raw)
	if err != nil {
		return nil
	}
	for _, e := range head {
		if uint64(e.Offset)+uint64(e.Length) > uint64(len(raw)) {
			return nil
		}
	}
	var table abi.CertTable
	if table.Unmarshal(raw) != nil {
		return nil
	}
	for _, id := range []string{abi.VcekGUID, abi.VlekGUID, abi.AskGUID, abi.AsvkGUID, abi.ArkGUID} {
		if der, err := table.GetByGUIDString(id); err == nil && len(der) != 0 {
			certs = append(certs, bytes.Clone(der))
		}
	}
	return certs
}
