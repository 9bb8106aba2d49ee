package attest

import (
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
)

// SNPPolicy is what a relying party admits of SEV-SNP on top of Policy's roots,
// statuses and report data. The zero value admits nothing.
type SNPPolicy struct {
	Admit bool // SEV-SNP is admitted at all
}

func verifySNP(_ Evidence, _ collateral.Set, _ Policy, _ time.Time) (Verified, []claim.Check, error) {
	rec := &claim.Recorder{}
	rec.Fail(claim.QuoteParse, "", "", "SEV-SNP is not verified yet")
	return Verified{}, rec.Checks(), &claim.Rejection{Checks: rec.Checks()}
}
