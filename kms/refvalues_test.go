package kms

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
)

// The member's policy follows the feed, and admits nothing once it expired.
func TestReferenceValues(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "values.example")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	file := filepath.Join(t.TempDir(), "feed")
	publish := func(version uint64, module cvm.Measurement) {
		v := refvalue.Builtin()
		v.AnyTDXModule, v.TDXModules = false, []refvalue.TDXModule{{MRSeam: module, Version: "1", Status: refvalue.Admitted}}
		v.Version, v.Issued, v.Expires = version, at.Add(-time.Hour), at.Add(time.Hour)
		b, err := refvalue.Sign(v, skey)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := Config{Dir: t.TempDir(), Attestation: Attestation{Genuine: true, TCBStatus: []string{"UpToDate"}, Variants: []string{"lite"}}}
	now := at
	clock := func() time.Time { return now }
	log := slog.New(slog.DiscardHandler)
	builtin, err := newValues(c, clock, log)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := builtin.policy(); err != nil || !p.TD.AnyMRSeam {
		t.Errorf("compiled in: %+v %v", p.TD, err)
	}
	c.Attestation.ReferenceValues = ReferenceValues{Sources: []string{file}, Keys: []string{vkey}}
	v, err := newValues(c, clock, log)
	if err != nil {
		t.Fatal(err)
	}
	none := func(when string) {
		if _, err := v.policy(); cvm.ReasonOf(err) != fetch.ReasonNoFeed {
			t.Errorf("%s: %v", when, err)
		}
	}
	none("before the first look")
	for version := range uint64(2) {
		module := cvm.Measurement{byte(version + 1)}
		publish(version+1, module)
		v.start(t.Context())
		p, err := v.policy()
		if err != nil || len(p.TD.MRSeam) != 1 || p.TD.MRSeam[0] != module || p.TD.AnyMRSeam {
			t.Errorf("version %d: %+v %v", version+1, p.TD, err)
		}
	}
	now = at.Add(time.Hour)
	none("after the end")
}

func TestReferenceValuesConfig(t *testing.T) {
	for name, r := range map[string]ReferenceValues{
		"no key": {Sources: []string{"x"}}, "no source": {Keys: []string{"x"}}, "negative": {Sources: []string{"x"}, Keys: []string{"x"}, Refresh: -1},
	} {
		if r.validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if (ReferenceValues{}).validate() != nil {
		t.Error("nothing configured is refused")
	}
}
