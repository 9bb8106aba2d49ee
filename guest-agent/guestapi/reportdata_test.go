package guestapi

import (
	"encoding/hex"
	"testing"
)

// DO NOT CHANGE: guests and verifiers in the field compute this (docs/spec/formats.md).
func TestReportDataEvidenceVector(t *testing.T) {
	const want = "77aa42f1611b6fb9540740576473a0aaa18976dbc77b232f86903e9e4b51bf185515fb3cd414fd2d67b39fe5f84c3ecbfa527818a04eb520a0271df29204b362"
	if got := ReportDataEvidence([]byte("nonce"), []byte("bound")); hex.EncodeToString(got[:]) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}
