// Package check answers one question about one file of evidence: is it to be
// believed, and by which rules? It is what `phala evidence check`, the reference's
// POST /verify and the browser package (templates/web-verifier) share. Parse reads
// the forms that evidence comes in; Run verifies by attest.Verify and says what it
// found. Like attest, it knows no network and no clock.
//
// Without a policy Run applies cryptography and the vendor's rules only, and its
// report says so: "verified" then means that such a machine made this evidence, not
// that it is the app, image, phase or request that somebody expects.
package check

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/composite"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

// Options are what the one who asks says. They win over what the evidence's file
// says of the same.
type Options struct {
	Now        time.Time  // the time of asking; it counts where nobody names another
	At         time.Time  // verify at this time; zero: the file's, else Now
	Roots      [][32]byte // sha256 of the keys of the only roots to admit; nil: see Run
	Policy     *attest.Policy
	Parts      []composite.Rule // of Policy: what must stand beside the CPU's evidence
	PolicyName string           // what the report calls Policy
	Collateral *collateral.Set  // nil: the file's
	ReportData *[64]byte        // what the evidence must answer
}

// Verdicts of a report.
const (
	Accepted = "verified"
	Rejected = "rejected"
)

// Report is the answer. Its JSON is the tool contract of `phala evidence check`.
type Report struct {
	Verdict    string   `json:"verdict"`  // Accepted or Rejected
	Platform   string   `json:"platform"` // tdx, sev-snp, simulated, custom; unknown: no admitted root
	TCBStatus  string   `json:"tcb_status"`
	Advisories []string `json:"advisories"`
	Checks     []Check  `json:"checks"`
	// Parts is what the devices beside the CPU proved; none when rejected.
	Parts []composite.Sub `json:"parts,omitempty"`
	// Claims are those of claim.Claims that the checks made cover; none when rejected.
	Claims map[string]json.RawMessage `json:"claims"`

	Summary string    `json:"summary"` // one sentence for a person
	Policy  string    `json:"policy"`  // "none", "file", or the name of the caller's
	At      time.Time `json:"at"`
	Notes   []string  `json:"notes"` // what a person must know before resting on the verdict
}

// Check is one check of a report.
type Check struct {
	Name   string        `json:"check"`
	Title  string        `json:"title"`
	Status claim.Verdict `json:"status"`
	Want   string        `json:"want"`
	Got    string        `json:"got"`
	Hint   string        `json:"hint"` // why it did not pass, and where to look
}

// Verified reports whether the verdict is Accepted.
func (r Report) Verified() bool { return r.Verdict == Accepted }

// NoPolicy is the hint of checks that only a policy could decide.
const NoPolicy = "no policy"

// run is one verification.
type run struct {
	in     Input
	o      Options
	rep    Report
	policy attest.Policy
	parts  []composite.Rule
	none   bool // no policy was given: vendor rules only
}

// Run verifies. Which roots are admitted: o.Roots if there are any; else those that
// the policy lists; else, but for a policy of the caller's, the one that the file names;
// else, without a policy, the pinned vendors'. A root that the caller's policy does not list and that no vendor's key
// is pinned for makes the platform custom.
//
// An error (code invalid) says that the file's policy cannot be read; whatever else
// is wrong with the evidence is in the report.
func Run(in Input, o Options) (Report, error) {
	r := &run{in: in, o: o, rep: Report{Verdict: Rejected, Policy: "none", At: o.Now, Advisories: []string{}, Notes: []string{}, Claims: map[string]json.RawMessage{}}}
	set := collateral.Set{}
	switch {
	case o.Collateral != nil:
		set = *o.Collateral
	case in.Collateral != nil:
		set = *in.Collateral
	default:
		r.note("there is no collateral: give it with the evidence or beside it")
	}
	if err := r.choosePolicy(set); err != nil {
		return Report{}, err
	}
	r.chooseRoots()
	r.chooseReportData()
	r.chooseTime()
	v, checks, err := r.verify(set)
	if cvm.CodeOf(err) == cvm.Invalid {
		return Report{}, err
	}
	r.judge(v, checks, err)
	return r.rep, nil
}

// verify asks for what the policy names: a CPU's evidence alone, or with parts.
func (r *run) verify(set collateral.Set) (attest.Verified, []claim.Check, error) {
	if len(r.parts) == 0 {
		v, checks, err := attest.Verify(r.in.Evidence, set, r.policy, r.rep.At)
		return v, append(checks, composite.Unexpected(r.in.Parts)...), err
	}
	res, checks, err := composite.Verify(composite.Evidence{CPU: r.in.Evidence, Parts: r.in.Parts}, set, composite.Policy{CPU: r.policy, Parts: r.parts}, r.rep.At)
	r.rep.Parts = res.Parts
	return res.CPU, checks, err
}

func (r *run) note(s string) { r.rep.Notes = append(r.rep.Notes, s) }

func (r *run) choosePolicy(set collateral.Set) error {
	switch {
	case r.o.Policy != nil:
		r.policy, r.parts, r.rep.Policy = *r.o.Policy, r.o.Parts, r.o.PolicyName
	case r.in.Policy != nil:
		p, err := composite.ParsePolicy(r.in.Policy)
		if err != nil {
			return err
		}
		r.policy, r.parts, r.rep.Policy = ownRoots(p.CPU), p.Parts, "file"
		r.note("the policy is the file's own: it says what its author admits, roots of parts too")
	default:
		r.policy, r.none = vendorRules(set), true
		r.note("no policy was given: cryptography and the vendor's rules only; which app, image, phase or request this is was not judged")
	}
	return nil
}

// ownRoots takes away what a file may not say: that a root is anything but a pinned
// vendor's or custom.
func ownRoots(p attest.Policy) attest.Policy {
	roots := make([]attest.Root, 0, len(p.Roots))
	for _, r := range p.Roots {
		roots = append(roots, Named(r.SPKI))
	}
	p.Roots = roots
	return p
}

// Named is the root of a key that somebody named: a pinned vendor's, else custom.
func Named(spki [32]byte) attest.Root {
	for _, r := range Pinned() {
		if r.SPKI == spki {
			return r
		}
	}
	return attest.Root{SPKI: spki, Platform: cvm.PlatformCustom}
}

// Pinned are the roots of the hardware vendors.
func Pinned() []attest.Root {
	return slices.Concat(attest.IntelRoots(), attest.AMDRoots(), attest.AWSRoots())
}

func (r *run) chooseRoots() {
	switch {
	case r.o.Roots != nil:
		r.policy.Roots = nil
		for _, spki := range r.o.Roots {
			r.policy.Roots = append(r.policy.Roots, r.callers(spki))
		}
	case len(r.policy.Roots) != 0:
		if r.in.Root != nil && !lists(r.policy.Roots, *r.in.Root) {
			r.note("the file names a root that the policy does not list: it is not admitted")
		}
	case r.o.Policy != nil: // what it leaves out, a file may not fill in
		r.note("the policy lists no root: nothing is admitted")
	case r.in.Root != nil:
		r.policy.Roots = []attest.Root{Named(*r.in.Root)}
		if r.policy.Roots[0].Platform == cvm.PlatformCustom {
			r.note("the root is the one that the file itself names: nothing says whose it is")
		}
	case r.none:
		r.policy.Roots = Pinned()
	}
}

// callers is a root that the caller named; the caller's own policy may say that it
// is a simulated machine's.
func (r *run) callers(spki [32]byte) attest.Root {
	if r.o.Policy != nil {
		for _, x := range r.o.Policy.Roots {
			if x.SPKI == spki {
				return x
			}
		}
	}
	return Named(spki)
}

func lists(roots []attest.Root, spki [32]byte) bool {
	for _, r := range roots {
		if r.SPKI == spki {
			return true
		}
	}
	return false
}

// chooseReportData binds the evidence to what it must answer: the caller's value,
// or the key of the certificate that carries it.
func (r *run) chooseReportData() {
	want := r.o.ReportData
	if c := r.in.Certificate; c != nil && want == nil {
		rd := ratls.ReportData(c.RawSubjectPublicKeyInfo)
		want = &rd
	}
	if want != nil {
		r.policy.ReportData, r.policy.AnyReportData = want, false
	}
}

func (r *run) chooseTime() {
	switch {
	case !r.o.At.IsZero():
		r.rep.At = r.o.At
	case !r.in.At.IsZero():
		r.rep.At = r.in.At
		r.note("the time is the one that the file names: what was revoked or ended since is not seen")
	}
	r.rep.At = r.rep.At.UTC()
}

// judge turns what attest.Verify found into the report.
func (r *run) judge(v attest.Verified, checks []claim.Check, err error) {
	var found claim.Claims
	var rej *claim.Rejection
	if errors.As(err, &rej) {
		found = rej.Unverified
	} else if v.Valid() {
		found = v.Claims()
	}
	if r.none {
		checks = r.relax(checks, found)
	}
	ok := claim.OK(checks)
	for _, c := range checks {
		r.rep.Checks = append(r.rep.Checks, row(c))
	}
	if ok && r.certificate() {
		r.rep.Verdict = Accepted
		r.rep.Claims = covered(found, checks)
	} else {
		r.rep.Parts = nil
	}
	r.rep.Platform = cvm.Platform("").String()
	if made(checks, claim.RootAdmitted) == claim.Passed {
		r.rep.Platform, r.rep.TCBStatus = found.Platform.String(), found.TCB.Status
		r.rep.Advisories = append(r.rep.Advisories, found.TCB.Advisories...)
	}
	if r.in.noChain {
		r.note("pck_certificate_chain is not used: the quote's own chain is what counts")
	}
	if r.none && found.Variant == cvm.VariantSNP {
		r.rep.TCBStatus = "" // by the least TCB there is, to which everything is up to date
		r.note("AMD rates no patch level: what is admitted is a policy's minimum TCB")
	}
	r.warn(found)
	r.rep.Summary = r.summary()
}

func made(checks []claim.Check, name string) claim.Verdict {
	for _, c := range checks {
		if c.Name == name {
			return c.Verdict
		}
	}
	return ""
}

func row(c claim.Check) Check {
	hint := c.Reason
	if c.Fix != "" && c.Verdict == claim.Failed {
		if hint != "" {
			hint += ". "
		}
		hint += c.Fix
	}
	return Check{Name: c.Name, Title: c.Title, Status: c.Verdict, Want: c.Want, Got: c.Got, Hint: hint}
}

// certificatePeriod is the check of a certificate that carries evidence.
const certificatePeriod = "certificate.period"

// certificate checks the period of the certificate that carries the evidence. Its
// issuer is not checked: the evidence vouches for the key, by report data.
func (r *run) certificate() bool {
	c := r.in.Certificate
	if c == nil {
		return true
	}
	r.note("of the certificate, its key and period were checked; its issuer, names and APP_ID are worth what its issuer is worth")
	x := Check{Name: certificatePeriod, Title: "The certificate is in its period of validity", Status: claim.Passed,
		Got: c.NotBefore.UTC().Format(time.RFC3339) + " to " + c.NotAfter.UTC().Format(time.RFC3339)}
	if r.rep.At.Before(c.NotBefore) || r.rep.At.After(c.NotAfter) {
		x.Status, x.Hint = claim.Failed, "ask for a new certificate, and check this machine's clock"
		x.Want = r.rep.At.Format(time.RFC3339)
	}
	r.rep.Checks = append(r.rep.Checks, x)
	return x.Status == claim.Passed
}

// warn says what a "verified" does not.
func (r *run) warn(found claim.Claims) {
	switch cvm.Platform(r.rep.Platform) {
	case cvm.PlatformSimulated:
		r.note("SIMULATED TEE: no hardware stands behind this evidence")
	case cvm.PlatformCustom:
		r.note("CUSTOM ROOT: no pinned hardware vendor stands behind this evidence")
	case cvm.PlatformNitro:
		r.note("AWS NITRO: a hypervisor of AWS's stands behind this evidence, and no processor vendor")
	}
	if r.none && found.Debug {
		r.note("DEBUG: the host can read and change this VM's memory; every policy refuses it")
	}
}

// ReadReportData reads 64 bytes in hex.
func ReadReportData(s string) (*[64]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 64 {
		return nil, cvm.Errorf(cvm.Invalid, "report data: want 128 hex digits").WithReason("evidence-input")
	}
	return (*[64]byte)(b), nil
}
