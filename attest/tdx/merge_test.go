package tdx

import (
	"testing"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// How statuses of two parts merge; both orders give the same. DO NOT CHANGE.
func TestMergedStatus(t *testing.T) {
	all := []string{UpToDate, SWHardeningNeeded, ConfigNeeded, ConfigAndSWNeeded, OutOfDate, OutOfDateConfigNeeded, Revoked}
	want := [7][7]string{
		{UpToDate, SWHardeningNeeded, ConfigNeeded, ConfigAndSWNeeded, OutOfDate, OutOfDateConfigNeeded, Revoked},
		{SWHardeningNeeded, SWHardeningNeeded, ConfigAndSWNeeded, ConfigAndSWNeeded, OutOfDate, OutOfDateConfigNeeded, Revoked},
		{ConfigNeeded, ConfigAndSWNeeded, ConfigNeeded, ConfigAndSWNeeded, OutOfDateConfigNeeded, OutOfDateConfigNeeded, Revoked},
		{ConfigAndSWNeeded, ConfigAndSWNeeded, ConfigAndSWNeeded, ConfigAndSWNeeded, OutOfDateConfigNeeded, OutOfDateConfigNeeded, Revoked},
		{OutOfDate, OutOfDate, OutOfDateConfigNeeded, OutOfDateConfigNeeded, OutOfDate, OutOfDateConfigNeeded, Revoked},
		{OutOfDateConfigNeeded, OutOfDateConfigNeeded, OutOfDateConfigNeeded, OutOfDateConfigNeeded, OutOfDateConfigNeeded, OutOfDateConfigNeeded, Revoked},
		{Revoked, Revoked, Revoked, Revoked, Revoked, Revoked, Revoked},
	}
	for i, a := range all {
		for j, b := range all {
			if got := merge(a, b); got != want[i][j] {
				t.Errorf("%s and %s merge to %s, want %s", a, b, got, want[i][j])
			}
		}
		if got := worst(collateral.SVNLevel{Status: a}); got != a {
			t.Errorf("%s alone is %s", a, got)
		}
		if got := worst(collateral.SVNLevel{Status: a}, collateral.SVNLevel{Status: "Splendid"}, collateral.SVNLevel{Status: UpToDate}); got != "" {
			t.Errorf("%s and an unknown status are %s", a, got)
		}
	}
}
