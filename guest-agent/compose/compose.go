// Package compose runs the app's containers: it starts the guest's own dockerd and
// drives the image's own `docker compose`, so that a compose file means here what it
// means elsewhere. It is the home of the docker client.
//
// Values of the environment reach Compose through its process environment only, and
// registry credentials through a config file on tmpfs that is removed after the
// pull: never argv, never a disk. Output is redacted before it is shown.
package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/secrets"
	"github.com/confidential-cloud/phala/internal/run"
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
	Log    *slog.Logger
	Daemon string // dockerd to start; "" uses an engine that runs already
	// Containerd is dockerd's, started before it; ExecDir is where both keep what is
	// gone with the machine.
	Containerd, ExecDir string
	// Compose is docker-compose, run by itself: as a plugin it would be started twice,
	// and docker before it.
	Compose string
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
	// Taken are the networks that the guest reaches over its cards; nil: none.
	Taken func() ([]netip.Prefix, error)
}

// Engine is a docker engine with one compose project.
type Engine struct {
	cfg   Config
	cli   *client.Client
	procs []*daemon         // in the order of their start
	ended <-chan struct{}   // closed when one of them has ended by itself
	kept  map[string]string // container id -> restart policy before this boot

	preparing sync.Mutex // one preparation at a time
	mu        sync.Mutex
	uses      []guestapi.ImageUse
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
	// Policy limits what services may ask the guest agent for; Sockets enforces it.
	Policy  *appcompose.SocketPolicy
	Sockets Sockets
	// Progress is told how far the pulls are; nil for nobody.
	Progress Progress
	// Uses is told how the images are named, before any is pulled; nil for nobody.
	Uses func([]guestapi.ImageUse)
}

// Up starts dockerd, then the app, or leaves nothing of the app running.
func (e *Engine) Up(ctx context.Context, a App) error {
	if err := os.WriteFile(e.composeFile(), []byte(a.Compose), 0o600); err != nil {
		return fmt.Errorf("writing the compose file: %w", err)
	}
	if err := os.MkdirAll(e.configDir(), 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(e.configDir())
	m, err := e.begin(ctx, a)
	if err != nil {
		return err // no container can have started
	}
	if err := e.up(ctx, &a, m); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.StopTimeout+30*time.Second)
		defer cancel()
		if derr := e.compose(stop, a.Env, "down", "--remove-orphans", "--timeout", e.seconds()); derr != nil {
			e.cfg.Log.Warn("taking down what had started failed", "err", derr)
		}
		return err
	}
	return e.restorePolicies(ctx)
}

// begin starts dockerd and meanwhile has Compose read the file, which takes it as
// long. A script that runs before may change what Compose reads: nil then.
func (e *Engine) begin(ctx context.Context, a App) (m *model, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.startDaemon(gctx) })
	if a.PreLaunch == "" {
		g.Go(func() (err error) {
			m, err = e.resolve(gctx, a.Env, e.cfg.WorkDir, e.composeFile())
			return err
		})
	}
	err = g.Wait() // before m is read
	return m, err
}

func (e *Engine) up(ctx context.Context, a *App, m *model) (err error) {
	if err := e.login(ctx, a.Login); err != nil {
		return err
	}
	if a.PreLaunch != "" {
		if a.Env, err = e.preLaunch(ctx, a.PreLaunch, a.Env); err != nil {
			return err
		}
	}
	if m == nil {
		if m, err = e.resolve(ctx, a.Env, e.cfg.WorkDir, e.composeFile()); err != nil {
			return err
		}
	}
	if err := e.hasGPU(ctx, m); err != nil {
		return err
	}
	if err := e.fetch(ctx, a, m); err != nil {
		return err
	}
	args := []string{"up", "-d", "--remove-orphans", "--quiet-pull"}
	if m.builds() { // an image of an earlier Dockerfile must not run as what is measured now
		args = append(args, "--build")
	}
	return e.compose(ctx, a.Env, args...)
}

// fetch takes the file as Compose read it, gives limited services their own sockets
// and pulls what is missing.
func (e *Engine) fetch(ctx context.Context, a *App, m *model) error {
	if err := e.ownNetworks(m); err != nil {
		return err
	}
	override, err := e.isolate(m, a.Policy, a.Sockets)
	if err != nil {
		return err
	}
	if err := e.writeOverride(override); err != nil {
		return err
	}
	uses := m.report()
	e.mu.Lock()
	e.uses = uses
	e.mu.Unlock()
	if a.Uses != nil {
		a.Uses(uses)
	}
	need, err := e.missing(ctx, m.images(), true)
	if err != nil {
		return err
	}
	for _, w := range need {
		if err := e.pull(ctx, w, a.Login, a.Progress); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) writeOverride(b []byte) error {
	if b == nil {
		if err := os.Remove(e.overrideFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return os.WriteFile(e.overrideFile(), b, 0o600)
}

// Images is how the app's images are named: by content, or by a tag that a registry
// may move. Empty before the app was read.
func (e *Engine) Images() []guestapi.ImageUse {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.uses)
}

// overrideName is the file that gives limited services their own sockets.
const overrideName = "socket-policy.json"

func (e *Engine) now() time.Time       { return time.Now() }
func (e *Engine) overrideFile() string { return filepath.Join(e.cfg.WorkDir, overrideName) }
func (e *Engine) composeFile() string  { return filepath.Join(e.cfg.WorkDir, "docker-compose.yaml") }
func (e *Engine) configDir() string    { return filepath.Join(e.cfg.WorkDir, ".docker") }
func (e *Engine) seconds() string      { return fmt.Sprint(int(e.cfg.StopTimeout / time.Second)) }

// login checks the credentials with the registry first: a pull that fails for want
// of them says so badly. Then it hands them to Compose.
func (e *Engine) login(ctx context.Context, l *secrets.Login) error {
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
	all := []string{"--ansi", "never", "--project-name", e.cfg.Project, "--project-directory", e.cfg.WorkDir, "--file", e.composeFile()}
	if _, err := os.Stat(e.overrideFile()); err == nil {
		all = append(all, "--file", e.overrideFile())
	}
	out, err := e.command(ctx, env, e.cfg.Compose, append(all, args...)...)
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "docker compose %s: %w: %s", args[0], err, out).WithReason(ReasonUp)
	}
	return nil
}

// command runs a program with the app's environment and returns the end of its
// output, redacted.
func (e *Engine) command(ctx context.Context, env []keys.EnvVar, name string, args ...string) (string, error) {
	out := &run.Tail{Max: 4 << 10}
	err := e.run(ctx, env, out, out, name, args...)
	return redact(out.String(), env), err
}

// run runs a program with the app's environment. Our own variables win over the
// app's; Compose fetches no compose file from elsewhere.
func (e *Engine) run(ctx context.Context, env []keys.EnvVar, stdout, stderr io.Writer, name string, args ...string) error {
	cmd := e.process(ctx, env, name, args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return finish(ctx, cmd)
}

func (e *Engine) process(ctx context.Context, env []keys.EnvVar, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = e.cfg.WorkDir
	cmd.Env = append(secrets.Environ(env),
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"COMPOSE_EXPERIMENTAL_GIT_REMOTE=false", "COMPOSE_EXPERIMENTAL_OCI_REMOTE=false",
		"DOCKER_HOST=unix://"+e.cfg.Sock, "DOCKER_CONFIG="+e.configDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

func finish(ctx context.Context, cmd *exec.Cmd) error {
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return err
}

// Stop stops the containers and keeps them. Each has the time that its file gives it
// (stop_grace_period, or Docker's 10 s), and those that others depend on come after these;
// what still runs after grace is killed.
func (e *Engine) Stop(ctx context.Context, grace time.Duration) error {
	if _, err := os.Stat(e.composeFile()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	asked, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err := e.project(asked, "stop")
	if asked.Err() == nil || ctx.Err() != nil {
		return err
	}
	e.cfg.Log.Warn("containers that did not stop in time are killed", "grace", grace)
	return e.project(ctx, "kill")
}

// project does something to the app's containers as they are. (With the file Compose would
// ask for the variables again.)
func (e *Engine) project(ctx context.Context, verb string) error {
	out, err := e.command(ctx, nil, e.cfg.Compose, "--project-name", e.cfg.Project, verb)
	if err != nil {
		return fmt.Errorf("docker compose %s: %w: %s", verb, err, out)
	}
	return nil
}

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
