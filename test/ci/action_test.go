package ci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const templates = "../../templates/ci/"

// action is an action.yml.
type action struct {
	Name        string           `yaml:"name"`
	Description string           `yaml:"description"`
	Author      string           `yaml:"author"`
	Inputs      map[string]input `yaml:"inputs"`
	Outputs     map[string]struct {
		Description string `yaml:"description"`
		Value       string `yaml:"value"`
	} `yaml:"outputs"`
	Runs struct {
		Using string `yaml:"using"`
		Steps []step `yaml:"steps"`
	} `yaml:"runs"`
}

type input struct {
	Description string `yaml:"description"`
	Required    bool   `yaml:"required"`
	Default     string `yaml:"default"`
}

type step struct {
	Name  string            `yaml:"name"`
	ID    string            `yaml:"id"`
	Uses  string            `yaml:"uses"`
	With  map[string]string `yaml:"with"`
	Shell string            `yaml:"shell"`
	Env   map[string]string `yaml:"env"`
	Run   string            `yaml:"run"`
}

func strict(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func theAction(t *testing.T) (a action) {
	strict(t, templates+"github/action.yml", &a)
	return a
}

var (
	reference = regexp.MustCompile(`\$\{\{\s*inputs\.([a-z0-9-]+)\s*\}\}`)
	pinned    = regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40}$`)
)

// TestAction: the names that pipelines know, nothing of an input in a script's text,
// no action that somebody else can move.
func TestAction(t *testing.T) {
	a := theAction(t)
	for _, name := range []string{"phala-api-key", "cvm-name", "compose-file", "vcpu", "memory", "disk-size", "envs", "app-id", "node-id", "base-image"} {
		if _, ok := a.Inputs[name]; !ok {
			t.Errorf("no input %s", name)
		}
	}
	for _, name := range []string{"cvm-id", "app-id", "cvm-name", "deployment-status", "deployment-url", "operation"} {
		if a.Outputs[name].Value != "${{ steps.deploy.outputs."+name+" }}" {
			t.Errorf("output %s is %q", name, a.Outputs[name].Value)
		}
	}
	used := map[string]bool{}
	for _, s := range a.Runs.Steps {
		if s.Shell != "bash" || strings.Contains(s.Run, "${{") || s.Uses != "" {
			t.Errorf("step %s: an input in its text is run by the shell", s.Name)
		}
		for k, v := range s.Env {
			m := reference.FindStringSubmatch(v)
			if m == nil {
				t.Errorf("%s: %s", k, v)
				continue
			}
			if _, ok := a.Inputs[m[1]]; !ok {
				t.Errorf("%s reads input %s, which is not there", k, m[1])
			}
			used[m[1]] = true
		}
	}
	for name, in := range a.Inputs {
		if !used[name] || in.Description == "" || in.Required && in.Default != "" {
			t.Errorf("input %s: used %v, %+v", name, used[name], in)
		}
	}
	var w struct {
		Jobs map[string]struct {
			Steps []step `yaml:"steps"`
		} `yaml:"jobs"`
	}
	b, err := os.ReadFile(templates + "github/workflow.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Load(b, &w); err != nil {
		t.Fatal(err)
	}
	for _, s := range w.Jobs["deploy"].Steps {
		if s.Uses != "" && !strings.HasPrefix(s.Uses, "./") && !pinned.MatchString(s.Uses) {
			t.Errorf("the example uses %s, which is not pinned by a commit", s.Uses)
		}
		if strings.Contains(s.Run, "${{") {
			t.Errorf("the example puts an expression into the text of %q", s.Name)
		}
		if strings.HasPrefix(s.Uses, "./templates/ci") {
			for in := range s.With {
				if _, ok := a.Inputs[in]; !ok {
					t.Errorf("the example gives %s, which the action does not take", in)
				}
			}
			for name, in := range a.Inputs {
				if in.Required && s.With[name] == "" {
					t.Errorf("the example does not give %s", name)
				}
			}
		}
	}
}

// TestGitLab: the template runs the same two scripts, from variables alone.
func TestGitLab(t *testing.T) {
	var g map[string]struct {
		Stage         string            `yaml:"stage"`
		Image         string            `yaml:"image"`
		Variables     map[string]string `yaml:"variables"`
		ResourceGroup string            `yaml:"resource_group"`
		Script        []string          `yaml:"script"`
		Artifacts     struct {
			Reports map[string]string `yaml:"reports"`
		} `yaml:"artifacts"`
	}
	strict(t, templates+"gitlab/phala-deploy.yml", &g)
	j, ok := g[".phala-deploy"]
	if !ok || len(g) != 1 || j.Artifacts.Reports["dotenv"] != j.Variables["PHALA_OUTPUT"] {
		t.Fatalf("%+v", g)
	}
	if len(j.Script) == 0 || !strings.Contains(j.Script[0], "$PHALA_CI_DIR/install.sh") || !strings.Contains(j.Script[len(j.Script)-1], "$PHALA_CI_DIR/deploy.sh") {
		t.Errorf("its script is %q", j.Script)
	}
}

// installed runs the installer as a step does, with a program that is served here.
func installed(t *testing.T, url, sum string) (dir, out string, code int) {
	t.Helper()
	for _, p := range []string{"bash", "curl", "sha256sum"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	dir = t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", templates+"install.sh")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "RUNNER_TEMP=" + dir, "GITHUB_PATH=" + filepath.Join(dir, "path"), "PHALA_URL=" + url, "PHALA_SHA256=" + sum}
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return dir, string(b), cmd.ProcessState.ExitCode()
}

// TestInstall: only the program of the checksum is installed, and nothing is left of
// another.
func TestInstall(t *testing.T) {
	program := []byte("#!/bin/sh\necho phala\n")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/phala" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(program)
	}))
	t.Cleanup(web.Close)
	h := sha256.Sum256(program)
	sum := hex.EncodeToString(h[:])
	dir, out, code := installed(t, web.URL+"/phala", sum)
	if code != 0 {
		t.Fatalf("exit %d %s", code, out)
	}
	if b, err := exec.CommandContext(t.Context(), filepath.Join(dir, "phala-bin", "phala")).Output(); err != nil || string(b) != "phala\n" {
		t.Errorf("%q %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "path")); err != nil || string(b) != filepath.Join(dir, "phala-bin")+"\n" {
		t.Errorf("%q %v", b, err)
	}
	for name, tt := range map[string]struct{ url, sum, want string }{
		"another program": {web.URL + "/phala", strings.Repeat("0", 64), "it was not installed"},
		"no checksum":     {web.URL + "/phala", "", "64 hex digits"},
		"a short one":     {web.URL + "/phala", sum[:40], "64 hex digits"},
		"no URL":          {"", sum, "no URL"},
		"no TLS":          {"http://mirror.example/phala", sum, "must begin with https://"},
		"not there":       {web.URL + "/none", sum, "could not be downloaded"},
	} {
		dir, out, code := installed(t, tt.url, tt.sum)
		left, err := filepath.Glob(filepath.Join(dir, "phala-bin", "*"))
		hidden, err2 := filepath.Glob(filepath.Join(dir, "phala-bin", ".phala.*"))
		if code == 0 || !strings.Contains(out, tt.want) || len(left)+len(hidden) != 0 || err != nil || err2 != nil {
			t.Errorf("%s: exit %d, left %q\n%s", name, code, left, out)
		}
	}
}
