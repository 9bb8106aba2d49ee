package collateral

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Bundle is collateral in a file: what a verifier without a network needs. It is
// carried, never trusted: whoever made it can leave something out, or hold it at an
// earlier (still valid) state, and nothing else. docs/spec/collateral.md is its format.
type Bundle struct {
	Format  string  `json:"format"` // BundleFormat
	Entries []Entry `json:"entries"`
}

// Entry is the collateral of one platform.
type Entry struct {
	Subject string    `json:"subject"` // Subject in its text form
	Fetched time.Time `json:"fetched"` // UTC; when the oldest of its statements was got
	Set     Set       `json:"set"`
}

// BundleFormat is the value of Bundle.Format.
const BundleFormat = "phala collateral bundle 1"

// Limits of a bundle.
const (
	MaxBundle  = 32 << 20 // bytes of the file
	maxEntries = 4096
)

// ParseBundle reads a bundle strictly: it must be what Marshal writes, but for
// white space; no subject appears twice; each entry must be about what it says and
// be readable. No signature is checked. Errors carry code invalid.
func ParseBundle(b []byte) (Bundle, error) {
	if len(b) > MaxBundle {
		return Bundle{}, cvm.Errorf(cvm.Invalid, "collateral bundle: %d bytes, at most %d", len(b), MaxBundle)
	}
	var out Bundle
	if err := json.Unmarshal(b, &out); err != nil {
		return Bundle{}, cvm.Errorf(cvm.Invalid, "collateral bundle: %w", err)
	}
	again, err := out.Marshal()
	if err != nil {
		return Bundle{}, err
	}
	// Repeated, case-variant and unknown members do not survive the round trip.
	var plain, want bytes.Buffer
	if err := json.Compact(&plain, b); err != nil {
		return Bundle{}, cvm.Errorf(cvm.Invalid, "collateral bundle: %w", err)
	}
	if err := json.Compact(&want, again); err != nil || !bytes.Equal(plain.Bytes(), want.Bytes()) {
		return Bundle{}, cvm.Errorf(cvm.Invalid, "collateral bundle: not in canonical form (unknown, repeated or reordered members)")
	}
	return out, nil
}

// Marshal checks the bundle and encodes it, entries in the order of their subjects.
func (b Bundle) Marshal() ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(b, "", " ")
	return append(out, '\n'), err
}

func (b Bundle) validate() error {
	if b.Format != BundleFormat {
		return cvm.Errorf(cvm.Invalid, "collateral bundle: format %.80q, want %q", b.Format, BundleFormat)
	}
	if len(b.Entries) == 0 || len(b.Entries) > maxEntries {
		return cvm.Errorf(cvm.Invalid, "collateral bundle: %d entries, want 1 to %d", len(b.Entries), maxEntries)
	}
	for i, e := range b.Entries {
		if i > 0 && strings.Compare(b.Entries[i-1].Subject, e.Subject) >= 0 {
			return cvm.Errorf(cvm.Invalid, "collateral bundle: %.120q is repeated or out of order", e.Subject)
		}
		if err := e.validate(); err != nil {
			return cvm.Errorf(cvm.Invalid, "collateral bundle: entry %d: %w", i, err)
		}
	}
	return nil
}

func (e Entry) validate() error {
	want, err := ParseSubject(e.Subject)
	if err != nil {
		return err
	}
	sum, err := Summarize(e.Set)
	if err != nil {
		return err
	}
	is := sum.Subject
	if !want.TDX() { // the certificate is judged where it is used
		is.Chip, is.TCB = want.Chip, want.TCB
	}
	if is.String() != e.Subject {
		return cvm.Errorf(cvm.Invalid, "it says to be about %s, and is about %s", e.Subject, is)
	}
	if e.Fetched.Location() != time.UTC || e.Fetched.IsZero() {
		return cvm.Errorf(cvm.Invalid, "no time in UTC when it was fetched")
	}
	return nil
}

// Find returns the set of a subject.
func (b Bundle) Find(s Subject) (Set, bool) {
	for _, e := range b.Entries {
		if e.Subject == s.String() {
			return e.Set, true
		}
	}
	return Set{}, false
}

// Merge joins bundles. Of two entries of one subject the newer stays: by the
// number of its TCB info or list, then by when it was fetched.
func Merge(bundles ...Bundle) (Bundle, error) {
	best := map[string]Entry{}
	for _, b := range bundles {
		for _, e := range b.Entries {
			if old, ok := best[e.Subject]; ok {
				newer, err := e.newer(old)
				if err != nil {
					return Bundle{}, err
				}
				if !newer {
					continue
				}
			}
			best[e.Subject] = e
		}
	}
	out := Bundle{Format: BundleFormat}
	for _, k := range slices.Sorted(maps.Keys(best)) {
		out.Entries = append(out.Entries, best[k])
	}
	return out, out.validate()
}

func (e Entry) newer(old Entry) (bool, error) {
	a, err := Summarize(e.Set)
	if err != nil {
		return false, err
	}
	b, err := Summarize(old.Set)
	if err != nil {
		return false, err
	}
	if a.TCBEvaluation != b.TCBEvaluation {
		return a.TCBEvaluation > b.TCBEvaluation, nil
	}
	if c := a.RootCRLNumber.Cmp(b.RootCRLNumber); c != 0 {
		return c > 0, nil
	}
	return e.Fetched.After(old.Fetched), nil
}
