package fetch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// files of the disk cache.
func files(t *testing.T, dir string) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(dir, "*.statement"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// nowhere is a service that is not there.
const nowhere = "http://127.0.0.1:1"

// What was fetched survives a restart, also when no service answers any more.
func TestDiskSurvivesRestart(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(t.TempDir(), "new", "dir")
	url, n := counted(t, b.hw.Handler())
	f := client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Dir: dir, Clock: b.clock})
	want, err := f.For(context.Background(), b.ev())
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if st, serr := d.Info(); err == nil && !d.IsDir() && (serr != nil || st.Mode().Perm() != 0o600) {
			t.Errorf("%s: %v %v", p, st.Mode(), serr)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if len(files(t, dir)) != 4 {
		t.Fatalf("files %q, want one for each statement", files(t, dir))
	}
	again := client(t, fetch.Config{URLs: []string{nowhere}, Roots: b.roots(), Dir: dir, Clock: b.clock})
	a, err := again.Ask(context.Background(), b.ev())
	if err != nil || a.Stale || !same(a.Set, want) || n.Load() != 1 {
		t.Errorf("%d fetches, stale %v: %v", n.Load(), a.Stale, err)
	}
	if s := again.Stats(); s.Disk != 4 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	b.pass(2 * time.Hour) // older than Refresh: asked for, in vain
	if a, err = again.Ask(context.Background(), b.ev()); err != nil || !a.Stale {
		t.Errorf("stale %v: %v", a.Stale, err)
	}
	again.Forget()
	if _, err := again.For(context.Background(), b.ev()); err == nil || len(files(t, dir)) != 0 {
		t.Errorf("something is left after Forget: %v, %q", err, files(t, dir))
	}
}

// A directory that cannot be written costs the cache, not the answers.
func TestUnwritableDisk(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch.New(fetch.Config{URLs: []string{nowhere}, Dir: file}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a file for a directory: %v", err)
	}
	url, _ := counted(t, b.hw.Handler())
	f := client(t, fetch.Config{URLs: []string{url}, Dir: filepath.Join(file, "below"), Clock: b.clock})
	if _, err := f.For(context.Background(), b.ev()); err != nil {
		t.Error(err)
	}
}

// A damaged file is as good as none: the statement is fetched again.
func TestDamagedFiles(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"a flipped bit":      func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"a flipped last bit": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"cut":                func(b []byte) []byte { return b[:len(b)-1] },
		"longer":             func(b []byte) []byte { return append(b, ' ') },
		"empty":              func([]byte) []byte { return nil },
		"huge":               func(b []byte) []byte { return append(b, make([]byte, 2<<20)...) },
		"another format":     func(b []byte) []byte { return bytes.Replace(b, []byte("statement 1"), []byte("statement 2"), 1) },
		"another key":        func(b []byte) []byte { return bytes.Replace(b, []byte(`"key":"intel/`), []byte(`"key":"INTEL/`), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			dir := t.TempDir()
			url, n := counted(t, b.hw.Handler())
			c := fetch.Config{URLs: []string{url}, Roots: b.roots(), Dir: dir, Clock: b.clock}
			if _, err := client(t, c).For(context.Background(), b.ev()); err != nil {
				t.Fatal(err)
			}
			for _, p := range files(t, dir) {
				raw, err := os.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, damage(raw), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := client(t, c).For(context.Background(), b.ev())
			if want, werr := b.hw.Collateral(b.clock()); err != nil || werr != nil || !same(got, want) || n.Load() != 2 {
				t.Errorf("%d fetches: %v %v", n.Load(), err, werr)
			}
			c.URLs = []string{nowhere}
			if _, err := client(t, c).For(context.Background(), b.ev()); err != nil {
				t.Errorf("what was fetched again is not kept: %v", err)
			}
		})
	}
}

// A file is judged like an answer: one that somebody signed themselves is not used,
// whatever its checksum says.
func TestForgedFile(t *testing.T) {
	b, other := newBench(t), newBenchSeed(t, 3)
	theirs, mine := t.TempDir(), t.TempDir()
	for dir, x := range map[string]*bench{theirs: other, mine: b} {
		url, _ := counted(t, x.hw.Handler())
		if _, err := client(t, fetch.Config{URLs: []string{url}, Roots: x.roots(), Dir: dir, Clock: x.clock}).For(context.Background(), x.ev()); err != nil {
			t.Fatal(err)
		}
	}
	// Their statements under our names, with a right checksum: the keys differ in the root.
	from, to := hexOf(other.hw.RootSPKI()), hexOf(b.hw.RootSPKI())
	for _, p := range files(t, theirs) {
		raw, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		raw = bytes.Replace(raw, []byte(from), []byte(to), 1)
		line, _, _ := bytes.Cut(raw, []byte("\n"))
		var h struct{ Key string }
		if err := json.Unmarshal(line, &h); err != nil {
			t.Fatal(err)
		}
		for _, q := range files(t, mine) {
			if own, err := os.ReadFile(q); err == nil && bytes.Contains(own, []byte(`"key":"`+h.Key+`"`)) {
				if err := os.WriteFile(q, raw, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	f := client(t, fetch.Config{URLs: []string{nowhere}, Roots: b.roots(), Dir: mine, Clock: b.clock})
	_, err := f.For(context.Background(), b.ev())
	if cvm.ReasonOf(err) != fetch.ReasonUnavailable || !strings.Contains(err.Error(), "another vendor's statement") {
		t.Errorf("%v", err)
	}
}

// The directory is bounded.
func TestDiskIsBounded(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	url, _ := counted(t, b.hw.Handler())
	if err := os.WriteFile(filepath.Join(dir, ".new-1"), []byte("of a writer that died"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".new-1"), old, old); err != nil {
		t.Fatal(err)
	}
	f := client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Dir: dir, Clock: b.clock, Entries: 2})
	if _, err := f.For(context.Background(), b.ev()); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(files(t, dir)) != 2 || len(all) != 3 { // and the floors
		t.Errorf("%v %v", all, err)
	}
}

// older is the bench's vendor as it was d ago: genuine, still valid, superseded.
func (b *bench) older(t *testing.T, d time.Duration) *simtee.Hardware {
	t.Helper()
	return b.hardware(t, simtee.Config{Clock: func() time.Time { return b.clock().Add(-d) }})
}

// evaluation edits the vendor's number.
func evaluation(n string) func(string, []byte) []byte {
	return func(_ string, b []byte) []byte {
		i := bytes.Index(b, []byte(`"tcbEvaluationDataNumber":`))
		j := i + len(`"tcbEvaluationDataNumber":`)
		k := j + bytes.IndexAny(b[j:], ",}")
		return append(append(append([]byte{}, b[:j]...), n...), b[k:]...)
	}
}

// Statements never go back: neither their numbers nor those of the lists, within a
// process or after a restart.
func TestFloors(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct{ then, now *simtee.Hardware }{
		"older lists": {b.hw, b.older(t, 48*time.Hour)},
		"older numbers": {b.hardware(t, simtee.Config{Faults: simtee.Faults{Statement: evaluation("40")}}),
			b.hardware(t, simtee.Config{Faults: simtee.Faults{Statement: evaluation("39")}})},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			good, _ := counted(t, c.then.Handler())
			f := client(t, fetch.Config{URLs: []string{good}, Roots: b.roots(), Dir: dir, Clock: b.clock})
			want, err := f.For(context.Background(), b.ev())
			if err != nil {
				t.Fatal(err)
			}
			marks, err := collateral.Marks(want)
			if err != nil || f.Floor().Check(marks) != nil || len(f.Floor()) != 4 {
				t.Fatalf("floor %v: %v", f.Floor(), err)
			}
			bad, _ := counted(t, c.now.Handler())
			// A restart that lost the statements, and not the floors.
			f.Forget()
			f = client(t, fetch.Config{URLs: []string{bad}, Roots: b.roots(), Dir: dir, Clock: b.clock})
			_, err = f.For(context.Background(), b.ev())
			if cvm.ReasonOf(err) != fetch.ReasonUnavailable || !strings.Contains(err.Error(), "seen before") {
				t.Errorf("%v", err)
			}
			f = client(t, fetch.Config{URLs: []string{bad, good}, Roots: b.roots(), Dir: dir, Clock: b.clock})
			got, err := f.For(context.Background(), b.ev())
			if again, merr := collateral.Marks(got); err != nil || merr != nil || f.Floor().Check(again) != nil {
				t.Errorf("no failover: %v %v", err, merr)
			}
			// Without admitted roots nobody could raise a floor that means something.
			f = client(t, fetch.Config{URLs: []string{bad}, Dir: t.TempDir(), Clock: b.clock})
			if _, err := f.For(context.Background(), b.ev()); err != nil || len(f.Floor()) != 0 {
				t.Errorf("%v %v", f.Floor(), err)
			}
		})
	}
}

// Nothing that was refused raises a floor.
func TestRefusedRaisesNothing(t *testing.T) {
	b := newBench(t)
	high := simtee.Faults{Statement: evaluation("900"), SignedByCA: true}
	bad, _ := counted(t, b.hardware(t, simtee.Config{Faults: high}).Handler())
	dir := t.TempDir()
	f := client(t, fetch.Config{URLs: []string{bad}, Roots: b.roots(), Dir: dir, Clock: b.clock})
	if _, err := f.For(context.Background(), b.ev()); err == nil {
		t.Fatal("accepted")
	}
	for k, n := range f.Floor() {
		if n.Int64() == 900 {
			t.Errorf("%s is %s", k, n)
		}
	}
}

// A floors file that cannot be read stops the client: ignoring it would forget what
// was superseded.
func TestDamagedFloors(t *testing.T) {
	b := newBench(t)
	for name, text := range map[string]string{"empty": "", "nonsense": "{", "a key of nobody": `{"x":1}`, "repeated": `{"a":1,"a":2}`, "negative": `{"` + strings.Repeat("a", 64) + `/qe":-1}`,
		"huge": strings.Repeat(" ", 2<<20)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "floors.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := fetch.New(fetch.Config{URLs: []string{nowhere}, Roots: b.roots(), Dir: dir})
		if cvm.CodeOf(err) != cvm.Precondition || cvm.ReasonOf(err) != "collateral-floors" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
