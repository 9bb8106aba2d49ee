package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// ReasonLaunch is that of a guest that was handed something else than its launch was
// bound to.
const ReasonLaunch = "host-data-mismatch"

// checkLaunch holds what the guest is about to run against HOST_DATA of its own report:
// there is no register that would tell of a difference later. The report comes from the
// security processor, which the host cannot stand in for. On TDX it does nothing.
func (b *boot) checkLaunch(ctx context.Context) error {
	if b.Events.Variant() != cvm.VariantSNP {
		return nil
	}
	doc, _ := b.s.Shared.Sys.MRConfig.(string)
	m, err := b.Events.launchedFor(ctx, doc)
	if err == nil {
		err = b.matchLaunch(m)
	}
	if err == nil {
		b.Events.keepLaunch(doc)
	}
	return err
}

// keepLaunch keeps the document, which was checked, for evidence.
func (r *Recorder) keepLaunch(doc string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.launch = doc
}

// launchedFor reads a document that HOST_DATA must be the hash of.
func (r *Recorder) launchedFor(ctx context.Context, doc string) (m attest.MRConfig, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	raw, _, err := r.snp.Report(ctx, [64]byte{})
	if err != nil {
		return m, cvm.Errorf(cvm.Unavailable, "the report of this machine: %w", err).WithReason("tee-unavailable")
	}
	report, err := sevsnp.ParseReport(raw)
	if err != nil {
		return m, cvm.Errorf(cvm.Unavailable, "the report of this machine: %w", err).WithReason("tee-unavailable")
	}
	if doc == "" {
		return m, launchDiffers("the host handed over no document of what this machine was launched for")
	}
	if want := attest.HostData(doc); want != report.HostData {
		return m, launchDiffers("the document that the host handed over has the hash %x..., this machine was launched with HOST_DATA %x...", want[:8], report.HostData[:8])
	}
	if m, err = attest.ParseMRConfig(doc); err != nil {
		return m, launchDiffers("the document that this machine was launched with: %w", err)
	}
	return m, nil
}

// matchLaunch compares each member of the document. Init scripts and GPU policy are part
// of the compose hash as well: a document may leave them out.
func (b *boot) matchLaunch(m attest.MRConfig) error {
	s := b.s
	app, instance, hash := s.AppID.String(), "", s.App.Hash()
	if !s.InstanceID.IsZero() {
		instance = s.InstanceID.String()
	}
	launched := m.AppID
	if launched == "" {
		launched = m.ComposeHash[:len(app)]
	}
	for _, f := range []struct{ what, launched, given string }{
		{"compose hash", m.ComposeHash, hash.String()},
		{"app id", launched, app},
		{"instance id", m.InstanceID, instance},
		{"key provider", m.KeyProvider, s.App.Provider()},
		{"key provider id", m.KeyProviderID, strings.ToLower(s.App.KeyProviderID)},
	} {
		if f.launched != f.given {
			return launchDiffers("the %s that the host handed over is %.64q, this machine was launched for %.64q", f.what, f.given, f.launched)
		}
	}
	if m.GPUPolicyHash != "" {
		gpu, err := s.App.GPUPolicyHash()
		if err != nil {
			return err
		}
		if m.GPUPolicyHash != hex.EncodeToString(gpu[:]) {
			return launchDiffers("the GPU policy is not the one that this machine was launched for")
		}
	}
	var scripts []string
	for _, script := range s.App.InitScript {
		scripts = append(scripts, fmt.Sprintf("%x", sha256.Sum256([]byte(script))))
	}
	if len(m.InitScriptHashes) > 0 && !slices.Equal(m.InitScriptHashes, scripts) {
		return launchDiffers("the init scripts are not those that this machine was launched for")
	}
	return nil
}

func launchDiffers(format string, args ...any) error {
	return cvm.Errorf(cvm.Denied, "SEV-SNP: "+format, args...).WithReason(ReasonLaunch).
		WithFix("the host changed its files after it decided on the launch, or its VMM and this image are of different versions: start the machine again, and look who can write to the host's files")
}

// snpEvidence is Evidence on SEV-SNP; r.mu is held. Before the launch was checked there
// is no evidence: it would name an app that nobody compared.
func (r *Recorder) snpEvidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	if r.launch == "" {
		return attest.Evidence{}, cvm.Errorf(cvm.Precondition, "SEV-SNP: the launch was not checked yet").WithReason(ReasonLaunch)
	}
	report, certs, err := r.snp.Report(ctx, reportData)
	if err != nil {
		return attest.Evidence{}, cvm.Errorf(cvm.Unavailable, "asking for a report: %w", err).WithReason("tee-unavailable")
	}
	ev := attest.Evidence{
		Variant: cvm.VariantSNP, Report: report, CertChain: certs, MRConfig: r.launch,
		RuntimeEvents: slices.Clone(r.events), ReportData: reportData, Config: r.config,
	}
	if len(certs) == 0 && r.chain != nil { // most hosts offer none
		if ev.CertChain, err = r.chain(ctx, ev); err != nil {
			return attest.Evidence{}, cvm.Errorf(cvm.Unavailable, "the certificates of this machine's chip: %w", err).WithReason("collateral-unavailable")
		}
	}
	return ev, nil
}

// Chain says who gives the chip's certificates (leaf first) where the host offers none
// with its reports. A KMS fetches nothing for a report that no admitted root vouches for.
func (r *Recorder) Chain(fetch func(context.Context, attest.Evidence) ([][]byte, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.chain = fetch
}
