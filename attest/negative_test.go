package attest_test

import (
	"regexp"
	"testing"

	"github.com/confidential-cloud/phala/attest/simtee"
)

// refusal is a case of the negative list: its name begins with the item's number
// (docs/spec/negative-list.md). Exactly the named checks fail.
type refusal struct {
	name    string
	before  func(*scene)
	after   func(*scene)
	genuine bool // the vendor (or simulated root) still stands behind the quote
	checks  []string
}

func faults(f simtee.Faults) func(*scene) { return func(s *scene) { s.cfg.Faults = f } }

// TestNegative spoils sound evidence, collateral or policy in one way at a time.
func TestNegative(t *testing.T) {
	numbered := regexp.MustCompile(`^[1-9][0-9]? `)
	for _, group := range [][]refusal{quoteRefusals(), vendorRefusals(), statementRefusals(), tdRefusals(), launchRefusals(), logRefusals(), policyRefusals()} {
		for _, tc := range group {
			if !numbered.MatchString(tc.name) {
				t.Errorf("%q names no item of the negative list", tc.name)
			}
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
}
