package attest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// Where registers lie in a TD report, in bytes.
const (
	atMRSeam        = 16
	atMRConfigID    = 184
	atMROwner       = 232
	atMROwnerConfig = 280
)

// body writes b into the TD report before it is signed.
func tdReport(at int, b ...byte) func(*scene) {
	return faults(simtee.Faults{Body: func(r []byte) { copy(r[at:], b) }})
}

// evaluated lowers the evaluation data number of one statement by one.
func evaluated(statement string) func(*scene) {
	return faults(simtee.Faults{Statement: func(name string, b []byte) []byte {
		if name == statement {
			b = bytes.Replace(b, []byte(`"tcbEvaluationDataNumber":17`), []byte(`"tcbEvaluationDataNumber":16`), 1)
		}
		return b
	}})
}

func policyOf(f func(*attest.Policy)) func(*scene) { return func(s *scene) { f(&s.policy) } }

// Each field of a policy: what it does not admit is refused, and nothing is
// skipped because an expected value is empty.
func TestPolicyRefusals(t *testing.T) {
	one, empty := []cvm.Measurement{{1}}, []cvm.Measurement{}
	seam, config := []string{claim.TDModuleListed}, []string{claim.TDConfigID}
	otherApp := append([]byte{1}, bytes.Repeat([]byte{9}, 32)...)
	for _, tc := range []refusal{
		{"27 MRSEAM: no list and not any", nil, policyOf(func(p *attest.Policy) { p.TD.AnyMRSeam = false }), true, seam},
		{"27 MRSEAM not listed", nil, policyOf(func(p *attest.Policy) { p.TD.AnyMRSeam, p.TD.MRSeam = false, one }), true, seam},
		{"36 MRSEAM list empty", nil, policyOf(func(p *attest.Policy) { p.TD.AnyMRSeam, p.TD.MRSeam = false, empty }), true, seam},
		{"36 MRSEAM list empty beside any", nil, policyOf(func(p *attest.Policy) { p.TD.MRSeam = empty }), true, seam},
		{"36 MRSEAM list beside any", nil, policyOf(func(p *attest.Policy) { p.TD.MRSeam = one }), true, seam},
		{"35 MRCONFIGID set", tdReport(atMRConfigID, 5), nil, true, config},
		{"35 MRCONFIGID of another app", tdReport(atMRConfigID, otherApp...), nil, true, config},
		{"35 MRCONFIGID set, policy wants zero", tdReport(atMRConfigID, 1, 8),
			policyOf(func(p *attest.Policy) { p.TD.MRConfigID = attest.Values{} }), true, config},
		{"35 MRCONFIGID zero, policy wants a value", nil, policyOf(func(p *attest.Policy) { p.TD.MRConfigID = attest.Values{Of: one} }), true, config},
		{"36 MRCONFIGID expected and empty", nil, policyOf(func(p *attest.Policy) { p.TD.MRConfigID = attest.Values{Of: empty} }), true, config},
		{"36 MRCONFIGID any beside a value", nil, policyOf(func(p *attest.Policy) { p.TD.MRConfigID = attest.Values{Any: true, Of: one} }), true, config},
		{"35 MROWNER set", tdReport(atMROwner, 1), nil, true, []string{claim.TDOwner}},
		{"36 MROWNER expected and empty", nil, policyOf(func(p *attest.Policy) { p.TD.MROwner.Of = empty }), true, []string{claim.TDOwner}},
		{"36 MROWNER cannot name the app", nil, policyOf(func(p *attest.Policy) { p.TD.MROwner.App = true }), true, []string{claim.TDOwner}},
		{"35 MROWNERCONFIG set", tdReport(atMROwnerConfig+47, 1), nil, true, []string{claim.TDOwnerConfig}},
		{"35 MROWNERCONFIG not as listed", nil, policyOf(func(p *attest.Policy) { p.TD.MROwnerConfig.Of = one }), true, []string{claim.TDOwnerConfig}},
		{"34 service TD not as listed", func(s *scene) { s.cfg.QuoteVersion = 5; s.boot.MRServiceTD[0] = 2 },
			policyOf(func(p *attest.Policy) { p.TD.MRServiceTD.Of = one }), true, []string{claim.TDService}},
		{"33 attributes: none admitted", nil, policyOf(func(p *attest.Policy) { p.TD.Attributes = 0 }), true, []string{claim.TDAttributes}},
		{"33 PKS not admitted", func(s *scene) { s.boot.Attributes = simtee.DefaultAttributes | 1<<30 },
			policyOf(func(p *attest.Policy) { p.TD.Attributes = simtee.DefaultAttributes }), true, []string{claim.TDAttributes}},
		{"31 debug, even if the policy admits the bit", func(s *scene) { s.boot.Attributes = simtee.DefaultAttributes | simtee.AttributeDebug },
			policyOf(func(p *attest.Policy) { p.TD.Attributes = ^uint64(0) }), true, []string{claim.TDDebug}},
		{"33 XFAM: none admitted", nil, policyOf(func(p *attest.Policy) { p.TD.XFAM = 0 }), true, []string{claim.TDXFAM}},
		{"33 XFAM: AMX not admitted", nil, policyOf(func(p *attest.Policy) { p.TD.XFAM = 0x2e7 }), true, []string{claim.TDXFAM}},
		{"33 XFAM undefined, even if the policy admits the bit", func(s *scene) { s.boot.XFAM = 3 | 1<<40 },
			policyOf(func(p *attest.Policy) { p.TD.XFAM = ^uint64(0) }), true, []string{claim.TDXFAM}},
		{"30 advisory denied although its status is admitted", faults(simtee.Faults{TCBStatus: "SWHardeningNeeded", Advisories: []string{"INTEL-SA-00615"}}),
			policyOf(func(p *attest.Policy) {
				p.TCBStatus, p.DenyAdvisories = []string{"SWHardeningNeeded"}, []string{"INTEL-SA-1", "INTEL-SA-00615"}
			}), true, []string{claim.TCBAdvisories}},
		{"23 evaluation number below the policy's", nil, policyOf(func(p *attest.Policy) { p.MinEvalNumber = 18 }), true, []string{claim.CollateralFloor}},
		{"23 evaluation number of TCB info alone", evaluated("tcbInfo"), policyOf(func(p *attest.Policy) { p.MinEvalNumber = 17 }), true, []string{claim.CollateralFloor}},
		{"23 evaluation number of QE identity alone", evaluated("enclaveIdentity"), policyOf(func(p *attest.Policy) { p.MinEvalNumber = 17 }), true, []string{claim.CollateralFloor}},
		{"38 report data and any", nil, policyOf(func(p *attest.Policy) { p.AnyReportData = true }), true, []string{claim.ReportData}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, tc.before)
			if tc.after != nil {
				tc.after(s)
			}
			v, _, err := s.verify()
			if v.Valid() {
				t.Fatal("accepted")
			}
			rejected(t, err, tc.genuine, tc.checks...)
		})
	}
}

// 23: each number of the collateral, against a floor that stands one higher.
func TestFloorRefusesOlderStatements(t *testing.T) {
	s := newScene(t, nil)
	marks, err := collateral.Marks(s.coll)
	if err != nil {
		t.Fatal(err)
	}
	if len(marks) != 4 {
		t.Fatalf("%d numbers, want TCB info, QE identity and two lists: %v", len(marks), marks)
	}
	s.policy.Floor = collateral.Floor{}.Raise(marks)
	if _, _, err := s.verify(); err != nil {
		t.Fatalf("at the floor: %v", err)
	}
	for k, n := range marks {
		above := collateral.Floor{k: new(big.Int).Add(n, big.NewInt(1))}
		s.policy.Floor = collateral.Floor{}.Raise(marks).Raise(above)
		_, _, err := s.verify()
		rejected(t, err, true, claim.CollateralFloor)
		if lower := above.Raise(marks); lower[k].Cmp(above[k]) != 0 {
			t.Errorf("%s went back", k)
		}
	}
	s.policy.Floor = collateral.Floor{strings.Repeat("0", 64) + "/qe": big.NewInt(1 << 40)}
	if _, _, err := s.verify(); err != nil {
		t.Errorf("another root's floor: %v", err)
	}
}

func TestPolicyAdmits(t *testing.T) {
	app := cvm.ComposeHash{8}
	seam := cvm.Measurement{7, 7}
	for _, tc := range []struct {
		name   string
		before func(*scene)
		after  func(*attest.Policy)
		check  string
		got    string
	}{
		{"any module, and says so", nil, func(*attest.Policy) {}, claim.TDModuleListed, "any"},
		{"a listed module", tdReport(atMRSeam, seam[:]...),
			func(p *attest.Policy) { p.TD.AnyMRSeam, p.TD.MRSeam = false, []cvm.Measurement{{1}, seam} }, claim.TDModuleListed, "0707000000000000..."},
		{"zero MRCONFIGID", nil, func(*attest.Policy) {}, claim.TDConfigID, "zero"},
		{"the app's MRCONFIGID", tdReport(atMRConfigID, append([]byte{1}, app[:]...)...), func(*attest.Policy) {}, claim.TDConfigID, "the app's"},
		{"a listed MRCONFIGID", tdReport(atMRConfigID, 5), func(p *attest.Policy) { p.TD.MRConfigID = attest.Values{Of: []cvm.Measurement{{5}}} }, claim.TDConfigID, "0500000000000000..."},
		{"any MROWNER", tdReport(atMROwner, 5), func(p *attest.Policy) { p.TD.MROwner.Any = true }, claim.TDOwner, "any"},
		{"a listed service TD", func(s *scene) { s.cfg.QuoteVersion = 5; s.boot.MRServiceTD[0] = 1 },
			func(p *attest.Policy) { p.TD.MRServiceTD.Of = []cvm.Measurement{{1}} }, claim.TDService, "0100000000000000..."},
		{"an evaluation number that is reached", nil, func(p *attest.Policy) { p.MinEvalNumber = 17 }, claim.CollateralFloor, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, tc.before)
			tc.after(&s.policy)
			_, checks, err := s.verify()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range checks {
				if c.Name == tc.check && c.Got != tc.got {
					t.Errorf("%s: got %q, want %q", c.Name, c.Got, tc.got)
				}
			}
		})
	}
}

func TestPolicyJSON(t *testing.T) {
	pin := strings.Repeat("ab", 32)
	m := strings.Repeat("07", 48)
	full := `{"roots":["intel",{"spki":"` + pin + `","platform":"simulated"}],"tcb_status":["UpToDate"],"deny_advisories":["INTEL-SA-1"],
		"min_eval_number":17,"floor":{"` + pin + `/qe":17},"report_data":"any","phases":["release"],
		"td":{"mr_seam":["` + m + `"],"mr_config_id":["app","` + m + `"],"mr_owner":"any","attributes":"0x10000000","xfam":"0x602e7"},
		"image":{"variants":["lite"],"any_acpi":true,"withdrawn":["` + pin + `"]},"snp":{}}`
	p, err := attest.ParsePolicy([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Roots) != 2 || !p.AnyReportData || p.MinEvalNumber != 17 || p.TD.MRSeam[0][0] != 7 || !p.TD.MRConfigID.App || len(p.TD.MRConfigID.Of) != 1 ||
		!p.TD.MROwner.Any || p.TD.MROwnerConfig.Any || p.TD.Attributes != 1<<28 || p.TD.XFAM != 0x602e7 || !p.Image.AnyACPI || len(p.Image.Withdrawn) != 1 || p.Floor[pin+"/qe"].Int64() != 17 {
		t.Errorf("%+v", p)
	}
	for _, p := range []attest.Policy{p, {}, attest.Strict(claim.PhaseRelease), newScene(t, nil).policy} {
		roundTrip(t, p)
	}
	if p, err := attest.ParsePolicy([]byte("{}")); err != nil || !reflect.DeepEqual(p, attest.Policy{}) {
		t.Errorf("an empty document is not the zero policy: %+v %v", p, err)
	}
}

func roundTrip(t *testing.T, p attest.Policy) {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := attest.ParsePolicy(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	c, err := json.Marshal(again)
	if err != nil || !bytes.Equal(b, c) {
		t.Errorf("%v\n%s\n%s", err, b, c)
	}
}

func badPolicies() []string {
	m := `"` + strings.Repeat("07", 48) + `"`
	return []string{
		``, `null x`, `{} {}`, `{"Roots":["intel"],"roots":[]}`, `{"roots":["intel"],"roots":[]}`, `{"surprise":1}`, `{"roots":["nvidia"]}`,
		`{"roots":[{"spki":"ab","platform":"simulated"}]}`, `{"roots":[{"spki":"` + strings.Repeat("ab", 32) + `","platform":"tdx"}]}`,
		`{"roots":[{"spki":"` + strings.Repeat("ab", 32) + `"}]}`, `{"roots":[{"spki":"` + strings.Repeat("ab", 32) + `","platform":"custom","x":1}]}`,
		`{"report_data":""}`, `{"report_data":"00"}`, `{"min_eval_number":-1}`, `{"tcb_status":["Revoked"]}`,
		`{"td":{"mr_seam":[]}}`, `{"td":{"mr_seam":["app"]}}`, `{"td":{"mr_seam":""}}`, `{"td":{"mr_seam":null,"mr_config_id":[""]}}`,
		`{"td":{"mr_config_id":[]}}`, `{"td":{"mr_owner":["app"]}}`, `{"td":{"mr_owner":[` + m[:20] + `"]}}`, `{"td":{"mr_service_td":{}}}`,
		`{"td":{"attributes":1}}`, `{"td":{"xfam":"3"}}`, `{"td":{"xfam":"0x10000000000000000"}}`, `{"td":{"debug":true}}`,
		`{"floor":{"qe":1}}`, `{"floor":{"` + strings.Repeat("0", 64) + `/qe":-1}}`, `{"floor":{"` + strings.Repeat("0", 64) + `/qe":null}}`,
		`{"image":{"variants":["lite"],"images":{}}}`,
		// A known key in another case, alone.
		`{"ROOTS":["intel"]}`, `{"td":{"XFAM":"0x3"}}`, `{"snp":{"Admit":true}}`, `{"image":{"acpi":[{"RSDP":"00"}]}}`,
	}
}

func TestBadPolicies(t *testing.T) {
	for _, doc := range badPolicies() {
		if p, err := attest.ParsePolicy([]byte(doc)); err == nil || cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v (%+v)", doc, err, p)
		}
	}
	if _, err := attest.ParsePolicy(make([]byte, 2<<20)); err == nil {
		t.Error("a huge document is read")
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, doc := range badPolicies() {
		f.Add([]byte(doc))
	}
	rd := hex.EncodeToString(make([]byte, 64))
	f.Add([]byte(`{"roots":["intel","amd"],"report_data":"` + rd + `","td":{"mr_seam":"any","mr_config_id":["app"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := attest.ParsePolicy(b)
		if err != nil {
			return
		}
		roundTrip(t, p)
	})
}
