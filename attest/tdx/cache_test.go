package tdx_test

import (
	"bytes"
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

func admitAll([32]byte) bool { return true }

func when() time.Time { return time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC) }

func machine(t testing.TB, name string) (quote []byte, c collateral.Set) {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32), Machine: name})
	if err != nil {
		t.Fatal(err)
	}
	td, err := hw.NewTD("a", simtee.Shape{MRTD: cvm.Measurement{1}})
	if err != nil {
		t.Fatal(err)
	}
	if quote, err = td.Quote(context.Background(), [64]byte{2}); err != nil {
		t.Fatal(err)
	}
	if c, err = hw.Collateral(when()); err != nil {
		t.Fatal(err)
	}
	return quote, c
}

func verify(c *tdx.Cache, raw []byte, set collateral.Set, admitted func([32]byte) bool) bool {
	rec := &claim.Recorder{}
	c.Verify(raw, set, admitted, when(), rec)
	return rec.Passed(tdx.Genuine()...) && rec.Passed(claim.TCBMatch)
}

// 65: what failed is never kept: no chain, no report, no root that is not admitted.
func TestFailingInputNeverEnters(t *testing.T) {
	raw, set := machine(t, "")
	pem := bytes.Index(raw, []byte("-----BEGIN"))
	for name, spoil := range map[string]func([]byte){
		"quote signature": func(q []byte) { q[640] ^= 1 },
		"body":            func(q []byte) { q[100] ^= 1 },
		"key":             func(q []byte) { q[710] ^= 1 },
		"QE report":       func(q []byte) { q[800] ^= 1 },
		"leaf":            func(q []byte) { q[pem+400] ^= 1 },
		"CA":              func(q []byte) { q[len(q)-1500] ^= 1 },
		"root":            func(q []byte) { q[len(q)-100] ^= 1 },
	} {
		c := tdx.NewCache(8)
		q := bytes.Clone(raw)
		spoil(q)
		for range 2 {
			if verify(c, q, set, admitAll) {
				t.Errorf("%s: accepted", name)
			}
		}
		if c.Hosts() != 0 {
			t.Errorf("%s: entered the cache", name)
		}
	}
	c := tdx.NewCache(8)
	if verify(c, raw, set, func([32]byte) bool { return false }); c.Hosts() != 0 {
		t.Error("a root that is not admitted entered the cache")
	}
	if !verify(c, raw, set, admitAll) || c.Hosts() != 1 {
		t.Errorf("sound evidence: %d hosts", c.Hosts())
	}
}

// More machines than the cache may hold come and go.
func TestCacheIsBounded(t *testing.T) {
	const limit, machines = 4, 12
	c := tdx.NewCache(limit)
	for i := range machines {
		raw, set := machine(t, strconv.Itoa(i))
		for range 2 {
			if !verify(c, raw, set, admitAll) {
				t.Fatalf("machine %d is refused", i)
			}
		}
		if n := c.Hosts(); n < 1 || n > limit {
			t.Fatalf("%d hosts after %d machines", n, i+1)
		}
	}
}

// Other collateral drops every host that was seen beside the old one.
func TestNewCollateralDropsHosts(t *testing.T) {
	c := tdx.NewCache(8)
	var set collateral.Set
	for i := range 3 {
		var raw []byte
		raw, set = machine(t, strconv.Itoa(i))
		if !verify(c, raw, set, admitAll) {
			t.Fatal("refused")
		}
	}
	if c.Hosts() != 3 {
		t.Fatalf("%d hosts", c.Hosts())
	}
	raw, _ := machine(t, "0")
	forged := set
	forged.PCKCRL = bytes.Clone(set.PCKCRL)
	forged.PCKCRL[len(forged.PCKCRL)-1] ^= 1
	if verify(c, raw, forged, admitAll); c.Hosts() != 3 {
		t.Errorf("forged collateral dropped hosts: %d left", c.Hosts())
	}
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32), Machine: "0"})
	if err != nil {
		t.Fatal(err)
	}
	later, err := hw.Collateral(when().Add(-2 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !verify(c, raw, later, admitAll) || c.Hosts() != 1 {
		t.Errorf("%d hosts after other collateral, want the one that came with it", c.Hosts())
	}
}

// Intel's root is known byte for byte; its signature over itself must really hold.
func TestPinnedRootCertificate(t *testing.T) {
	raw := recordedQuote(t)
	q, err := tdx.ParseQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := q.ParseChain()
	if err != nil {
		t.Fatal(err)
	}
	if err := chain[2].CheckSignatureFrom(chain[2]); err != nil {
		t.Error(err)
	}
	at := bytes.LastIndex(raw[:q.Size()], []byte("-----END")) - 10 // in the root's signature
	for bit := range 3 {
		raw[at] ^= 1 << bit
		rec := &claim.Recorder{}
		if tdx.Verify(raw, collateral.Set{}, admitAll, when(), rec); rec.Passed(claim.PCKChain) {
			t.Errorf("bit %d of the root certificate does not count", bit)
		}
		raw[at] ^= 1 << bit
	}
	rec := &claim.Recorder{}
	if tdx.Verify(raw, collateral.Set{}, admitAll, when(), rec); !rec.Passed(tdx.Genuine()...) {
		t.Errorf("the recorded quote: %+v", rec.Checks())
	}
}
