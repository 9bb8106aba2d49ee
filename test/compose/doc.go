// Package compose holds a corpus of compose files of all the shapes that people
// deploy (corpus/*.yml) and checks what becomes of each: what we read in it, what the
// guests' own Compose reads in it, and how it runs under the code that runs in
// guests. Its neighbour cloud asks the cloud API and the CLI.
//
// The lines "#: " at the top of a file are YAML and say what to expect; see File.
package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// File is a compose file and what it expects.
type File struct {
	Name string `yaml:"-"`
	Text string `yaml:"-"`

	About     string            `yaml:"about"`
	Shapes    []string          `yaml:"shapes"`    // that it stands for
	Endpoints []int             `yaml:"endpoints"` // published ports with a URL
	Env       []string          `yaml:"env"`       // names that it reads and for which it has no value
	Set       map[string]string `yaml:"set"`       // values for a run
	Lints     []string          `yaml:"lints"`     // each is in one warning, and there are no others
	Unpinned  int               `yaml:"unpinned"`  // images without a digest, warned of
	Refused   string            `yaml:"refused"`   // text of the refusal, by everybody
	GPU       string            `yaml:"gpu"`       // text of the refusal where there are no GPUs
	Up        string            `yaml:"up"`        // "everyday": runs without PHALA_LONG too
	Keep      string            `yaml:"keep"`      // "PORT PATH": a file that an update keeps
	Checks    []string          `yaml:"checks"`    // of the running app: "PORT PATH => TEXT", "PORT PATH +Bearer:X !STATUS"
}

// Runs tells whether the file is one that a cloud without GPUs takes.
func (f File) Runs() bool { return f.Refused == "" && f.GPU == "" }

// Load reads the corpus of a directory.
func Load(t testing.TB, dir string) []File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 40 {
		t.Fatalf("%d files, the corpus has 40 at least", len(paths))
	}
	var out []File
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		var head strings.Builder
		for line := range strings.Lines(string(b)) {
			if l, ok := strings.CutPrefix(line, "#: "); ok {
				head.WriteString(l)
			}
		}
		f := File{Name: strings.TrimSuffix(filepath.Base(p), ".yml"), Text: string(b)}
		d := yaml.NewDecoder(strings.NewReader(head.String()))
		d.KnownFields(true)
		if err := d.Decode(&f); err != nil {
			t.Fatalf("%s: its header: %v", p, err)
		}
		out = append(out, f)
	}
	return out
}
