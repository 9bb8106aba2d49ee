package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// Bounds that only a broken cloud passes; what it takes is logged.
const (
	upBound   = 3 * time.Minute
	stopBound = 70 * time.Second
)

// TestUp is the life of a cloud as processes: the main job, services killed while
// it works, Ctrl-C, continued in the background, refused by an older program's
// rules, stopped and forgotten. The parts need each other, in this order.
func TestUp(t *testing.T) {
	m := newMachine(t)
	begin := time.Now()
	up := m.start(t, "phala-devcloud", m.up()...)
	up.sees(t, "Running. Ctrl-C stops it.", upBound)
	t.Logf("first up: %s", time.Since(begin).Round(time.Second))
	m.mainJob(t, up.output())
	before := m.identity(t, appOf(t, up.output()))
	if t.Failed() {
		return
	}
	m.killDuringDeploy(t, before.app)

	m.interrupt(t, up)
	m.nothingRuns(t)
	m.newerState(t)

	begin = time.Now()
	if out, code := m.run(t, "phala-devcloud", append(m.up(), "-d")...); code != 0 || !strings.Contains(out, "VERIFIED") {
		t.Fatalf("second up: exit %d", code)
	}
	t.Logf("second up: %s", time.Since(begin).Round(time.Second))
	if after := m.identity(t, before.app); after != before {
		t.Errorf("the cloud came back as another one:\n%+v\n%+v", before, after)
	}
	if out, code := m.run(t, "phala-devcloud", m.up()...); code == 0 || !strings.Contains(out, "already running") {
		t.Errorf("a second cloud on the same state: exit %d", code)
	}
	if out, code := m.run(t, "phala-devcloud", "clean", "--yes", "--state", m.state); code == 0 || !strings.Contains(out, "stop it first") {
		t.Errorf("clean while it runs: exit %d", code)
	}
	begin = time.Now()
	if _, code := m.run(t, "phala-devcloud", "down", "--state", m.state); code != 0 {
		t.Errorf("down: exit %d", code)
	}
	t.Logf("down: %s", time.Since(begin).Round(100*time.Millisecond))
	m.nothingRuns(t)
	m.forget(t)
}

var appLine = regexp.MustCompile(`app ([0-9a-f]{40}), CVM hello, running`)

func appOf(t *testing.T, out string) string {
	t.Helper()
	found := appLine.FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no app id in:\n%s", out)
	}
	return found[1]
}

// mainJob looks at what up has shown and left.
func (m *machine) mainJob(t *testing.T, out string) {
	t.Helper()
	for _, want := range []string{"SIMULATED TEE", "VERIFIED: ", "Hello from a confidential VM", m.state} {
		if !strings.Contains(out, want) {
			t.Errorf("up does not say %q", want)
		}
	}
	if strings.Contains(out, "✗") {
		t.Error("a step or a check failed")
	}
	for _, s := range append(services, "gateway-guest") {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", m.pid(s)))
		if err != nil || filepath.Dir(exe) != m.bin {
			t.Errorf("%s is not a process of its own: %q, %v", s, exe, err)
		}
	}
	c := m.client(t)
	eventually(t, "hello through the gateway", 20*time.Second, func() error { return fetch(c, m.url(appOf(t, out))) })
	if list := m.must(t, "cvms", "list"); !strings.Contains(list, "hello") {
		t.Error("the profile that up wrote does not list hello")
	}
	m.must(t, "status")
}

// identity is what must be the same after a restart.
type identity struct {
	app, instance, gateway, kms, envKey, wallet, tls string
}

func (m *machine) kms(t *testing.T) *kmsapi.Client {
	t.Helper()
	var facts struct {
		Root string `json:"kms_root"`
	}
	m.json(t, "facts.json", &facts)
	var urls []string
	for i := range 3 {
		urls = append(urls, fmt.Sprintf("https://127.0.0.1:%d", m.ports.KMS+i))
	}
	c, err := kmsapi.New(kmsapi.Config{URLs: urls, RootSPKI: facts.Root, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (m *machine) identity(t *testing.T, app string) (id identity) {
	t.Helper()
	id.app = app
	for _, v := range m.vms(t) {
		if v.Spec.AppID.String() == app {
			id.instance = v.InstanceID.String()
		}
	}
	var facts struct {
		Root    string `json:"kms_root"`
		Gateway string `json:"gateway_app_id"`
	}
	m.json(t, "facts.json", &facts)
	id.kms, id.gateway = facts.Root, facts.Gateway
	a, err := cvm.ParseAppID(app)
	if err != nil {
		t.Fatal(err)
	}
	k, err := m.kms(t).EnvKey(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	id.envKey = fmt.Sprintf("%x", k.PublicKey)
	id.wallet = m.must(t, "wallet", "show")
	// The gateway's TLS key is encrypted under its app key: only the same app has it.
	res, err := m.client(t).Get(m.url(app))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("hello answers with %s", res.Status)
	}
	id.tls = fmt.Sprintf("%x", res.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	return id
}

// interrupt is Ctrl-C.
func (m *machine) interrupt(t *testing.T, up *running) {
	t.Helper()
	begin := time.Now()
	if err := up.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := up.ends(t, stopBound); code != 0 {
		t.Errorf("Ctrl-C ends with exit code %d:\n%s", code, tail(up.output()))
	}
	t.Logf("Ctrl-C: %s", time.Since(begin).Round(100*time.Millisecond))
}

// nothingRuns: no process of these programs, no container of these machines.
func (m *machine) nothingRuns(t *testing.T) {
	t.Helper()
	if p := m.processes(); len(p) > 0 {
		t.Errorf("left running: %v", p)
	}
	if c := m.containers(t, "status=running"); len(c) > 0 {
		t.Errorf("containers left running: %v", c)
	}
}

// processes lists the processes of this test's programs, by what they execute.
func (m *machine) processes() (list []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && filepath.Dir(exe) == m.bin {
			list = append(list, filepath.Base(filepath.Dir(l))+" "+filepath.Base(exe))
		}
	}
	return list
}

// containers lists those on this cloud's network, running or not.
func (m *machine) containers(t *testing.T, filters ...string) []string {
	t.Helper()
	args := []string{"ps", "-a", "--format", "{{.Names}}", "--filter", "network=" + network}
	for _, f := range filters {
		args = append(args, "--filter", f)
	}
	out, err := exec.Command("docker", args...).Output()
	if err != nil {
		t.Fatalf("docker ps: %v", err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(c string) bool { return slices.Contains(m.strangers, c) })
}

// newerState: a state that a newer program wrote is refused, not guessed at.
func (m *machine) newerState(t *testing.T) {
	t.Helper()
	path := filepath.Join(m.state, "state.json")
	ours, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const newer = `{"version": 1000}`
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := m.run(t, "phala-devcloud", m.up()...)
	if code != 1 || !strings.Contains(out, "newer program") || !strings.Contains(out, "1000") || !strings.Contains(out, "PHALA_STATE") {
		t.Errorf("a newer state: exit %d\n%s", code, out)
	}
	if b, _ := os.ReadFile(path); string(b) != newer {
		t.Errorf("the refusal changed the state to %s", b)
	}
	m.nothingRuns(t)
	if err := os.WriteFile(path, ours, 0o600); err != nil {
		t.Fatal(err)
	}
}

// forget: nothing of the cloud is left, in files or in the engine.
func (m *machine) forget(t *testing.T) {
	t.Helper()
	if len(m.containers(t)) == 0 {
		t.Error("no stopped guest was there to forget: this checks nothing")
	}
	if _, code := m.run(t, "phala-devcloud", "clean", "--yes", "--state", m.state); code != 0 {
		t.Errorf("clean: exit %d", code)
	}
	if _, err := os.Stat(m.state); err == nil {
		t.Error("the state directory is left")
	}
	if c := m.containers(t); len(c) > 0 {
		t.Errorf("containers left: %v", c)
	}
	if exec.Command("docker", "network", "inspect", network).Run() == nil {
		t.Errorf("the network %s is left", network)
	}
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
