package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// source is what a package's tests hold: functions and the words of their cases.
type source struct {
	tests map[string]bool
	words map[string]bool
}

func read(t *testing.T, dir string) source {
	t.Helper()
	s := source{map[string]bool{}, map[string]bool{}}
	files, err := filepath.Glob(filepath.Join("..", "..", dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("%s has no tests: %v", dir, err)
	}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				s.tests[n.Name.Name] = n.Recv == nil
			case *ast.BasicLit:
				if w, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					s.words[strings.ReplaceAll(w, " ", "_")] = true
				}
			}
			return true
		})
	}
	return s
}

func (s source) hasCase(name string) bool {
	if s.words[name] {
		return true
	}
	for w := range s.words {
		if strings.HasPrefix(w, name+"_") {
			return true
		}
	}
	return false
}

// Each of the 65 items names tests that exist.
func TestNegativeList(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "spec", "negative-list.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| (\d+) \| .* \| (.*) \|$`)
	name := regexp.MustCompile("`([^`:]+):(Test[^`/]+)(?:/([^`]+))?`")
	seen := map[string]bool{}
	packages := map[string]source{}
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		item, tests := m[1], name.FindAllStringSubmatch(m[2], -1)
		if seen[item] {
			t.Errorf("item %s twice", item)
		}
		seen[item] = true
		if len(tests) == 0 || len(tests) != strings.Count(m[2], "`")/2 {
			t.Errorf("item %s: %d tests in %s", item, len(tests), m[2])
		}
		for _, x := range tests {
			dir, fn, sub := x[1], x[2], x[3]
			s, ok := packages[dir]
			if !ok {
				s = read(t, dir)
				packages[dir] = s
			}
			if !s.tests[fn] {
				t.Errorf("item %s: %s has no %s", item, dir, fn)
			}
			if sub != "" && !s.hasCase(sub) {
				t.Errorf("item %s: %s has no case %s", item, fn, sub)
			}
		}
	}
	for i := 1; i <= 65; i++ {
		if !seen[strconv.Itoa(i)] {
			t.Errorf("item %d is missing", i)
		}
	}
	if len(seen) != 65 {
		t.Errorf("%d items", len(seen))
	}
}
