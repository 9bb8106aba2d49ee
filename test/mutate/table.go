package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kinds of mutations that a hand-written row asks for.
const (
	dropped  kind = "dropped"  // the statement is not executed
	replaced kind = "replaced" // the condition becomes another one
)

// handSite is a mutation that no rule finds: a statement to leave out, or a
// condition that becomes another.
type handSite struct {
	File    string `json:"file"`
	Old     string `json:"old"` // must occur exactly once
	Becomes string `json:"becomes,omitempty"`
}

func (h handSite) locate(root string) (site, error) {
	src, err := os.ReadFile(filepath.Join(root, h.File)) //nolint:gosec // the repository's own files
	if err != nil {
		return site{}, err
	}
	if n := bytes.Count(src, []byte(h.Old)); n != 1 {
		return site{}, fmt.Errorf("table.json is stale: %q occurs %d times in %s, want once", h.Old, n, h.File)
	}
	s := site{file: h.File, start: bytes.Index(src, []byte(h.Old)), Kind: dropped, becomes: h.Becomes}
	s.end = s.start + len(h.Old)
	if h.Becomes != "" {
		s.Kind = replaced
	}
	s.ID = fmt.Sprintf("%s %s: %s -> %s", h.File, s.Kind, h.Old, h.Becomes)
	return s, nil
}

// row says what one mutation does.
type row struct {
	ID    string   `json:"id"`
	Tests []string `json:"tests,omitempty"` // exactly these fail
	// Why explains a mutation that no test can see: it changes no verdict.
	Why string `json:"why,omitempty"`
}

// table is the record of a whole run.
type table struct {
	Packages []string `json:"packages"` // whose refusals are mutated
	Also     []string `json:"also"`     // whose tests are asked when those of Packages see nothing
	// Files that are left out, and why: what they refuse decides no verdict.
	Omit map[string]string `json:"omit,omitempty"`
	// Of the verifier's own tests, those that mutations of a package or file cannot
	// reach are skipped, or only those that can are run (patterns of go test).
	Skip  map[string]string `json:"skip"`
	Run   map[string]string `json:"run"`
	Quick []string          `json:"quick"` // rows of the everyday sample
	Hand  []handSite        `json:"hand"`
	Rows  []row             `json:"rows"`
}

func readTable(path string) (table, error) {
	var t table
	b, err := os.ReadFile(path) //nolint:gosec // our own table
	if err != nil {
		return t, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return t, d.Decode(&t)
}

func (t table) write(path string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(t); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644) //nolint:gosec // a file of the repository
}

func (t table) row(id string) (row, bool) {
	i := slices.IndexFunc(t.Rows, func(r row) bool { return r.ID == id })
	if i < 0 {
		return row{}, false
	}
	return t.Rows[i], true
}

// stale lists rows without a site and sites without a row.
func (t table) stale(mutants []mutant) (gone, unlisted []string) {
	have := map[string]bool{}
	for _, m := range mutants {
		have[m.ID] = true
		if _, ok := t.row(m.ID); !ok {
			unlisted = append(unlisted, m.ID)
		}
	}
	for _, r := range t.Rows {
		if !have[r.ID] {
			gone = append(gone, r.ID)
		}
	}
	return gone, unlisted
}

// judge compares an outcome with its row. An empty answer is agreement.
func (r row) judge(o outcome) string {
	switch {
	case len(o.failed) == 0 && r.Why == "":
		return "SURVIVED: no test notices"
	case len(o.failed) != 0 && r.Why != "" && len(r.Tests) == 0:
		return "is noticed now, by " + strings.Join(o.failed, ", ") + ": take its reason out of the table"
	}
	var missing, more []string
	for _, t := range r.Tests {
		if !slices.Contains(o.failed, t) {
			missing = append(missing, t)
		}
	}
	for _, t := range o.failed {
		if !slices.Contains(r.Tests, t) {
			more = append(more, t)
		}
	}
	switch {
	case len(missing) > 0:
		return "did not fail: " + strings.Join(missing, ", ")
	case len(more) > 0:
		return "failed too: " + strings.Join(more, ", ")
	}
	return ""
}
