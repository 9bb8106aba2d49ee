package simtee

import (
	"context"
	"encoding/binary"
	"encoding/hex"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/cvm"
)

// SNPGuest is a running VM's own view of a simulated SEV-SNP machine: what its
// kernel answers through configfs-tsm (attest/simtee/teefs).
type SNPGuest struct {
	hw     *AMD
	launch Launch
	host   [32]byte
}

// Start launches a VM.
func (a *AMD) Start(l Launch) (*SNPGuest, error) {
	doc, err := l.Config.Document()
	if err != nil {
		return nil, err
	}
	return &SNPGuest{hw: a, launch: l, host: attest.HostData(doc)}, nil
}

// Provider is what Linux calls the source of these reports.
func (*SNPGuest) Provider() string { return "sev_guest" }

// Report signs report data at a privilege level (VMPL), and gives the certificates that
// a host offers with it in its table.
func (g *SNPGuest) Report(_ context.Context, reportData [64]byte, level uint) (report, certificates []byte, err error) {
	if level > 3 {
		return nil, nil, cvm.Errorf(cvm.Invalid, "VMPL %d: there are 0 to 3", level)
	}
	if report, err = g.hw.reportAt(uint32(level), g.launch.Measurement, g.host, g.launch.Policy, reportData); err != nil {
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
