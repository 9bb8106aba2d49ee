package verify

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
)

type fakeValues struct {
	v   refvalue.Values
	err error
}

func (f fakeValues) Values() (refvalue.Values, error) { return f.v, f.err }

// What a profile's feed of reference values admits is what is verified; without an
// answer, nothing is.
func TestReferenceValues(t *testing.T) {
	w := newWorld(t, nil)
	w.profile.TEE.ReferenceValues = &ValuesPin{Sources: []string{"https://values"}, Keys: []string{"k"}}
	listed := refvalue.Builtin()
	listed.AnyTDXModule = false
	other := listed
	other.TDXModules = []refvalue.TDXModule{{MRSeam: cvm.Measurement{1}, Status: refvalue.Admitted}}
	newer := refvalue.Builtin()
	newer.MinEvalNumber = 1 << 20
	tg, err := w.profile.ParseTarget(w.app.app.String())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		values Values
		failed string // "" verifies
	}{
		"any module":         {fakeValues{v: refvalue.Builtin()}, ""},
		"no module listed":   {fakeValues{v: listed}, claim.TDModuleListed},
		"another module":     {fakeValues{v: other}, claim.TDModuleListed},
		"newer statements":   {fakeValues{v: newer}, claim.CollateralFloor},
		"no values":          {fakeValues{err: errors.New("expired")}, checkValues},
		"nobody to be asked": {nil, checkValues},
	} {
		r, err := Run(t.Context(), w.profile, tg, Sources{Edge: w, Collateral: w, Chain: w.chain, Ledger: w, Values: tc.values, Now: time.Now}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := r.WriteText(&b, Style{}); err != nil {
			t.Fatal(err)
		}
		if r.Verified != (tc.failed == "") || tc.failed != "" && !failedCheck(r, tc.failed) {
			t.Errorf("%s: verified %v\n%s", name, r.Verified, b.String())
		}
	}
	w.profile.TEE.ReferenceValues.Keys = nil
	if err := w.profile.Validate(); err == nil {
		t.Error("a feed without a key is accepted")
	}
}

func failedCheck(r *Report, name string) bool {
	for _, s := range r.Sections {
		for _, c := range s.Checks {
			if c.Name == name && c.Verdict == claim.Failed {
				return true
			}
		}
	}
	return false
}
