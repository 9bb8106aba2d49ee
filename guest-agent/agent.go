package guestagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/disk"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/lease"
	"github.com/confidential-cloud/phala/guest-agent/serve"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/ratls"
)

// Agent is a guest agent. It boots once.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	host  *host
	ready chan struct{}
	// asked is closed when the host asks for a stop.
	asked    chan struct{}
	stopOnce atomic.Bool
	backend  atomic.Pointer[serve.Backend]
	group    run.Group

	// What the stages made; only Run's goroutine touches these.
	rec     *boot.Recorder
	session *lease.Session
	local   *ratls.Authority // key provider none
	wgKey   keys.Secret
	edge    *edge
	engine  *compose.Engine
	cgroup  string
	lost    context.CancelCauseFunc
	link    *hostlink.Relay             // of a machine
	settled func(context.Context) error // of a machine: its clock may be believed
	system  guestapi.Stage
	disk    *disk.Opened
}

// New checks the configuration; it touches nothing yet.
func New(c Config) (*Agent, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{cfg: c, log: c.Log, host: newHost(c.HostSock), ready: make(chan struct{}), asked: make(chan struct{})}
	a.group = run.Group{Log: c.Log, StopTimeout: 10 * time.Second}
	return a, nil
}

// Ready is closed when every boot stage is done and dstack.sock answers.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run boots, serves until ctx ends, the host asks for a stop (nil) or the guest
// cannot go on (lease lost, dockerd gone: an error), and stops the containers.
func (a *Agent) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.lost = cancel
	if a.cfg.Machine {
		stop, failed := a.startMachine(ctx)
		if failed != nil {
			return failed // nobody to tell: the console shows it
		}
		defer stop()
		defer func() {
			a.notify(context.WithoutCancel(ctx), guestapi.Notify{Event: guestapi.EventExit, Payload: exitCode(err)})
		}()
	}
	if err := a.prepare(ctx); err != nil {
		boot.Report(ctx, a.host, a.log, (&boot.Error{Stage: "prepare", Err: err}).VMError())
		return err
	}
	if err := a.serveGuest(ctx); err != nil {
		return err
	}
	defer a.group.Stop() //nolint:errcheck // what is left when the boot failed
	go func() {
		select {
		case <-a.asked:
			cancel(errAsked)
		case <-ctx.Done():
		}
	}()
	if a.cfg.Machine {
		a.tellSystem(ctx)
	}
	if _, err := boot.Run(ctx, a.deps()); err != nil {
		return a.ended(ctx, err)
	}
	a.notify(ctx, guestapi.Notify{Event: "ready"})
	a.host.setReady()
	close(a.ready)
	a.log.Info("the guest is ready")
	go debug.FreeOSMemory() // what only the boot needed
	return a.watch(ctx)
}

// exitCode is what run.Main makes of an error.
func exitCode(err error) string {
	if err != nil {
		return "1"
	}
	return "0"
}

// revokedGrace bounds the polite stop of containers that may not run any more.
const revokedGrace = 5 * time.Second

// errAsked ends a run on the host's wish.
var errAsked = errors.New("the host asked for a stop")

// ended turns the end of a context into its cause, and a wish into no error.
func (a *Agent) ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, errAsked) || errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// watch waits for the end and stops everything in order: no new streams, then the
// containers, then the engine, then our own sockets.
func (a *Agent) watch(ctx context.Context) error {
	var docker <-chan struct{}
	if a.engine != nil {
		docker = a.engine.DaemonDone()
	}
	var end error
	select {
	case <-ctx.Done():
		end = a.ended(ctx, ctx.Err())
	case err := <-a.group.Failed():
		end = err
	case <-docker:
		end = cvm.Errorf(cvm.Internal, "the container engine (dockerd or its containerd) ended by itself").WithReason(compose.ReasonDaemon)
	}
	if end != nil {
		a.log.Error("the guest stops", "err", end, "reason", cvm.ReasonOf(end))
		boot.Report(ctx, a.host, a.log, (&boot.Error{Stage: "running", Err: end}).VMError())
	}
	grace := time.Duration(a.cfg.StopTimeout)
	if end != nil {
		grace = min(grace, revokedGrace) // T5: the right to run has ended
	}
	if err := a.stop(context.WithoutCancel(ctx), grace); err != nil {
		a.log.Warn("stopping", "err", err)
	}
	return end
}

func (a *Agent) stop(ctx context.Context, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Duration(a.cfg.StopTimeout))
	defer cancel()
	var errs []error
	if a.edge != nil {
		a.edge.close()
	}
	if a.engine != nil {
		a.notify(ctx, guestapi.Notify{Event: "shutdown.progress", Payload: "stopping the containers"})
		errs = append(errs, a.engine.Stop(ctx, grace), a.engine.StopDaemon())
	}
	errs = append(errs, a.group.Stop(), a.closeDisk(ctx))
	a.notify(ctx, guestapi.Notify{Event: "shutdown.progress", Payload: "stopped"})
	return errors.Join(errs...)
}

// rollback undoes a boot that failed; compose took its own containers down.
func (a *Agent) rollback() {
	if a.edge != nil {
		a.edge.close()
	}
	if a.engine != nil {
		if err := a.engine.StopDaemon(); err != nil {
			a.log.Warn("stopping dockerd", "err", err)
		}
	}
	if err := a.closeDisk(context.Background()); err != nil {
		a.log.Warn("closing the data disk", "err", err)
	}
	a.log.Info("the boot was undone")
}

func (a *Agent) notify(ctx context.Context, n guestapi.Notify) {
	if err := a.host.Notify(ctx, n); err != nil {
		a.log.Debug("the host did not take a notification", "event", n.Event, "err", err)
	}
}

// fail ends the run: the app must not go on.
func (a *Agent) fail(err error) { a.lost(err) }

// prepare makes the directories, and the system's own state in a container guest.
func (a *Agent) prepare(ctx context.Context) (err error) {
	switch {
	case a.cfg.Machine:
		if err := mountTmpfs(a.cfg.WorkDir); err != nil {
			return err
		}
	case a.cfg.Init:
		if a.cgroup, err = prepareSystem(a.cfg.WorkDir, a.log); err != nil {
			return err
		}
	}
	for _, d := range []string{a.cfg.WorkDir, filepath.Dir(a.cfg.DstackSock)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("preparing %s: %w", d, err)
		}
	}
	a.rec, err = a.recorder(ctx, "/")
	return err
}

func (a *Agent) deps() boot.Deps {
	d := boot.Deps{
		Log: a.log, Now: time.Now, Rand: randReader{}, Events: a.rec, Host: a.host,
		Read:          a.readShared,
		KMS:           a.releaseKeys,
		Local:         a.localKeys,
		Disk:          a.openDisk,
		Env:           a.environment,
		Gateway:       a.joinGateway,
		Run:           a.startContainers,
		Rollback:      a.rollback,
		AllowUnpinned: a.cfg.AllowUnpinned,
	}
	if a.cfg.Machine {
		d.Network, d.Clock = a.startNetwork, a.startClock
		d.KMS, d.Disk = a.keysOfMachine, a.openMachineDisk
		d.Volumes = true
		d.Env = func(ctx context.Context, s *boot.State) error {
			if err := a.environment(ctx, s); err != nil {
				return err
			}
			return a.startSSH(ctx, s)
		}
	}
	if a.cfg.HostSock == "" {
		d.KeepInstance = a.keepInstance
	}
	return d
}

// runsContainers tells runner none from the others.
func runsContainers(d *appcompose.Document) bool { return d.Runner != appcompose.RunnerNone }

var _ boot.Notifier = (*host)(nil)
