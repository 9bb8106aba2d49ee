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

	"github.com/confidential-cloud/phala/test/drycloud"
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
		if s.Uses != "" && !strings.HasPrefix(s.Uses, "./") && !pinned.MatchString(s.Uses) && !bytes.Contains(b, []byte(s.Uses+" # pin this")) {
			t.Errorf("the example uses %s, which is not pinned by a commit and does not say so", s.Uses)
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

// gitLab: the template runs the same two scripts, from variables alone.
func (r *runner) gitLab(t *testing.T) {
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
	env := append(r.env(nil), "PHALA_CI_DIR="+absolute(t, templates), "PHALA_OUTPUT="+filepath.Join(r.dir, "phala.env"), "CVM_NAME=gitlab-app",
		"COMPOSE_FILE=docker-compose.yml", "WALLET_KEY="+r.wallet, "TRUST_PROFILE="+r.trust, "ENVS=SECRET: s3cr3t", "PHALA_URL="+r.url, "PHALA_SHA256="+r.sum,
		"PHALA_CLOUD_API_KEY="+r.cloud.Key, "PHALA_CLOUD_API_PREFIX="+r.cloud.Prefix(), "CI_BUILDS_DIR="+r.dir)
	out, code := r.bash(t, strings.Join(j.Script, "\n"), env)
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "phala.env"))
	if err != nil || !strings.Contains(string(b), "operation=create\n") || !strings.Contains(string(b), "deployment_url=https://") {
		t.Errorf("%v\n%s", err, b)
	}
}

// TestPipelines runs what templates/ci gives to pipelines with the real program
// against a cloud with a chain.
func TestPipelines(t *testing.T) {
	r := newRunner(t, drycloud.StartOnChain(t))
	t.Run("the action refuses", r.refuses) // first: it makes nothing
	t.Run("the action twice", r.twice)
	t.Run("GitLab", r.gitLab)
}

// runner is a machine that runs pipelines.
type runner struct {
	cloud              *drycloud.Cloud
	dir, trust, wallet string
	url, sum           string
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const composeFile = "services:\n  web:\n    image: nginx:1.27\n    ports: [\"8080:80\"]\n    environment:\n      SECRET: ${SECRET}\n"

func newRunner(t *testing.T, c *drycloud.Cloud) *runner {
	t.Helper()
	for _, p := range []string{"bash", "curl", "sha256sum", "timeout"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	bin := filepath.Join(t.TempDir(), "phala")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/phala")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }))
	t.Cleanup(web.Close)
	r := &runner{cloud: c, dir: t.TempDir(), trust: c.Trust(t), wallet: c.Owner(t), url: web.URL + "/phala", sum: hex.EncodeToString(sum[:])}
	r.write(t, composeFile)
	return r
}

func (r *runner) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "docker-compose.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *runner) env(more map[string]string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "RUNNER_TEMP=" + r.dir}
	for k, v := range more {
		env = append(env, k+"="+v)
	}
	return env
}

func (r *runner) bash(t *testing.T, script string, env []string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script) //nolint:gosec // as the runner does
	cmd.Dir, cmd.Env = r.dir, env
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// action runs the steps as the runner does: inputs with their defaults into the
// environment, GITHUB_PATH and GITHUB_OUTPUT between steps.
func (r *runner) action(t *testing.T, with map[string]string) (outputs map[string]string, log string, code int) {
	t.Helper()
	a := theAction(t)
	files := map[string]string{"GITHUB_PATH": filepath.Join(t.TempDir(), "path"), "GITHUB_OUTPUT": filepath.Join(t.TempDir(), "out"), "GITHUB_ACTION_PATH": absolute(t, templates+"github")}
	for _, s := range a.Runs.Steps {
		env := r.env(files)
		for k, v := range s.Env {
			name := reference.FindStringSubmatch(v)[1]
			value, given := with[name]
			if !given {
				value = a.Inputs[name].Default
			}
			env = append(env, k+"="+value)
		}
		if b, err := os.ReadFile(files["GITHUB_PATH"]); err == nil {
			env = append(env, "PATH="+strings.TrimSpace(string(b))+":"+os.Getenv("PATH"))
		}
		out, c := r.bash(t, s.Run, env)
		log, code = log+out, c
		if code != 0 {
			break
		}
	}
	outputs = map[string]string{}
	b, _ := os.ReadFile(files["GITHUB_OUTPUT"]) // none is none
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		outputs[k] = v
	}
	return outputs, log, code
}

func (r *runner) with(more map[string]string) map[string]string {
	m := map[string]string{"phala-api-key": r.cloud.Key, "api-url": r.cloud.Prefix(), "cvm-name": "action-app", "trust-profile": r.trust, "wallet-key": r.wallet,
		"phala-url": r.url, "phala-sha256": r.sum, "envs": "# secrets\nSECRET: s3cr3t-value"}
	for k, v := range more {
		m[k] = v
	}
	return m
}

// twice: the first run makes the CVM, the second updates it in place, the
// third changes nothing; nothing secret is in the log or left on the disk.
func (r *runner) twice(t *testing.T) {
	first, log, code := r.action(t, r.with(nil))
	if code != 0 || first["operation"] != "create" || first["deployment-status"] != "running" || first["cvm-name"] != "action-app" ||
		!strings.HasPrefix(first["deployment-url"], "https://"+first["app-id"]+"-8080.") {
		t.Fatalf("exit %d, %v\n%s", code, first, log)
	}
	r.write(t, composeFile+"    restart: always\n")
	second, log2, code := r.action(t, r.with(map[string]string{"envs": "SECRET=another-s3cr3t"}))
	if code != 0 || second["operation"] != "update" || second["deployment-status"] != "running" || second["cvm-id"] != first["cvm-id"] || second["app-id"] != first["app-id"] ||
		second["compose-hash"] == first["compose-hash"] {
		t.Fatalf("exit %d, %v after %v\n%s", code, second, first, log2)
	}
	third, log3, code := r.action(t, r.with(map[string]string{"envs": "", "app-id": first["app-id"], "cvm-name": "ignored-name"}))
	if code != 0 || third["operation"] != "update" || third["cvm-id"] != first["cvm-id"] || third["compose-hash"] != second["compose-hash"] {
		t.Fatalf("exit %d, %v\n%s", code, third, log3)
	}
	for _, secret := range []string{"s3cr3t", r.cloud.Key, r.wallet} {
		if strings.Contains(log+log2+log3, secret) {
			t.Errorf("a secret is in the log")
		}
	}
	left, err := filepath.Glob(filepath.Join(r.dir, "phala-deploy.*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left on the disk: %q", left)
	}
}

// refuses: what must not run does not, says why, and makes nothing.
func (r *runner) refuses(t *testing.T) {
	for name, tt := range map[string]struct {
		with map[string]string
		code int
		want string
	}{
		"another program":    {map[string]string{"phala-sha256": strings.Repeat("0", 64)}, 1, "it was not installed"},
		"no checksum":        {map[string]string{"phala-sha256": ""}, 1, "64 hex digits"},
		"no TLS":             {map[string]string{"phala-url": "http://mirror.example/phala"}, 1, "https://"},
		"no key":             {map[string]string{"phala-api-key": ""}, 2, "the API key"},
		"a wrong key":        {map[string]string{"phala-api-key": "phak_wrong"}, 3, ""},
		"no compose file":    {map[string]string{"compose-file": "none.yml"}, 2, "there is no compose file none.yml"},
		"no name":            {map[string]string{"cvm-name": ""}, 2, "the name"},
		"an app that is not": {map[string]string{"app-id": strings.Repeat("ab", 20)}, 2, "there is no CVM of app"},
		"a bad name":         {map[string]string{"cvm-name": "x; rm -rf $HOME"}, 2, "cannot name a CVM"},
		"no trust":           {map[string]string{"trust-profile": ""}, 5, "trust profile"},
	} {
		out, log, code := r.action(t, r.with(tt.with))
		if code != tt.code || !strings.Contains(log, tt.want) || out["operation"] != "" {
			t.Errorf("%s: exit %d, want %d with %q; %v\n%s", name, code, tt.code, tt.want, out, log)
		}
	}
	l, err := r.cloud.Client.CVMs(t.Context())
	if err != nil || len(l) != 0 {
		t.Errorf("%d CVMs, %v", len(l), err)
	}
}
