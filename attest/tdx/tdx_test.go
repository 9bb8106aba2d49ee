package tdx_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

func quote(t testing.TB, cfg simtee.Config) (*simtee.Hardware, []byte) {
	t.Helper()
	cfg.Seed = make([]byte, 32)
	hw, err := simtee.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	td, err := hw.NewTD("a", simtee.Shape{MRTD: cvm.Measurement{1}})
	if err != nil {
		t.Fatal(err)
	}
	q, err := td.Quote(context.Background(), [64]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	return hw, q
}

func TestParseQuote(t *testing.T) {
	for _, version := range []int{4, 5} {
		_, raw := quote(t, simtee.Config{QuoteVersion: version})
		q, err := tdx.ParseQuote(raw)
		if err != nil {
			t.Fatal(err)
		}
		if int(q.Version) != version || q.Size() != len(raw) || q.Body.MRTD != (cvm.Measurement{1}) || q.Body.ReportData != [64]byte{2} {
			t.Errorf("version %d: %+v", version, q.Body)
		}
		for n := range len(raw) {
			if _, err := tdx.ParseQuote(raw[:n]); err == nil {
				t.Fatalf("version %d cut at %d is accepted", version, n)
			}
		}
		fmspc, ca, err := tdx.FMSPC(raw)
		if err != nil || fmspc != [6]byte{0x50, 0x80, 0x60} || ca != "platform" {
			t.Errorf("%x %s %v", fmspc, ca, err)
		}
	}
	if tdx.ReportDataOffset != 568 {
		t.Errorf("report data at %d", tdx.ReportDataOffset)
	}
}

// Intel serves FMSPC in either case; 25 of the negative list.
func TestFMSPCCaseDoesNotMatter(t *testing.T) {
	at := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	hw, raw := quote(t, simtee.Config{FMSPC: "50806000aBcD"})
	c, err := hw.Collateral(at)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(c.TCBInfo, []byte(`"50806000aBcD"`)) {
		t.Fatalf("%s", c.TCBInfo)
	}
	rec := &claim.Recorder{}
	res := tdx.Verify(raw, c, func([32]byte) bool { return true }, at, rec)
	if !rec.Passed(claim.CollateralMatch, claim.TCBMatch) || res.TCB.Status != tdx.UpToDate {
		t.Errorf("%+v", rec.Checks())
	}
}

func FuzzParseQuote(f *testing.F) {
	for _, version := range []int{4, 5} {
		_, raw := quote(f, simtee.Config{QuoteVersion: version})
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := tdx.ParseQuote(b)
		if err != nil {
			return
		}
		if q.Size() > len(b) || len(bytes.Trim(b[q.Size():], "\x00")) != 0 {
			t.Fatalf("size %d of %d", q.Size(), len(b))
		}
		_, _, _ = q.ParseChain()
	})
}

func BenchmarkVerify(b *testing.B) {
	at := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	hw, raw := quote(b, simtee.Config{})
	c, err := hw.Collateral(at)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		rec := &claim.Recorder{}
		if tdx.Verify(raw, c, func([32]byte) bool { return true }, at, rec); !rec.Passed(claim.TCBMatch) {
			b.Fatal("rejected")
		}
	}
}
