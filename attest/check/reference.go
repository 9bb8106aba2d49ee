package check

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// Beginnings of a Reply's reason, as the reference words them.
const (
	reasonQuote    = "Quote verification failed: "
	reasonImage    = "OS image hash verification failed: "
	reasonLog      = "Event log verification failed: "
	reasonInternal = "Internal error: "
)

// Unreadable is the reply to evidence that cannot be read.
func Unreadable(err error) Reply { return refusal(reasonInternal + err.Error()) }

// Unfetched is the reply where the vendor's collateral cannot be had.
func Unfetched(err error) Reply { return refusal(reasonQuote + err.Error()) }

func refusal(reason string) Reply {
	return Reply{Reason: &reason, Details: Details{AdvisoryIDs: []string{}}}
}

// Reference verifies by the rules of the reference's verifier: the vendor's, a TD
// that nobody can debug or migrate, RTMR3 replayed, the image recomputed with the
// ACPI tables of the log. The TCB status is told, not judged (Revoked fails); report
// data and phase are the caller's to judge.
func Reference(ev attest.Evidence, set collateral.Set, roots []attest.Root, at time.Time) Reply {
	if isNitro(ev.Variant) { // no image can be recomputed: nothing would say what runs
		return refusal(reasonQuote + "AWS Nitro is judged by a policy that names its images, and there is none here")
	}
	v, checks, err := attest.Verify(ev, set, referenceRules(set, roots), at)
	var found claim.Claims
	var rej *claim.Rejection
	if errors.As(err, &rej) {
		found = rej.Unverified
	} else if v.Valid() {
		found = v.Claims()
	}
	var bad [3][]claim.Check // of the quote, the image, the log
	for _, c := range checks {
		if c.Required && c.Verdict != claim.Passed {
			bad[part(c.Name)] = append(bad[part(c.Name)], c)
		}
	}
	rep := Reply{IsValid: v.Valid(), Details: Details{
		QuoteVerified: bad[ofQuote] == nil, OSImageHashVerified: bad[ofQuote] == nil && bad[ofImage] == nil,
		EventLogVerified: bad[ofQuote] == nil && bad[ofLog] == nil, AdvisoryIDs: []string{},
	}}
	for i, words := range []string{reasonQuote, reasonImage, reasonLog} {
		if bad[i] != nil && rep.Reason == nil {
			reason := words + explain(bad[i])
			rep.Reason = &reason
		}
	}
	rep.Details.fill(found, ev, rep.IsValid)
	return rep
}

// referenceRules are vendorRules, and what the reference refuses beyond them. What
// vendorRules relaxes afterwards counts here.
func referenceRules(set collateral.Set, roots []attest.Root) attest.Policy {
	p := vendorRules(set)
	p.Roots = roots
	p.TD.MRServiceTD = attest.Values{}
	p.SNP.Guest.Allow, p.SNP.Guest.PlatformAllow = []string{"smt", "cxl"}, []string{"smt", "tio"}
	return p
}

const (
	ofQuote = iota
	ofImage
	ofLog
)

// part says which of the reference's steps makes a check. Replaying the log is part
// of verifying the quote there.
func part(name string) int {
	switch name {
	case claim.ImageMeasurement:
		return ofImage
	case claim.EventlogIdentity, claim.EventlogAgrees, claim.EventlogBoot, claim.PhaseCheck, claim.SNPIdentity:
		return ofLog
	}
	return ofQuote
}

// explain names the failed checks, or, where none failed, those that were not made.
func explain(bad []claim.Check) string {
	var failed, skipped []string
	for _, c := range bad {
		text := c.Name
		if c.Reason != "" {
			text += ": " + c.Reason
		}
		if c.Verdict == claim.Failed {
			failed = append(failed, text)
		} else {
			skipped = append(skipped, text)
		}
	}
	if failed == nil {
		failed = skipped
	}
	return strings.Join(failed, "; ")
}

// fill tells what was proven.
func (d *Details) fill(c claim.Claims, ev attest.Evidence, valid bool) {
	if !d.QuoteVerified {
		return
	}
	rd := hex.EncodeToString(c.ReportData)
	d.TEEVariant, d.ReportData, d.TCBStatus = c.Variant, &rd, c.TCB.Status
	d.AdvisoryIDs = append(d.AdvisoryIDs, c.TCB.Advisories...)
	if !d.EventLogVerified {
		return
	}
	var p KeyProvider
	if c.KeyProvider != nil && json.Unmarshal(c.KeyProvider, &p) == nil {
		d.KeyProvider = &p
	}
	image := ""
	if d.OSImageHashVerified {
		image = c.OSImageHash.String()
	}
	a := AppInfo{
		AppID: c.AppID.String(), ComposeHash: c.ComposeHash.String(), DeviceID: c.DeviceID.String(), MRSystem: hex.EncodeToString(c.MRSystem[:]),
		MRAggregated: hex.EncodeToString(c.MRAggregated[:]), OSImageHash: image, KeyProviderInfo: hex.EncodeToString(c.KeyProvider), InitScriptHashes: []string{},
	}
	if !c.InstanceID.IsZero() {
		a.InstanceID = c.InstanceID.String()
	}
	if c.Variant == cvm.VariantTDX { // the events were replayed
		if l, err := eventlog.ReadLaunch(ev.RuntimeEvents); err == nil {
			for _, h := range l.InitScripts {
				a.InitScriptHashes = append(a.InitScriptHashes, hex.EncodeToString(h[:]))
			}
		}
	}
	d.AppInfo = &a
	if valid {
		d.BootInfo = &BootInfo{TEEVariant: c.Variant, MRAggregated: a.MRAggregated, OSImageHash: a.OSImageHash, MRSystem: a.MRSystem, AppID: a.AppID,
			ComposeHash: a.ComposeHash, InstanceID: a.InstanceID, DeviceID: a.DeviceID, KeyProviderInfo: a.KeyProviderInfo,
			TCBStatus: d.TCBStatus, AdvisoryIDs: slices.Clone(d.AdvisoryIDs)}
	}
}
