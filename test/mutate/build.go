package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// mutant is a site and its number in the build. Number 0 is the code as it is.
type mutant struct {
	site
	n int
}

// edit inserts text at a byte offset of a file.
type edit struct {
	at   int
	rank int // among edits at one offset: closing ones (negative) first, wide ones outside
	text string
}

// collect finds the sites of the packages in dirs, relative to root, and adds
// those that are written by hand.
func collect(root string, dirs []string, omit map[string]string, hand []handSite) ([]mutant, error) {
	var sites []site
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			return nil, err
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			name := filepath.ToSlash(filepath.Join(dir, filepath.Base(path)))
			if omit[name] != "" {
				continue
			}
			src, err := os.ReadFile(path) //nolint:gosec // the repository's own files
			if err != nil {
				return nil, err
			}
			found, err := find(name, src)
			if err != nil {
				return nil, err
			}
			sites = append(sites, found...)
		}
	}
	for _, h := range hand {
		s, err := h.locate(root)
		if err != nil {
			return nil, err
		}
		sites = append(sites, s)
	}
	out := make([]mutant, 0, len(sites))
	for i, s := range sites {
		out = append(out, mutant{s, i + 1})
	}
	return out, nil
}

// edits are what turns the site into its mutation when number n is switched on.
func (m mutant) edits() []edit {
	width := m.end - m.start
	wrap := func(before, after string) []edit {
		return []edit{{m.start, 1<<20 - width, before}, {m.end, -(1<<20 - width), after}}
	}
	switch m.Kind {
	case toFalse:
		return wrap(fmt.Sprintf("(mutant != %d && (", m.n), "))")
	case toTrue:
		return wrap(fmt.Sprintf("(mutant == %d || (", m.n), "))")
	case toNil:
		return wrap(fmt.Sprintf("mutantError(%d, ", m.n), ")")
	case dropped:
		return wrap(fmt.Sprintf("if mutant != %d { ", m.n), " }")
	default: // replaced
		return wrap(fmt.Sprintf("(mutant == %d && (%s) || mutant != %d && (", m.n, m.becomes, m.n), "))")
	}
}

func apply(src []byte, edits []edit) []byte {
	slices.SortStableFunc(edits, func(a, b edit) int {
		// At one offset what closes comes before what opens; of two that close, the
		// narrower is first; of two that open, the wider.
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.rank, b.rank))
	})
	var out []byte
	last := 0
	for _, e := range edits {
		out = append(append(out, src[last:e.at]...), e.text...)
		last = e.at
	}
	return append(out, src[last:]...)
}

const switchSource = `package %s

import (
	"os"
	"strconv"
)

var mutant, _ = strconv.Atoi(os.Getenv("MUTANT"))

func mutantError(n int, err error) error {
	if mutant == n {
		return nil
	}
	return err
}

var _ = mutantError
`

// overlay writes the mutated sources into dir and returns the file for -overlay.
func overlay(root, dir string, mutants []mutant) (string, error) {
	byFile := map[string][]edit{}
	for _, m := range mutants {
		byFile[m.file] = append(byFile[m.file], m.edits()...)
	}
	replace := map[string]string{}
	packages := map[string]bool{}
	for name, edits := range byFile {
		path := filepath.Join(root, name)
		src, err := os.ReadFile(path) //nolint:gosec // the repository's own files
		if err != nil {
			return "", err
		}
		out := filepath.Join(dir, strings.ReplaceAll(name, "/", "__"))
		if err := os.WriteFile(out, apply(src, edits), 0o600); err != nil {
			return "", err
		}
		replace[path] = out
		if pkgDir := filepath.Dir(path); !packages[pkgDir] {
			packages[pkgDir] = true
			file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.PackageClauseOnly)
			if err != nil {
				return "", err
			}
			sw := filepath.Join(dir, "switch__"+strings.ReplaceAll(filepath.Dir(name), "/", "__")+".go")
			if err := os.WriteFile(sw, fmt.Appendf(nil, switchSource, file.Name.Name), 0o600); err != nil {
				return "", err
			}
			replace[filepath.Join(pkgDir, "mutant_switch.go")] = sw
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}

// binaries are the test binaries with every mutation inside, all off, made when
// they are first asked for.
type binaries struct {
	root, dir, overlay string

	mu    sync.Mutex
	built map[string]string // by package; "" has no tests
}

// of is the test binary of a package. A new one is first seen to pass without any
// mutation, by check.
func (b *binaries) of(ctx context.Context, p string, check func(bin string) error) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bin, ok := b.built[p]; ok {
		return bin, nil
	}
	bin := filepath.Join(b.dir, strings.ReplaceAll(p, "/", "__")+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-p", "2", "-overlay", b.overlay, "-o", bin, "./"+p) //nolint:gosec // our own arguments
	cmd.Dir = b.root
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling the tests of %s with the mutations: %w\n%s", p, err, msg)
	}
	if _, err := os.Stat(bin); err != nil { // a package without tests makes none
		b.built[p] = ""
		return "", nil
	}
	if err := check(bin); err != nil {
		return "", err
	}
	b.built[p] = bin
	return bin, nil
}
