package simtee

import (
	"context"
	"fmt"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

// Boot describes a container-variant guest whose boot is played by Hardware.Boot,
// for tests that need evidence and have no guest.
type Boot struct {
	Name        string
	OSImageHash cvm.ImageHash // zero: a made-up one
	CPUCount    int           // 0: 1
	MemorySize  uint64        // bytes; 0: 1 GiB
	AppID       cvm.AppID
	ComposeHash cvm.ComposeHash
	InstanceID  cvm.InstanceID // zero: no_instance_id
	KeyProvider string         // payload of the key-provider event; "": name none
	Phase       claim.Phase    // how far to boot; "": release
	Version     int            // event digest version; 0: 1
	Attributes  uint64         // 0: DefaultAttributes; DefaultAttributes|AttributeDebug makes a debug TD
	XFAM        uint64         // 0: DefaultXFAM
	MRServiceTD cvm.Measurement
}

// Guest is a booted TD and what its agent remembers.
type Guest struct {
	TD       *TD
	VMConfig string
	Events   []eventlog.Runtime
}

// Boot starts a TD in this process and measures the launch as a guest agent does.
func (h *Hardware) Boot(ctx context.Context, b Boot) (*Guest, error) {
	if b.OSImageHash == (cvm.ImageHash{}) {
		b.OSImageHash = cvm.ImageHash{1}
	}
	if b.MemorySize == 0 {
		b.MemorySize = 1 << 30
	}
	config := fmt.Sprintf(`{"os_image_hash":"%s","cpu_count":%d,"memory_size":%d,"tdx_attestation_variant":"%s"}`,
		b.OSImageHash, max(b.CPUCount, 1), b.MemorySize, measure.VariantContainer)
	regs, err := measure.Container(config)
	if err != nil {
		return nil, err
	}
	ccel, err := measure.ContainerCCEL(config)
	if err != nil {
		return nil, err
	}
	td, err := h.NewTD(b.Name, Shape{MRTD: regs.MRTD, RTMR: regs.RTMR, CCEL: ccel, Attributes: b.Attributes, XFAM: b.XFAM, MRServiceTD: b.MRServiceTD})
	if err != nil {
		return nil, err
	}
	g := &Guest{TD: td, VMConfig: config}
	for _, e := range b.events() {
		if err := g.Extend(ctx, e); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// events lists the launch events up to the wanted phase.
func (b Boot) events() []eventlog.Runtime {
	instance := b.InstanceID[:]
	if b.InstanceID.IsZero() {
		instance = nil
	}
	provider := b.KeyProvider
	if provider == "" {
		provider = `{"name":"none","id":""}`
	}
	gpu := [32]byte{}
	all := []eventlog.Runtime{
		{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: b.AppID[:]}, {Name: eventlog.ComposeHash, Payload: b.ComposeHash[:]},
		{Name: eventlog.GPUPolicyHash, Payload: gpu[:]}, {Name: eventlog.InstanceID, Payload: instance}, {Name: eventlog.BootMRDone},
		{Name: eventlog.KeyProvider, Payload: []byte(provider)}, {Name: eventlog.StorageFS, Payload: []byte("ext4")}, {Name: eventlog.SystemReady},
	}
	for i := range all {
		all[i].Version = b.Version
	}
	switch b.Phase {
	case claim.PhaseEarly:
		return all[:3]
	case claim.PhaseRelease, "":
		return all[:6]
	case claim.PhaseBooting:
		return all[:8]
	}
	return all
}

// Extend measures one more runtime event and remembers it.
func (g *Guest) Extend(ctx context.Context, e eventlog.Runtime) error {
	if err := g.TD.Extend(ctx, int(eventlog.RuntimeIMR), e.Digest()); err != nil {
		return err
	}
	g.Events = append(g.Events, e)
	return nil
}

// Evidence quotes report data and packs everything a verifier needs.
func (g *Guest) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	quote, err := g.TD.Quote(ctx, reportData)
	if err != nil {
		return attest.Evidence{}, err
	}
	ccel, err := g.TD.CCEL(ctx)
	if err != nil {
		return attest.Evidence{}, err
	}
	return attest.NewEvidence(quote, ccel, g.Events, reportData, g.VMConfig)
}

// Policy admits this machine's vendor as simulated, UpToDate only, container
// variant, the given phases, and exactly this report data.
func (h *Hardware) Policy(reportData [64]byte, phases ...claim.Phase) attest.Policy {
	return attest.Policy{
		Roots: []attest.Root{attest.SimulatedRoot(h.RootSPKI())}, TCBStatus: []string{"UpToDate"},
		ReportData: &reportData, Phases: phases, TD: attest.StrictTD(), Image: measure.Policy{Variants: []string{measure.VariantContainer}},
	}
}
