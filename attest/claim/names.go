package claim

import (
	"slices"

	"github.com/confidential-cloud/phala/cvm"
)

// Names of the checks that a verification of TDX evidence makes, in the order in
// which they are made. They are stable: reports, ledger leaves and tests use them.
const (
	QuoteParse       = "quote.parse"
	PCKChain         = "pck.chain"
	RootAdmitted     = "root.admitted"
	QEReport         = "quote.qe-report"
	QuoteKey         = "quote.key"
	QuoteSignature   = "quote.signature"
	CollateralParse  = "collateral.parse"
	CollateralChain  = "collateral.chain"
	CollateralSigned = "collateral.signature"
	CollateralMatch  = "collateral.match"
	CollateralFresh  = "collateral.fresh"
	CRLFresh         = "crl.fresh"
	CRLRevoked       = "crl.revoked"
	QEIdentity       = "qe.identity"
	TDXModule        = "tdx.module"
	TCBMatch         = "tcb.match"
	TCBStatus        = "tcb.status"
	TCBAdvisories    = "tcb.advisories"
	CollateralFloor  = "collateral.floor"
	TDDebug          = "td.debug"
	TDAttributes     = "td.attributes"
	TDXFAM           = "td.xfam"
	TDModuleListed   = "td.mrseam"
	TDConfigID       = "td.mrconfigid"
	TDOwner          = "td.mrowner"
	TDOwnerConfig    = "td.mrownerconfig"
	TDService        = "td.mrservicetd"
	ReportData       = "reportdata"
	EventlogBoot     = "eventlog.boot"
	EventlogReplay   = "eventlog.replay"
	EventlogAgrees   = "eventlog.agrees"
	EventlogIdentity = "eventlog.identity"
	PhaseCheck       = "phase"
	ImageMeasurement = "image.measurement"
)

// About is what a person is told about a check.
type About struct {
	Name     string
	Title    string
	Fix      string // where to look when it fails
	Optional bool   // a failure still rejects; not having been made does not
}

// For lists every check of a verification of one TEE variant (cvm.Variant...) in order.
func For(variant string) []About {
	if variant == cvm.VariantSNP {
		return allSNP()
	}
	if o := other(variant); o != nil {
		return o
	}
	return All()
}

// All lists every check of a TDX verification in order.
func All() []About {
	return []About{
		{Name: QuoteParse, Title: "The quote is well formed", Fix: "the evidence is damaged or of another kind of TEE: fetch it again"},
		{Name: PCKChain, Title: "The processor's certificate chains to a root", Fix: "the quote's certificates are damaged, expired or not those of a TDX host"},
		{Name: RootAdmitted, Title: "The root is one this policy trusts", Fix: "compare the trust roots of the policy (or trust profile) with the machine's; a simulated TEE must be admitted by name"},
		{Name: QEReport, Title: "The processor vouches for its quoting enclave", Fix: "the quote was altered or forged"},
		{Name: QuoteKey, Title: "The quoting enclave vouches for the attestation key", Fix: "the attestation key was replaced: the quote is forged"},
		{Name: QuoteSignature, Title: "The attestation key signed this quote", Fix: "the quote was altered after it was made"},
		{Name: CollateralParse, Title: "The vendor's collateral is readable", Fix: "give the vendor's collateral with the evidence, or check the service (PCS, PCCS, KDS) it comes from"},
		{Name: CollateralChain, Title: "The collateral's signer chains to the same root", Fix: "the collateral comes from another vendor or signer: check the collateral service"},
		{Name: CollateralSigned, Title: "The vendor signed the collateral", Fix: "the collateral was altered on its way: check the collateral service"},
		{Name: CollateralMatch, Title: "The collateral is for this processor model", Fix: "the collateral service answered for another platform"},
		{Name: CollateralFresh, Title: "The collateral is in its period of validity", Fix: "refresh the collateral, and check this machine's clock"},
		{Name: CRLFresh, Title: "The revocation lists are genuine and current", Fix: "refresh the revocation lists, and check this machine's clock"},
		{Name: CRLRevoked, Title: "No certificate in the chain is revoked", Fix: "the vendor revoked this machine: do not use it"},
		{Name: QEIdentity, Title: "The quoting enclave is the vendor's", Fix: "the host runs a quoting enclave that the vendor does not list"},
		{Name: TDXModule, Title: "The TDX module is the vendor's", Fix: "the host runs a TDX module that the vendor does not list"},
		{Name: TCBMatch, Title: "The vendor rates this platform's patch level", Fix: "the platform is older than anything the vendor lists: update its firmware"},
		{Name: TCBStatus, Title: "The patch level is admitted", Fix: "update the host's firmware and TDX module, or admit this status in the policy"},
		{Name: TCBAdvisories, Title: "No advisory that the policy denies", Fix: "mitigate what the advisory names, or take it off the policy's list"},
		{Name: CollateralFloor, Title: "The vendor's statements have not gone back", Fix: "ask another collateral service: this one answers with statements older than ones already seen, or than the policy admits"},
		{Name: TDDebug, Title: "The VM cannot be debugged by the host", Fix: "start the VM without the debug attribute"},
		{Name: TDAttributes, Title: "The VM's attributes are safe", Fix: "start the VM with SEPT_VE_DISABLE and without reserved attributes"},
		{Name: TDXFAM, Title: "The VM's CPU features are safe", Fix: "start the VM with a plain CPU model"},
		{Name: TDModuleListed, Title: "The TDX module is one the policy admits", Fix: "compare the host's TDX module with the policy's list; a new module needs a newer list"},
		{Name: TDConfigID, Title: "MRCONFIGID is as the policy says", Fix: "the host launched the VM with another configuration id: look how it was started"},
		{Name: TDOwner, Title: "MROWNER is as the policy says", Fix: "the host set an owner: look how the VM was started"},
		{Name: TDOwnerConfig, Title: "MROWNERCONFIG is as the policy says", Fix: "the host set an owner configuration: look how the VM was started"},
		{Name: TDService, Title: "No service TD is bound to the VM", Fix: "a service TD (migration) could copy the VM's memory: start the VM without one"},
		{Name: ReportData, Title: "The evidence answers this request", Fix: "the quote was made for another key, nonce or connection: ask for a fresh one"},
		{Name: EventlogBoot, Title: "The firmware's log matches the boot registers", Fix: "the log was altered: the registers are what counts", Optional: true},
		{Name: EventlogReplay, Title: "The event log replays to the VM's register", Fix: "the log was altered, or belongs to another boot"},
		{Name: EventlogAgrees, Title: "Both copies of the event log agree", Fix: "the log was altered"},
		{Name: EventlogIdentity, Title: "The app's identity was measured once, in order", Fix: "the guest image does not measure as it must, or something extended the register before it was ready"},
		{Name: PhaseCheck, Title: "The boot has come as far as it must", Fix: "keys are released only to a boot that has started nothing; other proofs need a VM that is ready"},
		{Name: ImageMeasurement, Title: "The OS image is the one that was measured", Fix: "compare image and VM shape (CPU, memory) with what the host was told to start"},
	}
}

// Recorder collects the checks of one verification.
type Recorder struct {
	Variant string // cvm.Variant...; "" is TDX
	made    []record
}

// record is a Check before it is shown. Most checks pass, and have no more to say
// than what was found.
type record struct {
	name, got string
	more      *detail // nil when it passed
	skipped   bool
}

func (c *record) verdict() Verdict {
	switch {
	case c.more == nil:
		return Passed
	case c.skipped:
		return Skipped
	}
	return Failed
}

type detail struct{ want, reason string }

// Pass records a check that held; got is what was found, short and safe to show.
func (r *Recorder) Pass(name, got string) {
	r.set(record{name: name, got: got})
}

// Fail records a check that did not hold. Want and got may be empty. The first
// failure of a check stays.
func (r *Recorder) Fail(name, want, got, reason string) {
	r.set(record{name: name, got: got, more: &detail{want, reason}})
}

// Skip records why a check was not made.
func (r *Recorder) Skip(name, reason string) {
	r.set(record{name: name, skipped: true, more: &detail{reason: reason}})
}

// Try records err (nil passes) and reports whether the check passed.
func (r *Recorder) Try(name string, err error) bool {
	if err != nil {
		r.Fail(name, "", "", err.Error())
		return false
	}
	r.Pass(name, "")
	return true
}

func (r *Recorder) set(c record) {
	if old := r.find(c.name); old != nil {
		if old.verdict() != Failed {
			*old = c
		}
		return
	}
	if len(r.made) == cap(r.made) { // first for the vendor's checks, then for policy's
		r.made = slices.Grow(r.made, 16+len(r.made))
	}
	r.made = append(r.made, c)
}

func (r *Recorder) find(name string) *record {
	for i := range r.made {
		if r.made[i].name == name {
			return &r.made[i]
		}
	}
	return nil
}

// Passed reports whether all the named checks were made and passed.
func (r *Recorder) Passed(names ...string) bool {
	for _, n := range names {
		if c := r.find(n); c == nil || c.verdict() != Passed {
			return false
		}
	}
	return true
}

// Checks lists all checks in order with their titles. What was not made appears
// as skipped. A check is required unless it is optional and was not made: an
// optional check that failed rejects too.
func (r *Recorder) Checks() []Check {
	all := For(r.Variant)
	out := make([]Check, 0, len(all))
	for _, a := range all {
		c := Check{Name: a.Name, Title: a.Title, Verdict: Skipped, Reason: "an earlier check failed"}
		if m := r.find(a.Name); m != nil {
			c.Verdict, c.Got, c.Reason = m.verdict(), m.got, ""
			if m.more != nil {
				c.Want, c.Reason = m.more.want, m.more.reason
			}
		}
		c.Required = !a.Optional || c.Verdict == Failed
		if c.Verdict != Passed {
			c.Fix = a.Fix
		}
		out = append(out, c)
	}
	return out
}
