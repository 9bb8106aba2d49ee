// Package run starts the parts of a process in order and stops them in reverse,
// each with a deadline.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Main runs fn until it returns or the process is asked to stop (SIGINT,
// SIGTERM), and exits with 1 on error.
func Main(fn func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := fn(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// Pause waits for d, or returns the context's error when that ends first.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Group is a list of running parts.
type Group struct {
	Log *slog.Logger
	// StopTimeout bounds the stop of each part; 10 s when zero.
	StopTimeout time.Duration

	mu    sync.Mutex
	parts []*part
	first chan error
	once  sync.Once
}

type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// Go starts a part. Its context ends when the group stops it, not when ctx does,
// so that parts stop in reverse order of their start.
func (g *Group) Go(ctx context.Context, name string, fn func(ctx context.Context) error) {
	g.once.Do(func() { g.first = make(chan error, 1) })
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	g.mu.Lock()
	g.parts = append(g.parts, p)
	g.mu.Unlock()
	go func() {
		defer close(p.done)
		err := fn(ctx)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil
		}
		p.err = err
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("stopped by itself")
			}
			select {
			case g.first <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
}

// Wait returns when ctx ends (nil) or a part fails (its error). It does not stop
// the others: call Stop.
func (g *Group) Wait(ctx context.Context) error {
	g.once.Do(func() { g.first = make(chan error, 1) })
	select {
	case <-ctx.Done():
		return nil
	case err := <-g.first:
		return err
	}
}

// Failed is closed over by callers that wait for other things too.
func (g *Group) Failed() <-chan error {
	g.once.Do(func() { g.first = make(chan error, 1) })
	return g.first
}

// StopOne stops the newest part of that name and forgets it; an unknown name is an
// error.
func (g *Group) StopOne(name string) error {
	g.mu.Lock()
	var p *part
	for i := len(g.parts) - 1; i >= 0 && p == nil; i-- {
		if g.parts[i].name == name {
			p = g.parts[i]
			g.parts = append(g.parts[:i:i], g.parts[i+1:]...)
		}
	}
	g.mu.Unlock()
	if p == nil {
		return fmt.Errorf("no part is called %q", name)
	}
	return g.stop(p)
}

// stop ends one part.
func (g *Group) stop(p *part) error {
	timeout := g.StopTimeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	p.cancel()
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s: %w", p.name, p.err)
		}
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("%s: did not stop within %s", p.name, timeout)
	}
}

// Stop stops the parts in reverse order and joins their errors.
func (g *Group) Stop() error {
	g.mu.Lock()
	parts := g.parts
	g.parts = nil
	g.mu.Unlock()
	var errs []error
	for i := len(parts) - 1; i >= 0; i-- {
		errs = append(errs, g.stop(parts[i]))
	}
	return errors.Join(errs...)
}
