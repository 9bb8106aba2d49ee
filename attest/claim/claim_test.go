package claim_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/confidential-cloud/phala/attest/claim"
)

func find(t *testing.T, r *claim.Recorder, name string) claim.Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks(), func(c claim.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("%s is not listed", name)
	}
	return r.Checks()[i]
}

// What was not made has not passed, and a failure stays whatever comes after it.
func TestRecorder(t *testing.T) {
	r := &claim.Recorder{}
	if r.Passed(claim.QuoteParse) || claim.OK(r.Checks()) {
		t.Error("passed before any check was made")
	}
	if !r.Try(claim.QuoteParse, nil) || !r.Passed(claim.QuoteParse) || r.Passed(claim.QuoteParse, claim.PCKChain) {
		t.Error("Try and Passed disagree")
	}
	if r.Try(claim.PCKChain, errors.New("first")) || r.Passed(claim.PCKChain) {
		t.Error("an error passed")
	}
	r.Pass(claim.PCKChain, "late")
	r.Fail(claim.PCKChain, "", "", "second")
	r.Skip(claim.PCKChain, "third")
	if c := find(t, r, claim.PCKChain); c.Verdict != claim.Failed || c.Reason != "first" || !c.Required {
		t.Errorf("%+v", c)
	}
	r.Skip(claim.QEReport, "why")
	if c := find(t, r, claim.QEReport); c.Verdict != claim.Skipped || c.Reason != "why" || r.Passed(claim.QEReport) {
		t.Errorf("%+v", c)
	}
	if c := find(t, r, claim.QuoteParse); c.Verdict != claim.Passed || c.Fix != "" {
		t.Errorf("%+v", c)
	}
	r.Fail(claim.QuoteParse, "", "", "later")
	if c := find(t, r, claim.QuoteParse); c.Verdict != claim.Failed || c.Reason != "later" {
		t.Errorf("a failure after a pass is lost: %+v", c)
	}
}

// One required check that failed or is missing is no verdict of yes.
func TestOK(t *testing.T) {
	r := &claim.Recorder{}
	for _, a := range claim.For("") {
		if !a.Optional {
			if claim.OK(r.Checks()) {
				t.Fatalf("OK without %s", a.Name)
			}
			r.Pass(a.Name, "")
		}
	}
	if !claim.OK(r.Checks()) {
		t.Errorf("%+v", r.Checks())
	}
	if claim.OK(nil) {
		t.Error("OK without any check")
	}
}

// What vendors and mathematics decide is neither policy nor how the VM was launched.
func TestKindsOfChecks(t *testing.T) {
	for _, tc := range []struct {
		name                string
		policy, launch, log bool
	}{
		{claim.QuoteSignature, false, false, false}, {claim.PCKChain, false, false, false}, {claim.TCBMatch, false, false, false},
		{claim.ReportData, true, false, false}, {claim.TCBStatus, true, false, false},
		{claim.TDDebug, false, true, false}, {claim.TDConfigID, true, true, false},
		{claim.EventlogReplay, false, false, true},
	} {
		if claim.IsByPolicy(tc.name) != tc.policy || claim.IsOfLaunch(tc.name) != tc.launch || claim.IsOfLog(tc.name) != tc.log {
			t.Errorf("%s: policy %v, launch %v, log %v", tc.name, claim.IsByPolicy(tc.name), claim.IsOfLaunch(tc.name), claim.IsOfLog(tc.name))
		}
	}
}
