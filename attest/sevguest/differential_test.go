package sevguest_test

import (
	"bytes"
	"crypto/x509"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
)

// vector is one case of docs/spec/differential-snp.md.
type vector struct {
	name   string
	config func(*simtee.AMDConfig)
	edit   func(*scene)
	ours   string // "" accepts, else a check that must fail
	oracle bool   // accepts
}

func report(edit func(*sevsnp.Report)) func(*simtee.AMDConfig) {
	return func(c *simtee.AMDConfig) { c.Faults.Report = edit }
}

func faults(f simtee.AMDFaults) func(*simtee.AMDConfig) {
	return func(c *simtee.AMDConfig) { c.Faults = f }
}

func vectors() []vector {
	low := simtee.DefaultTCB(sevsnp.Milan)
	low.SNP--
	lower := low.Value(sevsnp.Milan)
	return []vector{
		{"Milan v3, VCEK", nil, nil, "", true},
		{"Milan v2, VCEK", func(c *simtee.AMDConfig) { c.Version = 2 }, nil, "", true},
		{"Milan v5, VCEK", func(c *simtee.AMDConfig) { c.Version = 5 }, nil, "", true},
		{"Genoa v3, VCEK", func(c *simtee.AMDConfig) { c.Product = sevsnp.Genoa }, nil, "", true},
		{"Milan v3, VLEK", func(c *simtee.AMDConfig) { c.VLEK = "example-cloud" }, nil, "", true},
		{"Turin v3, VCEK", func(c *simtee.AMDConfig) { c.Product = sevsnp.Turin }, nil, "", false},
		{"trailing byte", nil, func(s *scene) { s.report = append(s.report, 0) }, claim.QuoteParse, true},
		{"version 6", report(func(r *sevsnp.Report) { r.Version = 6 }), nil, claim.QuoteParse, false},
		{"mitigation vector in a version 3 report", nil, resigned(0x1f8, 1), claim.QuoteParse, true},
		{"bytes above the signature's scalars", nil, func(s *scene) { s.report[sevsnp.SignedSize+71] = 1 }, claim.QuoteParse, false},
		{"reserved byte", nil, resigned(0x4c, 1), claim.QuoteParse, false},
		{"signature", nil, func(s *scene) { s.report[sevsnp.SignedSize] ^= 1 }, claim.QuoteSignature, false},
		{"key kind NONE", report(func(r *sevsnp.Report) { r.SigningKey = sevsnp.KeyNone }), nil, claim.SNPSigner, false},
		{"report names a VLEK, certificate of a VCEK", report(func(r *sevsnp.Report) { r.SigningKey = sevsnp.KeyVLEK }), nil, claim.SNPSigner, false},
		{"report of another product", report(func(r *sevsnp.Report) { r.Model = 0x11 }), nil, claim.SNPProduct, false},
		{"masked chip id", report(func(r *sevsnp.Report) { r.ChipID = [64]byte{} }), nil, claim.SNPChip, true},
		{"certificate of another chip", faults(simtee.AMDFaults{OtherChip: true}), nil, claim.SNPChip, false},
		{"certificate for another TCB", faults(simtee.AMDFaults{OtherTCB: true}), nil, claim.SNPTCB, false},
		{"reserved TCB bytes", report(func(r *sevsnp.Report) { r.CurrentTCB |= 1 << 16; r.CommittedTCB = r.CurrentTCB }), nil, claim.SNPTCB, true},
		{"committed above current", report(func(r *sevsnp.Report) { r.CommittedTCB += 1 << 56 }), nil, claim.SNPTCB, false},
		{"provisional firmware", report(func(r *sevsnp.Report) { r.Committed.Build-- }), nil, claim.SNPTCB, false},
		{"launched below the minimum", report(func(r *sevsnp.Report) { r.LaunchTCB = lower }), nil, claim.TCBStatus, false},
		{"revoked VCEK", faults(simtee.AMDFaults{RevokeLeaf: true}), nil, claim.CRLRevoked, true},
		{"revoked ASK", faults(simtee.AMDFaults{RevokeASK: true}), nil, claim.CRLRevoked, false},
		{"expired list", faults(simtee.AMDFaults{Expired: true}), nil, claim.CRLFresh, true},
		{"list of the future", faults(simtee.AMDFaults{Future: true}), nil, claim.CRLFresh, true},
		{"list signed by another", faults(simtee.AMDFaults{OtherList: true}), nil, claim.CRLFresh, false},
		{"debug", report(func(r *sevsnp.Report) { r.Policy |= sevsnp.GuestDebug }), nil, claim.SNPDebug, false},
		{"migration agent", report(func(r *sevsnp.Report) { r.Policy |= sevsnp.GuestMigrationAgent }), nil, claim.SNPGuest, false},
		{"SMT", report(func(r *sevsnp.Report) { r.Policy |= sevsnp.GuestSMT }), nil, claim.SNPGuest, false},
		{"CXL", report(func(r *sevsnp.Report) { r.Policy |= sevsnp.GuestCXL }), nil, claim.SNPGuest, false},
		{"policy bit 17 clear", report(func(r *sevsnp.Report) { r.Policy &^= 1 << 17 }), nil, claim.SNPGuest, false},
		{"VMPL 1", report(func(r *sevsnp.Report) { r.VMPL = 1 }), nil, claim.SNPVMPL, false},
		{"platform with SMT", report(func(r *sevsnp.Report) { r.PlatformInfo |= sevsnp.PlatformSMT }), nil, claim.SNPPlatform, false},
		{"ID block that nobody expects", report(func(r *sevsnp.Report) { r.IDKeyDigest[0] = 1 }), nil, claim.SNPIDBlock, true},
		{"leaf expired", faults(simtee.AMDFaults{Leaf: func(c *x509.Certificate) { c.NotAfter = at.Add(-time.Hour) }}), nil, claim.SNPChain, false},
		{"leaf with a reserved level", faults(simtee.AMDFaults{Leaf: func(c *x509.Certificate) {
			for i := range c.ExtraExtensions {
				if strings.HasSuffix(c.ExtraExtensions[i].Id.String(), ".3.5") {
					c.ExtraExtensions[i].Value = []byte{2, 1, 1}
				}
			}
		}}), nil, claim.CollateralParse, false},
		{"issuer without a path length", faults(simtee.AMDFaults{Issuer: func(c *x509.Certificate) { c.MaxPathLenZero = false }}), nil, claim.SNPChain, true},
	}
}

// resigned changes a byte of the report and lets the chip's key sign the result.
func resigned(at int, v byte) func(*scene) {
	return func(s *scene) {
		m, err := vendor()
		if err != nil {
			panic(err)
		}
		b := bytes.Clone(s.report)
		b[at] = v
		if s.report, err = m.Sign(b); err != nil {
			panic(err)
		}
	}
}

// TestDifferential compares verdicts, and that each disagreement is explained in
// the table. The only thing that ours accepts and the oracle does not is Turin.
func TestDifferential(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "spec", "differential-snp.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			s, _ := newScene(t, v.config)
			if v.edit != nil {
				v.edit(s)
			}
			failed, err := s.ours(), s.oracle()
			if (v.ours == "") != (failed == nil) || v.ours != "" && !slices.Contains(failed, v.ours) {
				t.Errorf("ours: %q, want %q", failed, v.ours)
			}
			if v.oracle != (err == nil) {
				t.Errorf("oracle: %v", err)
			}
			disagree := (failed == nil) != (err == nil)
			if listed := strings.Contains(string(doc), "| "+v.name+" |"); disagree != listed {
				t.Errorf("disagreement %v, in the table %v", disagree, listed)
			}
			if failed == nil && err != nil && !strings.HasPrefix(v.name, "Turin") {
				t.Errorf("ours is laxer: %v", err)
			}
		})
	}
}

// rounds of mutations; PHALA_LONG makes them many.
func rounds() int {
	if os.Getenv("PHALA_LONG") != "" {
		return 12_000
	}
	return 900
}

// TestMutationsNeverLaxer changes signed reports anywhere, signs them again as a
// broken or hostile firmware could, and looks for one that ours accepts and the
// oracle refuses.
func TestMutationsNeverLaxer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // reproducible on purpose
	accepted, stricter := 0, map[string]int{}
	for _, version := range []uint32{2, 3, 5} {
		s, m := newScene(t, func(c *simtee.AMDConfig) { c.Version = version })
		s.cache = sevsnp.NewCache(16)
		good := s.report
		for range rounds() / 3 {
			b := bytes.Clone(good)
			for range 1 + rnd.IntN(3) {
				at := rnd.IntN(sevsnp.SignedSize)
				b[at] = [4]byte{b[at] ^ 1<<rnd.IntN(8), 0, 0xff, byte(rnd.Uint32())}[rnd.IntN(4)] //nolint:gosec // a random byte
			}
			var err error
			if s.report, err = m.Sign(b); err != nil {
				t.Fatal(err)
			}
			failed, oracle := s.ours(), s.oracle()
			switch {
			case failed == nil && oracle != nil:
				t.Fatalf("ours accepts what the oracle refuses (%v): %x", oracle, s.report)
			case failed == nil:
				accepted++
			case oracle == nil:
				stricter[failed[0]]++
			}
			if oracle != nil && strings.HasPrefix(oracle.Error(), "PANIC") {
				t.Errorf("the oracle: %v", oracle)
			}
		}
	}
	t.Logf("%d accepted by both; ours refuses more: %v", accepted, stricter)
	known := []string{claim.QuoteParse, claim.SNPProduct, claim.SNPChip, claim.SNPTCB, claim.SNPIDBlock, claim.SNPGuest}
	for name := range stricter {
		if !slices.Contains(known, name) {
			t.Errorf("a kind of disagreement that the table does not have: %s", name)
		}
	}
	if accepted == 0 {
		t.Error("no mutation was accepted: the test compares nothing")
	}
}
