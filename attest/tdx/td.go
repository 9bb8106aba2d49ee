package tdx

import (
	"fmt"

	"github.com/confidential-cloud/phala/attest/claim"
)

// Bits of TDATTRIBUTES and XFAM (Intel TDX Module ABI specification).
const (
	attrDebug         uint64 = 1 << 0
	attrTUD           uint64 = 0xff // bits 0-7: the TD is under debug
	attrSeptVeDisable uint64 = 1 << 28
	attrPKS           uint64 = 1 << 30

	xfamMust uint64 = 0x3 // x87 and SSE are always on

	// SafeAttributes may be set in a sound TD: SEPT_VE_DISABLE (must) and PKS.
	SafeAttributes = attrSeptVeDisable | attrPKS
	// SafeXFAM are the CPU features that TDX modules define.
	SafeXFAM uint64 = 0x6dbe7
)

// CheckTD judges the TD's own attributes and CPU features by what may be set.
// Whatever mayAttrs and mayXFAM say: no debug, no host-raised #VE, nothing reserved,
// no migration (a service TD could copy the TD's memory).
func CheckTD(b Body, mayAttrs, mayXFAM uint64, rec *claim.Recorder) {
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
	case attrs&^SafeAttributes != 0:
		rec.Fail(claim.TDAttributes, want, fmt.Sprintf("%#x", b.TDAttributes), "reserved, migration or monitoring attributes are set")
	case attrs&^mayAttrs != 0:
		rec.Fail(claim.TDAttributes, fmt.Sprintf("within %#x", mayAttrs), fmt.Sprintf("%#x", b.TDAttributes), "the policy does not admit these attributes")
	default:
		rec.Pass(claim.TDAttributes, fmt.Sprintf("%#x", b.TDAttributes))
	}
	switch {
	case b.XFAM&xfamMust != xfamMust || b.XFAM&^SafeXFAM != 0:
		rec.Fail(claim.TDXFAM, fmt.Sprintf("%#x within %#x", xfamMust, SafeXFAM), fmt.Sprintf("%#x", b.XFAM), "the VM's extended CPU features are not a defined set")
	case b.XFAM&^mayXFAM != 0:
		rec.Fail(claim.TDXFAM, fmt.Sprintf("within %#x", mayXFAM), fmt.Sprintf("%#x", b.XFAM), "the policy does not admit these CPU features")
	default:
		rec.Pass(claim.TDXFAM, fmt.Sprintf("%#x", b.XFAM))
	}
}

// Debug reports whether the host can debug the TD.
func (b Body) Debug() bool { return b.TDAttributes&attrDebug != 0 }
