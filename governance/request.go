package governance

import "github.com/confidential-cloud/phala/attest/claim"

// RequestOf is what verified claims ask an Authority. Every field comes from a
// verified signature or a replayed register: nothing is taken from elsewhere.
//
// MRAggregated is the one over the quoted RTMR3 for a boot in phase release; a
// caller that judges evidence of a running guest asks RequestAtBoot instead, so
// that both name the same boot.
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

// RequestAtBoot is RequestOf with mr_aggregated as it was at boot-mr-done: what
// the release of a guest that is running now was decided on.
func RequestAtBoot(c claim.Claims) BootRequest {
	r := RequestOf(c)
	r.MRAggregated = c.MRBoot
	return r
}
