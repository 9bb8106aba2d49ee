package attest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/claim"
)

// The reason of a measurement that differs names the input, once the quote is known
// to be genuine.
func TestMismatchIsExplained(t *testing.T) {
	s := newScene(t, nil)
	before := s.ev.Config
	if s.ev.Config = strings.Replace(before, `"cpu_count":1`, `"cpu_count":3`, 1); s.ev.Config == before {
		t.Fatalf("no cpu_count in %s", before)
	}
	_, _, err := s.verify()
	rejected(t, err, true, claim.ImageMeasurement)
	var r *claim.Rejection
	if errors.As(err, &r) && !strings.Contains(r.Error(), "RTMR0 entry 0 differs: VM shape") {
		t.Error(err)
	}
}
