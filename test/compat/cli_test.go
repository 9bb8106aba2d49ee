package compat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// long runs the whole table; everyday runs take the rows that are marked.
func long() bool { return os.Getenv("PHALA_LONG") != "" }

// install has npm put the locked clients into the build directory, once per lock
// file. Where npm cannot, CI fails and others skip.
func install(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("SKIPPED: npm is not installed")
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	build, err := filepath.Abs("../../build")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(build, "compat-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err == nil {
		return dir
	}
	if err := os.MkdirAll(build, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(build, "compat-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp) // unless it was renamed
	for _, n := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tmp, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional")
	c.Dir = tmp
	if b, err := c.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("npm ci: %v\n%s", err, b)
		}
		t.Skipf("SKIPPED: npm cannot install the clients: %s", b)
	}
	if err := os.Rename(tmp, dir); err != nil && !exists(filepath.Join(dir, "node_modules")) {
		t.Fatal(err)
	}
	return dir
}

func exists(p string) bool { _, err := os.Stat(p); return err == nil }

// user is somebody with the public CLI: a home, a project directory, a shell.
type user struct {
	s    *stack
	name string
	dir  string
	cli  string
	env  []string
	mu   sync.Mutex
	vars map[string]string
	n    int
}

// stubs are programs that the CLI drives on its own machine; nothing of them
// reaches a cloud, and the tests must not reach a registry through them.
var stubs = []string{"docker", "wget", "xdg-open"}

func newUser(t *testing.T, s *stack, modules, name string) *user {
	t.Helper()
	dir := t.TempDir()
	u := &user{s: s, name: name, dir: filepath.Join(dir, "project"), cli: filepath.Join(modules, "node_modules", "phala", "dist", "index.js"), vars: map[string]string{"key": s.Key, "url": s.tagged("url")}}
	bin := filepath.Join(dir, "bin")
	for _, d := range []string{u.dir, bin, filepath.Join(dir, "home", ".ssh")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		filepath.Join(u.dir, "docker-compose.yml"): "services:\n  web:\n    image: nginx:1.27\n    ports:\n      - \"8080:80\"\n",
		filepath.Join(u.dir, "next.yml"):           "services:\n  web:\n    image: nginx:1.28\n    ports:\n      - \"8080:80\"\n",
		filepath.Join(u.dir, "third.yml"):          "services:\n  web:\n    image: nginx:1.29\n",
		filepath.Join(u.dir, "fourth.yml"):         "services:\n  web:\n    image: nginx:1.30\n",
		filepath.Join(u.dir, "pre.sh"):             "echo before\n",
		filepath.Join(u.dir, "body.json"):          `{"name":"","docker_compose_file":"services:\n  web:\n    image: nginx\n"}`,
		filepath.Join(u.dir, "visible.json"):       `{"public_logs":true,"public_sysinfo":true}`,
		filepath.Join(u.dir, ".env"):               "GREETING=hello\n",
		filepath.Join(dir, "edge.pem"):             string(s.CA),
		filepath.Join(u.dir, "id.pub"):             sshKey() + " me@test\n",
	}
	for _, name := range stubs {
		files[filepath.Join(bin, name)] = "#!/bin/sh\n[ \"$1\" != login ] || cat >/dev/null\necho \"stub " + name + " $*\"\n"
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil { //nolint:gosec // the stubs are programs
			t.Fatal(err)
		}
	}
	dns, err := filepath.Abs("dns.cjs")
	if err != nil {
		t.Fatal(err)
	}
	u.env = []string{
		"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + dir,
		"PHALA_CLOUD_DIR=" + filepath.Join(dir, "phala"), "PHALA_DISABLE_UPDATE_CHECK=1", "NO_COLOR=1",
		"NODE_OPTIONS=--require=" + dns, "NODE_EXTRA_CA_CERTS=" + filepath.Join(dir, "edge.pem"),
	}
	return u
}

// sshKey is a public key in OpenSSH's form.
func sshKey() string {
	const kind = "ssh-ed25519"
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(kind))), kind...)
	b = append(binary.BigEndian.AppendUint32(b, 32), bytes.Repeat([]byte{7}, 32)...)
	return kind + " " + base64.StdEncoding.EncodeToString(b)
}

// result of one command.
type result struct {
	code  int
	out   string // stdout and stderr
	std   string // stdout
	calls []string
}

// do runs a command of the CLI, or the owner's transaction; key: with the API key in
// its environment; in is typed into it; meanwhile gets all that it has said so far, each time it says more.
func (u *user) do(ctx context.Context, cmd string, args []string, in string, key bool, meanwhile func(string, *os.Process)) (result, error) {
	if cmd != sign {
		u.mu.Lock()
		u.n++
		tag := fmt.Sprintf("%s-%d", u.name, u.n)
		u.mu.Unlock()
		return u.node(ctx, tag, slices.Concat([]string{u.cli}, strings.Fields(cmd), args), in, key, meanwhile)
	}
	script, err := filepath.Abs("owner.mjs")
	if err != nil {
		return result{}, err
	}
	return u.node(ctx, "owner", append([]string{script, u.cli}, args...), "", false, nil)
}

func (u *user) node(ctx context.Context, tag string, args []string, in string, key bool, meanwhile func(string, *os.Process)) (r result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "node", args...)
	c.WaitDelay = 5 * time.Second // what it started may hold its output
	c.Dir, c.Env = u.dir, append(u.env, "PHALA_CLOUD_API_PREFIX="+u.s.tagged(tag))
	if key {
		c.Env = append(c.Env, "PHALA_CLOUD_API_KEY="+u.s.Key)
	}
	c.Stdin = strings.NewReader(in)
	var std, all bytes.Buffer
	var mu sync.Mutex
	more := func() {
		if meanwhile != nil {
			meanwhile(all.String(), c.Process)
		}
	}
	c.Stdout, c.Stderr = locked{&mu, []*bytes.Buffer{&std, &all}, more}, locked{&mu, []*bytes.Buffer{&all}, more}
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code, err = exit.ExitCode(), nil
	}
	r.out, r.std, r.calls = all.String(), std.String(), u.s.requests(tag)
	return r, err
}

type locked struct {
	mu   *sync.Mutex
	to   []*bytes.Buffer
	more func() // called with mu held
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.to {
		_, _ = w.Write(b) // memory
	}
	l.more()
	return len(b), nil
}

// fill replaces {name} by what an earlier command answered.
func (u *user) fill(s string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, v := range u.vars {
		s = strings.ReplaceAll(s, "{"+k+"}", v)
	}
	return s
}

// hide is fill's reverse, for the requests.
func (u *user) hide(s string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	for k, v := range u.vars {
		if len(v) == 36 { // the CLI takes the dashes out of uuids
			s = strings.ReplaceAll(s, "cvm_"+strings.ReplaceAll(v, "-", ""), "{cvm}")
			s = strings.ReplaceAll(s, strings.ReplaceAll(v, "-", ""), "{"+k+"32}")
		}
		if len(v) > 8 {
			s = strings.ReplaceAll(s, v, "{"+k+"}")
		}
	}
	return s
}
