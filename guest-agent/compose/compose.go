// Package compose runs the app's containers: it starts the guest's own dockerd and
// drives the image's own `docker compose`, so that a compose file means here what it
// means elsewhere. It is the home of the docker client.
//
// Values of the environment reach Compose through its process environment only, and
// registry credentials through a config file on tmpfs that is removed after the
// pull: never argv, never a disk. Output is redacted before it is shown.
package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/secrets"
	"github.com/confidential-cloud/phala/keys"
)

// Reasons of containers that did not start.
const (
	ReasonDaemon = "docker-not-started"
	ReasonLogin  = "registry-login-failed"
	ReasonScript = "script-failed"
	ReasonUp     = "containers-not-started"
)

// Config of an engine.
type Config struct {
	Log     *slog.Logger
	Daemon  string // dockerd to start; "" uses an engine that runs already
	CLI     string // docker
	Sock    string // the engine's unix socket
	Project string // compose project
	WorkDir string // tmpfs: compose file, credentials
	DataDir string // the data volume: images, named volumes
	// Mirror of docker.io and registries to be spoken to without TLS, host-written.
	// Only private IP literals count among the latter.
	Mirror   string
	Insecure []string
	// CgroupParent holds the containers inside the guest's own limits.
	CgroupParent string
	StopTimeout  time.Duration
}

// Engine is a docker engine with one compose project.
type Engine struct {
	cfg  Config
	cli  *client.Client
	proc *daemon
	kept map[string]string // container id -> restart policy before this boot
}

// New makes a client; it starts nothing.
func New(c Config) (*Engine, error) {
	cli, err := client.NewClientWithOpts(client.WithHost("unix://"+c.Sock), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("docker client: %w", err)
	}
	return &Engine{cfg: c, cli: cli}, nil
}

// App is what to run.
type App struct {
	Compose   string // docker-compose.yml, verbatim
	PreLaunch string // shell script run before it; "" none
	Env       []keys.EnvVar
	Login     *secrets.Login
}

// Up starts the app, or leaves nothing of it running.
func (e *Engine) Up(ctx context.Context, a App) error {
	if err := e.up(ctx, a); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.StopTimeout+30*time.Second)
		defer cancel()
		if derr := e.compose(stop, a.Env, "down", "--remove-orphans", "--timeout", e.seconds()); derr != nil {
			e.cfg.Log.Warn("taking down what had started failed", "err", derr)
		}
		return err
	}
	return e.restorePolicies(ctx)
}

func (e *Engine) up(ctx context.Context, a App) error {
	if err := os.WriteFile(e.composeFile(), []byte(a.Compose), 0o600); err != nil {
		return fmt.Errorf("writing the compose file: %w", err)
	}
	if err := e.login(ctx, a.Login); err != nil {
		return err
	}
	defer os.RemoveAll(e.configDir())
	if a.PreLaunch != "" {
		if err := e.Script(ctx, "pre_launch_script", a.PreLaunch, a.Env); err != nil {
			return err
		}
	}
	return e.compose(ctx, a.Env, "up", "-d", "--remove-orphans", "--quiet-pull")
}

func (e *Engine) composeFile() string { return filepath.Join(e.cfg.WorkDir, "docker-compose.yaml") }
func (e *Engine) configDir() string   { return filepath.Join(e.cfg.WorkDir, ".docker") }
func (e *Engine) seconds() string     { return fmt.Sprint(int(e.cfg.StopTimeout / time.Second)) }

// login checks the credentials with the registry first: a pull that fails for want
// of them says so badly. Then it hands them to Compose.
func (e *Engine) login(ctx context.Context, l *secrets.Login) error {
	if err := os.MkdirAll(e.configDir(), 0o700); err != nil {
		return err
	}
	doc := []byte("{}")
	if l != nil {
		_, err := e.cli.RegistryLogin(ctx, registry.AuthConfig{Username: l.Username, Password: l.Password(), ServerAddress: l.Registry})
		if err != nil {
			return cvm.Errorf(cvm.Denied, "registry %s refused the credentials of %s: %s", orHub(l.Registry), l.Username, redact(err.Error(), []keys.EnvVar{{Value: l.Password()}})).
				WithReason(ReasonLogin).WithFix("set " + secrets.EnvUsername + ", " + secrets.EnvPassword + " and " + secrets.EnvRegistry + " with `phala envs update`")
		}
		if doc, err = l.DockerConfig(); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(e.configDir(), "config.json"), doc, 0o600)
}

func orHub(r string) string {
	if r == "" {
		return "docker.io"
	}
	return r
}

// Script runs a shell script of the app-compose (measured) in the work directory.
func (e *Engine) Script(ctx context.Context, name, text string, env []keys.EnvVar) error {
	path := filepath.Join(e.cfg.WorkDir, name+".sh")
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	out, err := e.command(ctx, env, "bash", path)
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "%s failed: %w: %s", name, err, out).WithReason(ReasonScript).WithFix("the script is part of the app-compose; its last lines of output are above")
	}
	return nil
}

func (e *Engine) compose(ctx context.Context, env []keys.EnvVar, args ...string) error {
	all := append([]string{"compose", "--ansi", "never", "--project-name", e.cfg.Project, "--project-directory", e.cfg.WorkDir, "--file", e.composeFile()}, args...)
	out, err := e.command(ctx, env, e.cfg.CLI, all...)
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "docker compose %s: %w: %s", args[0], err, out).WithReason(ReasonUp)
	}
	return nil
}

// command runs a program with the app's environment and returns the end of its
// output, redacted. Our own variables win over the app's.
func (e *Engine) command(ctx context.Context, env []keys.EnvVar, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = e.cfg.WorkDir
	cmd.Env = append(secrets.Environ(env),
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"DOCKER_HOST=unix://"+e.cfg.Sock, "DOCKER_CONFIG="+e.configDir())
	out := &tail{max: 4 << 10}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return redact(out.String(), env), err
}

// Stop stops the containers, by force after grace, and keeps them.
func (e *Engine) Stop(ctx context.Context, grace time.Duration) error {
	if _, err := os.Stat(e.composeFile()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	// Compose would ask for the variables again; stopping needs only the project.
	out, err := e.command(ctx, nil, e.cfg.CLI, "compose", "--project-name", e.cfg.Project, "stop", "--timeout", fmt.Sprint(int(grace/time.Second)))
	if err != nil {
		return fmt.Errorf("docker compose stop: %w: %s", err, out)
	}
	return nil
}

// tail keeps the last max bytes.
type tail struct {
	max int
	b   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.b)) }

// redact removes values of the environment from a text for people. Short values
// would tear holes into ordinary words and are no secrets.
func redact(s string, env []keys.EnvVar) string {
	for _, v := range env {
		if len(v.Value) >= 6 {
			s = strings.ReplaceAll(s, v.Value, "[redacted]")
		}
	}
	return strings.ToValidUTF8(s, "?")
}
