// Package e2e tests the cloud as a person starts it: `phala-devcloud up` with every
// service as a process of its own, killed and brought back while it works.
package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/devcloud"
)

const (
	portBase = 28700
	network  = "phala-e2e"
	subnet   = "172.31.83.0/24"
	// held is how long a killed process stays down: long enough to see what works without it.
	held = 3 * time.Second
)

// machine is one state directory with the programs that use it.
type machine struct {
	dir, bin, state, cli string
	ports                devcloud.Ports
	strangers            []string // containers that were there before
}

// long says whether more than the everyday cases are wanted.
func long() bool { return os.Getenv("PHALA_LONG") != "" }

// newMachine builds the programs and makes sure that nothing stays behind.
func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the processes of the cloud need root (guest containers, a bridge network)")
	}
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		t.Skipf("no Docker engine answers: %s", firstLine(string(out)))
	}
	dir, err := os.MkdirTemp("", "phala-e2e")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{
		dir: dir, bin: filepath.Join(dir, "bin"), state: filepath.Join(dir, "state"), cli: filepath.Join(dir, "cli"),
		ports: devcloud.PortsFrom(portBase),
	}
	m.strangers = m.containers(t)
	t.Cleanup(func() {
		if t.Failed() {
			m.dumpLogs(t)
		}
		m.clean(t)
		_ = os.RemoveAll(dir)
	})
	build := exec.Command("go", "build", "-trimpath", "-o", m.bin+"/", "./cmd/...")
	build.Dir = root(t)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	return m
}

func root(t *testing.T) string {
	t.Helper()
	r, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// clean stops what a failed test left and forgets the state.
func (m *machine) clean(t *testing.T) {
	for _, args := range [][]string{{"down"}, {"clean", "--yes"}} {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		if out, err := m.cmd(ctx, "phala-devcloud", append(args, "--state", m.state)...).CombinedOutput(); err != nil {
			t.Errorf("phala-devcloud %s: %v\n%s", args[0], err, out)
		}
		cancel()
	}
}

func (m *machine) dumpLogs(t *testing.T) {
	logs, _ := filepath.Glob(filepath.Join(m.state, "logs", "*.log"))
	for _, l := range logs {
		b, _ := os.ReadFile(l)
		t.Logf("---- %s\n%s", filepath.Base(l), b[max(0, len(b)-5000):])
	}
}

// cmd is a program of ours in a home of its own.
func (m *machine) cmd(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, name), args...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "HOME="+m.dir, "PHALA_CLOUD_DIR="+m.cli, "PHALA_DISABLE_UPDATE_CHECK=1", "NO_COLOR=1",
		"GOCACHE="+goCache(), "GOMODCACHE="+goEnv("GOMODCACHE"))
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// The caches must not move with HOME: up builds hello.
func goCache() string { return goEnv("GOCACHE") }

var goEnv = func() func(string) string {
	var mu sync.Mutex
	known := map[string]string{}
	return func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		if known[name] == "" {
			out, _ := exec.Command("go", "env", name).Output()
			known[name] = strings.TrimSpace(string(out))
		}
		return known[name]
	}
}()

// up is the command line of `make up` with every service as a process.
func (m *machine) up(more ...string) []string {
	source, _ := filepath.Abs("../..")
	return append([]string{"up", "--processes", "--restart-delay", held.String(), "--source", source, "--state", m.state, "--cli-dir", m.cli,
		"--port-base", strconv.Itoa(portBase), "--network", network, "--subnet", subnet}, more...)
}

// running is a program whose output is watched.
type running struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended
	err  error

	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed and replaced with every write
}

func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.more)
	r.more = make(chan struct{})
	return r.text.Write(b)
}

func (r *running) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// start runs a program in a process group of its own.
func (m *machine) start(t *testing.T, name string, args ...string) *running {
	t.Helper()
	r := &running{cmd: m.cmd(context.Background(), name, args...), done: make(chan struct{}), more: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		select {
		case <-r.done:
		default:
			_ = r.cmd.Process.Kill()
			<-r.done
		}
	})
	return r
}

// sees waits until the output holds text.
func (r *running) sees(t *testing.T, text string, patience time.Duration) {
	t.Helper()
	end := time.After(patience)
	for {
		r.mu.Lock()
		found, more := strings.Contains(r.text.String(), text), r.more
		r.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-r.done:
			if !strings.Contains(r.output(), text) {
				t.Fatalf("it ended (%v) without saying %q:\n%s", r.err, text, r.output())
			}
			return
		case <-end:
			t.Fatalf("it did not say %q within %s:\n%s", text, patience, r.output())
		}
	}
}

// ends waits for the end and returns the exit code.
func (r *running) ends(t *testing.T, patience time.Duration) int {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatalf("it did not end within %s:\n%s", patience, r.output())
	}
	return r.cmd.ProcessState.ExitCode()
}

// run runs a program to its end.
func (m *machine) run(t *testing.T, name string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	out, err := m.cmd(ctx, name, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	code := 0
	if exit != nil {
		code = exit.ExitCode()
	}
	t.Logf("$ %s %s -> %d\n%s", name, strings.Join(args, " "), code, out)
	return string(out), code
}

// must runs the CLI and wants success.
func (m *machine) must(t *testing.T, args ...string) string {
	t.Helper()
	out, code := m.run(t, "phala", args...)
	if code != 0 {
		t.Fatalf("phala %s exited with %d:\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// pid is the process of a service, 0 while it is down.
func (m *machine) pid(service string) int {
	b, _ := os.ReadFile(filepath.Join(m.state, "run", service+".pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// client trusts the local CA and finds every name at the gateway.
func (m *machine) client(t *testing.T) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(m.state, "ca", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("the CA file holds no certificate")
	}
	gw := net.JoinHostPort("127.0.0.1", strconv.Itoa(m.ports.Gateway))
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", gw)
		},
	}}
}

func (m *machine) url(app string) string {
	return fmt.Sprintf("https://%s.dev.localhost:%d/", app, m.ports.Gateway)
}

// fetch is nil when the app answers with its page.
func fetch(c *http.Client, url string) error {
	res, err := c.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", res.StatusCode, firstLine(string(b)))
	}
	return err
}

// eventually polls until ok says so; it names what it waited for.
func eventually(t *testing.T, what string, patience time.Duration, ok func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); ; {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

func (m *machine) json(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.state, path))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func firstLine(s string) string { l, _, _ := strings.Cut(strings.TrimSpace(s), "\n"); return l }
