package collateral_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

var fetched = time.Date(2026, 11, 21, 3, 30, 0, 0, time.UTC)

func entryOf(t testing.TB, s collateral.Set) collateral.Entry {
	t.Helper()
	sum, err := collateral.Summarize(s)
	if err != nil {
		t.Fatal(err)
	}
	return collateral.Entry{Subject: sum.Subject.String(), Fetched: fetched, Set: s}
}

// vendorSet is the set of another vendor's machine, as it is at a time.
func vendorSet(t testing.TB, seed byte, at time.Time) collateral.Set {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{seed}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := hw.Collateral(at)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func marshal(t testing.TB, b collateral.Bundle) []byte {
	t.Helper()
	raw, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBundleRoundTrip(t *testing.T) {
	mine, other := entryOf(t, set(t)), entryOf(t, vendorSet(t, 1, fetched))
	b, err := collateral.Merge(collateral.Bundle{Entries: []collateral.Entry{mine}}, collateral.Bundle{Entries: []collateral.Entry{other, mine}})
	if err != nil || len(b.Entries) != 2 {
		t.Fatalf("%d entries: %v", len(b.Entries), err)
	}
	raw := marshal(t, b)
	again, err := collateral.ParseBundle(raw)
	if err != nil || !bytes.Equal(marshal(t, again), raw) {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		t.Fatal(err)
	}
	if _, err := collateral.ParseBundle(compact.Bytes()); err != nil {
		t.Errorf("other white space: %v", err)
	}
	for _, e := range b.Entries {
		s, err := collateral.ParseSubject(e.Subject)
		if err != nil || s.String() != e.Subject {
			t.Errorf("%s: %v", e.Subject, err)
		}
		if got, ok := again.Find(s); !ok || !bytes.Equal(got.TCBInfo, e.Set.TCBInfo) {
			t.Errorf("%s is not found", e.Subject)
		}
	}
	if _, ok := again.Find(collateral.Subject{CA: "platform"}); ok {
		t.Error("a platform that is not there was found")
	}
}

func TestBundleRefusals(t *testing.T) {
	e, other := entryOf(t, set(t)), entryOf(t, vendorSet(t, 1, fetched))
	good := string(marshal(t, collateral.Bundle{Format: collateral.BundleFormat, Entries: []collateral.Entry{e}}))
	edit := func(f func(*collateral.Entry)) string {
		x := e
		f(&x)
		raw, err := json.Marshal(collateral.Bundle{Format: collateral.BundleFormat, Entries: []collateral.Entry{x}})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for name, text := range map[string]string{
		"empty": "", "null": "null", "no entries": `{"format":"` + collateral.BundleFormat + `","entries":[]}`,
		"another format":      strings.Replace(good, "bundle 1", "bundle 2", 1),
		"an unknown member":   strings.Replace(good, `"format"`, `"x": 1, "format"`, 1),
		"a case variant":      strings.Replace(good, `"subject"`, `"Subject"`, 1),
		"a repeated member":   strings.Replace(good, `"fetched"`, `"fetched": "2026-11-21T03:30:00Z", "fetched"`, 1),
		"data after":          good + "{}",
		"twice":               strings.Replace(good, `"entries": [`, `"entries": [`+edit(func(*collateral.Entry) {})[len(`{"format":"`+collateral.BundleFormat+`","entries":[`):len(edit(func(*collateral.Entry) {}))-2]+",", 1),
		"another subject":     edit(func(e *collateral.Entry) { e.Subject = other.Subject }),
		"no subject":          edit(func(e *collateral.Entry) { e.Subject = "" }),
		"another CA":          edit(func(e *collateral.Entry) { e.Subject = strings.Replace(e.Subject, "platform", "processor", 1) }),
		"no time":             edit(func(e *collateral.Entry) { e.Fetched = time.Time{} }),
		"local time":          edit(func(e *collateral.Entry) { e.Fetched = e.Fetched.In(time.FixedZone("x", 3600)) }),
		"no list":             edit(func(e *collateral.Entry) { e.Set.RootCRL = nil }),
		"unreadable TCB info": edit(func(e *collateral.Entry) { e.Set.TCBInfo = []byte("{}") }),
		"two vendors":         edit(func(e *collateral.Entry) { e.Set.AMD = &collateral.AMD{} }),
		"too long":            good + strings.Repeat(" ", collateral.MaxBundle),
	} {
		if _, err := collateral.ParseBundle([]byte(text)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of two statements about one platform the newer stays, in whichever order they come.
func TestMergeKeepsTheNewer(t *testing.T) {
	old, now := entryOf(t, vendorSet(t, 1, fetched.Add(-48*time.Hour))), entryOf(t, vendorSet(t, 1, fetched))
	old.Fetched = old.Fetched.Add(time.Hour) // fetched later, from a service that is behind
	for _, list := range [][]collateral.Entry{{old, now}, {now, old}} {
		var bundles []collateral.Bundle
		for _, e := range list {
			bundles = append(bundles, collateral.Bundle{Entries: []collateral.Entry{e}})
		}
		b, err := collateral.Merge(bundles...)
		if err != nil || len(b.Entries) != 1 || !bytes.Equal(b.Entries[0].Set.RootCRL, now.Set.RootCRL) {
			t.Errorf("%v", err)
		}
	}
	if _, err := collateral.Merge(); err == nil {
		t.Error("an empty bundle")
	}
}

func TestSubjects(t *testing.T) {
	for _, s := range []string{
		"tdx/" + strings.Repeat("ab", 32) + "/508060000000/platform", "tdx/" + strings.Repeat("00", 32) + "/b0c06f000000/processor",
		"snp/Milan/vcek/" + strings.Repeat("01", 64) + "/d517000000000104", "snp/Turin/vcek/0102030405060708/0000000000000000", "snp/Genoa/vlek/masked/00000000000000ff",
	} {
		if got, err := collateral.ParseSubject(s); err != nil || got.String() != s {
			t.Errorf("%s: %s %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "tdx", "tdx///", "snp////", "tdx/" + strings.Repeat("AB", 32) + "/508060000000/platform", "tdx/" + strings.Repeat("ab", 32) + "/508060000000/both",
		"tdx/" + strings.Repeat("ab", 31) + "/508060000000/platform", "tdx/" + strings.Repeat("ab", 32) + "/50806000000000/platform",
		"snp/Milan/vcek/01/0000000000000000", "snp/Milan/vcek/masked/0", "snp/Milan/ark/masked/0000000000000000", "snp//vcek/masked/0000000000000000",
		"snp/" + strings.Repeat("x", 256) + "/vcek/masked/0000000000000000", "sgx/a/b/c",
	} {
		if got, err := collateral.ParseSubject(s); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%q: %s %v", s, got, err)
		}
	}
}

// FuzzBundle: no panic, and what is accepted encodes to the same JSON.
func FuzzBundle(f *testing.F) {
	e := entryOf(f, set(f))
	raw := marshal(f, collateral.Bundle{Format: collateral.BundleFormat, Entries: []collateral.Entry{e}})
	f.Add(raw)
	f.Add([]byte(`{"format":"phala collateral bundle 1","entries":[{"subject":"","fetched":"2026-11-21T03:30:00Z","set":{}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := collateral.ParseBundle(b)
		if err != nil {
			return
		}
		var want, again bytes.Buffer
		if err := json.Compact(&want, b); err != nil {
			t.Fatal(err)
		}
		if err := json.Compact(&again, marshal(t, got)); err != nil || !bytes.Equal(want.Bytes(), again.Bytes()) {
			t.Errorf("not the same: %v", err)
		}
	})
}
