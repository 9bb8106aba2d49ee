package tdxguest_test

import (
	"testing"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/teefs"
	"github.com/confidential-cloud/phala/attest/tdxguest"
)

// What the kernel's files cost on top of the quote itself.
func BenchmarkQuote(b *testing.B) {
	h, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		b.Fatal(err)
	}
	td, err := h.NewTD("a", simtee.Shape{})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	f, err := teefs.Mount(dir, td)
	if err != nil {
		b.Skipf("SKIPPED: no FUSE here: %v", err)
	}
	b.Cleanup(func() { _ = f.Close() })
	b.Run("device", func(b *testing.B) {
		for b.Loop() {
			if _, err := td.Quote(b.Context(), [64]byte{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("files", func(b *testing.B) {
		d := tdxguest.New(config(dir))
		for b.Loop() {
			if _, err := d.Quote(b.Context(), [64]byte{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
