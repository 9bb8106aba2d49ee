package governance

import (
	"crypto/sha256"

	"github.com/confidential-cloud/phala/attest/claim"
)

// RequestOf is what verified claims ask an Authority. Every field comes from a
// verified signature or a replayed register: nothing is taken from elsewhere.
// It is for evidence of the moment of the decision (phase release); for evidence
// of a guest that has gone on since, see RequestAtBoot.
func RequestOf(c claim.Claims) BootRequest {
	return BootRequest{
		AppID:        c.AppID,
		ComposeHash:  c.ComposeHash,
		InstanceID:   c.InstanceID,
		DeviceID:     c.DeviceID,
		MRAggregated: c.MRAggregated,
		MRSystem:     c.MRSystem,
		OSImageHash:  c.OSImageHash,
		TCBStatus:    c.TCB.Status,
		AdvisoryIDs:  append([]string{}, c.TCB.Advisories...),
	}
}

// RequestAtBoot is RequestOf as it was at boot-mr-done, from evidence that was
// made later: what the release of a running guest was decided on. No key provider
// was measured then, so mr_system has zeros in its place.
func RequestAtBoot(c claim.Claims) BootRequest {
	r := RequestOf(c)
	r.MRAggregated = c.MRBoot
	if c.SNP != nil { // the key provider is bound to the launch: it was there from the start
		return r
	}
	h := sha256.New()
	h.Write(c.MRTD[:])
	for i := range 3 {
		h.Write(c.RTMR[i][:])
	}
	h.Write(make([]byte, 32))
	h.Sum(r.MRSystem[:0])
	return r
}
