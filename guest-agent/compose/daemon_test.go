package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/run"
)

// envDaemon makes this test binary act as the daemons that an engine starts. Its value
// is what they do wrong: "" for nothing, "containerd-ends" or "dockerd-ends".
const envDaemon = "PHALA_TEST_DAEMON"

func TestMain(m *testing.M) {
	if how, ok := os.LookupEnv(envDaemon); ok && len(os.Args) == 3 {
		if err := actAsDaemon(how, os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// written is containerd's file as it is read, strictly.
type written containerdConfig

func (*written) Validate() error { return nil }

// actAsDaemon answers as containerd and dockerd do, until SIGTERM. dockerd is of no use
// without a containerd that answers when it starts.
func actAsDaemon(how, option, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	switch option {
	case "--config":
		var c written
		if err := config.Load(file, &c); err != nil {
			return err
		}
		if how == "containerd-ends" {
			return fmt.Errorf("containerd: no room")
		}
		l, err := net.Listen("unix", c.GRPC.Address)
		if err != nil {
			return err
		}
		defer l.Close()
	case "--config-file":
		var c daemonConfig
		if err := json.Unmarshal(b, &c); err != nil {
			return err
		}
		conn, err := net.Dial("unix", c.Containerd)
		if err != nil {
			return fmt.Errorf("dockerd: its containerd does not answer: %w", err)
		}
		_ = conn.Close()
		if how == "dockerd-ends" {
			return fmt.Errorf("dockerd: no bridge")
		}
		l, err := net.Listen("unix", strings.TrimPrefix(c.Hosts[0], "unix://"))
		if err != nil {
			return err
		}
		go http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) //nolint:errcheck,gosec // ends with the process
	}
	<-end
	return os.WriteFile(filepath.Join(filepath.Dir(file), "ended"), fmt.Appendf(nil, "%s\n", option), 0o600)
}

// daemons is an engine whose daemons are this binary.
func daemons(t *testing.T, how string) *Engine {
	t.Helper()
	t.Setenv(envDaemon, how)
	e := engine(t)
	dir, err := os.MkdirTemp("", "eng") // short: unix socket paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := e.cfg
	c.Daemon, c.Containerd, c.ExecDir, c.DataDir, c.StopTimeout = os.Args[0], os.Args[0], filepath.Join(dir, "exec"), dir, 10*time.Second
	c.Sock = filepath.Join(dir, "docker.sock")
	if e, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.StopDaemon() })
	return e
}

// TestDaemonsStartInOrder: dockerd finds its containerd; they stop the other way round.
func TestDaemonsStartInOrder(t *testing.T) {
	e := daemons(t, "")
	if err := e.startDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.DaemonDone():
		t.Error("a daemon has ended")
	default:
	}
	last := func() string {
		b, _ := os.ReadFile(filepath.Join(e.cfg.WorkDir, "ended"))
		return string(b)
	}
	if err := e.procs[1].stop(10 * time.Second); err != nil || last() != "--config-file\n" {
		t.Errorf("dockerd: %v, last to end %q", err, last())
	}
	if err := e.StopDaemon(); err != nil || last() != "--config\n" {
		t.Errorf("containerd: %v, last to end %q", err, last())
	}
}

// TestNobodyIsAskedWithoutASocket: to connect in vain a hundred times a second is work that an
// emulated machine has no processor for.
func TestNobodyIsAskedWithoutASocket(t *testing.T) {
	d := &daemon{name: "late", done: make(chan struct{}), out: &run.Tail{Max: 1}}
	sock := filepath.Join(t.TempDir(), "sock")
	asked := 0
	answers := func() error { asked++; return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 5*daemonLook)
	defer cancel()
	if err := d.await(ctx, sock, answers); err == nil || asked != 0 {
		t.Errorf("without a socket: asked %d times, %v", asked, err)
	}
	if err := os.WriteFile(sock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.await(t.Context(), sock, answers); err != nil || asked != 1 {
		t.Errorf("with one: asked %d times, %v", asked, err)
	}
}

// TestEitherDaemonsEndIsTheEnginesEnd: an app whose containerd is gone cannot go on.
func TestEitherDaemonsEndIsTheEnginesEnd(t *testing.T) {
	for i, name := range []string{"containerd", "dockerd"} {
		e := daemons(t, "")
		if err := e.startDaemon(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := e.procs[i].cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-e.DaemonDone():
		case <-time.After(10 * time.Second):
			t.Errorf("%s was killed, and nobody noticed", name)
		}
	}
}

func TestDaemonsThatDoNotStart(t *testing.T) {
	for how, want := range map[string]string{"containerd-ends": "no room", "dockerd-ends": "no bridge"} {
		e := daemons(t, how)
		err := e.startDaemon(t.Context())
		if cvm.ReasonOf(err) != ReasonDaemon || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// TestContainerdConfig: containerd reads it as it is written, and starts nothing that
// is not wanted.
func TestContainerdConfig(t *testing.T) {
	e := daemons(t, "")
	if err := e.startDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(e.cfg.WorkDir, "containerd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"version = 2", "io.containerd.grpc.v1.cri", "[grpc]", e.containerdSock(), filepath.Join(e.cfg.DataDir, "docker", "containerd", "daemon")} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("containerd.toml lacks %q:\n%s", want, b)
		}
	}
}

// TestComposeReadsWhileTheDaemonsStart: but not what a script may still change.
func TestComposeReadsWhileTheDaemonsStart(t *testing.T) {
	for script, read := range map[string]bool{"": true, "echo IMAGE=y > .env": false} {
		e := daemons(t, "")
		e.cfg.Compose = filepath.Join(e.cfg.WorkDir, "compose")
		if err := os.WriteFile(e.cfg.Compose, []byte("#!/bin/sh\necho '{\"services\":{\"web\":{\"image\":\"x\"}}}'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		m, err := e.begin(t.Context(), App{PreLaunch: script})
		if err != nil || (m != nil) != read {
			t.Errorf("script %q: %+v %v", script, m, err)
		}
		if err := e.ping(t.Context()); err != nil {
			t.Errorf("the engine: %v", err)
		}
	}
}
