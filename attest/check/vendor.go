package check

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// vendorRules is what is applied when nobody names a policy: every check of
// attest.Verify runs, and those that a policy decides decide nothing (see relax).
func vendorRules() attest.Policy {
	anything := attest.Values{Any: true}
	return attest.Policy{
		TCBStatus: []string{tdx.UpToDate, tdx.SWHardeningNeeded, tdx.ConfigNeeded, tdx.ConfigAndSWNeeded, tdx.OutOfDate, tdx.OutOfDateConfigNeeded},
		Phases:    []claim.Phase{claim.PhaseEarly, claim.PhaseRelease, claim.PhaseBooting, claim.PhaseRunning, claim.PhaseUnproven},
		TD: attest.TDPolicy{AnyMRSeam: true, MRConfigID: anything, MROwner: anything, MROwnerConfig: anything, MRServiceTD: anything,
			Attributes: tdx.SafeAttributes, XFAM: tdx.SafeXFAM},
		Image:         imageRules(),
		AnyReportData: true,
	}
}

func imageRules() measure.Policy {
	return measure.Policy{Variants: []string{measure.VariantLite, measure.VariantContainer}, AnyACPI: true}
}

// relax says of the checks that only a policy decides that they were not made. One
// that failed although everything is admitted found the evidence at odds with
// itself, which needs no policy, unless it is about the TD's launch or about an
// image that cannot be recomputed. The TD's attributes, if every policy admits them,
// stay passed. Without an event log in the evidence nothing can
// be replayed, and nothing is claimed from it.
func (r *run) relax(checks []claim.Check, found claim.Claims) []claim.Check {
	noLog := len(r.in.Evidence.EventLog) == 0 && len(r.in.Evidence.RuntimeEvents) == 0
	out := slices.Clone(checks)
	for i, c := range out {
		switch {
		case noLog && slices.Contains(claim.OfLog(), c.Name):
			out[i] = unmade(c, "the evidence brings no event log")
		case !claim.IsByPolicy(c.Name) || c.Verdict == claim.Skipped:
		case c.Name == claim.ReportData && r.policy.ReportData != nil: // somebody said what
		case c.Verdict == claim.Passed && c.Name != claim.TDDebug && c.Name != claim.TDAttributes && c.Name != claim.TDXFAM,
			c.Verdict == claim.Failed && slices.Contains(claim.OfTD(), c.Name),
			c.Verdict == claim.Failed && c.Name == claim.ImageMeasurement && !r.recomputes(found.Platform):
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
func (r *run) recomputes(p cvm.Platform) bool {
	res, err := measure.Expected(imageRules(), r.in.Evidence.Config, r.in.Evidence.EventLog)
	return err == nil && (res.Config.Variant != measure.VariantContainer || p == cvm.PlatformSimulated)
}

// ofCheck says which claims rest on which check beyond the quote itself.
func ofCheck() map[string][]string {
	return map[string][]string{
		claim.EventlogIdentity: {"app_id", "compose_hash", "instance_id", "gpu_policy_hash", "key_provider", "phase", "mr_system", "mr_boot"},
		claim.ImageMeasurement: {"os_image_hash", "vm_config"},
	}
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
			cvm.PlatformTDX: "a genuine Intel TDX machine", cvm.PlatformSEVSNP: "a genuine AMD SEV-SNP machine",
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
