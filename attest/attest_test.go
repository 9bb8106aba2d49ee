package attest_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

func now() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }

// scene is one verification, sound until a case spoils it.
type scene struct {
	t      *testing.T
	hw     *simtee.Hardware
	cfg    simtee.Config
	boot   simtee.Boot
	events func([]eventlog.Runtime) []eventlog.Runtime // instead of the boot's own
	ev     attest.Evidence
	coll   collateral.Set
	policy attest.Policy
	at     time.Time
}

func newScene(t *testing.T, before func(*scene)) *scene {
	t.Helper()
	s := &scene{t: t, at: now(), boot: simtee.Boot{Name: "app", AppID: cvm.AppID{7}, ComposeHash: cvm.ComposeHash{8}, InstanceID: cvm.InstanceID{9}}}
	s.cfg = simtee.Config{Seed: bytes.Repeat([]byte{1}, 32), Clock: now}
	if before != nil {
		before(s)
	}
	var err error
	if s.hw, err = simtee.New(s.cfg); err != nil {
		t.Fatal(err)
	}
	g, err := s.hw.Boot(context.Background(), s.boot)
	if err != nil {
		t.Fatal(err)
	}
	if s.events != nil {
		g = s.replay(g)
	}
	rd := [64]byte{1, 2, 3}
	if s.ev, err = g.Evidence(context.Background(), rd); err != nil {
		t.Fatal(err)
	}
	if s.coll, err = s.hw.Collateral(s.at); err != nil {
		t.Fatal(err)
	}
	s.policy = s.hw.Policy(rd, claim.PhaseRelease)
	return s
}

// replay boots another TD of the same shape with other events.
func (s *scene) replay(g *simtee.Guest) *simtee.Guest {
	want := s.events(slices.Clone(g.Events))
	b := s.boot
	b.Name, b.Phase = "other", claim.PhaseEarly
	fresh, err := s.hw.Boot(context.Background(), b)
	if err != nil {
		s.t.Fatal(err)
	}
	if !sameEvents(want[:min(3, len(want))], fresh.Events) {
		s.t.Fatalf("a case may change events from the fourth on only")
	}
	for _, e := range want[3:] {
		if err := fresh.Extend(context.Background(), e); err != nil {
			s.t.Fatal(err)
		}
	}
	return fresh
}

func sameEvents(a, b []eventlog.Runtime) bool {
	return slices.EqualFunc(a, b, func(x, y eventlog.Runtime) bool { return x.Name == y.Name && bytes.Equal(x.Payload, y.Payload) })
}

func (s *scene) verify() (attest.Verified, []claim.Check, error) {
	return attest.Verify(s.ev, s.coll, s.policy, s.at)
}

func ev(name string, payload ...byte) eventlog.Runtime {
	return eventlog.Runtime{Name: name, Payload: payload}
}

func TestSoundEvidence(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(*scene)
	}{
		{"version 4", nil},
		{"version 5", func(s *scene) { s.cfg.QuoteVersion = 5 }},
		{"V2 events", func(s *scene) { s.boot.Version = 2 }},
		{"another machine", func(s *scene) { s.cfg.Machine = "two" }},
		{"no instance id", func(s *scene) { s.boot.InstanceID = cvm.InstanceID{} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t, tc.before)
			for _, form := range []string{"as made", "re-encoded", "stripped"} {
				if form == "stripped" {
					s.ev = s.ev.Strip()
				}
				if form != "as made" {
					b, err := s.ev.Marshal()
					if err != nil {
						t.Fatal(err)
					}
					if s.ev, err = attest.ParseEvidence(b); err != nil {
						t.Fatalf("%s: %v", form, err)
					}
				}
				v, checks, err := s.verify()
				if err != nil || !v.Valid() {
					t.Fatalf("%s: %v", form, err)
				}
				if len(checks) != len(claim.All()) {
					t.Errorf("%d checks, want %d", len(checks), len(claim.All()))
				}
				s.claims(v.Claims())
			}
		})
	}
}

// claims compares what was verified with what was booted.
func (s *scene) claims(c claim.Claims) {
	s.t.Helper()
	switch {
	case c.Platform != cvm.PlatformSimulated, c.Phase != claim.PhaseRelease, c.Debug, c.TCB.Status != "UpToDate":
		s.t.Errorf("claims: %+v", c)
	case c.AppID != s.boot.AppID, c.ComposeHash != s.boot.ComposeHash, c.InstanceID != s.boot.InstanceID:
		s.t.Errorf("identity: %+v", c)
	case c.DeviceID != s.hw.DeviceID(), c.OSImageHash != cvm.ImageHash{1}, c.MRAggregated != c.MRBoot:
		s.t.Errorf("machine and image: %+v", c)
	case !c.Expires.After(s.at):
		s.t.Errorf("expires %s", c.Expires)
	}
}

func TestZeroPolicyAcceptsNothing(t *testing.T) {
	s := newScene(t, nil)
	s.policy = attest.Policy{}
	_, _, err := s.verify()
	rejected(t, err, false, claim.RootAdmitted, claim.TCBStatus, claim.TDAttributes, claim.TDXFAM, claim.TDModuleListed, claim.ReportData, claim.PhaseCheck, claim.ImageMeasurement)
}

func TestZeroVerifiedCannotBeUsed(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("claims of a zero Verified")
		}
	}()
	_ = attest.Verified{}.Claims()
}

func rejected(t *testing.T, err error, genuine bool, checks ...string) {
	t.Helper()
	var r *claim.Rejection
	if !errors.As(err, &r) {
		t.Fatalf("not rejected: %v", err)
	}
	if r.Genuine != genuine {
		t.Errorf("genuine %v, want %v: %v", r.Genuine, genuine, err)
	}
	for _, name := range checks {
		i := slices.IndexFunc(r.Checks, func(c claim.Check) bool { return c.Name == name })
		if i < 0 || r.Checks[i].Verdict != claim.Failed {
			t.Errorf("check %s did not fail: %v", name, err)
		}
		if i >= 0 && (r.Checks[i].Title == "" || r.Checks[i].Fix == "") {
			t.Errorf("check %s has no words for a person", name)
		}
	}
	for _, c := range r.Checks {
		if c.Verdict == claim.Failed && !slices.Contains(checks, c.Name) {
			t.Errorf("check %s failed too: %s", c.Name, c.Reason)
		}
	}
}

// Both (r, s) and (r, n-s) verify; they are the same evidence: nothing may be
// keyed on the quote's bytes.
func TestOtherHalfOfSignatureIsSameEvidence(t *testing.T) {
	s := newScene(t, nil)
	v, _, err := s.verify()
	if err != nil {
		t.Fatal(err)
	}
	sv := new(big.Int).SetBytes(s.ev.Quote[sigData+32 : sigData+64])
	sv.Sub(elliptic.P256().Params().N, sv).FillBytes(s.ev.Quote[sigData+32 : sigData+64])
	w, _, err := s.verify()
	if err != nil {
		t.Fatal(err)
	}
	if v.Claims().MRAggregated != w.Claims().MRAggregated || v.Claims().DeviceID != w.Claims().DeviceID {
		t.Error("claims differ")
	}
}

func TestStatusesThatAPolicyAdmits(t *testing.T) {
	for _, f := range []simtee.Faults{{TCBStatus: "SWHardeningNeeded", Advisories: []string{"INTEL-SA-00615"}}, {TCBStatus: "OutOfDate"}, {ModuleStatus: "OutOfDate"}, {QEStatus: "OutOfDate"}} {
		s := newScene(t, faults(f))
		s.policy.TCBStatus = []string{"SWHardeningNeeded", "OutOfDate"}
		v, _, err := s.verify()
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		c := v.Claims().TCB
		if want := f.TCBStatus + f.ModuleStatus + f.QEStatus; c.Status != want || !slices.Equal(c.Advisories, append([]string{}, f.Advisories...)) {
			t.Errorf("%+v: %+v", f, c)
		}
	}
}

func TestZeroPaddingIsTrimmed(t *testing.T) {
	s := newScene(t, nil)
	s.ev.Quote = append(s.ev.Quote, make([]byte, 70)...)
	if _, _, err := s.verify(); err != nil {
		t.Fatal(err)
	}
}
