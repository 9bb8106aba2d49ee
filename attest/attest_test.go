package attest_test

import (
	"context"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

var at = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func hardware(t *testing.T, f simtee.Faults) *simtee.Hardware {
	t.Helper()
	h, err := simtee.New(simtee.Config{Seed: make([]byte, 32), Clock: func() time.Time { return at }, Faults: f})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHealthy(t *testing.T) {
	h := hardware(t, simtee.Faults{})
	g, err := h.Boot(context.Background(), simtee.Boot{Name: "a", AppID: cvm.AppID{7}, ComposeHash: cvm.ComposeHash{8}})
	if err != nil {
		t.Fatal(err)
	}
	rd := [64]byte{1, 2, 3}
	ev, err := g.Evidence(context.Background(), rd)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Collateral(at)
	if err != nil {
		t.Fatal(err)
	}
	v, checks, err := attest.Verify(ev, c, h.Policy(rd, claim.PhaseRelease), at)
	for _, c := range checks {
		t.Logf("%-8s %-20s %s %s", c.Verdict, c.Name, c.Got, c.Reason)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", v.Claims())
}
