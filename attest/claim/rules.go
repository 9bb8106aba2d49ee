package claim

import "slices"

// IsByPolicy reports whether a check compares with what a relying party admits,
// rather than applying cryptography or the vendor's rules: where everything is
// admitted, its having passed says nothing.
func IsByPolicy(name string) bool {
	return slices.Contains([]string{TCBStatus, TCBAdvisories, TDModuleListed, TDConfigID, TDOwner, TDOwnerConfig, TDService,
		ReportData, PhaseCheck, ImageMeasurement, SNPAdmitted, DocumentNonce, DocumentImage}, name)
}

// IsOfLaunch reports whether a check is about how the host launched the VM. The
// vendor vouches for the values, and has no rule about them.
func IsOfLaunch(name string) bool {
	return slices.Contains([]string{TDDebug, TDAttributes, TDXFAM, TDModuleListed, TDConfigID, TDOwner, TDOwnerConfig, TDService,
		SNPDebug, SNPGuest, SNPVMPL, SNPIDBlock, SNPPlatform, SNPFirmware, SNPMitigation, DocumentDebug}, name)
}

// IsOfLog reports whether a check needs an event log in the evidence.
func IsOfLog(name string) bool {
	return slices.Contains([]string{EventlogBoot, EventlogReplay, EventlogAgrees, EventlogIdentity}, name)
}
