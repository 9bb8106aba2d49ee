package attest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// Policy is what a relying party admits. The zero Policy accepts nothing: what a
// field does not admit is refused. ParsePolicy reads its JSON form.
type Policy struct {
	Roots     []Root   // admitted trust roots
	TCBStatus []string // admitted merged statuses, for example "UpToDate"
	// DenyAdvisories names vendor advisories ("INTEL-SA-00615") that refuse a platform
	// although its status is admitted.
	DenyAdvisories []string
	// MinEvalNumber is the lowest admitted evaluation data number of TCB info and QE
	// identity; 0 sets no minimum of one's own.
	MinEvalNumber int
	// Floor refuses collateral that says less than collateral seen before.
	Floor         collateral.Floor
	ReportData    *[64]byte // nil is refused unless AnyReportData
	AnyReportData bool
	Phases        []claim.Phase
	TD            TDPolicy
	Image         measure.Policy
	SNP           SNPPolicy   // what of SEV-SNP is admitted; the zero value admits none
	Nitro         NitroPolicy // what of AWS Nitro is admitted; the zero value admits none
}

// TDPolicy says what a TDX TD may be. No policy admits debug, a cleared
// SEPT_VE_DISABLE, or bits that TDX modules do not define.
type TDPolicy struct {
	// MRSeam lists the measurements of admitted TDX modules; empty refuses, unless
	// AnyMRSeam leaves the choice to the vendor's rating alone.
	MRSeam    []cvm.Measurement
	AnyMRSeam bool
	// What the host writes at launch. MRConfigID may also admit App.
	MRConfigID    Values
	MROwner       Values
	MROwnerConfig Values
	MRServiceTD   Values // TD 1.5 bodies only: a service TD may copy the VM's memory
	Attributes    uint64 // TDATTRIBUTES bits that may be set
	XFAM          uint64 // extended CPU features that may be on
}

// Values says what one register may hold. The zero Values admits zero only.
type Values struct {
	Any bool
	// App admits zero, and the reference's form that names the compose hash that the
	// event log measured (MRCONFIGID version 1). For MRCONFIGID only.
	App bool
	// Of lists the admitted values. A list that is not nil and empty is an error: it
	// is a value that somebody forgot to fill in.
	Of []cvm.Measurement
}

// StrictTD admits a TD as a host should start it, of any TDX module that the
// vendor rates: no service TD, no owner, MRCONFIGID empty or bound to the app.
func StrictTD() TDPolicy {
	return TDPolicy{AnyMRSeam: true, MRConfigID: Values{App: true}, Attributes: tdx.SafeAttributes, XFAM: tdx.SafeXFAM}
}

// Strict is what the KMS applies where nothing else is configured: genuine TDX,
// fully patched, of the lite image variant, in one phase. Report data is left to
// the caller: without it the policy refuses.
func Strict(phase claim.Phase) Policy {
	return Policy{
		Roots: IntelRoots(), TCBStatus: []string{tdx.UpToDate}, Phases: []claim.Phase{phase},
		TD: StrictTD(), Image: measure.Policy{Variants: []string{measure.VariantLite}},
	}
}

// Validate reports every contradiction, and every expected value that is
// configured empty. A policy that merely admits nothing is valid.
func (p Policy) Validate() error {
	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "policy: "+format, args...))
		}
	}
	bad(p.ReportData != nil && p.AnyReportData, "report_data: both a value and any")
	bad(p.MinEvalNumber < 0, "min_eval_number: %d", p.MinEvalNumber)
	bad(slices.Contains(p.TCBStatus, tdx.Revoked), "tcb_status: %s cannot be admitted", tdx.Revoked)
	bad(p.TD.AnyMRSeam && len(p.TD.MRSeam) != 0, "td.mr_seam: both a list and any")
	bad(p.TD.MRSeam != nil && len(p.TD.MRSeam) == 0, "td.mr_seam: an empty list")
	bad(p.Nitro.MaxAge < 0, "nitro.max_age: %d", p.Nitro.MaxAge)
	bad(p.Nitro.AnyImage && p.Nitro.Images != nil, "nitro.images: both a list and any")
	bad(p.Nitro.Images != nil && len(p.Nitro.Images) == 0, "nitro.images: an empty list")
	for _, r := range p.TD.registers() {
		if err := r.admit.validate(r.name == regConfigID); err != nil {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "policy: td.%s: %w", r.name, err))
		}
	}
	for _, r := range p.Roots {
		bad(p.platform(r.SPKI) == "", "roots: %s is not %q", hex.EncodeToString(r.SPKI[:8]), r.Platform)
	}
	return errors.Join(errs...)
}

func (v Values) validate(app bool) error {
	switch {
	case v.Of != nil && len(v.Of) == 0:
		return errors.New("an expected value is configured and empty")
	case v.Any && (v.App || v.Of != nil):
		return errors.New("both any and a value")
	case v.App && !app:
		return errors.New("only MRCONFIGID can name the app")
	}
	return nil
}

// Names of the registers that a host fills at launch.
const (
	regConfigID    = "mr_config_id"
	regOwner       = "mr_owner"
	regOwnerConfig = "mr_owner_config"
	regServiceTD   = "mr_service_td"
)

type register struct {
	name  string
	admit Values
}

func (p TDPolicy) registers() [4]register {
	return [4]register{{regConfigID, p.MRConfigID}, {regOwner, p.MROwner}, {regOwnerConfig, p.MROwnerConfig}, {regServiceTD, p.MRServiceTD}}
}

// admits says which roots may stand for TDX: not another vendor's.
func (p Policy) admits(spki [32]byte) bool {
	switch p.platform(spki) {
	case cvm.PlatformTDX, cvm.PlatformSimulated, cvm.PlatformCustom:
		return true
	}
	return false
}

// platform is what an admitted root stands for. Genuine platforms come from
// pinned keys alone, whatever a policy says; a policy that calls another root
// genuine is not believed, and a root without a platform is not admitted.
func (p Policy) platform(spki [32]byte) cvm.Platform {
	for _, r := range p.Roots {
		if r.SPKI != spki {
			continue
		}
		switch vendor := genuine(spki); {
		case vendor != "" && r.Platform == vendor:
			return vendor
		case vendor != "":
			return "" // a vendor's key under another name: a mistake in the policy
		case r.Platform == cvm.PlatformSimulated || r.Platform == cvm.PlatformCustom:
			return r.Platform
		}
	}
	return ""
}

// tcb judges the vendor's rating: status, advisories, and how old the statements
// may be.
func (p Policy) tcb(rec *claim.Recorder, t claim.TCB, marks collateral.Floor) {
	if t.Status == "" {
		rec.Skip(claim.TCBStatus, "the platform could not be rated")
		rec.Skip(claim.TCBAdvisories, "the platform could not be rated")
	} else {
		p.status(rec, t)
	}
	if marks == nil {
		rec.Skip(claim.CollateralFloor, "the collateral was not verified")
		return
	}
	if t.EvalNumber < p.MinEvalNumber || t.QEEvalNumber < p.MinEvalNumber {
		rec.Fail(claim.CollateralFloor, fmt.Sprintf("at least %d", p.MinEvalNumber), fmt.Sprintf("TCB info %d, QE identity %d", t.EvalNumber, t.QEEvalNumber),
			"the collateral rests on an older evaluation than the policy admits")
		return
	}
	rec.Try(claim.CollateralFloor, p.Floor.Check(marks))
}

func (p Policy) status(rec *claim.Recorder, t claim.TCB) {
	if t.Status == tdx.Revoked || !slices.Contains(p.TCBStatus, t.Status) {
		rec.Fail(claim.TCBStatus, fmt.Sprintf("one of %q", p.TCBStatus), t.Status, "the policy does not admit this TCB status")
	} else {
		rec.Pass(claim.TCBStatus, t.Status)
	}
	for _, a := range t.Advisories {
		if slices.Contains(p.DenyAdvisories, a) {
			rec.Fail(claim.TCBAdvisories, "", a, "the policy denies platforms under this advisory")
			return
		}
	}
	rec.Pass(claim.TCBAdvisories, "")
}

// td judges what the host launched the TD with. compose is the measured compose
// hash; zero when the log did not replay.
func (p TDPolicy) td(rec *claim.Recorder, b tdx.Body, compose cvm.ComposeHash) {
	tdx.CheckTD(b, p.Attributes, p.XFAM, rec)
	switch {
	case p.MRSeam != nil && (p.AnyMRSeam || len(p.MRSeam) == 0):
		rec.Fail(claim.TDModuleListed, "", "", "the policy's list of TDX modules is empty, or stands beside any")
	case p.AnyMRSeam:
		rec.Pass(claim.TDModuleListed, "any")
	case slices.Contains(p.MRSeam, b.MRSeam):
		rec.Pass(claim.TDModuleListed, short(b.MRSeam))
	default:
		rec.Fail(claim.TDModuleListed, fmt.Sprintf("one of %d listed", len(p.MRSeam)), short(b.MRSeam), "the policy does not list this TDX module")
	}
	for i, r := range p.registers() {
		got := [4]cvm.Measurement{b.MRConfigID, b.MROwner, b.MROwnerConfig, b.MRServiceTD}[i]
		check := [4]string{claim.TDConfigID, claim.TDOwner, claim.TDOwnerConfig, claim.TDService}[i]
		r.admit.judge(rec, check, got, compose, r.name == regConfigID)
	}
}

func (v Values) judge(rec *claim.Recorder, check string, got cvm.Measurement, compose cvm.ComposeHash, app bool) {
	var none cvm.Measurement
	if err := v.validate(app); err != nil {
		rec.Fail(check, "", "", "the policy is wrong: "+err.Error())
		return
	}
	switch {
	case v.Any:
		rec.Pass(check, "any")
	case slices.Contains(v.Of, got):
		rec.Pass(check, short(got))
	case v.Of == nil && got == none:
		rec.Pass(check, "zero")
	case v.App && compose != (cvm.ComposeHash{}) && got == configOf(compose):
		rec.Pass(check, "the app's")
	case v.App:
		rec.Fail(check, "zero, or "+short(configOf(compose)), short(got), "the host launched the VM for another app than the one that was measured")
	case v.Of == nil:
		rec.Fail(check, "zero", short(got), "the host set this register, and the policy does not say to what")
	default:
		rec.Fail(check, fmt.Sprintf("one of %d listed", len(v.Of)), short(got), "the policy does not admit this value")
	}
}

// configOf is version 1 of the reference's MRCONFIGID: 01, the compose hash, zeros.
func configOf(h cvm.ComposeHash) (m cvm.Measurement) {
	m[0] = 1
	copy(m[1:], h[:])
	return m
}

func (p Policy) reportData(rec *claim.Recorder, ev Evidence, quoted [64]byte) {
	switch {
	case ev.ReportData != quoted:
		rec.Fail(claim.ReportData, hex.EncodeToString(quoted[:8]), hex.EncodeToString(ev.ReportData[:8]), "the evidence states other report data than the quote")
	case p.ReportData != nil && p.AnyReportData:
		rec.Fail(claim.ReportData, "", "", "the policy names report data and admits any")
	case p.ReportData != nil && quoted != *p.ReportData:
		rec.Fail(claim.ReportData, hex.EncodeToString(p.ReportData[:8]), hex.EncodeToString(quoted[:8]), "the quote was not made for this request")
	case p.ReportData == nil && !p.AnyReportData:
		rec.Fail(claim.ReportData, "", "", "the policy names no report data")
	case p.ReportData == nil:
		rec.Pass(claim.ReportData, "any")
	default:
		rec.Pass(claim.ReportData, "")
	}
}
