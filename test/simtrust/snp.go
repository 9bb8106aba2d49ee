package simtrust

import (
	"context"
	"encoding/hex"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/verify"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// AdmitSNP makes a profile admit the simulated SEV-SNP hardware as it is, whose vendor's
// key distribution service runs until the test ends.
func AdmitSNP(t testing.TB, hw *simtee.AMD) func(*verify.Profile) {
	t.Helper()
	kds := httptest.NewServer(hw.Handler())
	t.Cleanup(kds.Close)
	return func(p *verify.Profile) {
		root := hw.RootSPKI()
		p.TEE.Roots = append(p.TEE.Roots, verify.RootPin{SPKI: hex.EncodeToString(root[:]), Platform: cvm.PlatformSimulated})
		p.TEE.KDSURLs = []string{kds.URL}
		p.TEE.SNP = &attest.SNPPolicy{Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: simtee.DefaultTCB(sevsnp.Milan)}}
	}
}

// SNPHost is a dry driver whose machines are guests of a SEV-SNP host: the VMM binds them
// to their MrConfig document.
type SNPHost struct{ *dry.Driver }

// Describe says so.
func (h SNPHost) Describe(ctx context.Context) (machine.Description, error) {
	d, err := h.Driver.Describe(ctx)
	d.Accel, d.Variant, d.Simulated = "snp", measure.VariantContainer, false
	return d, err
}

// Launch gives the machine an image, of which the dry driver has none.
func (h SNPHost) Launch(ctx context.Context, m machine.Machine) (machine.Instance, error) {
	none := cvm.ImageHash{}
	m.Image.Hash = cvm.ImageHash{1}
	m.VMConfig = strings.Replace(m.VMConfig, none.String(), m.Image.Hash.String(), 1)
	return h.Driver.Launch(ctx, m)
}

// SNPEvidence is what a guest that the hardware launched as the machine says answers to a
// nonce.
func SNPEvidence(hw *simtee.AMD, m machine.Machine, policy sevsnp.GuestPolicy, nonce []byte) ([]byte, error) {
	digest, _, err := measure.ContainerSNP(m.VMConfig)
	if err != nil {
		return nil, err
	}
	rd := guestapi.ReportDataEvidence(nonce, nil)
	g := hw.Launch(simtee.SNPShape{Measurement: digest, HostData: [32]byte(m.MRConfigID[1:33]), Policy: policy})
	report, certs, err := sevguest.New(g).Report(context.Background(), rd)
	if err != nil {
		return nil, err
	}
	return attest.Evidence{Variant: cvm.VariantSNP, Report: report, CertChain: certs, MRConfig: m.MRConfig, ReportData: rd, Config: m.VMConfig}.Marshal()
}
