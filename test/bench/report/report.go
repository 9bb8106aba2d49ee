// Package report is what the benchmarks share: the machine's name above a table, and
// the table's place in a document.
package report

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// Machine names what numbers were taken on: processor, cores, Go, and the load now.
func Machine() (hardware, load string) {
	model, load := "unknown processor", "unknown"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	return fmt.Sprintf("%s, %d cores", model, runtime.NumCPU()), load
}

// Splice puts text between the markers "bench:NAME" of the document at path, "" is
// none.
func Splice(t testing.TB, path, name, text string) {
	t.Helper()
	if path == "" {
		return
	}
	begin, end := "<!-- bench:"+name+" -->\n", "<!-- /bench:"+name+" -->"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no markers %q and %q", path, begin, end)
	}
	if err := os.WriteFile(path, []byte(head+begin+"\n"+text+"\n"+end+tail), 0o644); err != nil { //nolint:gosec // documentation
		t.Fatal(err)
	}
}
