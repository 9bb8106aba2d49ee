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
	"slices"
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

// daemon is a process that runs until we stop it.
type daemon struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended; err is set before
	err  error
	out  *run.Tail
}

// daemonConfig is the part of daemon.json that we set.
type daemonConfig struct {
	DataRoot   string            `json:"data-root"`
	Containerd string            `json:"containerd"`
	Hosts      []string          `json:"hosts"`
	Mirrors    []string          `json:"registry-mirrors,omitempty"`
	Insecure   []string          `json:"insecure-registries,omitempty"`
	LogDriver  string            `json:"log-driver"`
	LogOpts    map[string]string `json:"log-opts"`
	ExecOpts   []string          `json:"exec-opts"`
	CgroupRoot string            `json:"cgroup-parent,omitempty"`
}

// startDaemon starts dockerd and waits until it answers. Containers of an earlier
// boot do not start with it: the app-compose that was measured now decides what
// runs, not what lies on the disk.
func (e *Engine) startDaemon(ctx context.Context) error {
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
	c, err := e.startContainerd(ctx, root)
	if err != nil {
		return err
	}
	// A pid file that outlived its process (a killed guest) would stop dockerd.
	_ = os.Remove("/var/run/docker.pid")
	d, err := spawn("dockerd", e.cfg.Daemon, "--config-file", path)
	if err != nil {
		return err
	}
	e.procs = append(e.procs, d)
	ended := make(chan struct{})
	e.ended = ended
	go func() { // neither is of use without the other
		select {
		case <-c.done:
		case <-d.done:
		}
		close(ended)
	}()
	return d.await(ctx, e.cfg.Sock, func() error { return e.ping(ctx) })
}

// spawn starts the process.
func spawn(name, program string, args ...string) (*daemon, error) {
	d := &daemon{name: name, cmd: exec.Command(program, args...), //nolint:noctx // StopDaemon ends it, after the containers
		done: make(chan struct{}), out: &run.Tail{Max: 8 << 10}}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	// Its own process group: a Ctrl-C at a terminal must not end it before the containers.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "starting %s: %w", name, err).WithReason(ReasonDaemon)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

// daemonLook is how often a process that starts is asked whether it answers.
const daemonLook = 10 * time.Millisecond

// await waits until the process answers. Nobody is asked where no socket is yet: to
// connect in vain costs much more than to look, and an emulated machine has one
// processor for this and for what it waits for.
func (d *daemon) await(ctx context.Context, sock string, answers func() error) error {
	tick := time.NewTicker(daemonLook)
	defer tick.Stop()
	for {
		if _, err := os.Stat(sock); err == nil && answers() == nil {
			return nil
		}
		select {
		case <-d.done:
			return cvm.Errorf(cvm.Internal, "%s ended: %v: %s", d.name, d.err, d.out).WithReason(ReasonDaemon)
		case <-ctx.Done():
			return cvm.Errorf(cvm.Internal, "%s did not answer in %s: %s", d.name, daemonStart, d.out).WithReason(ReasonDaemon)
		case <-tick.C:
		}
	}
}

// stop ends the process; SIGKILL after the timeout.
func (d *daemon) stop(timeout time.Duration) error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-d.done:
		return nil
	case <-t.C:
		_ = d.cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("%s did not stop within %s and was killed", d.name, timeout)
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

// DaemonDone is closed when a daemon that we started has ended; nil without one.
func (e *Engine) DaemonDone() <-chan struct{} { return e.ended }

// StopDaemon ends dockerd, then its containerd; SIGKILL after the stop timeout.
func (e *Engine) StopDaemon() error {
	var errs []error
	for _, d := range slices.Backward(e.procs) {
		errs = append(errs, d.stop(e.cfg.StopTimeout))
	}
	return errors.Join(errs...)
}

func (e *Engine) writeDaemonConfig(root string) (string, error) {
	c := daemonConfig{
		DataRoot: root, Containerd: e.containerdSock(), Hosts: []string{"unix://" + e.cfg.Sock},
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
