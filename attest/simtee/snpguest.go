package simtee

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// SNPGuest is a running VM's own view of a simulated SEV-SNP machine: what its kernel
// answers through configfs-tsm (attest/simtee/teefs) and /dev/sev-guest. It is safe for
// concurrent use.
type SNPGuest struct {
	hw       *AMD
	shape    SNPShape
	reportID [32]byte // of this launch alone
}

// SNPShape is what a host launches a VM with: what sev-snp-guest of QEMU is told, and
// what the processor measures.
type SNPShape struct {
	Measurement cvm.Measurement    `json:"measurement"`
	HostData    [32]byte           `json:"host_data"`
	Policy      sevsnp.GuestPolicy `json:"policy"` // 0: DefaultGuestPolicy
	// SockMode is the mode of the device socket: 0600 (also when 0) or 0666.
	SockMode uint32 `json:"sock_mode,omitempty"`
}

// Start launches a VM.
func (a *AMD) Start(l Launch) (*SNPGuest, error) {
	doc, err := l.Config.Document()
	if err != nil {
		return nil, err
	}
	return a.Launch(SNPShape{Measurement: l.Measurement, HostData: attest.HostData(doc), Policy: l.Policy}), nil
}

// Launch is Start of what a host decided.
func (a *AMD) Launch(s SNPShape) *SNPGuest {
	if s.Policy == 0 {
		s.Policy = DefaultGuestPolicy
	}
	g := &SNPGuest{hw: a, shape: s}
	_, _ = rand.Read(g.reportID[:]) // never fails
	return g
}

// Provider is what Linux calls the source of these reports.
func (*SNPGuest) Provider() string { return ProviderSNP }

// Report signs report data at a privilege level (VMPL), and gives the certificates that
// a host offers with it in its table.
func (g *SNPGuest) Report(_ context.Context, reportData [64]byte, level uint) (report, certificates []byte, err error) {
	if level > 3 {
		return nil, nil, cvm.Errorf(cvm.Invalid, "VMPL %d: there are 0 to 3", level)
	}
	r := g.hw.bare(uint32(level), g.shape.Measurement, g.shape.HostData, g.shape.Policy, reportData)
	r.ReportID = g.reportID
	if report, err = g.hw.signed(r); err != nil {
		return nil, nil, err
	}
	leaf, issuer, err := g.hw.certificates()
	if err != nil {
		return nil, nil, err
	}
	name := guidVCEK
	if g.hw.cfg.VLEK != "" {
		name = guidVLEK
	}
	return report, certTable([]tableEntry{{name, leaf}, {guidASK, issuer.cert.Raw}, {guidARK, g.hw.ark.cert.Raw}}), nil
}

// Fields that a derived key may be mixed with (GUEST_FIELD_SELECT).
const (
	FieldPolicy      = 1 << 0
	FieldImageID     = 1 << 1
	FieldFamilyID    = 1 << 2
	FieldMeasurement = 1 << 3
	FieldGuestSVN    = 1 << 4
	FieldTCB         = 1 << 5
)

// DerivedKey is MSG_KEY_REQ under the chip's key: 32 bytes that follow from the chip, its
// TCB and the selected fields. Like the firmware's it has no way to mix HOST_DATA in.
func (g *SNPGuest) DerivedKey(_ context.Context, fields uint64) ([]byte, error) {
	if fields>>6 != 0 {
		return nil, cvm.Errorf(cvm.Invalid, "derived key: fields %#x, known are the lowest six", fields)
	}
	tcb := g.hw.tcb().Value(g.hw.cfg.Product)
	label := fmt.Sprintf("derived-key:%#x:%#x", fields, tcb)
	if fields&FieldPolicy != 0 {
		label += fmt.Sprintf(":policy=%#x", uint64(g.shape.Policy))
	}
	if fields&FieldMeasurement != 0 {
		label += ":measurement=" + g.shape.Measurement.String()
	}
	return g.hw.derive(label, 32) // image id, family id and guest SVN are those of an ID block: there is none
}

// Names in a host's certificate table (AMD 56421, GHCB specification, "SNP Extended
// Guest Request").
const (
	guidVCEK = "63da758de6644564adc5f4b93be8accd"
	guidVLEK = "a8074bc2a25a483eaae639c045a0b8a1"
	guidASK  = "4ab7b379bbac4fe4a02f05aef327c782"
	guidARK  = "c0b406a4a803495297433fb6014cd0ae"
)

type tableEntry struct {
	guid string
	der  []byte
}

// certTable writes entries of name, offset and length (u32, little endian), one of
// zeros, then the certificates.
func certTable(entries []tableEntry) []byte {
	const entry = 24
	var head, body []byte
	for _, e := range entries {
		name, _ := hex.DecodeString(e.guid) // a constant
		head = append(head, name...)
		head = binary.LittleEndian.AppendUint32(head, uint32(entry*(len(entries)+1)+len(body))) //nolint:gosec // some KiB
		head = binary.LittleEndian.AppendUint32(head, uint32(len(e.der)))                       //nolint:gosec // some KiB
		body = append(body, e.der...)
	}
	return append(append(head, make([]byte, entry)...), body...)
}
