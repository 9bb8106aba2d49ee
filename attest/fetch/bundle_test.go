package fetch_test

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
)

func hexOf(b [32]byte) string { return hexString(b[:]) }

func hexString(b []byte) string { return hex.EncodeToString(b) }

// bundleOf exports what a client has about the bench's machine.
func bundleOf(t *testing.T, b *bench) collateral.Bundle {
	t.Helper()
	url, _ := counted(t, b.hw.Handler())
	a, err := client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Clock: b.clock}).Ask(context.Background(), b.ev())
	if err != nil {
		t.Fatal(err)
	}
	out, err := collateral.Merge(collateral.Bundle{Entries: []collateral.Entry{a.Entry()}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := out.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = collateral.ParseBundle(raw); err != nil {
		t.Fatal(err)
	}
	return out
}

// An offline client answers from its bundle, as long as that is valid.
func TestOffline(t *testing.T) {
	b := newBench(t)
	bundle := bundleOf(t, b)
	cfg := fetch.Config{Roots: b.roots(), Clock: b.clock, Transport: byHost{t: t}, URLs: []string{"http://never"}}
	f, err := fetch.Offline(cfg, bundle)
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.Ask(context.Background(), b.ev())
	want, werr := b.hw.Collateral(b.clock())
	if err != nil || werr != nil || a.Stale || !same(a.Set, want) {
		t.Fatalf("stale %v: %v %v", a.Stale, err, werr)
	}
	s, err := attest.Subject(b.ev())
	if set, ok := bundle.Find(s); err != nil || !ok || !same(set, want) || a.Subject.String() != s.String() {
		t.Errorf("%s: %v %v", s, ok, err)
	}
	b.pass(3 * time.Hour)
	if a, err = f.Ask(context.Background(), b.ev()); err != nil || !a.Stale {
		t.Errorf("a bundle of three hours ago is not called stale: %v", err)
	}
	other := newBenchSeed(t, 1)
	cfg.Roots = append(cfg.Roots, other.roots()...)
	if f, err = fetch.Offline(cfg, bundle); err != nil {
		t.Fatal(err)
	}
	if _, err := f.For(context.Background(), other.ev()); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
		t.Errorf("another machine: %v", err)
	}
	b.pass(31 * 24 * time.Hour)
	if _, err := f.For(context.Background(), b.ev()); cvm.ReasonOf(err) != fetch.ReasonUnavailable || !strings.Contains(err.Error(), "from bundle") {
		t.Errorf("after its end: %v", err)
	}
}

// With services, the bundle is what to fall back on.
func TestBundleAsFallback(t *testing.T) {
	b := newBench(t)
	bundle := bundleOf(t, b)
	b.pass(5 * time.Hour)
	url, n := counted(t, b.hw.Handler())
	f := client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Clock: b.clock, Bundle: &bundle})
	if a, err := f.Ask(context.Background(), b.ev()); err != nil || a.Stale || n.Load() != 1 {
		t.Errorf("a newer one is not asked for: %d, stale %v, %v", n.Load(), a.Stale, err)
	}
	f = client(t, fetch.Config{URLs: []string{nowhere}, Roots: b.roots(), Clock: b.clock, Bundle: &bundle})
	if a, err := f.Ask(context.Background(), b.ev()); err != nil || !a.Stale {
		t.Errorf("stale %v, %v", a.Stale, err)
	}
	f = client(t, fetch.Config{URLs: []string{nowhere}, Roots: b.roots(), Clock: b.clock, Bundle: &bundle, MaxAge: 4 * time.Hour})
	if _, err := f.For(context.Background(), b.ev()); cvm.ReasonOf(err) != fetch.ReasonUnavailable || !strings.Contains(err.Error(), "older than the policy allows") {
		t.Errorf("%v", err)
	}
}

// A model can be asked for without evidence, under each root.
func TestForFMSPC(t *testing.T) {
	b := newBench(t)
	f := client(t, fetch.Config{URLs: []string{"http://pcs"}, Roots: b.roots(), Clock: b.clock,
		Transport: byHost{t, map[string]http.Handler{"http://pcs": b.hw.Handler()}}})
	a, err := f.ForFMSPC(context.Background(), b.hw.RootSPKI(), [6]byte{0x50, 0x80, 0x60}, "platform")
	want, werr := b.hw.Collateral(b.clock())
	if err != nil || werr != nil || !same(a.Set, want) {
		t.Errorf("%v %v", err, werr)
	}
	if _, err := f.ForFMSPC(context.Background(), [32]byte{1}, [6]byte{0x50, 0x80, 0x60}, "platform"); cvm.ReasonOf(err) != fetch.ReasonRoot {
		t.Errorf("%v", err)
	}
	if _, err := f.ForFMSPC(context.Background(), b.hw.RootSPKI(), [6]byte{1}, "platform"); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
		t.Errorf("a model nobody knows: %v", err)
	}
}
