package sevsnp_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

var (
	at     = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	vendor = sync.OnceValues(func() (*simtee.AMD, error) { return simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)}) })
)

// sample is a sound report and what stands behind it.
func sample(t testing.TB, edit func(*simtee.AMDConfig)) ([]byte, *collateral.AMD, sevsnp.Options) {
	t.Helper()
	v, err := vendor()
	if err != nil {
		t.Fatal(err)
	}
	product := sevsnp.Milan
	m, err := v.With(func(c *simtee.AMDConfig) {
		if edit != nil {
			edit(c)
		}
		if c.Product != "" {
			product = c.Product
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	report, err := m.Report(cvm.Measurement{1}, [32]byte{2}, 0, [64]byte{3})
	if err != nil {
		t.Fatal(err)
	}
	set, err := m.Collateral(at)
	if err != nil {
		t.Fatal(err)
	}
	root := m.RootSPKI()
	return report, set.AMD, sevsnp.Options{
		Admitted: func(_ string, spki [32]byte) bool { return spki == root }, Products: []string{product},
		MinTCB: map[string]sevsnp.TCB{product: simtee.DefaultTCB(product)},
	}
}

func verify(report []byte, c *collateral.AMD, o sevsnp.Options) *claim.Recorder {
	rec := &claim.Recorder{Variant: cvm.VariantSNP}
	if r := sevsnp.Verify(report, c, o, at, rec).Report; r != nil {
		sevsnp.CheckGuest(r, sevsnp.Guest{}, rec)
	}
	return rec
}

// vendorChecks are those that this package makes on a sound report.
func vendorChecks() []string {
	return []string{claim.QuoteParse, claim.CollateralParse, claim.SNPChain, claim.RootAdmitted, claim.SNPProduct, claim.SNPSigner, claim.QuoteSignature,
		claim.CRLFresh, claim.CRLRevoked, claim.SNPChip, claim.SNPTCB, claim.TCBMatch, claim.SNPDebug, claim.SNPGuest, claim.SNPVMPL, claim.SNPIDBlock,
		claim.SNPPlatform, claim.SNPFirmware, claim.SNPMitigation}
}

// Every single-bit flip of an accepted report is refused, for its bytes or for its
// signature; so is every other length.
func TestEveryBitFlipIsRefused(t *testing.T) {
	report, c, o := sample(t, func(c *simtee.AMDConfig) { c.Version = 5 })
	o.Cache = sevsnp.NewCache(8)
	if rec := verify(report, c, o); !rec.Passed(vendorChecks()...) {
		t.Fatal(rec.Checks())
	}
	for i := range len(report) * 8 {
		bad := bytes.Clone(report)
		bad[i/8] ^= 1 << (i % 8)
		if verify(bad, c, o).Passed(claim.QuoteParse, claim.QuoteSignature) {
			t.Errorf("bit %d of byte %#x", i%8, i/8)
		}
	}
	for n := range report {
		if _, err := sevsnp.ParseReport(report[:n]); err == nil {
			t.Errorf("%d bytes are accepted", n)
		}
	}
}

// Warm, cold and twice: the verdicts are the same, and what failed is not kept.
func TestCacheChangesNothing(t *testing.T) {
	report, c, o := sample(t, nil)
	cached := o
	cached.Cache = sevsnp.NewCache(8)
	for name, edit := range map[string]func(c *collateral.AMD){
		"sound": func(*collateral.AMD) {}, "leaf": func(c *collateral.AMD) { c.Leaf[len(c.Leaf)-1] ^= 1 },
		"chain": func(c *collateral.AMD) { c.Chain[len(c.Chain)/2] ^= 2 }, "list": func(c *collateral.AMD) { c.CRL[len(c.CRL)-1] ^= 1 },
	} {
		for range 3 {
			bad := &collateral.AMD{Leaf: bytes.Clone(c.Leaf), Chain: bytes.Clone(c.Chain), CRL: bytes.Clone(c.CRL)}
			edit(bad)
			cold, warm := verify(report, bad, o), verify(report, bad, cached)
			if a, b := fmt.Sprint(cold.Checks()), fmt.Sprint(warm.Checks()); a != b {
				t.Errorf("%s:\n%s\n%s", name, a, b)
			}
			if warm.Passed(vendorChecks()...) != (name == "sound") {
				t.Errorf("%s: %v", name, warm.Checks())
			}
		}
	}
	// A revocation counts although the chain is known.
	_, revoked, _ := sample(t, func(c *simtee.AMDConfig) { c.Faults.RevokeLeaf = true })
	if rec := verify(report, revoked, cached); rec.Passed(claim.CRLRevoked) || !rec.Passed(claim.SNPChain, claim.CRLFresh) {
		t.Error(rec.Checks())
	}
	// So does time.
	rec := &claim.Recorder{Variant: cvm.VariantSNP}
	sevsnp.Verify(report, c, cached, at.AddDate(2, 0, 0), rec)
	if rec.Passed(claim.CRLFresh) || !rec.Passed(claim.SNPChain) {
		t.Error(rec.Checks())
	}
	if n := cached.Cache.Chips(); n != 1 {
		t.Errorf("%d chips are remembered", n)
	}
}

// Chains that hold under a root that nobody admits, and chains that were shown with
// a report they did not sign, do not enter the cache: else strangers could push those
// of real machines out.
func TestStrangersStayOutOfTheCache(t *testing.T) {
	report, c, o := sample(t, nil)
	o.Cache = sevsnp.NewCache(8)
	stranger := o
	stranger.Admitted = func(string, [32]byte) bool { return false }
	if rec := verify(report, c, stranger); !rec.Passed(claim.SNPChain, claim.QuoteSignature, claim.CRLFresh) || rec.Passed(claim.RootAdmitted) {
		t.Fatal(rec.Checks())
	}
	forged := bytes.Clone(report)
	forged[sevsnp.ReportDataOffset] ^= 1
	if rec := verify(forged, c, o); !rec.Passed(claim.SNPChain, claim.RootAdmitted) || rec.Passed(claim.QuoteSignature) {
		t.Fatal(rec.Checks())
	}
	if n := o.Cache.Chips(); n != 0 {
		t.Errorf("%d chips are remembered", n)
	}
}

func TestCacheIsSharedSafely(t *testing.T) {
	report, c, o := sample(t, nil)
	o.Cache = sevsnp.NewCache(8)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if rec := verify(report, c, o); !rec.Passed(vendorChecks()...) {
					t.Error(rec.Checks())
				}
			}
		})
	}
	wg.Wait()
}

func TestTCBLayouts(t *testing.T) {
	for _, tc := range []struct {
		product string
		v       uint64
		want    sevsnp.TCB
		ok      bool
	}{
		{sevsnp.Milan, 0xd517000000000104, sevsnp.TCB{BootLoader: 4, TEE: 1, SNP: 0x17, Microcode: 0xd5}, true},
		{sevsnp.Genoa, 0xd517000000000104, sevsnp.TCB{BootLoader: 4, TEE: 1, SNP: 0x17, Microcode: 0xd5}, true},
		{sevsnp.Turin, 0xd500000017010402, sevsnp.TCB{FMC: 2, BootLoader: 4, TEE: 1, SNP: 0x17, Microcode: 0xd5}, true},
		{sevsnp.Milan, 0xd500000017010402, sevsnp.TCB{}, false},
		{sevsnp.Turin, 0xd517000000000104, sevsnp.TCB{}, false},
		{sevsnp.Milan, 1 << 40, sevsnp.TCB{}, false},
	} {
		got, err := sevsnp.ParseTCB(tc.product, tc.v)
		if (err == nil) != tc.ok || got != tc.want || tc.ok && got.Value(tc.product) != tc.v {
			t.Errorf("%s %#x: %v %v", tc.product, tc.v, got, err)
		}
	}
}

func TestProducts(t *testing.T) {
	for cpu, want := range map[[2]uint8]string{
		{0x19, 0x01}: sevsnp.Milan, {0x19, 0x11}: sevsnp.Genoa, {0x19, 0xa0}: sevsnp.Genoa, {0x1a, 0x02}: sevsnp.Turin, {0x1a, 0x11}: sevsnp.Turin,
		{0x19, 0x00}: "", {0x19, 0x02}: "", {0x19, 0x10}: "", {0x19, 0xa1}: "", {0x1a, 0x01}: "", {0x1a, 0x20}: "", {0x17, 0x01}: "", {0, 0}: "",
	} {
		r := sevsnp.Report{Version: 3, Family: cpu[0], Model: cpu[1]}
		if got := r.Product(); got != want {
			t.Errorf("%#x: %q, want %q", cpu, got, want)
		}
		if r.Version = 2; r.Product() != "" {
			t.Error("version 2 names a product")
		}
	}
}

func FuzzReport(f *testing.F) {
	for v := uint32(2); v <= 5; v++ {
		r, _, _ := sample(f, func(c *simtee.AMDConfig) { c.Version = v })
		f.Add(r)
		f.Add(r[:100])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := sevsnp.ParseReport(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Encode(), b) {
			t.Error("does not re-encode")
		}
	})
}

// FuzzLeaf: no panic, and what is accepted is within its kind's rules.
func FuzzLeaf(f *testing.F) {
	for _, edit := range []func(*simtee.AMDConfig){nil, func(c *simtee.AMDConfig) { c.VLEK = "x" }, func(c *simtee.AMDConfig) { c.Product = sevsnp.Turin }} {
		_, c, _ := sample(f, edit)
		f.Add(c.Leaf)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		l, err := sevsnp.ParseLeaf(der)
		if err != nil {
			return
		}
		if !bytes.Equal(l.Cert.Raw, der) {
			t.Error("bytes beside the certificate")
		}
		vcek := l.Kind == sevsnp.KeyVCEK && len(l.HWID) == sevsnp.HWIDSize(l.Product) && l.CSP == ""
		vlek := l.Kind == sevsnp.KeyVLEK && l.HWID == nil && l.CSP != ""
		if !vcek && !vlek || l.Key == nil || l.TCB.FMC != 0 && l.Product != sevsnp.Turin {
			t.Errorf("%+v", l)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	report, c, o := sample(b, nil)
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			verify(report, c, o)
		}
	})
	o.Cache = sevsnp.NewCache(8)
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			verify(report, c, o)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = sevsnp.ParseReport(report)
		}
	})
}
