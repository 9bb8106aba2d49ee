package check

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// vendorRules is what is applied when nobody names a policy: every check of
// attest.Verify runs, and those that a policy decides decide nothing (see relax).
func vendorRules(set collateral.Set) attest.Policy {
	anything := attest.Values{Any: true}
	return attest.Policy{
		TCBStatus: []string{tdx.UpToDate, tdx.SWHardeningNeeded, tdx.ConfigNeeded, tdx.ConfigAndSWNeeded, tdx.OutOfDate, tdx.OutOfDateConfigNeeded},
		Phases:    []claim.Phase{claim.PhaseEarly, claim.PhaseRelease, claim.PhaseBooting, claim.PhaseRunning, claim.PhaseUnproven},
		TD: attest.TDPolicy{AnyMRSeam: true, MRConfigID: anything, MROwner: anything, MROwnerConfig: anything, MRServiceTD: anything,
			Attributes: tdx.SafeAttributes, XFAM: tdx.SafeXFAM},
		Image:         imageRules(),
		SNP:           snpRules(set),
		Nitro:         attest.NitroPolicy{MaxAge: maxDocumentAge, WithoutRevocation: set.AWS == nil, AnyImage: true},
		AnyReportData: true,
	}
}

// maxDocumentAge, in seconds, is beyond the life of the certificates that AWS gives
// its hypervisors, so that those decide.
const maxDocumentAge = 24 * 3600

func imageRules() measure.Policy {
	return measure.Policy{Variants: []string{measure.VariantLite, measure.VariantContainer}, AnyACPI: true}
}

// snpRules admits every product at every TCB: AMD rates none, and the verifier wants
// a minimum. A provider's VLEK is what the vendor signed it as.
func snpRules(set collateral.Set) attest.SNPPolicy {
	p := attest.SNPPolicy{Admit: true, Products: sevsnp.Products(), MinTCB: map[string]sevsnp.TCB{}, AnyMaskedChip: true, AnyProvisional: true,
		Measure: measure.SNPPolicy{Document: true}}
	for _, product := range p.Products {
		p.MinTCB[product] = sevsnp.TCB{SNP: 1}
	}
	if set.AMD != nil {
		if l, err := sevsnp.ParseLeaf(set.AMD.Leaf); err == nil && l.CSP != "" {
			p.CSPs = []string{l.CSP}
		}
	}
	return p
}

// relax says of the checks that only a policy decides that they were not made. One
// that failed although everything is admitted found the evidence at odds with
// itself, which needs no policy, unless it is about the launch or about an image that
// cannot be recomputed. Where the evidence brings no log or document, nothing can be
// compared with it, and nothing is claimed from it.
func (r *run) relax(checks []claim.Check, found claim.Claims) []claim.Check {
	ev, snp, nitro := r.in.Evidence, found.Variant == cvm.VariantSNP, isNitro(found.Variant)
	noLog := len(ev.EventLog) == 0 && len(ev.RuntimeEvents) == 0
	out := slices.Clone(checks)
	for i, c := range out {
		passed, failed := c.Verdict == claim.Passed, c.Verdict == claim.Failed
		switch {
		case noLog && claim.IsOfLog(c.Name):
			out[i] = unmade(c, "the evidence brings no event log")
		case noLog && !snp && c.Name == claim.PhaseCheck:
			out[i] = unmade(c, "the evidence brings no event log")
		case snp && ev.MRConfig == "" && (c.Name == claim.SNPHostData || c.Name == claim.SNPIdentity):
			out[i] = unmade(c, "the evidence brings no MrConfig document")
		case nitro && c.Name == claim.CRLRevoked && r.policy.Nitro.WithoutRevocation:
			out[i] = unmade(c, "no revocation lists came with the evidence")
		case (c.Name == claim.ReportData || c.Name == claim.DocumentNonce) && r.policy.ReportData != nil: // somebody said what
		case passed && (claim.IsByPolicy(c.Name) || snp && c.Name == claim.TCBMatch), failed && claim.IsOfLaunch(c.Name),
			failed && c.Name == claim.ImageMeasurement && !r.recomputes(found):
			out[i] = unmade(c, NoPolicy)
		}
	}
	return out
}

// unmade is a check that decides nothing. What it found stays in sight.
func unmade(c claim.Check, why string) claim.Check {
	if c.Reason != "" && why == NoPolicy {
		why += " (" + c.Reason + ")"
	}
	c.Verdict, c.Required, c.Reason, c.Fix = claim.Skipped, false, why, ""
	return c
}

// recomputes reports whether vm_config names an image whose registers can be
// computed without a policy, so that another result is a contradiction.
func (r *run) recomputes(found claim.Claims) bool {
	config := r.in.Evidence.Config
	if found.Variant == cvm.VariantSNP {
		return object("vm_config", []byte(config)).has("sev_snp_measurement")
	}
	res, err := measure.Expected(imageRules(), config, r.in.Evidence.EventLog)
	return err == nil && (res.Config.Variant != measure.VariantContainer || found.Platform == cvm.PlatformSimulated)
}

func isNitro(variant string) bool {
	return variant == claim.VariantNitroEnclave || variant == claim.VariantNitroTPM
}

// ofCheck says which claims rest on which check beyond the quote itself.
func ofCheck() map[string][]string {
	identity := []string{"app_id", "compose_hash", "instance_id", "gpu_policy_hash", "key_provider", "mr_system", "mr_aggregated", "mr_boot"}
	return map[string][]string{
		claim.EventlogIdentity: append([]string{"phase"}, identity...),
		claim.SNPIdentity:      identity,
		claim.ImageMeasurement: {"os_image_hash", "vm_config"},
	}
}

// ofTDX are the claims that a SEV-SNP report has no room for.
func ofTDX() []string {
	return []string{"mrtd", "rtmr", "mr_seam", "mr_config_id", "mr_owner", "mr_owner_config", "td_attributes", "xfam"}
}

// covered are the claims without those whose check was not made: a zero app id is
// not a claim.
func covered(c claim.Claims, checks []claim.Check) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	b, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil { // Claims are plain values
		return map[string]json.RawMessage{}
	}
	if c.Variant == cvm.VariantSNP {
		for _, k := range ofTDX() {
			delete(out, k)
		}
	}
	if isNitro(c.Variant) { // what the reference computes from PCRs is not known here
		for _, k := range append(ofTDX(), "mr_system", "mr_aggregated", "mr_boot", "vm_config") {
			delete(out, k)
		}
	}
	if c.Variant == claim.VariantNitroEnclave {
		for _, k := range ofCheck()[claim.SNPIdentity] {
			delete(out, k)
		}
	}
	for name, keys := range ofCheck() {
		if made(checks, name) != claim.Skipped {
			continue
		}
		for _, k := range keys {
			delete(out, k)
		}
	}
	return out
}

// summary is the verdict in one sentence.
func (r *run) summary() string {
	if r.rep.Verdict == Accepted {
		who := map[cvm.Platform]string{
			cvm.PlatformTDX: "a genuine Intel TDX machine", cvm.PlatformSEVSNP: "a genuine AMD SEV-SNP machine", cvm.PlatformNitro: "a hypervisor of AWS Nitro",
			cvm.PlatformSimulated: "a SIMULATED machine", cvm.PlatformCustom: "a machine under a CUSTOM root",
		}[cvm.Platform(r.rep.Platform)]
		if r.none {
			return "Verified by cryptography and the vendor's rules only (no policy): " + who + " made this evidence."
		}
		return "Verified: " + who + " made this evidence, and the policy admits it."
	}
	var bad []string
	for _, c := range r.rep.Checks {
		if c.Status == claim.Failed {
			bad = append(bad, c.Name)
		}
	}
	if len(bad) == 0 {
		return "Rejected: a required check could not be made."
	}
	return "Rejected: " + strings.Join(bad, ", ") + " failed."
}

// Names of policies.
const (
	policyStrict        = "strict"
	policyStrictRelease = "strict:release"
	policyStrictRunning = "strict:running"
)

// NamedPolicy is a policy by its name: "strict" (the same as "strict:release") is
// what the KMS asks of evidence before it releases keys, "strict:running" what it
// asks of a machine that runs. Both refuse unless Options.ReportData says what the
// evidence must answer.
func NamedPolicy(name string) (attest.Policy, error) {
	switch name {
	case policyStrict, policyStrictRelease:
		return attest.Strict(claim.PhaseRelease), nil
	case policyStrictRunning:
		return attest.Strict(claim.PhaseRunning), nil
	}
	return attest.Policy{}, cvm.Errorf(cvm.Invalid, "no policy is named %.40q", name).
		WithFix("the names are " + policyStrict + ", " + policyStrictRelease + " and " + policyStrictRunning)
}
