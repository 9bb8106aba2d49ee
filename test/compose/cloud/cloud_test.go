package cloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cli"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/test/compose"
	"github.com/confidential-cloud/phala/test/drycloud"
)

// TestProvision: what the cloud API makes of every file: the hash of exactly these
// bytes, the endpoints, the warnings; and that a file which it refuses is refused
// with its reason and makes nothing.
func TestProvision(t *testing.T) {
	c := drycloud.Start(t)
	for _, f := range compose.Load(t, "../corpus") {
		t.Run(f.Name, func(t *testing.T) { provision(t, f, c) })
	}
	left, err := c.Client.CVMs(t.Context())
	if err != nil || len(left) != 0 {
		t.Errorf("%d CVMs are left, %v", len(left), err)
	}
}

func provision(t *testing.T, f compose.File, c *drycloud.Cloud) {
	p, err := c.Client.Provision(t.Context(), cloudapi.ProvisionRequest{Name: "corpus-" + f.Name, InstanceType: "tdx.small",
		ComposeFile: map[string]any{"docker_compose_file": f.Text, "allowed_envs": sorted(f.Env)}})
	if !f.Runs() {
		want := f.Refused + f.GPU
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if f.GPU != "" && cvm.CodeOf(err) != cvm.Unsupported {
			t.Errorf("code %s", cvm.CodeOf(err))
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(p.AppCompose))
	if p.ComposeHash != hex.EncodeToString(sum[:]) {
		t.Errorf("compose hash %s is not that of the bytes", p.ComposeHash)
	}
	var doc struct {
		Text string   `json:"docker_compose_file"`
		Envs []string `json:"allowed_envs"`
	}
	if err := json.Unmarshal([]byte(p.AppCompose), &doc); err != nil || doc.Text != f.Text || !slices.Equal(doc.Envs, sorted(f.Env)) {
		t.Errorf("the app-compose is not the file as it was sent: %v", err)
	}
	warned := strings.Join(p.Warnings, "\n")
	for _, l := range f.Lints {
		if !strings.Contains(warned, l) {
			t.Errorf("the API does not say %q", l)
		}
	}
	vm, err := c.Client.Commit(t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Client.CVM(t.Context(), *vm.VMUUID)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range v.Endpoints {
		got = append(got, e.App)
	}
	if want := urls(f, *p.AppID, c.Domain); !slices.Equal(got, want) {
		t.Errorf("endpoints\n %q, want\n %q", got, want)
	}
	if _, err := c.Client.Progress(t.Context(), *vm.VMUUID, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Delete(t.Context(), *vm.VMUUID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.Progress(t.Context(), *vm.VMUUID, vm.EventSeq+1, nil); err != nil && cvm.CodeOf(err) != cvm.NotFound {
		t.Fatal(err)
	}
}

func urls(f compose.File, app, domain string) []string {
	var out []string
	for _, p := range f.Endpoints {
		name := app
		if p != 80 {
			name = fmt.Sprintf("%s-%d", app, p)
		}
		out = append(out, "https://"+name+"."+domain)
	}
	return out
}

// TestPlan: phala deploy --plan shows the same, and puts nothing on chain.
func TestPlan(t *testing.T) {
	c := drycloud.StartOnChain(t)
	u := user{c: c, dir: t.TempDir(), trust: c.Trust(t)}
	if err := os.WriteFile(filepath.Join(u.dir, "pass"), []byte("corpus"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := u.phala(t, c.Owner(t), "wallet", "import", "--network", "dev"); code != 0 {
		t.Fatal(stderr)
	}
	for _, f := range compose.Load(t, "../corpus") {
		t.Run(f.Name, func(t *testing.T) { plan(t, f, u) })
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// user is a person with a wallet and a trust profile.
type user struct {
	c          *drycloud.Cloud
	dir, trust string
}

func (u user) phala(t *testing.T, stdin string, args ...string) (code int, out, stderr string) {
	var o, e bytes.Buffer
	env := map[string]string{"PHALA_CLOUD_DIR": u.dir, "PHALA_CLOUD_API_KEY": u.c.Key, "PHALA_CLOUD_API_PREFIX": u.c.Prefix(),
		"PHALA_WALLET_PASSPHRASE_FILE": filepath.Join(u.dir, "pass"), "NO_COLOR": "1"}
	code = cli.Run(t.Context(), cli.Config{Args: args, Stdin: strings.NewReader(stdin), Stdout: &o, Stderr: &e,
		Getenv: func(k string) string { return env[k] }, Workdir: u.dir, Now: time.Now})
	return code, o.String(), e.String()
}

func plan(t *testing.T, f compose.File, u user) {
	path := filepath.Join(u.dir, f.Name+".yml")
	if err := os.WriteFile(path, []byte(f.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"deploy", "--plan", "--json", "-n", "corpus-" + f.Name, "-c", path, "-t", "tdx.small", "--trust", u.trust}
	for _, n := range sorted(f.Env) {
		args = append(args, "-e", n+"=value")
	}
	code, out, stderr := u.phala(t, "", args...)
	if !f.Runs() {
		if want := f.Refused + f.GPU; code == 0 || !strings.Contains(strings.ReplaceAll(out+stderr, `\"`, `"`), want) {
			t.Errorf("exit %d, want a refusal with %s in\n%s%s", code, want, out, stderr)
		}
		return
	}
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	var p struct {
		Action      string   `json:"action"`
		ComposeHash string   `json:"compose_hash"`
		AppCompose  string   `json:"app_compose"`
		EnvNames    []string `json:"env_names"`
		Ports       []int    `json:"ports"`
		Findings    []struct {
			Message string `json:"message"`
		} `json:"findings"`
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(p.AppCompose))
	if p.Action != "create" || p.ComposeHash != hex.EncodeToString(sum[:]) || !slices.Equal(sorted(p.EnvNames), sorted(f.Env)) {
		t.Errorf("%s %s %q", p.Action, p.ComposeHash, p.EnvNames)
	}
	for _, port := range f.Endpoints {
		if !slices.Contains(p.Ports, port) {
			t.Errorf("port %d is not in the plan", port)
		}
	}
	if len(p.Findings) != len(f.Lints)+f.Unpinned {
		t.Errorf("%d findings, want %d", len(p.Findings), len(f.Lints)+f.Unpinned)
	}
	if strings.Contains(stderr, "does not read it") || strings.Contains(stderr, "it will be empty") {
		t.Errorf("all variables were given, and only those:\n%s", stderr)
	}
}
