package compose

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	guestagent "github.com/confidential-cloud/phala/guest-agent"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/internal/registry"
	"github.com/confidential-cloud/phala/keys"
)

// The app that every file runs in: what the guest agent would give it.
const (
	appID  = "00112233445566778899aabbccddeeff00112233"
	domain = "dev.localhost"
)

// TestUp runs the corpus on an engine of its own, in namespaces of its own: ports
// and sockets are those of a guest, and nothing of this machine's engine is touched.
func TestUp(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: an engine of its own needs root")
	}
	for _, p := range []string{"unshare", "dockerd", "ip", "docker", "bash"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	program(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("/tapp", 0o700); err == nil { // where a guest has one; inside, another is mounted there
		t.Cleanup(func() { _ = os.Remove("/tapp") })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", //nolint:gosec // ourselves
		self, "-test.run", "^TestInside$", "-test.v", "-test.timeout", "90m")
	cmd.Env = append(os.Environ(), "PHALA_CORPUS_INSIDE="+buildApp(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, failures(string(out)))
	}
	if !strings.Contains(string(out), "--- PASS: TestInside/") {
		t.Fatalf("nothing ran:\n%s", out)
	}
	t.Log(strings.Count(string(out), "    --- PASS: TestInside/"), "files ran")
}

// failures are the lines that do not say that something passed.
func failures(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "--- PASS") && !strings.HasPrefix(line, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// buildApp compiles the corpus' app and packs it with the little that images have.
func buildApp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "app")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "../apps/any")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "rootfs.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	passwd := []byte("root:x:0:0:root:/root:/bin/sh\n")
	for _, e := range []struct {
		h tar.Header
		b []byte
	}{
		{tar.Header{Name: "app", Mode: 0o755, Size: int64(len(b))}, b},
		{tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "/app", Mode: 0o777}, nil},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/passwd", Mode: 0o644, Size: int64(len(passwd))}, passwd},
	} {
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// guest is what runs inside: the engine as the guest agent makes it, a registry, and
// the guest agent's sockets.
type guest struct {
	engine *compose.Engine
	digest string // of the corpus' image
	client *http.Client
}

// TestInside is the other side of TestUp.
func TestInside(t *testing.T) {
	rootfs := os.Getenv("PHALA_CORPUS_INSIDE")
	if rootfs == "" {
		t.Skip("SKIPPED: TestUp runs it in namespaces of its own")
	}
	g := newGuest(t, rootfs)
	for _, f := range Load(t, "corpus") {
		if !f.Runs() && f.GPU == "" || os.Getenv("PHALA_LONG") == "" && f.Up != "everyday" && f.Name != "vllm" {
			continue
		}
		if only := os.Getenv("PHALA_CORPUS_ONLY"); only != "" && only != f.Name {
			continue
		}
		t.Run(f.Name, func(t *testing.T) { g.run(t, f) })
	}
	t.Run("stop", g.stop)
}

// stop: containers that do not end by themselves get the time that their file gives them,
// and no more than the guest has for all of them.
func (g *guest) stop(t *testing.T) {
	const never = "    image: phala-corpus/app:1\n    stop_signal: SIGWINCH\n" // which nobody minds
	for what, s := range map[string]struct {
		text  string
		grace time.Duration
	}{
		"the file's time":  {"services:\n  a:\n" + never + "    stop_grace_period: 1s\n", time.Hour},
		"the guest's time": {"services:\n  a:\n" + never + "    stop_grace_period: 1h\n    depends_on: [b]\n  b:\n" + never + "    stop_grace_period: 1h\n", time.Second},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		app := g.app(File{Text: s.text})
		must(t, g.engine.Up(ctx, app))
		if err := g.engine.Stop(ctx, s.grace); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		l, err := g.engine.Containers(ctx)
		must(t, err)
		for _, c := range l {
			if c.State != "exited" {
				t.Errorf("%s: %s is %s", what, c.Names, c.State)
			}
		}
		if len(l) == 0 {
			t.Errorf("%s: no container is left", what)
		}
		cancel()
		g.down(t, app)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newGuest(t *testing.T, rootfs string) *guest {
	t.Helper()
	// The namespaces are ours: these mounts are seen by nobody else.
	must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	for _, d := range []string{"/run", "/tmp", "/root", "/tapp"} {
		if d == "/tmp" { // what was handed in stays readable
			b, err := os.ReadFile(rootfs)
			must(t, err)
			rootfs = "/run/rootfs.tar"
			must(t, os.WriteFile(rootfs, b, 0o600))
			if p := os.Getenv("PHALA_COMPOSE"); p != "" {
				must(t, os.WriteFile(composeInside, nil, 0o600))
				must(t, syscall.Mount(p, composeInside, "", syscall.MS_BIND, ""))
			}
		}
		must(t, syscall.Mount("tmpfs", d, "tmpfs", 0, "size=1g"))
	}
	for _, c := range [][]string{{"ip", "link", "set", "lo", "up"}} {
		out, err := exec.CommandContext(t.Context(), c[0], c[1:]...).CombinedOutput() //nolint:gosec // two words of ours
		if err != nil {
			t.Fatalf("%v: %v %s", c, err, out)
		}
	}
	g := &guest{client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	g.serveImages(t, rootfs)
	serveSockets(t)
	g.startEngine(t)
	return g
}

// serveImages is the mirror of docker.io.
func (g *guest) serveImages(t *testing.T, rootfs string) {
	r, err := registry.New(registry.Config{Dir: "/run/registry", Addrs: []string{"127.0.0.1:5080"}})
	must(t, err)
	img, err := registry.FromRootfs(rootfs, registry.ImageConfig{Entrypoint: []string{"/app"}, Env: []string{"PATH=/bin:/"}})
	must(t, err)
	g.digest, err = r.Push(t.Context(), "phala-corpus/app", "1", img)
	must(t, err)
	_, err = r.Push(t.Context(), "phala-corpus/app", "latest", img)
	must(t, err)
	live(t, r.Run)
	<-r.Ready()
}

// serveSockets are the guest agent's, from the simulator.
func serveSockets(t *testing.T) {
	must(t, os.MkdirAll("/run/simulator", 0o700))
	live(t, func(ctx context.Context) error {
		return guestagent.Simulate(ctx, "/run/simulator", slog.New(slog.DiscardHandler))
	})
	for _, s := range []string{"dstack.sock", "tappd.sock"} {
		from := "/run/simulator/" + s
		eventually(t, s, func() error { _, err := os.Stat(from); return err })
		f, err := os.Create("/run/" + s)
		must(t, err)
		must(t, f.Close())
		must(t, syscall.Mount(from, "/run/"+s, "", syscall.MS_BIND, ""))
	}
}

// live runs a part until the test ends.
func live(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// composeInside is where the guests' own Compose is inside.
const composeInside = "/run/compose"

// composeProgram is the guests' own Compose, or this machine's.
func composeProgram() string {
	if os.Getenv("PHALA_COMPOSE") == "" {
		return "docker-compose"
	}
	return composeInside
}

func (g *guest) run(t *testing.T, f File) {
	if strings.Contains(f.Text, "privileged: true") && !privileged(t) {
		t.Skip("SKIPPED: this machine gives no container all privileges")
	}
	app := g.app(f)
	err := g.engine.Up(t.Context(), app)
	if f.GPU != "" {
		if err == nil || !strings.Contains(err.Error(), "needs a GPU, and this guest has none") {
			t.Errorf("without a GPU: %v", err)
		}
		return
	}
	t.Cleanup(func() { g.down(t, app) })
	if err != nil {
		t.Fatal(err)
	}
	g.check(t, f)
	port, path, keep := strings.Cut(f.Keep, " ")
	if !keep {
		return
	}
	g.put(t, port, path, f.Name)
	// The update: another file, the same volumes.
	app.Compose = strings.Replace(app.Compose, "services:\n", "x-update: \"2\"\nservices:\n", 1) + "\n"
	must(t, g.engine.Stop(t.Context(), 3*time.Second))
	must(t, g.engine.Up(t.Context(), app))
	g.check(t, f)
	g.want(t, port+" /file?path="+path+" => "+f.Name)
}

// privileged: there is no capability that this machine keeps to itself.
func privileged(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	must(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	must(t, err)
	return strings.Contains(string(status), fmt.Sprintf("CapBnd:\t%016x\n", uint64(1)<<(n+1)-1))
}

func (g *guest) app(f File) compose.App {
	var env []keys.EnvVar
	for k, v := range f.Set {
		env = append(env, keys.EnvVar{Key: k, Value: v})
	}
	text := strings.ReplaceAll(f.Text, "sha256:"+strings.Repeat("0", 64), g.digest)
	return compose.App{Compose: text, Env: compose.Builtin(appID, domain, env)}
}

// down ends the app and forgets its volumes and files, as for the next CVM.
func (g *guest) down(t *testing.T, a compose.App) {
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), composeProgram(), "--project-name", project, "down", "--volumes", "--remove-orphans", "--timeout", "2") //nolint:gosec // our own
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///run/docker.sock")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("down: %v %s", err, out)
	}
	l, err := g.engine.Containers(context.WithoutCancel(t.Context()))
	if err != nil || len(l) != 0 {
		t.Errorf("%d containers are left, %v", len(l), err)
	}
}

const project = "dstack"

// startEngine starts dockerd as a guest's is configured, and the code that runs in
// guests on it.
func (g *guest) startEngine(t *testing.T) {
	out := &bytes.Buffer{}
	cmd := exec.Command("dockerd", "--host", "unix:///run/docker.sock", "--data-root", "/run/data", "--registry-mirror", "http://127.0.0.1:5080", //nolint:noctx // ends below
		"--exec-opt", "native.cgroupdriver=cgroupfs")
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("dockerd:\n%.4000s", out)
		}
	})
	for _, d := range []string{"/run/work", "/run/vol"} {
		must(t, os.MkdirAll(d, 0o700))
	}
	var err error
	g.engine, err = compose.New(compose.Config{Log: slog.New(slog.DiscardHandler), Compose: composeProgram(), Sock: "/run/docker.sock", Project: project,
		WorkDir: "/run/work", DataDir: "/run/vol", StopTimeout: 2 * time.Second})
	must(t, err)
	eventually(t, "dockerd", func() error { _, err := g.engine.Containers(t.Context()); return err })
}
