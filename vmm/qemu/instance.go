package qemu

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// instance is one run of a machine.
type instance struct {
	d     *Driver
	id    string
	rec   runRecord
	p     paths
	pidfd *os.File // nil: it had ended before this VMM looked
	child *child   // nil: not started by this process
	gone  chan struct{}

	stopping atomic.Bool
	mon      *monitor
	relay    *hostlink.Relay

	mu     sync.Mutex
	users  int
	leave  func() // ends what serves the users
	result *machine.Exit
}

// child is a QEMU that this process started.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func (c *child) wait() {
	c.err = c.cmd.Wait()
	close(c.done)
}

// status is how it ended, in words; only after done.
func (c *child) status() string {
	if c.err == nil {
		return "exit code 0"
	}
	return c.err.Error()
}

func (d *Driver) instance(id string, rec runRecord, pidfd *os.File, c *child) *instance {
	log := d.log.With("vm", id)
	i := &instance{d: d, id: id, rec: rec, p: d.paths(id), pidfd: pidfd, child: c, gone: make(chan struct{}),
		mon: newMonitor(filepath.Join(rec.Run, qmpSock), log), relay: hostlink.NewHost(rec.link(log))}
	if pidfd == nil {
		close(i.gone)
		return i
	}
	go func() {
		await(pidfd)
		if c != nil {
			<-c.done
		}
		close(i.gone)
		_ = pidfd.Close()
	}()
	return i
}

// attach serves the monitor and the host link until the last user leaves.
func (i *instance) attach() (leave func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.users++
	if i.users == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { i.mon.run(ctx) })
		wg.Go(func() { _ = i.relay.Run(ctx) }) // of a host it fails only with its context
		i.leave = func() { cancel(); wg.Wait() }
	}
	return sync.OnceFunc(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.users--; i.users == 0 {
			i.leave()
		}
	})
}

// Wait blocks until the run ends: the process is gone, or its guest has ended and the
// process is then ended too.
func (i *instance) Wait(ctx context.Context) (machine.Exit, error) {
	if e := i.ended(); e != nil {
		return *e, nil
	}
	leave := i.attach()
	defer leave()
	select {
	case <-i.gone:
	case <-i.mon.down:
		if err := i.quit(ctx); err != nil {
			return machine.Exit{}, err
		}
	case <-ctx.Done():
		return machine.Exit{}, ctx.Err()
	}
	return i.finish(ctx)
}

// ended is the result of a run that was accounted for, else nil.
func (i *instance) ended() *machine.Exit {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.result
}

const (
	quitWithin = 5 * time.Second
	killWithin = 20 * time.Second
)

// quit ends QEMU: its guest has ended, or had its time.
func (i *instance) quit(ctx context.Context) error {
	asked, cancel := context.WithTimeout(ctx, quitWithin)
	defer cancel()
	if i.mon.execute(asked, "quit") == nil && i.within(asked) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-i.gone:
		return nil
	default:
	}
	if err := kill(i.pidfd); err != nil {
		return cvm.Errorf(cvm.Internal, "killing QEMU of VM %s: %w", i.id, err)
	}
	dead, cancel := context.WithTimeout(ctx, killWithin)
	defer cancel()
	if !i.within(dead) {
		return cvm.Errorf(cvm.Unavailable, "QEMU of VM %s does not end, although it was killed", i.id).WithReason("qemu-stuck").
			WithFix("a process in this state waits for its disk: look at the host's kernel log")
	}
	return nil
}

// within reports whether the process ended before ctx did.
func (i *instance) within(ctx context.Context) bool {
	select {
	case <-i.gone:
		return true
	case <-ctx.Done():
		return false
	}
}

// Stop presses the power button, and ends QEMU after grace.
func (i *instance) Stop(ctx context.Context, grace time.Duration) error {
	if i.ended() != nil {
		return nil
	}
	i.stopping.Store(true)
	leave := i.attach()
	defer leave()
	asked, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	select {
	case <-i.gone:
		return nil
	case <-i.mon.down:
	default:
		err := i.mon.execute(asked, "system_powerdown")
		if err != nil && ctx.Err() == nil {
			i.d.log.Warn("asking a guest to power off", "vm", i.id, "error", err)
		}
		select {
		case <-i.gone:
		case <-i.mon.down:
		case <-asked.Done():
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return i.quit(ctx)
}

// LogFile implements machine.LogFiler.
func (i *instance) LogFile(channel string) string {
	switch channel {
	case machine.ChannelSerial:
		return i.p.serial
	case machine.ChannelStdout:
		return i.p.stdout
	case machine.ChannelStderr:
		return i.p.stderr
	}
	return ""
}

// Console streams the console's log.
func (i *instance) Console(ctx context.Context, o machine.ConsoleOptions) (io.ReadCloser, error) {
	return openConsole(ctx, i.p.serial, o, i.gone)
}

// dialWithin bounds the wait for a guest that does not speak (yet).
const dialWithin = 5 * time.Second

// DialGuest opens a stream of the host link.
func (i *instance) DialGuest(ctx context.Context) (net.Conn, error) {
	select {
	case <-i.gone:
		return nil, cvm.Errorf(cvm.Unavailable, "the machine has ended").WithReason("guest-unreachable")
	default:
	}
	leave := i.attach()
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	c, err := i.relay.DialGuest(ctx)
	if err != nil {
		leave()
		return nil, err
	}
	return &guestConn{Conn: c, leave: leave}, nil
}

// guestConn keeps the link up while it is open.
type guestConn struct {
	net.Conn
	leave func()
}

func (c *guestConn) Close() error {
	err := c.Conn.Close()
	c.leave()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
