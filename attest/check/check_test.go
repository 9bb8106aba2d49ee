package check_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

func TestFormsWithoutPolicy(t *testing.T) {
	w := newWorld(t, made{})
	raw, err := w.ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	spki := w.hw.RootSPKI()
	for name, tc := range map[string]struct {
		raw []byte
		o   check.Options
		log bool
	}{
		"contract":    {raw: w.contract(nil)},
		"attestation": {raw: w.attestation(nil), log: true},
		"dstack":      {raw: w.dstack(nil), o: check.Options{Roots: [][32]byte{spki}, Collateral: &w.set}, log: true},
		"encoded":     {raw: raw, o: check.Options{Roots: [][32]byte{spki}, Collateral: &w.set}, log: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := ask(t, tc.raw, tc.o)
			expect(t, r, check.Accepted, "custom")
			if r.TCBStatus != "UpToDate" || r.Policy != "none" || !r.At.Equal(now()) {
				t.Errorf("%+v", r)
			}
			if !strings.Contains(r.Summary, "vendor's rules only") || !slices.ContainsFunc(r.Notes, func(s string) bool { return strings.HasPrefix(s, "no policy was given") }) {
				t.Errorf("does not say that there was no policy: %q %q", r.Summary, r.Notes)
			}
			for _, name := range []string{claim.TCBStatus, claim.ReportData, claim.PhaseCheck, claim.ImageMeasurement} {
				if status(r, name) != claim.Skipped {
					t.Errorf("%s is %s without a policy", name, status(r, name))
				}
			}
			_, id := r.Claims["app_id"]
			if id != tc.log {
				t.Errorf("app id claimed: %v", id)
			}
			if _, ok := r.Claims["os_image_hash"]; ok {
				t.Error("an image is claimed that nothing was compared with")
			}
		})
	}
}

// A root that only the file names is custom; no way of naming it makes it genuine
// or simulated, and a caller's policy that lists roots keeps it out.
func TestRootOfTheFile(t *testing.T) {
	w := newWorld(t, made{})
	spki := w.hw.RootSPKI()
	full := w.hw.Policy(w.ev.ReportData, claim.PhaseRunning)
	none := full
	none.Roots = nil
	pins := func(platform string) func(map[string]any) {
		return func(d map[string]any) {
			d["policy"] = map[string]any{"roots": []any{map[string]any{"spki": hex.EncodeToString(spki[:]), "platform": platform}}, "tcb_status": []string{"UpToDate"},
				"report_data": "any", "phases": []string{"running"}, "td": td(), "image": map[string]any{"variants": []string{"container"}}}
		}
	}
	noRoot := func(d map[string]any) { delete(d, "root") }
	for name, tc := range map[string]struct {
		edit    func(map[string]any)
		o       check.Options
		verdict string
		on      string
		failed  []string
	}{
		"no policy":                          {verdict: check.Accepted, on: "custom"},
		"nobody names it":                    {edit: noRoot, verdict: check.Rejected, on: "unknown", failed: []string{claim.RootAdmitted}},
		"the caller names it":                {edit: noRoot, o: check.Options{Roots: [][32]byte{spki}}, verdict: check.Accepted, on: "custom"},
		"the caller names another":           {o: check.Options{Roots: [][32]byte{{1}}}, verdict: check.Rejected, on: "unknown", failed: []string{claim.RootAdmitted}},
		"Intel's policy":                     {o: strict(t, "strict:running", w), verdict: check.Rejected, on: "unknown", failed: []string{claim.RootAdmitted, claim.ImageMeasurement}},
		"the caller's policy says simulated": {edit: noRoot, o: check.Options{Policy: &full, PolicyName: "mine"}, verdict: check.Accepted, on: "simulated"},
		"the caller's policy lists none":     {o: check.Options{Policy: &none, PolicyName: "mine"}, verdict: check.Rejected, on: "unknown", failed: []string{claim.RootAdmitted}},
		"both say so":                        {o: check.Options{Policy: &full, PolicyName: "mine", Roots: [][32]byte{spki}}, verdict: check.Accepted, on: "simulated"},
		// The container variant is for simulated machines only, so that a custom root cannot pass it.
		"the file's policy says simulated": {edit: pins("simulated"), verdict: check.Rejected, on: "custom", failed: []string{claim.ImageMeasurement}},
		"the file's policy says custom":    {edit: pins("custom"), verdict: check.Rejected, on: "custom", failed: []string{claim.ImageMeasurement}},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, ask(t, w.attestation(tc.edit), tc.o), tc.verdict, tc.on, tc.failed...)
		})
	}
	t.Run("the file's policy says genuine", func(t *testing.T) {
		in, err := check.Parse(w.attestation(pins("tdx")))
		if err == nil {
			_, err = check.Run(in, check.Options{Now: now()})
		}
		if cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("a file calls its root genuine: %v", err)
		}
	})
}

func td() map[string]any {
	return map[string]any{"mr_seam": "any", "attributes": "0x10000000", "xfam": fmt.Sprintf("%#x", tdx.SafeXFAM)}
}

func strict(t *testing.T, name string, w *world) check.Options {
	t.Helper()
	p, err := check.NamedPolicy(name)
	if err != nil {
		t.Fatal(err)
	}
	return check.Options{Policy: &p, PolicyName: name, ReportData: &w.ev.ReportData}
}

// What the vendor's rules refuse, they refuse without a policy too; what only a
// policy refuses is said, and decides nothing.
func TestVendorRules(t *testing.T) {
	debug := simtee.Boot{Attributes: simtee.DefaultAttributes | simtee.AttributeDebug}
	for name, tc := range map[string]struct {
		m       made
		failed  []string
		skipped string
	}{
		"revoked platform":  {m: made{faults: simtee.Faults{TCBStatus: "Revoked"}}, failed: []string{claim.TCBMatch, claim.TCBStatus}},
		"revoked processor": {m: made{faults: simtee.Faults{RevokePCK: true}}, failed: []string{claim.CRLRevoked}},
		"expired":           {m: made{faults: simtee.Faults{Expired: true}}, failed: []string{claim.CollateralFresh, claim.CRLFresh}},
		"from the future":   {m: made{faults: simtee.Faults{Future: true}}, failed: []string{claim.CollateralFresh, claim.CRLFresh}},
		"other signer":      {m: made{faults: simtee.Faults{SignedByCA: true}}, failed: []string{claim.CollateralChain}},
		"out of date":       {m: made{faults: simtee.Faults{TCBStatus: "OutOfDate", Advisories: []string{"INTEL-SA-00001"}}}, skipped: claim.TCBStatus},
		"debug":             {m: made{boot: debug}, skipped: claim.TDDebug},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.m)
			r := ask(t, w.attestation(nil), check.Options{})
			if tc.failed != nil {
				expect(t, r, check.Rejected, "custom", tc.failed...)
				return
			}
			expect(t, r, check.Accepted, "custom")
			i := slices.IndexFunc(r.Checks, func(c check.Check) bool { return c.Name == tc.skipped })
			if c := r.Checks[i]; c.Status != claim.Skipped || !strings.HasPrefix(c.Hint, check.NoPolicy) {
				t.Errorf("%+v", c)
			}
		})
	}
	w := newWorld(t, made{boot: debug})
	if r := ask(t, w.attestation(nil), check.Options{}); !slices.ContainsFunc(r.Notes, func(s string) bool { return strings.HasPrefix(s, "DEBUG") }) {
		t.Errorf("says nothing of the debugger: %q", r.Notes)
	}
}

// Evidence at odds with itself is refused without any policy.
func TestContradictions(t *testing.T) {
	w := newWorld(t, made{})
	for name, tc := range map[string]struct {
		edit   func(map[string]any)
		failed []string
	}{
		"report data": {func(d map[string]any) { d["report_data"] = strings.Repeat("ab", 64) }, []string{claim.ReportData}},
		"a payload": {func(d map[string]any) {
			d["event_log"] = strings.Replace(d["event_log"].(string), hex.EncodeToString([]byte("ext4")), hex.EncodeToString([]byte("ext3")), 1)
		}, []string{claim.EventlogReplay, claim.EventlogAgrees}},
		"a lost event": {func(d map[string]any) { d["event_log"] = lessLast(t, d["event_log"].(string)) }, []string{claim.EventlogReplay}},
	} {
		t.Run(name, func(t *testing.T) {
			spki := w.hw.RootSPKI()
			r := ask(t, w.dstack(tc.edit), check.Options{Roots: [][32]byte{spki}, Collateral: &w.set})
			expect(t, r, check.Rejected, "custom", tc.failed...)
		})
	}
}

func lessLast(t *testing.T, log string) string {
	t.Helper()
	var events []json.RawMessage
	if err := json.Unmarshal([]byte(log), &events); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(events[:len(events)-1])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The caller wins over the file, for the time, the policy and the collateral.
func TestTheCallerWins(t *testing.T) {
	w := newWorld(t, made{})
	later := now().AddDate(1, 0, 0)
	r := ask(t, w.contract(nil), check.Options{At: later})
	expect(t, r, check.Rejected, "custom", claim.CollateralFresh, claim.CRLFresh)
	if !r.At.Equal(later) {
		t.Errorf("at %s", r.At)
	}
	r = ask(t, w.contract(func(d map[string]any) { d["at"] = later.Unix() }), check.Options{At: now()})
	expect(t, r, check.Accepted, "custom")
	r = ask(t, w.contract(func(d map[string]any) { delete(d, "at") }), check.Options{Now: later})
	expect(t, r, check.Rejected, "custom", claim.CollateralFresh, claim.CRLFresh)

	other := newWorld(t, made{seed: 9})
	r = ask(t, w.contract(nil), check.Options{Collateral: &other.set})
	if r.Verified() {
		t.Error("the file's collateral counted")
	}
	full := w.hw.Policy(w.ev.ReportData, claim.PhaseRunning)
	r = ask(t, w.attestation(func(d map[string]any) { d["policy"] = map[string]any{} }), check.Options{Policy: &full, PolicyName: "mine"})
	expect(t, r, check.Accepted, "simulated")
	if r.Policy != "mine" {
		t.Errorf("policy %q", r.Policy)
	}
	nobody := attest.Policy{}
	r = ask(t, w.contract(func(d map[string]any) { d["policy"] = map[string]any{} }), check.Options{Policy: &nobody})
	if r.Verified() {
		t.Error("the zero policy admits something")
	}
}

// The contract's members, by name. DO NOT CHANGE.
func TestContractShape(t *testing.T) {
	w := newWorld(t, made{})
	b, err := json.Marshal(ask(t, w.contract(nil), check.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"verdict", "platform", "tcb_status", "advisories", "checks", "claims"} {
		if doc[k] == nil {
			t.Errorf("no %q", k)
		}
	}
	for _, c := range doc["checks"].([]any) {
		for _, k := range []string{"check", "status", "want", "got", "hint"} {
			if _, ok := c.(map[string]any)[k].(string); !ok {
				t.Errorf("a check without %q: %v", k, c)
			}
		}
	}
	b, err = json.Marshal(ask(t, w.contract(func(d map[string]any) { delete(d, "root") }), check.Options{}))
	if err != nil || !strings.Contains(string(b), `"advisories":[]`) || !strings.Contains(string(b), `"claims":{}`) || !strings.Contains(string(b), `"verdict":"rejected"`) {
		t.Errorf("%s, %v", b, err)
	}
}
