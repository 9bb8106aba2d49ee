package fetch_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// otherChip is the report with a chip id that somebody thought up.
func otherChip(ev attest.Evidence) attest.Evidence {
	const chipID = 0x1a0
	ev.Report = append([]byte{}, ev.Report...)
	_, _ = rand.Read(ev.Report[chipID : chipID+64])
	return ev
}

// What a report names must be asked for before its signature can be checked, so that
// strangers can ask for any chip. While AMD's service hangs they pile up nothing, and
// Intel's is asked all the same.
func TestStrangersPileUpNothing(t *testing.T) {
	b := newBench(t)
	m, ev, roots := chip(t, b, simtee.AMDConfig{})
	hang := make(chan struct{})
	kds := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/cert_chain") && !strings.HasSuffix(r.URL.Path, "/crl") {
			<-hang
		}
		m.Handler().ServeHTTP(w, r)
	})
	f := client(t, fetch.Config{KDS: []string{"http://kds"}, URLs: []string{"http://pcs"}, Roots: append(roots, b.roots()...), Clock: b.clock,
		Transport: byHost{t, map[string]http.Handler{"http://kds": kds, "http://pcs": b.hw.Handler()}}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const callers, bound, refused = 400, 16 + 256, 400 - 16 - 256
	got := make(chan error, callers)
	for range callers {
		go func() {
			_, err := f.For(ctx, otherChip(ev))
			got <- err
		}()
	}
	for range refused { // the others wait
		if err := <-got; cvm.ReasonOf(err) != fetch.ReasonUnavailable || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "too many") {
			t.Errorf("%v", err)
		}
	}
	if _, err := f.For(context.Background(), b.ev()); err != nil {
		t.Errorf("Intel's statements: %v", err)
	}
	cancel()
	for range bound {
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	close(hang)
}

// Questions that nobody can answer push no answer out of memory.
func TestFailuresPushNothingOut(t *testing.T) {
	b := newBench(t)
	m, ev, roots := chip(t, b, simtee.AMDConfig{})
	k := &kds{Handler: m.Handler()}
	f := k.client(t, b, roots, fetch.Config{Entries: 16})
	if _, err := f.For(context.Background(), ev); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if _, err := f.For(context.Background(), otherChip(ev)); err == nil {
			t.Fatal("the certificate of no chip")
		}
	}
	k.asked = nil
	if _, err := f.For(context.Background(), ev); err != nil || len(k.asked) != 0 {
		t.Errorf("asked %q: %v", k.asked, err)
	}
}

// A masked chip is kept under its certificate, not under all that a prover may add
// to it.
func TestMaskedChipIsKeptOnce(t *testing.T) {
	b := newBench(t)
	m, ev, roots := chip(t, b, simtee.AMDConfig{Faults: simtee.AMDFaults{Report: func(r *sevsnp.Report) { r.ChipID = [64]byte{} }}})
	set, err := m.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := (&kds{Handler: m.Handler()}).client(t, b, roots, fetch.Config{Dir: dir})
	entries := 0
	for i := range 8 {
		ev.CertChain = [][]byte{set.AMD.Leaf}
		for range i {
			ev.CertChain = append(ev.CertChain, set.AMD.Leaf)
		}
		if got, err := f.For(context.Background(), ev); err != nil || !sameAMD(got, set) {
			t.Fatalf("%v", err)
		}
		if n := f.Stats().Entries; i > 0 && n != entries {
			t.Fatalf("%d statements, then %d", entries, n)
		}
		entries = f.Stats().Entries
	}
	if n := len(files(t, dir)); n != entries {
		t.Errorf("%d files of %d statements", n, entries)
	}
}

// Who can write to the directory cannot keep an old statement alive by a date that
// is to come: it is asked for again at once.
func TestFileFromTheFuture(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	url, asked := counted(t, b.hw.Handler())
	cfg := fetch.Config{URLs: []string{url}, Roots: b.roots(), Dir: dir, Clock: b.clock}
	if _, err := client(t, cfg).For(context.Background(), b.ev()); err != nil {
		t.Fatal(err)
	}
	for _, p := range files(t, dir) {
		redate(t, p, b.clock().Add(20*24*time.Hour))
	}
	if _, err := client(t, cfg).For(context.Background(), b.ev()); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want again", n)
	}
	// With no service it is served, as stale as it is.
	for _, p := range files(t, dir) {
		redate(t, p, b.clock().Add(20*24*time.Hour))
	}
	cfg.URLs = []string{nowhere}
	if a, err := client(t, cfg).Ask(context.Background(), b.ev()); err != nil || !a.Stale {
		t.Errorf("stale %v: %v", a.Stale, err)
	}
}

// redate writes another time of fetching into a file, in its canonical form.
func redate(t *testing.T, path string, at time.Time) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, rest, _ := strings.Cut(string(raw), "\n")
	var h struct{ Fetched time.Time }
	if err := json.Unmarshal([]byte(line), &h); err != nil {
		t.Fatal(err)
	}
	text := func(v time.Time) string { b, _ := v.MarshalText(); return string(b) }
	line = strings.Replace(line, text(h.Fetched), text(at.UTC()), 1)
	if err := os.WriteFile(path, []byte(line+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
}
