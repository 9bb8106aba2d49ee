package attest

import (
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/seen"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// Verifier is Verify with a memory: for a process that sees the same machines
// again. It remembers that signatures over exact bytes were good (tdx.Cache,
// sevsnp.Cache), so that a known machine costs one or two signatures instead of
// nine, and what its event log replays to. It remembers no verdict: time, roots,
// policy, revocation, TCB and binding are judged on every call, and what failed is
// never kept. It is safe for concurrent use.
type Verifier struct {
	tdx  *tdx.Cache
	snp  *sevsnp.Cache
	logs *seen.Cache[*replayed] // by the bytes of event log and vm_config, of verified evidence only
}

// NewVerifier makes a verifier that remembers at most limit machines of each kind
// of TEE, however many it is shown: at about 4 KiB each, and as many event logs with
// their vm_config, of at most 16 KiB each (larger ones are not kept).
func NewVerifier(limit int) *Verifier {
	return &Verifier{tdx: tdx.NewCache(limit), snp: sevsnp.NewCache(limit), logs: seen.New[*replayed](limit)}
}

// Verify is the function of that name. The nil Verifier remembers nothing.
func (v *Verifier) Verify(ev Evidence, c collateral.Set, p Policy, at time.Time) (Verified, []claim.Check, error) {
	var none Verifier
	if v == nil {
		v = &none
	}
	switch ev.Variant {
	case "", cvm.VariantTDX:
		return v.verifyTDX(ev, c, p, at)
	case cvm.VariantSNP:
		return verifySNP(ev, c, p, at, v.snp)
	case claim.VariantNitroEnclave, claim.VariantNitroTPM:
		return verifyNitro(ev, c, p, at)
	}
	rec := &claim.Recorder{}
	rec.Fail(claim.QuoteParse, "", ev.Variant, "this kind of TEE is not verified here")
	return Verified{}, rec.Checks(), &claim.Rejection{Checks: rec.Checks()}
}
