package attest_test

import (
	"context"
	"math/big"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

func tdRefusals() []refusal {
	attrs := func(a uint64) func(*scene) { return func(s *scene) { s.boot.Attributes = a } }
	return []refusal{
		{"31 debug", attrs(simtee.DefaultAttributes | simtee.AttributeDebug), nil, true, []string{claim.TDDebug}},
		{"32 SEPT_VE_DISABLE clear", attrs(1 << 30), nil, true, []string{claim.TDAttributes}},
		{"33 reserved bit", attrs(simtee.DefaultAttributes | 1<<40), nil, true, []string{claim.TDAttributes}},
		{"33 migratable", attrs(simtee.DefaultAttributes | 1<<29), nil, true, []string{claim.TDAttributes}},
		{"33 reserved TUD bit", attrs(simtee.DefaultAttributes | 1<<3), nil, true, []string{claim.TDDebug}},
		{"33 XFAM without SSE", func(s *scene) { s.boot.XFAM = 1 }, nil, true, []string{claim.TDXFAM}},
		{"33 XFAM undefined bit", func(s *scene) { s.boot.XFAM = 3 | 1<<40 }, nil, true, []string{claim.TDXFAM}},
		{"33 attribute that the policy does not admit", attrs(simtee.DefaultAttributes | 1<<30), func(s *scene) { s.policy.TD.Attributes = simtee.DefaultAttributes }, true, []string{claim.TDAttributes}},
		{"33 CPU feature that the policy does not admit", nil, func(s *scene) { s.policy.TD.XFAM = 3 }, true, []string{claim.TDXFAM}},
		{"27 TDX module that the policy does not list", nil, func(s *scene) {
			s.policy.TD.AnyMRSeam, s.policy.TD.MRSeam = false, []cvm.Measurement{{1}}
		}, true, []string{claim.TDModuleListed}},
		{"27 MRSEAM changed", body(func(b []byte) { b[16] ^= 1 }), listModule, true, []string{claim.TDModuleListed}},
		{"34 service TD", func(s *scene) { s.cfg.QuoteVersion = 5; s.boot.MRServiceTD[0] = 1 }, nil, true, []string{claim.TDService}},
	}
}

// listModule makes the policy admit the simulated TDX module by its measurement alone.
func listModule(s *scene) {
	td, err := s.hw.NewTD("module", simtee.Shape{})
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := td.Quote(context.Background(), [64]byte{})
	if err != nil {
		s.t.Fatal(err)
	}
	q, err := tdx.ParseQuote(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	q.Body.MRSeam[0] ^= 1 // the scene's quotes are those that are changed
	s.policy.TD.AnyMRSeam, s.policy.TD.MRSeam = false, []cvm.Measurement{q.Body.MRSeam}
}

// launchRefusals are registers that a host fills at launch, and lists of the
// policy that are wrong.
func launchRefusals() []refusal {
	config := func(m cvm.Measurement) func(*scene) {
		return body(func(b []byte) { copy(b[184:], m[:]) })
	}
	app, other := cvm.Measurement{1, 8}, cvm.Measurement{1, 9} // the scene's compose hash is 8, then zeros
	values := func(fn func(p *attest.TDPolicy)) func(*scene) { return func(s *scene) { fn(&s.policy.TD) } }
	return []refusal{
		{"35 MRCONFIGID of another app", config(other), nil, true, []string{claim.TDConfigID}},
		{"35 MRCONFIGID of another version", config(cvm.Measurement{2, 8}), nil, true, []string{claim.TDConfigID}},
		{"35 MRCONFIGID of the app where the policy wants zero", config(app), values(func(p *attest.TDPolicy) { p.MRConfigID = attest.Values{} }), true, []string{claim.TDConfigID}},
		{"35 MRCONFIGID of the app whose log does not replay", config(app), func(s *scene) { s.ev.RuntimeEvents, s.ev.EventLog = s.ev.RuntimeEvents[:5], s.ev.EventLog[:8] }, true,
			[]string{claim.EventlogReplay, claim.TDConfigID}},
		{"35 MROWNER set", body(func(b []byte) { b[232] = 1 }), nil, true, []string{claim.TDOwner}},
		{"35 MROWNERCONFIG set", body(func(b []byte) { b[280] = 1 }), nil, true, []string{claim.TDOwnerConfig}},
		{"35 MROWNER is not the listed one", body(func(b []byte) { b[232] = 1 }), values(func(p *attest.TDPolicy) { p.MROwner.Of = []cvm.Measurement{{2}} }), true, []string{claim.TDOwner}},
		{"35 MROWNER zero where one is listed", nil, values(func(p *attest.TDPolicy) { p.MROwner.Of = []cvm.Measurement{{2}} }), true, []string{claim.TDOwner}},
		{"36 empty list of MROWNER", nil, values(func(p *attest.TDPolicy) { p.MROwner.Of = []cvm.Measurement{} }), true, []string{claim.TDOwner}},
		{"36 any MROWNER and a list", nil, values(func(p *attest.TDPolicy) { p.MROwner = attest.Values{Any: true, Of: []cvm.Measurement{{}}} }), true, []string{claim.TDOwner}},
		{"36 MROWNER cannot name the app", nil, values(func(p *attest.TDPolicy) { p.MROwner.App = true }), true, []string{claim.TDOwner}},
		{"36 empty list of TDX modules", nil, values(func(p *attest.TDPolicy) { p.AnyMRSeam, p.MRSeam = false, []cvm.Measurement{} }), true, []string{claim.TDModuleListed}},
		{"36 empty list of TDX modules beside any", nil, values(func(p *attest.TDPolicy) { p.MRSeam = []cvm.Measurement{} }), true, []string{claim.TDModuleListed}},
		{"36 no list of TDX modules", nil, values(func(p *attest.TDPolicy) { p.AnyMRSeam = false }), true, []string{claim.TDModuleListed}},
		{"36 report data and any", nil, func(s *scene) { s.policy.AnyReportData = true }, true, []string{claim.ReportData}},
		{"23 TCB info older than the policy admits", nil, func(s *scene) { s.policy.MinEvalNumber = 18 }, true, []string{claim.CollateralFloor}},
		{"23 QE identity older than the policy admits", signed("tcbInfo", `"tcbEvaluationDataNumber":17`, `"tcbEvaluationDataNumber":18`),
			func(s *scene) { s.policy.MinEvalNumber = 18 }, true, []string{claim.CollateralFloor}},
		{"23 TCB info older than seen before", nil, floor("/tcb/"), true, []string{claim.CollateralFloor}},
		{"23 QE identity older than seen before", nil, floor("/qe"), true, []string{claim.CollateralFloor}},
		{"23 revocation list older than seen before", nil, floor("/crl/"), true, []string{claim.CollateralFloor}},
		{"30 advisory on the deny-list", faults(simtee.Faults{TCBStatus: "SWHardeningNeeded", Advisories: []string{"INTEL-SA-1", "INTEL-SA-2"}}), func(s *scene) {
			s.policy.TCBStatus, s.policy.DenyAdvisories = []string{"SWHardeningNeeded"}, []string{"INTEL-SA-2"}
		}, true, []string{claim.TCBAdvisories}},
		{"30 advisory of a platform that is up to date", signed("tcbInfo", `"tcbStatus":"UpToDate"}],"tcbType"`, `"tcbStatus":"UpToDate","advisoryIDs":["INTEL-SA-3"]}],"tcbType"`),
			func(s *scene) { s.policy.DenyAdvisories = []string{"INTEL-SA-3"} }, true, []string{claim.TCBAdvisories}},
	}
}

// floor lifts one number that was seen before above what the collateral says.
func floor(kind string) func(*scene) {
	return func(s *scene) {
		marks, err := collateral.Marks(s.coll)
		if err != nil {
			s.t.Fatal(err)
		}
		s.policy.Floor = collateral.Floor{}
		for k, n := range marks {
			if strings.Contains(k, kind) {
				s.policy.Floor[k] = new(big.Int).Add(n, big.NewInt(1))
			}
		}
		if len(s.policy.Floor) == 0 {
			s.t.Fatalf("no mark of %s in %v", kind, marks)
		}
	}
}

// What the refusals above spoil is admitted while it is sound.
func TestLaunchRegistersThatAPolicyAdmits(t *testing.T) {
	app := cvm.Measurement{1, 8}
	for name, tc := range map[string]struct {
		report func([]byte)
		policy func(*attest.Policy)
	}{
		"MRCONFIGID of the app":  {func(b []byte) { copy(b[184:], app[:]) }, func(*attest.Policy) {}},
		"any MRCONFIGID":         {func(b []byte) { b[184] = 7 }, func(p *attest.Policy) { p.TD.MRConfigID = attest.Values{Any: true} }},
		"listed MROWNER":         {func(b []byte) { b[232] = 1 }, func(p *attest.Policy) { p.TD.MROwner.Of = []cvm.Measurement{{3}, {1}} }},
		"listed module":          {func(b []byte) { copy(b[16:], app[:]) }, func(p *attest.Policy) { p.TD.AnyMRSeam, p.TD.MRSeam = false, []cvm.Measurement{app} }},
		"floor as high as it is": {func([]byte) {}, func(p *attest.Policy) { p.MinEvalNumber = 17 }},
		"another advisory":       {func([]byte) {}, func(p *attest.Policy) { p.DenyAdvisories = []string{"INTEL-SA-9"} }},
	} {
		s := newScene(t, func(s *scene) { s.cfg.Faults.Body = tc.report })
		tc.policy(&s.policy)
		if _, _, err := s.verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func policyRefusals() []refusal {
	return []refusal{
		{"36 no report data in the policy", nil, func(s *scene) { s.policy.ReportData = nil }, true, []string{claim.ReportData}},
		{"36 no status in the policy", nil, func(s *scene) { s.policy.TCBStatus = nil }, true, []string{claim.TCBStatus}},
		{"36 no phase in the policy", nil, func(s *scene) { s.policy.Phases = nil }, true, []string{claim.PhaseCheck}},
		{"36 no image variant in the policy", nil, func(s *scene) { s.policy.Image.Variants = nil }, true, []string{claim.ImageMeasurement}},
		{"36 a root without a platform", nil, func(s *scene) { s.policy.Roots[0].Platform = "" }, false, []string{claim.RootAdmitted}},
		{"38 report data of another key", nil, func(s *scene) { s.policy.ReportData = &[64]byte{9} }, true, []string{claim.ReportData}},
		{"38 stated report data differs from the quote", nil, func(s *scene) { s.ev.ReportData[0]++ }, true, []string{claim.ReportData}},
		{"38 any report data, but another stated", nil, func(s *scene) { s.policy.ReportData, s.policy.AnyReportData, s.ev.ReportData[0] = nil, true, 9 }, true, []string{claim.ReportData}},
		{"36 report data of zeros is still compared", nil, func(s *scene) { s.policy.ReportData = &[64]byte{} }, true, []string{claim.ReportData}},
		{"36 zero policy", nil, func(s *scene) { s.policy = attest.Policy{} }, false,
			[]string{claim.RootAdmitted, claim.TCBStatus, claim.TDAttributes, claim.TDXFAM, claim.TDModuleListed, claim.ReportData, claim.PhaseCheck, claim.ImageMeasurement}},
		{"52 container variant on a custom root", nil, func(s *scene) { s.policy.Roots[0].Platform = cvm.PlatformCustom }, true, []string{claim.ImageMeasurement}},
	}
}
