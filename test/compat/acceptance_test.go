package compat

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAcceptance: docs/compat.md names a proof for each acceptance row of the API and
// the CLI, and every test that it names exists.
func TestAcceptance(t *testing.T) {
	doc, err := os.ReadFile("../../docs/compat.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "## Acceptance")
	if !ok {
		t.Fatal("docs/compat.md has no acceptance rows")
	}
	rows := map[string]bool{}
	row := regexp.MustCompile(`(?m)^\| ([MS]\d+) \| .* \| (.*) \|$`)
	for _, m := range row.FindAllStringSubmatch(table, -1) {
		rows[m[1]] = true
		tests := 0
		for part := range strings.SplitSeq(m[2], "; ") {
			_, rest, _ := strings.Cut(part, "`")
			dir, names, _ := strings.Cut(rest, "` ")
			for name := range strings.SplitSeq(names, ", ") {
				if tests++; !testExists(t, dir, name) {
					t.Errorf("%s: %s has no %s", m[1], dir, name)
				}
			}
		}
		if tests == 0 {
			t.Errorf("%s has no test", m[1])
		}
	}
	_, reasons, _ := strings.Cut(table, "Without a test")
	for r := range strings.FieldsSeq("M2 M3 M4 M5 M6 M7 M8 M9 M10 M11 M12 M13 M14 M15 M16 M21 M27 M28 M29 M30 M31 M32 M33 S1 S2 S3 S4 S5 S6 S7 S8 S9 S19 S20") {
		if !rows[r] && !strings.Contains(reasons, r+" (") {
			t.Errorf("%s has neither a test nor a reason", r)
		}
	}
}

func testExists(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+name+"(t *testing.T) {") {
			return true
		}
	}
	return false
}
