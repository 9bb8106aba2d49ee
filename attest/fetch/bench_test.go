package fetch_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/confidential-cloud/phala/attest/fetch"
)

// BenchmarkHit is what a caller pays for an answer from memory (TDX, four statements).
func BenchmarkHit(b *testing.B) {
	x := newBench(b)
	f, err := fetch.New(fetch.Config{URLs: []string{"http://pcs"}, Roots: x.roots(), Clock: x.clock,
		Transport: byHost{b, map[string]http.Handler{"http://pcs": x.hw.Handler()}}})
	if err != nil {
		b.Fatal(err)
	}
	ev := x.ev()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.For(context.Background(), ev); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDisk is a start from the disk cache: what one run of a CLI pays.
func BenchmarkDisk(b *testing.B) {
	x := newBench(b)
	cfg := fetch.Config{URLs: []string{"http://pcs"}, Roots: x.roots(), Clock: x.clock, Dir: b.TempDir(),
		Transport: byHost{b, map[string]http.Handler{"http://pcs": x.hw.Handler()}}}
	ev := x.ev()
	b.ReportAllocs()
	for b.Loop() {
		f, err := fetch.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.For(context.Background(), ev); err != nil {
			b.Fatal(err)
		}
	}
}
