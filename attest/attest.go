// Package attest decides whether evidence is to be believed. ParseEvidence reads
// foreign bytes and trusts nothing; Verify takes evidence, collateral, a policy
// and a time, and gives Verified or a *claim.Rejection with every check that was
// made. It needs no network and no clock, so that a past decision can be replayed;
// collateral comes from attest/fetch.
//
// Absence of policy is refusal: the zero Policy accepts nothing.
package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// Verified is evidence that passed a policy. Only Verify makes one.
type Verified struct {
	ok     bool
	claims claim.Claims
}

// Claims says what was verified. It panics on the zero Verified, which no
// verification made.
func (v Verified) Claims() claim.Claims {
	if !v.ok {
		panic("attest: zero Verified used")
	}
	return v.claims
}

// Valid reports whether a verification made v.
func (v Verified) Valid() bool { return v.ok }

// Verify checks everything and returns every check it made, in the order of
// claim.For. A non-nil error is a *claim.Rejection. It remembers nothing; a
// Verifier does the same, faster.
func Verify(ev Evidence, c collateral.Set, p Policy, at time.Time) (Verified, []claim.Check, error) {
	return (*Verifier)(nil).Verify(ev, c, p, at)
}

func (v *Verifier) verifyTDX(ev Evidence, c collateral.Set, p Policy, at time.Time) (Verified, []claim.Check, error) {
	rec := &claim.Recorder{}
	res := v.tdx.Verify(ev.Quote, c, p.admits, at, rec)
	out := claim.Claims{Variant: cvm.VariantTDX, CheckedAt: at, Expires: res.Expires, TCB: res.TCB, VMConfig: ev.Config}
	if res.PCK != nil {
		out.RootSPKI = hex.EncodeToString(res.RootSPKI[:])
		out.Platform = p.platform(res.RootSPKI)
		out.DeviceID = res.PCK.DeviceID()
		out.PPID = hex.EncodeToString(res.PCK.PPID)
		out.FMSPC = hex.EncodeToString(res.PCK.FMSPC[:])
	}
	p.tcb(rec, res.TCB, res.Marks)
	var unseen []byte
	var r *replayed
	if q := res.Quote; q != nil {
		r, unseen = v.replayed(ev)
		fromBody(&out, &q.Body)
		p.reportData(rec, ev, q.Body.ReportData)
		p.eventLog(rec, &out, ev, r, &q.Body)
		p.TD.td(rec, q.Body, out.ComposeHash)
		p.image(rec, &out, ev, r, &q.Body)
	}
	checks := rec.Checks()
	if !claim.OK(checks) {
		return Verified{}, checks, &claim.Rejection{Checks: checks, Genuine: rec.Passed(tdx.Genuine()...), Unverified: out}
	}
	if unseen != nil {
		v.logs.Put(r, unseen)
	}
	return Verified{ok: true, claims: out}, checks, nil
}

func fromBody(out *claim.Claims, b *tdx.Body) {
	out.Debug = b.Debug()
	out.MRTD, out.RTMR, out.MRSeam = b.MRTD, b.RTMR, b.MRSeam
	out.MRConfigID, out.MROwner, out.MROwnerConfig = b.MRConfigID, b.MROwner, b.MROwnerConfig
	out.TDAttributes, out.XFAM = b.TDAttributes, b.XFAM
	out.ReportData = append([]byte{}, b.ReportData[:]...)
}

// eventLog compares what the log replays to with the registers and reads the
// launch identity.
func (p Policy) eventLog(rec *claim.Recorder, out *claim.Claims, ev Evidence, r *replayed, b *tdx.Body) {
	bootLog(rec, r, b)
	rec.Try(claim.EventlogAgrees, r.agrees)
	switch {
	case r.failed != nil:
		rec.Fail(claim.EventlogReplay, "", "", r.failed.Error())
		return
	case r.rtmr3 != b.RTMR[3]:
		rec.Fail(claim.EventlogReplay, short(b.RTMR[3]), short(r.rtmr3), "RTMR3 does not replay")
		return
	}
	rec.Pass(claim.EventlogReplay, fmt.Sprintf("%d events", len(ev.RuntimeEvents)))
	l, err := eventlog.ReadLaunch(ev.RuntimeEvents)
	if !rec.Try(claim.EventlogIdentity, err) {
		return
	}
	if !slices.Contains(p.Phases, l.Phase) {
		rec.Fail(claim.PhaseCheck, fmt.Sprintf("one of %q", p.Phases), string(l.Phase), "the policy does not admit this phase of the boot")
	} else {
		rec.Pass(claim.PhaseCheck, string(l.Phase))
	}
	fromLaunch(out, l, r)
}

// bootLog compares the firmware's log, where the evidence carries it, with the
// registers. Short forms do not carry it: the registers are what is judged.
func bootLog(rec *claim.Recorder, r *replayed, b *tdx.Body) {
	made := 0
	for i, mr := range r.boot {
		if !r.carried[i] {
			continue
		}
		made++
		if mr != b.RTMR[i] {
			rec.Fail(claim.EventlogBoot, short(b.RTMR[i]), short(mr), fmt.Sprintf("RTMR%d does not replay", i))
		}
	}
	if made == 0 {
		rec.Skip(claim.EventlogBoot, "the evidence does not carry the firmware's log")
		return
	}
	rec.Pass(claim.EventlogBoot, fmt.Sprintf("%d registers", made))
}

func fromLaunch(out *claim.Claims, l eventlog.Launch, r *replayed) {
	out.Phase = l.Phase
	out.AppID, out.ComposeHash, out.InstanceID = l.AppID, l.ComposeHash, l.InstanceID
	out.GPUPolicyHash, out.KeyProvider = l.GPUPolicyHash, l.KeyProvider
	var provider [32]byte
	if l.KeyProvider != nil {
		provider = sha256.Sum256(l.KeyProvider)
	}
	out.MRSystem = hash(out.MRTD[:], out.RTMR[0][:], out.RTMR[1][:], out.RTMR[2][:], provider[:])
	out.MRAggregated = aggregated(out, out.RTMR[3])
	if l.BootEvents > 0 {
		out.MRBoot = aggregated(out, r.atBoot)
	}
}

// aggregated is the reference's mr_aggregated (dstack-core A.5).
func aggregated(c *claim.Claims, rtmr3 cvm.Measurement) [32]byte {
	parts := [8][]byte{c.MRTD[:], c.RTMR[0][:], c.RTMR[1][:], c.RTMR[2][:], rtmr3[:], c.MRConfigID[:], c.MROwner[:], c.MROwnerConfig[:]}
	var none cvm.Measurement
	if c.MRConfigID == none && c.MROwner == none && c.MROwnerConfig == none {
		return hash(parts[:5]...)
	}
	return hash(parts[:]...)
}

func hash(parts ...[]byte) (sum [32]byte) {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// image recomputes MRTD and RTMR0-2 from vm_config; only then is the image hash a claim.
func (p Policy) image(rec *claim.Recorder, out *claim.Claims, ev Evidence, r *replayed, b *tdx.Body) {
	want, err := measure.Result{}, r.unread
	if err == nil {
		want, err = r.config.Expected(p.Image, ev.EventLog)
	}
	if err != nil {
		rec.Fail(claim.ImageMeasurement, "", "", err.Error())
		return
	}
	if out.Platform == "" {
		rec.Skip(claim.ImageMeasurement, "the root is not admitted")
		return
	}
	if want.Config.Variant == measure.VariantContainer && out.Platform != cvm.PlatformSimulated {
		rec.Fail(claim.ImageMeasurement, string(cvm.PlatformSimulated), out.Platform.String(), "the container variant is for the simulated platform only")
		return
	}
	got := measure.Registers{MRTD: b.MRTD, RTMR: [3]cvm.Measurement(b.RTMR[:3])}
	if name, w, g := differs(want.Registers, got); name != "" {
		why := name + " is not what this image and VM shape give"
		if rec.Passed(claim.QuoteSignature) { // strangers get no work from us
			why = measure.Words(measure.Explain(p.Image, want, ev.EventLog, got))
		}
		rec.Fail(claim.ImageMeasurement, short(w), short(g), why)
		return
	}
	note := "image " + want.Config.OSImageHash.String()[:16]
	if want.ACPIUnchecked {
		note += ", ACPI tables unchecked"
	}
	rec.Pass(claim.ImageMeasurement, note)
	out.OSImageHash = want.Config.OSImageHash
}

func differs(want, got measure.Registers) (name string, w, g cvm.Measurement) {
	if want.MRTD != got.MRTD {
		return "MRTD", want.MRTD, got.MRTD
	}
	for i := range want.RTMR {
		if want.RTMR[i] != got.RTMR[i] {
			return fmt.Sprintf("RTMR%d", i), want.RTMR[i], got.RTMR[i]
		}
	}
	return "", w, g
}

func short(m cvm.Measurement) string { return m.String()[:16] + "..." }
