package tdx

import (
	"fmt"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
)

// Bits of TDATTRIBUTES and XFAM (Intel TDX Module ABI specification).
const (
	attrDebug         uint64 = 1 << 0
	attrTUD           uint64 = 0xff // bits 0-7: the TD is under debug
	attrSeptVeDisable uint64 = 1 << 28
	attrPKS           uint64 = 1 << 30

	xfamMust uint64 = 0x3     // x87 and SSE are always on
	xfamMay  uint64 = 0x6dbe7 // what TDX modules define
)

// CheckTD applies the built-in policy on the TD's own attributes: no debug, no
// host-raised #VE, nothing reserved, no service TD (a migration agent could copy
// the TD's memory).
func CheckTD(b Body, rec *claim.Recorder) {
	if b.TDAttributes&attrTUD != 0 {
		rec.Fail(claim.TDDebug, "0", fmt.Sprintf("%#x", b.TDAttributes&attrTUD), "the VM runs in debug mode: the host can read it")
	} else {
		rec.Pass(claim.TDDebug, "")
	}
	attrs := b.TDAttributes &^ attrTUD // judged above
	want := fmt.Sprintf("%#x", attrSeptVeDisable)
	switch {
	case attrs&attrSeptVeDisable == 0:
		rec.Fail(claim.TDAttributes, want, fmt.Sprintf("%#x", b.TDAttributes), "SEPT_VE_DISABLE is clear: the host can raise exceptions in the VM")
	case attrs&^(attrSeptVeDisable|attrPKS) != 0:
		rec.Fail(claim.TDAttributes, want, fmt.Sprintf("%#x", b.TDAttributes), "reserved, migration or monitoring attributes are set")
	case b.MRServiceTD != (cvm.Measurement{}):
		rec.Fail(claim.TDAttributes, "no service TD", short(b.MRServiceTD[:]), "a service TD is bound to the VM")
	default:
		rec.Pass(claim.TDAttributes, fmt.Sprintf("%#x", b.TDAttributes))
	}
	if b.XFAM&xfamMust != xfamMust || b.XFAM&^xfamMay != 0 {
		rec.Fail(claim.TDXFAM, fmt.Sprintf("%#x within %#x", xfamMust, xfamMay), fmt.Sprintf("%#x", b.XFAM), "the VM's extended CPU features are not a defined set")
	} else {
		rec.Pass(claim.TDXFAM, fmt.Sprintf("%#x", b.XFAM))
	}
}

// Debug reports whether the host can debug the TD.
func (b Body) Debug() bool { return b.TDAttributes&attrDebug != 0 }
