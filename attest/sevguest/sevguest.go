// Package sevguest asks a real SEV-SNP guest's hardware for reports, through
// go-sev-guest: /dev/sev-guest or configfs-tsm. It verifies nothing (attest/sevsnp does);
// the library is also the oracle of this package's tests. It has not met hardware yet.
package sevguest

import (
	"bytes"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/client"

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
	report = bytes.Clone(raw[:abi.ReportSize])
	return report, offered(raw[abi.ReportSize:]), nil
}

// offered are the certificates of the host's table; none when it is damaged: they
// are hints.
func offered(raw []byte) (certs [][]byte) {
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
