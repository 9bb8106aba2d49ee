package attest_test

import (
	"bytes"
	"context"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
)

func (s *scene) with(v *attest.Verifier) (attest.Verified, []claim.Check, error) {
	return v.Verify(s.ev, s.coll, s.policy, s.at)
}

// A verifier that has seen the machine, the collateral and the very evidence that
// is spoiled afterwards refuses like one that has seen nothing; also the second time.
func TestRefusalsOfWarmVerifier(t *testing.T) {
	for _, group := range [][]refusal{quoteRefusals(), vendorRefusals(), statementRefusals(), tdRefusals(), logRefusals(), policyRefusals()} {
		for _, tc := range group {
			t.Run(tc.name, func(t *testing.T) {
				v := attest.NewVerifier(16)
				sound := newScene(t, nil)
				if _, _, err := sound.with(v); err != nil {
					t.Fatal(err)
				}
				s := newScene(t, tc.before)
				_, _, _ = s.with(v) // unspoiled, as far as the machine is sound
				if tc.after != nil {
					tc.after(s)
				}
				_, want, err := s.verify()
				rejected(t, err, tc.genuine, tc.checks...)
				for range 2 {
					got, checks, err := s.with(v)
					if got.Valid() || err == nil {
						t.Fatal("accepted")
					}
					if !reflect.DeepEqual(checks, want) {
						t.Fatalf("warm:\n%+v\ncold:\n%+v", checks, want)
					}
				}
				if _, _, err := sound.with(v); err != nil {
					t.Errorf("the sound machine is refused afterwards: %v", err)
				}
			})
		}
	}
}

// Cached or not, the claims are the same.
func TestWarmClaims(t *testing.T) {
	v := attest.NewVerifier(16)
	for _, version := range []int{4, 5} {
		s := newScene(t, func(s *scene) { s.cfg.QuoteVersion = version })
		pure, want, err := s.verify()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			got, checks, err := s.with(v)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Claims(), pure.Claims()) || !reflect.DeepEqual(checks, want) {
				t.Errorf("%+v\n%+v", got.Claims(), pure.Claims())
			}
		}
	}
}

// 63: a verifier that lives long notices what ends.
func TestWarmVerifierNoticesTime(t *testing.T) {
	v, s := attest.NewVerifier(16), newScene(t, nil)
	for range 2 {
		if _, _, err := s.with(v); err != nil {
			t.Fatal(err)
		}
	}
	start := s.at
	s.at = start.Add(31 * 24 * time.Hour)
	_, _, err := s.with(v)
	rejected(t, err, true, claim.CollateralFresh, claim.CRLFresh)
	s.at = start.AddDate(30, 0, 0)
	_, _, err = s.with(v)
	rejected(t, err, false, claim.PCKChain)
	s.at = start.AddDate(-1, 0, 0)
	_, _, err = s.with(v)
	rejected(t, err, true, claim.CollateralFresh, claim.CRLFresh)
	s.at = start
	if _, _, err := s.with(v); err != nil {
		t.Fatal(err)
	}
}

// 65: a machine that is revoked after it was seen is refused, and so is one whose
// collateral is spoiled after it was seen, in the caller's own memory.
func TestWarmVerifierNoticesRevocation(t *testing.T) {
	v, s := attest.NewVerifier(16), newScene(t, nil)
	if _, _, err := s.with(v); err != nil {
		t.Fatal(err)
	}
	good := s.coll
	for _, f := range []simtee.Faults{{RevokePCK: true}, {RevokeCA: true}, {RevokeTCB: true}} {
		s.coll = newScene(t, faults(f)).coll
		for range 2 {
			_, _, err := s.with(v)
			rejected(t, err, true, claim.CRLRevoked)
		}
		s.coll = good
		if _, _, err := s.with(v); err != nil {
			t.Fatalf("%+v: the list without it is refused: %v", f, err)
		}
	}
	s.coll.PCKCRL[len(s.coll.PCKCRL)-1] ^= 1
	_, _, err := s.with(v)
	rejected(t, err, true, claim.CRLFresh)
}

// Roots are judged on every call: what one policy admitted, another does not.
func TestWarmVerifierAsksThePolicy(t *testing.T) {
	v, s := attest.NewVerifier(16), newScene(t, nil)
	if _, _, err := s.with(v); err != nil {
		t.Fatal(err)
	}
	s.policy.Roots = attest.IntelRoots()
	_, _, err := s.with(v)
	rejected(t, err, false, claim.RootAdmitted)
	s.policy = attest.Policy{}
	if got, _, _ := s.with(v); got.Valid() {
		t.Error("the zero policy admits what was seen before")
	}
}

// 62: many callers, machines, spoiled evidence and changing collateral at once.
func TestConcurrentVerification(t *testing.T) {
	v := attest.NewVerifier(4)
	const machines = 6
	var scenes []*scene
	for i := range machines {
		scenes = append(scenes, newScene(t, func(s *scene) { s.cfg.Machine = strconv.Itoa(i) }))
	}
	revoked := newScene(t, faults(simtee.Faults{RevokePCK: true})).coll // of machine ""
	later, err := scenes[0].hw.Collateral(now().Add(2 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 40 {
				s := *scenes[(i+g)%machines]
				switch (i + g) % 5 {
				case 0: // spoiled
					s.ev.Quote = bytes.Clone(s.ev.Quote)
					s.ev.Quote[700+i] ^= 1
					if got, _, _ := s.with(v); got.Valid() {
						t.Error("spoiled evidence is accepted")
					}
					continue
				case 1: // newer collateral
					s.coll, s.at = later, s.at.Add(2*time.Hour)
				case 2: // lists that revoke another machine
					s.coll = revoked
				}
				if _, _, err := s.with(v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A quote's bytes belong to the caller: verifying them changes nothing, and two
// calls may share them.
func TestVerifyLeavesEvidenceAlone(t *testing.T) {
	s := newScene(t, nil)
	before, err := s.ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	v := attest.NewVerifier(4)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, _, err := s.with(v); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if after, err := s.ev.Marshal(); err != nil || !bytes.Equal(before, after) {
		t.Errorf("evidence changed: %v", err)
	}
}

// Another quote of a machine that is known costs no chain; it must still be the
// machine's own.
func TestWarmVerifierKnowsMachinesNotQuotes(t *testing.T) {
	v, s := attest.NewVerifier(16), newScene(t, nil)
	if _, _, err := s.with(v); err != nil {
		t.Fatal(err)
	}
	b := s.boot
	b.Name = "second"
	g, err := s.hw.Boot(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	rd := [64]byte{4}
	if s.ev, err = g.Evidence(context.Background(), rd); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.with(v)
	rejected(t, err, true, claim.ReportData)
	s.policy.ReportData = &rd
	if _, _, err := s.with(v); err != nil {
		t.Fatal(err)
	}
}
