// Package sevguest is a SEV-SNP guest's own hardware: signed reports and sealing keys.
// It verifies nothing (attest/sevsnp does). On Linux reports come through configfs-tsm
// and keys through /dev/sev-guest, with go-sev-guest, whose home this is; the library is
// also the oracle of this package's tests. It has not met hardware yet.
//
// A simulated SEV-SNP machine (attest/simtee) takes the kernel's place as another Source,
// or as files (attest/simtee/teefs), without another line of guest code.
package sevguest

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"

	"github.com/google/go-sev-guest/abi"

	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// Source is what the security processor gives a guest. attest/simtee.SNPDevice and
// attest/simtee.SNPGuest implement it.
type Source interface {
	// Report asks for a report at a privilege level (VMPL), and for the certificate table
	// that the host offers with it.
	Report(ctx context.Context, reportData [64]byte, level uint) (report, table []byte, err error)
	// DerivedKey asks for 32 bytes that follow from the chip's key and the selected fields
	// of the launch (AMD 56860, MSG_KEY_REQ; Field...).
	DerivedKey(ctx context.Context, fields uint64) ([]byte, error)
}

// Fields of the launch that a derived key is mixed with.
const (
	FieldPolicy      uint64 = 1 << 0
	FieldMeasurement uint64 = 1 << 3
)

// Device is a guest's hardware. It is safe for concurrent use if its source is.
type Device struct{ src Source }

// New is the hardware over a source: Linux, or a simulated one.
func New(src Source) *Device { return &Device{src} }

// maxCert bounds a certificate of the host's table, in bytes (attest.Evidence takes no
// larger ones).
const maxCert = 16 << 10

// Report asks for a report over report data at VMPL 0, and for the certificates that the
// host offers with it (DER: VCEK or VLEK, ASK, ARK; hints, never trusted; often none). The
// report is read back: it must be well formed and hold the data.
func (d *Device) Report(ctx context.Context, reportData [64]byte) (report []byte, certs [][]byte, err error) {
	report, table, err := d.src.Report(ctx, reportData, 0)
	if err != nil {
		return nil, nil, cvm.Errorf(codeOr(err, cvm.Unavailable), "SEV-SNP report: %w", err).WithReason(cvm.ReasonOf(err)).WithFix(fixOf(err))
	}
	r, err := sevsnp.ParseReport(report)
	if err != nil {
		return nil, nil, cvm.Errorf(cvm.Invalid, "SEV-SNP report: the device gave %d bytes: %w", len(report), err)
	}
	if r.ReportData != reportData {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "SEV-SNP report: the device gave a report over other data").WithReason("tee-busy")
	}
	return bytes.Clone(report), offered(table), nil
}

// sealInfo is a format: another tag is another key.
const sealInfo = "phala-sev-seal:v1:"

// SealKey derives 32 bytes that an app of this image, launched with this guest policy on
// this chip, gets again; the result is key material. The processor mixes chip, its TCB,
// policy and launch digest in. It has no field for HOST_DATA, which names the app: that
// and the context are mixed in here, by measured code, so that a process with access to
// the device could derive other apps' keys. An update of the host's firmware may change
// the key: seal only what can be got again.
func (d *Device) SealKey(ctx context.Context, context []byte) ([]byte, error) {
	report, _, err := d.Report(ctx, [64]byte{})
	if err != nil {
		return nil, err
	}
	r, err := sevsnp.ParseReport(report)
	if err != nil {
		return nil, err
	}
	key, err := d.src.DerivedKey(ctx, FieldPolicy|FieldMeasurement)
	if err != nil {
		return nil, cvm.Errorf(codeOr(err, cvm.Unavailable), "SEV-SNP derived key: %w", err).WithReason(cvm.ReasonOf(err)).WithFix(fixOf(err))
	}
	if len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		return nil, cvm.Errorf(cvm.Unavailable, "SEV-SNP derived key: the device gave no key")
	}
	c := sha256.Sum256(context)
	return hkdf.Key(sha256.New, key, nil, sealInfo+string(r.HostData[:])+string(c[:]), 32)
}

// offered are the certificates of the host's table; none when it is damaged or when one
// is larger than any certificate: they are hints. The bounds are checked first: the
// library adds them up in 32 bits.
func offered(raw []byte) (certs [][]byte) {
	head, err := abi.ParseSnpCertTableHeader(raw)
	if err != nil {
		return nil
	}
	for _, e := range head {
		if uint64(e.Offset)+uint64(e.Length) > uint64(len(raw)) || e.Length > maxCert {
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

// codeOr is the error's own code, or def for an error that has none.
func codeOr(err error, def cvm.Code) cvm.Code {
	if c := cvm.CodeOf(err); c != cvm.Internal {
		return c
	}
	return def
}
