package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	ctypes "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// instance is one run of a guest container.
type instance struct {
	d         *Driver
	name, run string
	stopped   atomic.Bool
}

func (d *Driver) instance(id, run string) *instance {
	return &instance{d: d, name: d.name(id), run: run}
}

// Wait blocks until the container is not running. An engine that goes away is
// waited for: it may come back with the container still alive.
func (i *instance) Wait(ctx context.Context) (machine.Exit, error) {
	for delay := time.Second; ; delay = min(2*delay, 30*time.Second) {
		done, errc := i.d.cli.ContainerWait(ctx, i.name, ctypes.WaitConditionNotRunning)
		select {
		case <-done:
			return i.exit(ctx)
		case err := <-errc:
			if ctx.Err() != nil {
				return machine.Exit{}, ctx.Err()
			}
			if errdefs.IsNotFound(err) {
				return machine.Exit{Code: -1, Detail: "the container was removed", Requested: i.stopped.Load()}, nil
			}
			i.d.log.Warn("waiting for a guest", "container", i.name, "error", err)
		}
		select {
		case <-ctx.Done():
			return machine.Exit{}, ctx.Err()
		case <-time.After(delay):
		}
	}
}

func (i *instance) exit(ctx context.Context) (machine.Exit, error) {
	c, err := i.d.cli.ContainerInspect(ctx, i.name)
	if errdefs.IsNotFound(err) {
		return machine.Exit{Code: -1, Detail: "the container was removed", Requested: i.stopped.Load()}, nil
	}
	if err != nil {
		return machine.Exit{}, engineError("guest container", err)
	}
	e := machine.Exit{Code: c.State.ExitCode, OOMKilled: c.State.OOMKilled, Detail: c.State.Error, Requested: i.stopped.Load()}
	if e.Detail == "" {
		e.Detail = fmt.Sprintf("exit code %d", e.Code)
	}
	return e, nil
}

// Stop sends SIGTERM, then SIGKILL after grace.
func (i *instance) Stop(ctx context.Context, grace time.Duration) error {
	i.stopped.Store(true)
	seconds := max(int(grace/time.Second), 1)
	err := i.d.cli.ContainerStop(ctx, i.name, ctypes.StopOptions{Timeout: &seconds})
	if errdefs.IsNotFound(err) || errdefs.IsNotModified(err) {
		return nil
	}
	return engineError("stopping the guest container", err)
}

// Console streams both output streams of the guest agent as one text.
func (i *instance) Console(ctx context.Context, o machine.ConsoleOptions) (io.ReadCloser, error) {
	tail := "all"
	if o.Tail > 0 {
		tail = strconv.Itoa(o.Tail)
	}
	rc, err := i.d.cli.ContainerLogs(ctx, i.name, ctypes.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: tail, Follow: o.Follow, Timestamps: true})
	if err != nil {
		return nil, engineError("console", err)
	}
	pr, pw := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(pw, pw, rc)
		pw.CloseWithError(errors.Join(err, rc.Close()))
	}()
	return &console{PipeReader: pr, engine: rc}, nil
}

type console struct {
	*io.PipeReader
	engine io.Closer
}

// Close also ends the engine's stream: a follower that left must not keep it.
func (c *console) Close() error { return errors.Join(c.engine.Close(), c.PipeReader.Close()) }

// DialGuest connects to the guest agent's socket in the run directory.
func (i *instance) DialGuest(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", filepath.Join(i.run, filepath.Base(guestapi.GuestSock)))
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "the guest agent does not answer: %w", err).WithReason("guest-unreachable")
	}
	return c, nil
}
