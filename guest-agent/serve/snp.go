package serve

import (
	"context"
	"crypto/sha256"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// notTDX answers who asks for a TDX quote on SEV-SNP.
func notTDX() error {
	return cvm.Errorf(cvm.Unsupported, "this machine is AMD SEV-SNP and gives no TDX quotes").WithReason("not-tdx").
		WithFix("ask for Attest, whose answer holds the evidence of any TEE")
}

// ofReport is what a SEV-SNP report says beside the events, which it does not bind.
func ofReport(ev attest.Evidence) (*registers, error) {
	p, err := sevsnp.ParseReport(ev.Report)
	if err != nil {
		return nil, err
	}
	r := &registers{events: []eventlog.Event{}, aggregated: sha256.Sum256(append(p.Measurement[:], p.HostData[:]...))}
	for _, e := range ev.RuntimeEvents {
		r.events = append(r.events, e.Event())
	}
	return r, nil
}

// attested is a quote's answer on SEV-SNP: no quote, but the attestation.
func (b *Backend) attested(ev attest.Evidence) (guestapi.Quote, error) {
	a, err := ev.Marshal()
	return guestapi.Quote{EventLog: "[]", ReportData: ev.ReportData[:], VMConfig: b.VMConfig, Attestation: a}, err
}

// appKeyEvidence binds report data that the agent chose: who asks from outside has no
// Attest to use instead.
func (b *Backend) appKeyEvidence(ctx context.Context, rd [64]byte) (guestapi.Quote, error) {
	ev, err := b.Evidence(ctx, rd)
	if err != nil {
		return guestapi.Quote{}, err
	}
	if ev.Variant == cvm.VariantSNP {
		return b.attested(ev)
	}
	return b.quoteOf(ev)
}
