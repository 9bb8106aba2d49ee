package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/internal/registry"
	"github.com/confidential-cloud/phala/keys"
)

// The value that no file, database or log may hold in the clear.
const theSecret = "sekrit-5f1d7c30b7e94d5c-never-in-the-clear"

type deployed struct {
	Success bool     `json:"success"`
	AppID   string   `json:"app_id"`
	VMUUID  string   `json:"vm_uuid"`
	URLs    []string `json:"urls"`
}

// deploy runs `phala deploy --json` and returns what it says.
func deploy(t *testing.T, compose, name string, more ...string) deployed {
	t.Helper()
	r := must(t, append([]string{"deploy", "-c", compose, "-n", name, "-t", "tdx.small", "--json"}, more...)...)
	var d deployed
	lastJSON(t, r.out, &d)
	if d.AppID == "" {
		t.Fatalf("deploy said no app id: %s", r.out)
	}
	return d
}

func remove(t *testing.T, name string) {
	t.Helper()
	r := must(t, "cvms", "delete", name, "--yes", "--volumes", "delete")
	t.Log(r.err)
}

// TestHello is the main job: deploy, fetch, verify, in every form a person asks for.
func TestHello(t *testing.T) {
	c := cloud(t)
	if err := c.PrepareHello(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := deploy(t, c.HelloCompose(), "hello", "-e", "GREETING=Good day")
	page := getOK(t, appURL(d.AppID, 0))
	for _, want := range []string{"Good day", d.AppID} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not hold %q:\n%s", want, page)
		}
	}
	html := filepath.Join(t.TempDir(), "report.html")
	r := must(t, "verify", appURL(d.AppID, 0), "--html", html)
	if !strings.Contains(r.out+r.err, "SIMULATED") {
		t.Error("the report does not say SIMULATED")
	}
	if b, err := os.ReadFile(html); err != nil || !strings.Contains(string(b), "SIMULATED") || !strings.Contains(string(b), d.AppID) {
		t.Errorf("the HTML report: %v", err)
	}
	var rep struct {
		Verified bool     `json:"verified"`
		Banners  []string `json:"banners"`
	}
	lastJSON(t, must(t, "verify", d.AppID, "--json").out, &rep)
	if !rep.Verified || len(rep.Banners) == 0 {
		t.Errorf("JSON report: %+v", rep)
	}
	must(t, "cvms", "list")
	must(t, "cvms", "get", "hello")
	must(t, "ps", "--cvm-id", "hello")
	if r := must(t, "logs", "--cvm-id", "hello"); !strings.Contains(r.out, "listens") {
		t.Errorf("logs: %q", r.out)
	}
	must(t, "cvms", "attestation", "hello")
	must(t, "status")

	// The same again changes nothing; another greeting updates in place.
	if again := deploy(t, c.HelloCompose(), "hello"); again.AppID != d.AppID {
		t.Errorf("a second deploy made app %s, not %s", again.AppID, d.AppID)
	}
	must(t, "envs", "update", "--cvm-id", "hello", "-e", "GREETING=Good night")
	eventually(t, "the new greeting", 60*time.Second, func() error {
		_, body, err := get(t, appURL(d.AppID, 0))
		if err == nil && !strings.Contains(body, "Good night") {
			err = fmt.Errorf("still %q", firstLine(body))
		}
		return err
	})

	// Another machine's verifier with a profile of another cloud: refused.
	other := filepath.Join(t.TempDir(), "trust.toml")
	b, err := os.ReadFile(c.TrustPath())
	if err != nil {
		t.Fatal(err)
	}
	root := theCloud.Hardware().RootSPKI()
	wrong := strings.Replace(string(b), fmt.Sprintf("%x", root), strings.Repeat("ab", 32), 1)
	if err := os.WriteFile(other, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := phala(t, "verify", appURL(d.AppID, 0), "--trust", other); r.code != 1 || !strings.Contains(r.out, "root") {
		t.Errorf("a profile with another root: exit %d\n%s", r.code, r.out)
	}
}

// TestTwoServices deploys a real compose file: dependencies with a healthcheck, a
// named volume, inline configs, defaults, restart: no, two ports. What is written
// to the volume survives stop, start and an update.
func TestTwoServices(t *testing.T) {
	cloud(t)
	push(t, "phala-tests/kv", "1", kvImage(t))
	compose := filepath.Join(repoRoot(t), "test", "apps", "kv", "docker-compose.yml")
	d := deploy(t, compose, "kv-app", "-e", "SECRET="+theSecret)
	url := appURL(d.AppID, 8080)
	page := getOK(t, url)
	for _, want := range []string{"greeting=hello from the default", "secret_set=true", fmt.Sprintf("secret_len=%d", len(theSecret)), "config=inline=yes", "err=<nil>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not hold %q:\n%s", want, page)
		}
	}
	if second := getOK(t, appURL(d.AppID, 8081)); !strings.Contains(second, "second port") {
		t.Errorf("second port: %q", second)
	}
	put(t, url+"value", "written once")

	must(t, "cvms", "stop", "kv-app")
	if code, _, err := get(t, url); err == nil && code == http.StatusOK {
		t.Error("a stopped app still answers")
	}
	must(t, "cvms", "start", "kv-app")
	hasValue(t, url, "after stop and start")

	// An update of the compose file keeps app, keys and volume.
	b, err := os.ReadFile(compose)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "docker-compose.yml")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(b), "hello from the default", "hello from the update", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if u := deploy(t, changed, "kv-app"); u.AppID != d.AppID {
		t.Fatalf("the update made another app: %s", u.AppID)
	}
	hasValue(t, url, "after an update")
	if page := getOK(t, url); !strings.Contains(page, "hello from the update") || !strings.Contains(page, "secret_set=true") {
		t.Errorf("after the update:\n%s", page)
	}
	must(t, "verify", "kv-app")
	noSecretAnywhere(t, theSecret)
	remove(t, "kv-app")
}

func hasValue(t *testing.T, url, when string) {
	t.Helper()
	eventually(t, "the value "+when, 90*time.Second, func() error {
		_, body, err := get(t, url)
		if err == nil && !strings.Contains(body, "value=written once") {
			err = fmt.Errorf("page: %s", body)
		}
		return err
	})
}

func put(t *testing.T, url, value string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	res, err := browser(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("PUT %s: %s", url, res.Status)
	}
}

// noSecretAnywhere is `grep -ra` over every state directory, database and log.
func noSecretAnywhere(t *testing.T, secret string) {
	t.Helper()
	for _, dir := range []string{theCfg.StateDir, theCfg.RunDir, theCfg.CLIDir} {
		for _, form := range secretForms(secret) {
			if where := grep(t, dir, form); len(where) > 0 {
				t.Errorf("the secret stands in the clear (as %q) in %s", form[:8], strings.Join(where, ", "))
			}
		}
	}
	// The test must be able to find something.
	marker := filepath.Join(theCfg.StateDir, "grep-test")
	if err := os.WriteFile(marker, []byte("x"+secret+"y"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(marker)
	if len(grep(t, theCfg.StateDir, secret)) != 1 {
		t.Error("the search does not find a planted secret")
	}
}

// TestWallet: an app asks dstack.sock for a wallet key, quotes and a certificate
// through the unmodified npm SDK, from inside a container.
func TestWallet(t *testing.T) {
	cloud(t)
	push(t, "phala-tests/node-sdk", "1", nodeImage(t))
	d := deploy(t, filepath.Join(repoRoot(t), "test", "apps", "wallet", "docker-compose.yml"), "wallet")
	body := getOK(t, appURL(d.AppID, 0))
	var got struct {
		AppID  string `json:"app_id"`
		Key    int    `json:"key"`
		Chain  []int  `json:"chain"`
		Quote  int    `json:"quote"`
		Events int    `json:"events"`
		TLS    int    `json:"tls"`
		Tappd  int    `json:"tappd"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if got.AppID != d.AppID || got.Key != 32 || len(got.Chain) != 2 || got.Chain[0] != 65 || got.Quote < 1000 || got.Events < 9 || got.TLS < 2 || got.Tappd < 1000 {
		t.Errorf("the SDK got %s", body)
	}
	remove(t, "wallet")
}

// TestPrivateImage: credentials come as encrypted environment. Wrong ones are a
// clear failure and leave nothing half-started.
func TestPrivateImage(t *testing.T) {
	c := cloud(t)
	const user, password = "puller", "right-pass-93be"
	addr := net.JoinHostPort(c.Bridge(), fmt.Sprint(theCfg.Ports.Private))
	listen := net.JoinHostPort(listenHost(), fmt.Sprint(theCfg.Ports.Private))
	reg, err := registry.New(registry.Config{
		Dir: t.TempDir(), Private: &registry.Private{Addrs: []string{listen}, User: user, Password: keys.NewSecret([]byte(password))},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-reg.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	if _, err := reg.PushPrivate(t.Context(), "private/kv", "1", kvImage(t)); err != nil {
		t.Fatal(err)
	}
	compose := filepath.Join(t.TempDir(), "docker-compose.yml")
	text := "services:\n  web:\n    image: " + addr + "/private/kv:1\n    command: [\"web\"]\n    ports: [\"8080:8080\"]\n"
	if err := os.WriteFile(compose, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	creds := func(pw string) []string {
		return []string{"-e", "DSTACK_DOCKER_USERNAME=" + user, "-e", "DSTACK_DOCKER_PASSWORD=" + pw, "-e", "DSTACK_DOCKER_REGISTRY=" + addr}
	}
	r := phala(t, append([]string{"deploy", "-c", compose, "-n", "private-bad", "-t", "tdx.small"}, creds("wrong-pass-1f00")...)...)
	if r.code == 0 || !strings.Contains(strings.ToLower(r.err), "registry") || strings.Contains(r.out+r.err, "wrong-pass-1f00") {
		t.Errorf("wrong credentials: exit %d\n%s", r.code, r.err)
	}
	if vm := vmOf(t, "private-bad"); vm.Error == nil || vm.State == "running" {
		t.Errorf("the machine is %s with error %v", vm.State, vm.Error)
	}
	remove(t, "private-bad")

	d := deploy(t, compose, "private-ok", creds(password)...)
	if page := getOK(t, appURL(d.AppID, 8080)); !strings.Contains(page, "greeting=") {
		t.Errorf("page %q", page)
	}
	remove(t, "private-ok")
}
