package guestagent_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
)

// bridge is the engine's address on docker's default network.
const bridge = "172.17.0.1"

// containerWorld is a guest as the container driver runs it.
type containerWorld struct {
	*world
	image    string
	registry string
	name     string
	volume   string
	password string
	locked   atomic.Bool // after the images were pushed
}

// newContainerWorld needs root, docker and an image with docker and compose in it
// (what os/ builds, imported): PHALA_GUEST_BASE names it.
func newContainerWorld(t *testing.T) *containerWorld {
	t.Helper()
	base := os.Getenv("PHALA_GUEST_BASE")
	if base == "" || os.Getuid() != 0 {
		t.Skip("SKIPPED: guests as containers need root and PHALA_GUEST_BASE, a docker image of os/'s root filesystem")
	}
	if out, err := exec.Command("docker", "image", "inspect", base).CombinedOutput(); err != nil {
		t.Fatalf("docker, or the image %s that PHALA_GUEST_BASE names, is not there: %s", base, out)
	}
	w := &containerWorld{world: newWorld(t, bridge), image: base, password: "right-password-1"}
	w.name, w.volume = "guestagent-"+filepath.Base(w.dir), "guestagent-"+filepath.Base(w.dir)
	w.serveRegistry(t)
	build(t, filepath.Join(w.dir, "phala-guest-agent"), "../cmd/phala-guest-agent")
	sh(t, "docker", "volume", "create", w.volume)
	t.Cleanup(func() {
		_ = exec.Command("docker", "rm", "-f", w.name).Run()
		_ = exec.Command("docker", "volume", "rm", "-f", w.volume).Run()
	})
	w.pushKV(t)
	return w
}

// serveRegistry has a public part and, below /private, one that asks for a password.
func (w *containerWorld) serveRegistry(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", bridge+":0")
	if err != nil {
		t.Fatal(err)
	}
	w.registry = l.Addr().String()
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, p, _ := r.BasicAuth()
		guarded := r.URL.Path == "/v2/" || strings.HasPrefix(r.URL.Path, "/v2/private/")
		if w.locked.Load() && guarded && p != w.password {
			rw.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		reg.ServeHTTP(rw, r)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

func build(t *testing.T, out, pkg string) {
	t.Helper()
	c := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, b)
	}
}

func sh(t *testing.T, args ...string) string {
	t.Helper()
	b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, b)
	}
	return strings.TrimSpace(string(b))
}

// pushKV puts the two-service test app into the registry, publicly and privately.
// The engine here does not know the registry as insecure: the layers are pushed by
// hand.
func (w *containerWorld) pushKV(t *testing.T) {
	t.Helper()
	ctx := filepath.Join(w.dir, "kv")
	if err := os.Mkdir(ctx, 0o755); err != nil {
		t.Fatal(err)
	}
	build(t, filepath.Join(ctx, "app"), "../test/apps/kv")
	for _, name := range []string{"public/kv", "private/kv"} {
		if err := pushScratch("http://"+w.registry, name, filepath.Join(ctx, "app")); err != nil {
			t.Fatal(err)
		}
	}
}

// boot starts the guest as vmm/container does and returns its log on failure.
func (w *containerWorld) boot(t *testing.T) {
	t.Helper()
	_ = exec.Command("docker", "rm", "-f", w.name).Run()
	w.newTD(t)
	w.mu.Lock()
	w.sent = nil
	w.mu.Unlock()
	sh(t, "docker", "run", "-d", "--name", w.name, "--cgroupns", "private", "--memory", "1g",
		"--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE", "--cap-add", "MKNOD", "--cap-add", "NET_RAW", "--cap-add", "DAC_READ_SEARCH",
		"--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
		"--tmpfs", "/run:rw,exec,nosuid,nodev,mode=755", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777",
		"-v", w.volume+":"+guestapi.DataDir, "-v", filepath.Join(w.dir, "shared")+":"+guestapi.SharedDir+":ro", "-v", filepath.Join(w.dir, "run")+":"+guestapi.RunDir,
		"-v", filepath.Join(w.dir, "phala-guest-agent")+":/usr/bin/phala-guest-agent:ro",
		"--entrypoint", "/usr/bin/phala-guest-agent", w.image)
}

// outcome waits for ready ("") or a boot error.
func (w *containerWorld) outcome(t *testing.T) string {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for time.Now().Before(deadline) {
		w.mu.Lock()
		for _, n := range w.sent {
			if n.Event == "ready" || n.Event == "boot.error" {
				w.mu.Unlock()
				return n.Payload
			}
		}
		w.mu.Unlock()
		if sh(t, "docker", "inspect", "-f", "{{.State.Running}}", w.name) != "true" && w.last("boot.error") == "" {
			break
		}
		poll()
	}
	t.Fatalf("the guest neither came up nor said why:\n%s", w.console())
	return ""
}

// poll is the pause between two looks at something that cannot be waited for.
func poll() { <-time.After(100 * time.Millisecond) }

func (w *containerWorld) console() string {
	b, _ := exec.Command("docker", "logs", "--tail", "60", w.name).CombinedOutput()
	return string(b)
}

func (w *containerWorld) get(t *testing.T, port int, path string) string {
	t.Helper()
	ip := sh(t, "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", w.name)
	c := &http.Client{Timeout: 5 * time.Second}
	res, err := c.Get(fmt.Sprintf("http://%s:%d%s", ip, port, path))
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}

func (w *containerWorld) put(t *testing.T, value string) {
	t.Helper()
	ip := sh(t, "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", w.name)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+ip+":8080/value", strings.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("writing a value: %v %v", res, err)
	}
	_ = res.Body.Close()
}

// seal writes an environment, encrypted to the app.
func (w *containerWorld) seal(t *testing.T, appCompose []byte, env ...keys.EnvVar) {
	t.Helper()
	var app cvm.AppID
	h := sha256.Sum256(appCompose)
	copy(app[:], h[:20])
	priv, err := w.kms.Root.EnvKey(app)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := keys.EnvPublicKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := keys.EncryptEnv(rand.Reader, pub, env)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "shared/.encrypted-env"), blob, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(w.dir, "shared/.instance_info"))
}

func (w *containerWorld) kvApp(t *testing.T, image string) map[string]any {
	t.Helper()
	y, err := os.ReadFile("../test/apps/kv/docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"runner": "docker-compose", "docker_compose_file": strings.ReplaceAll(string(y), "phala-tests/kv:1", w.registry+"/"+image),
		"allowed_envs": []string{"SECRET", "DSTACK_DOCKER_USERNAME", "DSTACK_DOCKER_PASSWORD", "DSTACK_DOCKER_REGISTRY"}}
}

func (w *containerWorld) sys() map[string]any {
	return map[string]any{"insecure_registries": []string{w.registry}}
}

func TestContainerGuest(t *testing.T) {
	w := newContainerWorld(t)
	secret := "s3cret-" + hex.EncodeToString(randBytes(8))
	doc := w.share(t, w.kvApp(t, "public/kv"), w.sys())
	w.seal(t, doc, keys.EnvVar{Key: "SECRET", Value: secret}, keys.EnvVar{Key: "NOT_ALLOWED", Value: "x"})
	w.boot(t)
	if e := w.outcome(t); e != "" {
		t.Fatalf("boot: %s\n%s", e, w.console())
	}
	page := w.get(t, 8080, "/")
	if !strings.Contains(page, fmt.Sprintf("secret_len=%d\n", len(secret))) || !strings.Contains(page, "hello from the default") || !strings.Contains(page, "inline=yes") {
		t.Errorf("the app says %q", page)
	}
	g := guestapi.NewClient(filepath.Join(w.dir, "run/guest.sock"))
	l, err := g.Containers(t.Context())
	if err != nil || len(l.Containers) != 2 {
		t.Errorf("containers %+v %v", l, err)
	}
	if ev := w.get(t, 8090, "/evidence?nonce=0011223344556677"); !strings.Contains(ev, "attestation") {
		t.Errorf("evidence: %.200s", ev)
	}
	checkLogs(t, w, g)
	if c := w.console(); strings.Contains(c, secret) {
		t.Error("the secret is on the console")
	}
	out := sh(t, "docker", "exec", w.name, "sh", "-c", "ps -eo pid,stat,args; mount | grep dstack; find /dstack -type f; cat /proc/$(pidof app | cut -d' ' -f1)/cgroup")
	t.Log(out)
	if strings.Contains(out, " Z ") || strings.Contains(out, ".docker/config.json") {
		t.Errorf("zombies or credentials:\n%s", out)
	}
	w.stopAndRestart(t, g)
}

func checkLogs(t *testing.T, w *containerWorld, g *guestapi.Client) {
	t.Helper()
	rd, err := g.Logs(t.Context(), "web", url.Values{"tail": {"5"}, "text": {""}})
	if err != nil {
		t.Fatalf("logs: %v", err)
	}
	defer rd.Close()
	if _, err := io.ReadAll(rd); err != nil {
		t.Error(err)
	}
	if _, err := g.Logs(t.Context(), "nope", nil); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("logs of nobody: %v", err)
	}
}

// stopAndRestart: the volume and the instance last, and no container of the last
// boot starts by itself.
func (w *containerWorld) stopAndRestart(t *testing.T, g *guestapi.Client) {
	t.Helper()
	w.put(t, "kept-value")
	if err := g.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	code := sh(t, "docker", "wait", w.name)
	if code != "0" {
		t.Errorf("exit code %s\n%s", code, w.console())
	}
	w.boot(t)
	if e := w.outcome(t); e != "" {
		t.Fatalf("second boot: %s\n%s", e, w.console())
	}
	if page := w.get(t, 8080, "/"); !strings.Contains(page, "value=kept-value\n") {
		t.Errorf("after a restart the app says %q", page)
	}
}

func TestContainerGuestCredentials(t *testing.T) {
	w := newContainerWorld(t)
	w.locked.Store(true)
	doc := w.share(t, w.kvApp(t, "private/kv"), w.sys())
	login := func(password string) []keys.EnvVar {
		return []keys.EnvVar{{Key: "DSTACK_DOCKER_USERNAME", Value: "me"}, {Key: "DSTACK_DOCKER_PASSWORD", Value: password}, {Key: "DSTACK_DOCKER_REGISTRY", Value: w.registry}}
	}
	w.seal(t, doc, login("wrong-password-2")...)
	w.boot(t)
	e := w.outcome(t)
	if !strings.Contains(e, compose.ReasonLogin) || strings.Contains(e, "wrong-password-2") {
		t.Fatalf("wrong credentials: %q\n%s", e, w.console())
	}
	if code := sh(t, "docker", "wait", w.name); code == "0" {
		t.Error("a failed boot ended with 0")
	}
	w.seal(t, doc, login(w.password)...)
	w.boot(t)
	if e := w.outcome(t); e != "" {
		t.Fatalf("right credentials: %s\n%s", e, w.console())
	}
}

func randBytes(n int) []byte { b := make([]byte, n); _, _ = rand.Read(b); return b }
