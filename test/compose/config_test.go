package compose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/internal/composefile"
)

// program is the guests' own Compose, or this machine's.
func program(t *testing.T) []string {
	t.Helper()
	if p := os.Getenv("PHALA_COMPOSE"); p != "" {
		return []string{p}
	}
	if b, err := exec.CommandContext(t.Context(), "docker", "compose", "version").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: docker compose is not here (PHALA_COMPOSE may name it): %s", b)
	}
	return []string{"docker", "compose"}
}

// resolved is what Compose makes of a file.
type resolved struct {
	err   error
	out   []byte
	words string // its warnings and errors
	ports []composefile.Port
}

func resolve(t *testing.T, program []string, text string, env map[string]string) resolved {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker-compose.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program[0], append(program[1:], "--project-name", "dstack", "--file", path, "config", "--format", "json")...) //nolint:gosec // the guests' Compose
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	r := resolved{err: cmd.Run(), out: out.Bytes(), words: errs.String()}
	if r.err != nil {
		return r
	}
	var m struct {
		Services map[string]struct {
			Ports []struct {
				Published string `json:"published"`
				Target    int    `json:"target"`
				Protocol  string `json:"protocol"`
				HostIP    string `json:"host_ip"`
			} `json:"ports"`
		} `json:"services"`
	}
	if err := json.Unmarshal(r.out, &m); err != nil {
		t.Fatal(err)
	}
	for name, s := range m.Services {
		for _, p := range s.Ports {
			n, err := strconv.Atoi(p.Published)
			if err != nil {
				continue // chosen when it starts
			}
			r.ports = append(r.ports, composefile.Port{Service: name, Published: n, Target: p.Target, Protocol: p.Protocol, HostIP: p.HostIP})
		}
	}
	slices.SortFunc(r.ports, byPort)
	return r
}

func byPort(a, b composefile.Port) int { return a.Published - b.Published }

var notSet = regexp.MustCompile(`The \\?"(\w+)\\?" variable is not set`)

// unset are the variables that Compose misses.
func (r resolved) unset() []string {
	var out []string
	for _, m := range notSet.FindAllStringSubmatch(r.words, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestComposeReadsTheSame: the ports that we show URLs for are those that the
// guests' Compose publishes, and the variables that we ask for are those that it
// misses; a file that we refuse, it refuses too, except where only a CVM is wrong for it.
func TestComposeReadsTheSame(t *testing.T) {
	compose := program(t)
	for _, f := range Load(t, "corpus") {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			p, err := composefile.Parse([]byte(f.Text))
			if err != nil {
				if r := resolve(t, compose, f.Text, nil); r.err == nil {
					t.Errorf("we refuse it (%v), Compose takes it", err)
				}
				return
			}
			f.same(t, compose, p)
		})
	}
}

func (f File) same(t *testing.T, compose []string, p *composefile.File) {
	env, required := map[string]string{}, map[string]string{}
	var want []string
	for _, e := range p.Envs() {
		env[e.Name] = "v-" + strings.ToLower(e.Name)
		switch {
		case e.Required:
			required[e.Name] = env[e.Name]
		case !e.HasValue:
			want = append(want, e.Name)
		}
	}
	bare := resolve(t, compose, f.Text, nil)
	if len(required) > 0 {
		if bare.err == nil {
			t.Errorf("it starts without %v, which we call required", required)
		}
		bare = resolve(t, compose, f.Text, required)
	}
	if bare.err != nil {
		t.Fatalf("%v %s", bare.err, bare.words)
	}
	ours := p.Ports()
	for i := range ours {
		ours[i].Line = 0
	}
	slices.SortFunc(ours, byPort)
	if !slices.Equal(bare.ports, ours) {
		t.Errorf("ports\n %+v, Compose publishes\n %+v", ours, bare.ports)
	}
	missed := slices.DeleteFunc(bare.unset(), func(n string) bool { return strings.HasPrefix(n, "DSTACK_") })
	if !slices.Equal(missed, want) {
		t.Errorf("we say that %q have no value, Compose says %q", want, missed)
	}
	full := resolve(t, compose, f.Text, env)
	if full.err != nil {
		t.Fatalf("with all variables: %v %s", full.err, full.words)
	}
	for name, v := range env {
		if !bytes.Contains(full.out, []byte(v)) && bytes.Equal(full.out, bare.out) {
			t.Errorf("%s changes nothing", name)
		}
	}
	if missed := slices.DeleteFunc(full.unset(), func(n string) bool { return strings.HasPrefix(n, "DSTACK_") }); len(missed) > 0 {
		t.Errorf("Compose reads %s, which we do not know of", fmt.Sprint(missed))
	}
}
