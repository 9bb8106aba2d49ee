package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// daemonStart bounds the start of dockerd: seconds, but on an emulated machine of a
// busy host more than a minute. One that cannot start ends by itself and says why.
const daemonStart = 5 * time.Minute

type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended; err is set before
	err  error
	out  *run.Tail
}

// daemonConfig is the part of daemon.json that we set.
type daemonConfig struct {
	DataRoot   string            `json:"data-root"`
	Hosts      []string          `json:"hosts"`
	Mirrors    []string          `json:"registry-mirrors,omitempty"`
	Insecure   []string          `json:"insecure-registries,omitempty"`
	LogDriver  string            `json:"log-driver"`
	LogOpts    map[string]string `json:"log-opts"`
	ExecOpts   []string          `json:"exec-opts"`
	CgroupRoot string            `json:"cgroup-parent,omitempty"`
}

// StartDaemon starts dockerd and waits until it answers. Containers of an earlier
// boot do not start with it: the app-compose that was measured now decides what
// runs, not what lies on the disk.
func (e *Engine) StartDaemon(ctx context.Context) error {
	if e.cfg.Daemon == "" {
		return e.ping(ctx)
	}
	root := filepath.Join(e.cfg.DataDir, "docker")
	if err := os.MkdirAll(root, 0o710); err != nil {
		return fmt.Errorf("docker data root: %w", err)
	}
	if err := e.disarm(root); err != nil {
		return fmt.Errorf("holding back containers of an earlier boot: %w", err)
	}
	path, err := e.writeDaemonConfig(root)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	for {
		d, err := e.spawnDaemon(path)
		if err != nil {
			return err
		}
		err = e.awaitDaemon(ctx, d)
		// dockerd gives its containerd 15 s, which a busy emulated machine exceeds when it
		// reads both for the first time. The next attempt finds them in memory.
		if err == nil || ctx.Err() != nil || !strings.Contains(d.out.String(), "timeout waiting for containerd to start") {
			return err
		}
	}
}

// spawnDaemon starts the process.
func (e *Engine) spawnDaemon(config string) (*daemon, error) {
	// A pid file that outlived its process (a killed guest) would stop dockerd.
	_ = os.Remove("/var/run/docker.pid")
	d := &daemon{cmd: exec.Command(e.cfg.Daemon, "--config-file", config), //nolint:noctx // stop ends it, after the containers
		done: make(chan struct{}), out: &run.Tail{Max: 8 << 10}}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	// Its own process group: a Ctrl-C at a terminal must not end it before the containers.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "starting dockerd: %w", err).WithReason(ReasonDaemon)
	}
	e.proc = d
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

func (e *Engine) awaitDaemon(ctx context.Context, d *daemon) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if e.ping(ctx) == nil {
			return nil
		}
		select {
		case <-d.done:
			return cvm.Errorf(cvm.Internal, "dockerd ended: %v: %s", d.err, d.out).WithReason(ReasonDaemon)
		case <-ctx.Done():
			return cvm.Errorf(cvm.Internal, "dockerd did not answer in %s: %s", daemonStart, d.out).WithReason(ReasonDaemon)
		case <-tick.C:
		}
	}
}

func (e *Engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := e.cli.Ping(ctx); err != nil {
		return cvm.Errorf(cvm.Unavailable, "docker engine at %s: %w", e.cfg.Sock, err).WithReason(ReasonDaemon)
	}
	return nil
}

// DaemonDone is closed when the dockerd that we started has ended; nil without one.
func (e *Engine) DaemonDone() <-chan struct{} {
	if e.proc == nil {
		return nil
	}
	return e.proc.done
}

// StopDaemon ends dockerd; SIGKILL after the stop timeout.
func (e *Engine) StopDaemon() error {
	if e.proc == nil {
		return nil
	}
	_ = e.proc.cmd.Process.Signal(syscall.SIGTERM)
	t := time.NewTimer(e.cfg.StopTimeout)
	defer t.Stop()
	select {
	case <-e.proc.done:
		return nil
	case <-t.C:
		_ = e.proc.cmd.Process.Kill()
		<-e.proc.done
		return fmt.Errorf("dockerd did not stop within %s and was killed", e.cfg.StopTimeout)
	}
}

func (e *Engine) writeDaemonConfig(root string) (string, error) {
	c := daemonConfig{
		DataRoot: root, Hosts: []string{"unix://" + e.cfg.Sock},
		LogDriver: "json-file", LogOpts: map[string]string{"max-size": "10m", "max-file": "3"},
		ExecOpts: []string{"native.cgroupdriver=cgroupfs"}, CgroupRoot: e.cfg.CgroupParent,
	}
	for _, r := range e.cfg.Insecure {
		if !privateLiteral(r) {
			return "", cvm.Errorf(cvm.Invalid, ".sys-config.json: insecure registry %q is not a private IP address with a port", r).WithReason(ReasonDaemon)
		}
		c.Insecure = append(c.Insecure, r)
	}
	if m := e.cfg.Mirror; m != "" {
		u, err := url.Parse(m)
		if err != nil || u.Host == "" || (u.Scheme != "https" && (u.Scheme != "http" || !privateLiteral(u.Host))) {
			return "", cvm.Errorf(cvm.Invalid, ".sys-config.json: docker_registry %q: want https://host, or http:// with a private IP address", m).WithReason(ReasonDaemon)
		}
		c.Mirrors = []string{strings.TrimSuffix(m, "/")}
	}
	b, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	path := filepath.Join(e.cfg.WorkDir, "daemon.json")
	return path, os.WriteFile(path, b, 0o600)
}

// privateLiteral is what may be spoken to without TLS: an address (with or without
// port) that no name server and no route of the internet can move.
func privateLiteral(s string) bool {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().IsPrivate() || ap.Addr().IsLoopback()
	}
	a, err := netip.ParseAddr(s)
	return err == nil && (a.IsPrivate() || a.IsLoopback())
}

// disarm sets the restart policy of every container on the disk to "no" before
// dockerd reads it, and remembers what it was.
func (e *Engine) disarm(root string) error {
	e.kept = map[string]string{}
	dirs, err := os.ReadDir(filepath.Join(root, "containers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range dirs {
		path := filepath.Join(root, "containers", d.Name(), "hostconfig.json")
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		was, out, err := withoutRestart(b)
		if err != nil {
			return fmt.Errorf("container %s: %w", d.Name(), err)
		}
		if was == "" || was == "no" {
			continue
		}
		if err := os.WriteFile(path, out, 0o600); err != nil {
			return err
		}
		e.kept[d.Name()] = was
	}
	return nil
}

// withoutRestart rewrites a hostconfig.json; every other field stays as it is.
func withoutRestart(b []byte) (was string, out []byte, err error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(b, &doc); err != nil {
		return "", nil, err
	}
	var p struct{ Name string }
	if raw, ok := doc["RestartPolicy"]; ok {
		if err := json.Unmarshal(raw, &p); err != nil {
			return "", nil, err
		}
	}
	doc["RestartPolicy"] = json.RawMessage(`{"Name":"no","MaximumRetryCount":0}`)
	out, err = json.Marshal(doc)
	return p.Name, out, err
}

// restorePolicies gives the containers that this boot's Compose kept the restart
// policy that they were made with.
func (e *Engine) restorePolicies(ctx context.Context) error {
	list, err := e.list(ctx, true)
	if err != nil {
		return err
	}
	for _, c := range list {
		was, ok := e.kept[c.ID]
		if !ok {
			continue
		}
		_, err := e.cli.ContainerUpdate(ctx, c.ID, container.UpdateConfig{RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(was)}})
		if err != nil {
			return fmt.Errorf("restart policy of %s: %w", c.ID[:12], err)
		}
	}
	return nil
}
