package claim

import "slices"

// IsByPolicy reports whether a check applies what a relying party admits, rather
// than cryptography or the vendor's rules: without a policy nobody can judge it.
func IsByPolicy(name string) bool {
	return slices.Contains([]string{TCBStatus, TCBAdvisories, ReportData, PhaseCheck, ImageMeasurement}, name) || slices.Contains(OfTD(), name)
}

// OfTD lists the checks of how the host launched the VM. The vendor vouches for
// the values, and has no rule about them.
func OfTD() []string {
	return []string{TDDebug, TDAttributes, TDXFAM, TDModuleListed, TDConfigID, TDOwner, TDOwnerConfig, TDService}
}

// OfLog lists the checks that need an event log in the evidence.
func OfLog() []string {
	return []string{EventlogBoot, EventlogReplay, EventlogAgrees, EventlogIdentity, PhaseCheck}
}
