package devcloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/confidential-cloud/phala/internal/config"
)

// service is one part of the cloud: a goroutine of this process, or, with
// Config.Processes, a process of its own with the same configuration as a file.
type service struct {
	name   string
	binary string // below Config.BinDir
	config any    // what the TOML file holds
	run    func(ctx context.Context) error
	ready  func(ctx context.Context) error // polled until nil
	// patience bounds the wait for ready; 60 s when zero.
	patience time.Duration
	// stop is the time between SIGTERM and SIGKILL; 20 s when zero.
	stop time.Duration
	// again, if any, prepares a service that ended for its next start; in this
	// process only services that have it are started again.
	again func(ctx context.Context) error
}

// start runs a service and waits until it is ready.
func (c *Cloud) start(ctx context.Context, s service) error {
	path := c.state.Path("config", s.name+".toml")
	if err := config.Save(path, s.config); err != nil {
		return fmt.Errorf("%s: writing its config: %w", s.name, err)
	}
	run := s.run
	switch {
	case c.cfg.Processes:
		run = func(ctx context.Context) error {
			return c.supervise(ctx, s, func(ctx context.Context) error { return c.runProcess(ctx, s, path) })
		}
	case s.again != nil: // ends in the course of things (a lost lease) and starts anew
		run = func(ctx context.Context) error { return c.supervise(ctx, s, s.run) }
	}
	c.group.Go(ctx, s.name, run)
	return c.await(ctx, s)
}

func (c *Cloud) await(ctx context.Context, s service) error {
	patience := s.patience
	if patience == 0 {
		patience = 60 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		if last = s.ready(ctx); last == nil {
			return nil
		}
		select {
		case err := <-c.group.Failed():
			return err
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w (log: %s)", s.name, patience, last, c.LogPath(s.name))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// supervise keeps a service alive, as an init system would: started again
// RestartDelay after it ends.
func (c *Cloud) supervise(ctx context.Context, s service, run func(context.Context) error) error {
	for {
		started := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.log.Warn("a service ended and is started again", "service", s.name, "after", time.Since(started).Round(time.Millisecond), "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(c.cfg.RestartDelay)):
		}
		if s.again == nil {
			continue
		}
		if err := s.again(ctx); err != nil {
			c.log.Error("preparing a service's restart", "service", s.name, "err", err)
		}
	}
}

// runProcess starts the program and waits for its end; it is stopped with SIGTERM,
// then killed.
func (c *Cloud) runProcess(ctx context.Context, s service, path string) error {
	log, err := os.OpenFile(c.LogPath(s.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(c.cfg.BinDir, s.binary), "-c", path)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if cmd.WaitDelay = s.stop; s.stop == 0 {
		cmd.WaitDelay = 20 * time.Second
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM} // Ctrl-C is ours to pass on
	if err := cmd.Start(); err != nil {
		return err
	}
	pidFile := c.state.Path("run", s.name+".pid")
	_ = writeFile(pidFile, fmt.Appendf(nil, "%d\n", cmd.Process.Pid))
	defer os.Remove(pidFile)
	return cmd.Wait()
}

// LogPath is where a service logs.
func (c *Cloud) LogPath(name string) string { return c.state.Path("logs", name+".log") }

// logger makes a service's own log file (in this process).
func (c *Cloud) logger(name string) (*slog.Logger, error) {
	f, err := os.OpenFile(c.LogPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", name, err)
	}
	c.closers = append(c.closers, f)
	return slog.New(slog.NewTextHandler(f, nil)), nil
}

func closeAll(cs []io.Closer) error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
