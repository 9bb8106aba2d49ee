package attest

import (
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// SNPPolicy is what a relying party admits of SEV-SNP on top of Policy's roots,
// statuses, report data and phases (which must name "unproven"). The zero value admits
// nothing.
type SNPPolicy struct {
	Admit    bool     `json:"admit"`    // SEV-SNP is admitted at all
	Products []string `json:"products"` // admitted processor lines: "Milan", "Genoa", "Turin"
	// MinTCB is the least TCB of each admitted product. Below it (reported,
	// committed, current or at launch) the status is OutOfDate; a product without one is refused.
	MinTCB map[string]sevsnp.TCB `json:"min_tcb"`
	// CSPs are the cloud providers whose VLEK is admitted (csp id of the certificate). Empty: only the chip's own VCEK.
	CSPs []string `json:"csps"`
	// AnyMaskedChip admits reports whose chip id is masked (zero): nothing then tells one host from another.
	AnyMaskedChip bool `json:"any_masked_chip"`
	// AnyProvisional admits firmware that is not committed: the host can go back to the committed one.
	AnyProvisional bool `json:"any_provisional"`
	// Guest is what the VM may have been launched with.
	Guest sevsnp.Guest `json:"guest"`
	// Measure says how the launch digest may be bound to an image.
	Measure measure.SNPPolicy `json:"measure"`
}

func verifySNP(_ Evidence, _ collateral.Set, _ Policy, _ time.Time) (Verified, []claim.Check, error) {
	rec := &claim.Recorder{Variant: cvm.VariantSNP}
	rec.Fail(claim.QuoteParse, "", "", "SEV-SNP is not verified yet")
	return Verified{}, rec.Checks(), &claim.Rejection{Checks: rec.Checks()}
}
