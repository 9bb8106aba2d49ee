package check_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

func now() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }

// world is one simulated machine, its evidence and its collateral.
type world struct {
	t   testing.TB
	hw  *simtee.Hardware
	ev  attest.Evidence
	set collateral.Set
}

// made are the knobs of a world.
type made struct {
	seed   byte
	faults simtee.Faults
	boot   simtee.Boot
	rd     [64]byte
	quote  int // version; 0: 4
}

func newWorld(t testing.TB, m made) *world {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{m.seed + 1}, 32), Clock: now, Faults: m.faults, QuoteVersion: m.quote})
	if err != nil {
		t.Fatal(err)
	}
	if m.boot.Name == "" {
		m.boot = simtee.Boot{Name: "app", AppID: cvm.AppID{7}, ComposeHash: cvm.ComposeHash{8}, InstanceID: cvm.InstanceID{9}, Phase: claim.PhaseRunning, Attributes: m.boot.Attributes, MRServiceTD: m.boot.MRServiceTD}
	}
	g, err := hw.Boot(context.Background(), m.boot)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, hw: hw}
	if w.ev, err = g.Evidence(context.Background(), m.rd); err != nil {
		t.Fatal(err)
	}
	if w.set, err = hw.Collateral(now()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) collateral() map[string]any {
	w.t.Helper()
	raw, err := check.EncodeCollateral(w.set)
	if err != nil {
		w.t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		w.t.Fatal(err)
	}
	doc["pck_certificate_chain"] = string(w.set.PCKCRLIssuerChain) // optional, and not used
	return doc
}

func (w *world) root() string { return hex.EncodeToString(w.rootDER()) }

func (w *world) rootDER() []byte {
	rest := w.set.TCBInfoIssuerChain
	var last []byte
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return last
		}
		last = b.Bytes
	}
}

// contract is the tool contract of the world; edit changes it first.
func (w *world) contract(edit func(map[string]any)) []byte {
	w.t.Helper()
	doc := map[string]any{"quote": hex.EncodeToString(w.ev.Quote), "collateral": w.collateral(), "root": w.root(), "at": now().Unix()}
	return w.encode(doc, edit)
}

func (w *world) encode(doc map[string]any, edit func(map[string]any)) []byte {
	w.t.Helper()
	if edit != nil {
		edit(doc)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) attestation(edit func(map[string]any)) []byte {
	w.t.Helper()
	b, err := w.ev.Marshal()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.encode(map[string]any{"attestation": hex.EncodeToString(b), "collateral": w.collateral(), "root": w.root(), "at": now().Unix()}, edit)
}

// dstack is the answer of a guest's quote API.
func (w *world) dstack(edit func(map[string]any)) []byte {
	w.t.Helper()
	log, err := eventlog.EncodeJSON(w.ev.EventLog)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.encode(map[string]any{"quote": hex.EncodeToString(w.ev.Quote), "event_log": string(log), "vm_config": w.ev.Config,
		"report_data": hex.EncodeToString(w.ev.ReportData[:])}, edit)
}

// ask parses and runs with the clock of the world.
func ask(t testing.TB, raw []byte, o check.Options) check.Report {
	t.Helper()
	in, err := check.Parse(raw)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	if o.Now.IsZero() {
		o.Now = now()
	}
	r, err := check.Run(in, o)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return r
}

func status(r check.Report, name string) claim.Verdict {
	for _, c := range r.Checks {
		if c.Name == name {
			return c.Status
		}
	}
	return ""
}

// expect fails unless the verdict is as wanted and exactly these checks failed.
func expect(t testing.TB, r check.Report, verdict, platform string, failed ...string) {
	t.Helper()
	if r.Verdict != verdict || r.Platform != platform {
		t.Errorf("verdict %s on %s, want %s on %s: %s", r.Verdict, r.Platform, verdict, platform, r.Summary)
	}
	for _, name := range failed {
		if status(r, name) != claim.Failed {
			t.Errorf("%s is %q, want failed", name, status(r, name))
		}
	}
	for _, c := range r.Checks {
		found := false
		for _, name := range failed {
			found = found || name == c.Name
		}
		if c.Status == claim.Failed && !found {
			t.Errorf("%s failed too: %s", c.Name, c.Hint)
		}
		if c.Status != claim.Passed && c.Hint == "" {
			t.Errorf("%s has no words for a person", c.Name)
		}
	}
	if (verdict == check.Accepted) != (len(r.Claims) != 0) {
		t.Errorf("%s with %d claims", verdict, len(r.Claims))
	}
}

// vector reads a recorded file that is not part of the repository: from
// $PHALA_VECTORS, or ../shared/vectors beside some parent directory.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	dirs := []string{os.Getenv("PHALA_VECTORS")}
	if dirs[0] == "" {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for d := wd; d != filepath.Dir(d); d = filepath.Dir(d) {
			dirs = append(dirs, filepath.Join(filepath.Dir(d), "shared", "vectors"))
		}
	}
	for _, d := range dirs {
		if b, err := os.ReadFile(filepath.Join(d, name)); err == nil {
			return b
		}
	}
	t.Skipf("SKIPPED: the recorded vector %s is not here (set PHALA_VECTORS)", name)
	return nil
}
