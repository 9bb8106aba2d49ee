package attest

import (
	"encoding/hex"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/nitro"
	"github.com/confidential-cloud/phala/cvm"
)

// NitroPolicy is what a relying party admits of AWS Nitro on top of Policy's roots,
// report data and phases (an enclave's is "unproven"). The zero value admits nothing.
type NitroPolicy struct {
	MaxAge            int             `json:"max_age"`            // seconds since the document was made; 0 refuses
	WithoutRevocation bool            `json:"without_revocation"` // no revocation lists are asked for
	Images            []cvm.ImageHash `json:"images"`             // sha256 of PCR0, 1, 2; of PCR4, 7, 12 of a NitroTPM
	AnyImage          bool            `json:"any_image"`
}

// verifyNitro is Verify for documents of AWS. There is nothing to remember: the
// certificates of an enclave live for hours.
func verifyNitro(ev Evidence, c collateral.Set, p Policy, at time.Time) (Verified, []claim.Check, error) {
	rec := &claim.Recorder{Variant: ev.Variant}
	p.nitroReportData(rec, ev)
	var e nitro.Endorsements
	if c.AWS != nil {
		e.CRLs = c.AWS.CRLs
	}
	res := nitro.Record(nitro.Evidence{Document: ev.Document, Events: ev.RuntimeEvents}, e, nitro.Policy{
		Variant: ev.Variant, Roots: p.nitroRoots(), WithoutRevocation: p.Nitro.WithoutRevocation, MaxAge: time.Duration(p.Nitro.MaxAge) * time.Second,
		ReportData: ev.ReportData[:], Images: p.Nitro.Images, AnyImage: p.Nitro.AnyImage, Phases: p.Phases,
	}, at, rec)
	out := claim.Claims{Variant: ev.Variant, CheckedAt: at, Expires: res.Expires, TCB: claim.TCB{Advisories: []string{}}, Phase: claim.PhaseUnproven}
	if rec.Passed(claim.DocumentChain) {
		out.RootSPKI = hex.EncodeToString(res.RootSPKI[:])
		if rec.Passed(claim.RootAdmitted) {
			out.Platform = p.platform(res.RootSPKI)
		}
	}
	if rec.Passed(claim.DocumentParse) {
		out.DeviceID, out.OSImageHash, out.ReportData = res.DeviceID, res.Image, ev.ReportData[:]
		out.Nitro = &claim.Nitro{ModuleID: res.ModuleID, Time: res.Time, PCRs: res.PCRs}
		out.Debug = ev.Variant == claim.VariantNitroEnclave && res.PCRs[0] == (cvm.Measurement{})
	}
	if l := res.Launch; l != nil {
		out.Phase, out.AppID, out.ComposeHash, out.InstanceID = l.Phase, l.AppID, l.ComposeHash, l.InstanceID
		out.GPUPolicyHash, out.KeyProvider = l.GPUPolicyHash, l.KeyProvider
	}
	checks := rec.Checks()
	if !claim.OK(checks) {
		return Verified{}, checks, &claim.Rejection{Checks: checks, Genuine: rec.Passed(nitro.Genuine()...), Unverified: out}
	}
	return Verified{ok: true, claims: out}, checks, nil
}

// nitroRoots are the admitted keys that may stand for AWS Nitro: another vendor's
// pinned key stands for that vendor.
func (p Policy) nitroRoots() (spki [][32]byte) {
	for _, r := range p.Roots {
		switch p.platform(r.SPKI) {
		case cvm.PlatformNitro, cvm.PlatformSimulated, cvm.PlatformCustom:
			spki = append(spki, r.SPKI)
		}
	}
	return spki
}

// nitroReportData judges the request. That the document holds what the evidence
// states is the document's own check.
func (p Policy) nitroReportData(rec *claim.Recorder, ev Evidence) {
	switch {
	case p.ReportData != nil && p.AnyReportData:
		rec.Fail(claim.DocumentNonce, "", "", "the policy names report data and admits any")
	case p.ReportData == nil && !p.AnyReportData:
		rec.Fail(claim.DocumentNonce, "", "", "the policy names no report data")
	case p.ReportData != nil && *p.ReportData != ev.ReportData:
		rec.Fail(claim.DocumentNonce, hex.EncodeToString(p.ReportData[:8]), hex.EncodeToString(ev.ReportData[:8]), "the document was not made for this request")
	}
}
