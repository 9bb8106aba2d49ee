package verify

import (
	"context"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// Platform verifies what a prover VM of a node showed (vmmapi.Client.Prove): genuine
// evidence that the profile admits, over this nonce, of a VM that measured exactly
// this app-compose and nothing else before it answered (TDX), or was launched for it
// (SEV-SNP, whose guest runs nothing else and which shows no phase). Of the claims, DeviceID,
// Platform, TCB and Expires are about the host; s needs Collateral, and Values where
// the profile names a feed. Without an error the checks have all passed.
//
// It proves that who answered can start VMs on that device, and nothing about the
// software of the host: apps never rest on it.
func Platform(ctx context.Context, p Profile, s Sources, shown guestapi.Evidence, nonce, app []byte) (claim.Claims, []claim.Check, error) {
	if err := p.Validate(); err != nil {
		return claim.Claims{}, nil, err
	}
	if s.Collateral == nil || len(nonce) < 32 {
		return claim.Claims{}, nil, cvm.Errorf(cvm.Internal, "verify: no source of collateral, or a nonce of %d bytes", len(nonce))
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	b := &boot{run: &run{p: p, s: s, step: func(string) {}, report: &Report{Sections: outline()}}, who: "app", nonce: nonce, subject: &Subject{}}
	claims, ok := b.evidence(ctx, shown)
	want, got := cvm.ComposeHash(sum(app)), claims.ComposeHash
	b.sec("evidence").equal(checkCompose, want.String(), got.String(), "it is the evidence of another app, not of the prover")
	if ok && claims.DeviceID == (cvm.DeviceID{}) { // a masked chip under a key that many chips have
		b.sec("evidence").fail(checkDevice, "a device id", "none", "the evidence is of no device in particular: nothing tells this host from another")
	} else if ok {
		b.sec("evidence").pass(checkDevice, claims.DeviceID.String())
	}
	checks := b.sec("evidence").Checks
	for _, c := range checks {
		if c.Required && c.Verdict != claim.Passed {
			return claim.Claims{}, checks, cvm.Errorf(cvm.Denied, "the node's platform is not proved: %s: %s", c.Name, first(c.Reason, "got "+c.Got)).
				WithReason("platform-unproved").WithFix(c.Fix)
		}
	}
	if !ok {
		return claim.Claims{}, checks, cvm.Errorf(cvm.Denied, "the node's platform is not proved").WithReason("platform-unproved")
	}
	return claims, checks, nil
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
