package tdx_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
)

// What is not rated has no status, and a status of an unknown kind is named.
func TestNoStatusWithoutRating(t *testing.T) {
	for name, tc := range map[string]struct {
		faults simtee.Faults
		check  string
		got    string
	}{
		"module not listed":        {simtee.Faults{ModuleMajor: 9}, claim.TDXModule, "TDX_09"},
		"no platform level":        {simtee.Faults{NoMatchingTCB: true}, claim.TCBMatch, ""},
		"unknown status of the QE": {simtee.Faults{QEStatus: "Splendid"}, claim.TCBMatch, `"Splendid"`},
	} {
		hw, raw := quote(t, simtee.Config{Faults: tc.faults})
		set, err := hw.Collateral(when())
		if err != nil {
			t.Fatal(err)
		}
		rec := &claim.Recorder{}
		res := tdx.Verify(raw, set, admitAll, when(), rec)
		checks := rec.Checks()
		i := slices.IndexFunc(checks, func(c claim.Check) bool { return c.Name == tc.check })
		if i < 0 || checks[i].Verdict != claim.Failed || checks[i].Got != tc.got {
			t.Errorf("%s: %+v", name, checks)
		}
		if res.TCB.Status != "" || name != "unknown status of the QE" && (res.TCB.Platform != "" || res.TCB.Module != "") {
			t.Errorf("%s: rated %+v", name, res.TCB)
		}
	}
}

// A list without a number could be an older one: neither is accepted.
func TestListsAreNumbered(t *testing.T) {
	ecdsaSHA256 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	//nolint:staticcheck // x509.CreateRevocationList makes no list without a number
	bare, err := asn1.Marshal(pkix.CertificateList{SignatureAlgorithm: ecdsaSHA256, TBSCertList: pkix.TBSCertificateList{
		Version: 1, Signature: ecdsaSHA256, ThisUpdate: when(), NextUpdate: when().Add(time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	raw, sound := machine(t, "")
	root, pck := sound, sound
	root.RootCRL, pck.PCKCRL = bare, bare
	for name, set := range map[string]collateral.Set{"root": root, "PCK": pck} {
		rec := &claim.Recorder{}
		tdx.Verify(raw, set, admitAll, when(), rec)
		i := slices.IndexFunc(rec.Checks(), func(c claim.Check) bool { return c.Name == claim.CollateralParse })
		if i < 0 || !strings.Contains(rec.Checks()[i].Reason, "without number") {
			t.Errorf("%s list: %+v", name, rec.Checks())
		}
	}
}
