package attest_test

import (
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
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
		{"34 service TD", func(s *scene) { s.cfg.QuoteVersion = 5; s.boot.MRServiceTD[0] = 1 }, nil, true, []string{claim.TDService}},
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
