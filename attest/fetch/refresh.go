package fetch

import (
	"context"
	"time"

	"github.com/confidential-cloud/phala/internal/run"
)

// idle is how long after its last use a statement is still kept fresh.
const idle = 24 * time.Hour

// Run asks for statements again before they get old, so that callers do not wait
// for that, until ctx ends. It sleeps while there is nothing to do.
func (c *Client) Run(ctx context.Context) error {
	for {
		at := c.cfg.Clock()
		s, when, ok := c.next(at)
		if ok && !at.Before(when) {
			c.refresh(ctx, s)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if err := c.sleep(ctx, when.Sub(at), ok); err != nil {
			return err
		}
	}
}

// sleep waits until something is due or something new came in.
func (c *Client) sleep(ctx context.Context, d time.Duration, some bool) error {
	wait := ctx
	if some {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	select {
	case <-wait.Done():
		return ctx.Err()
	case <-c.wake:
	}
	return run.Pause(ctx, wakePause)
}

// wakePause gathers news that come together, so that a burst costs one look.
const wakePause = time.Second

// next is the statement that is due first, and when.
func (c *Client) next(at time.Time) (s statement, when time.Time, ok bool) {
	for _, e := range c.store.snapshot() {
		if e.part == nil || e.s.lasting || len(e.s.of.all) == 0 || at.Sub(e.asked) > idle {
			continue
		}
		due := c.due(e.part, e.s, at)
		// Up to a tenth earlier, and never at the moment when callers would ask themselves.
		due = due.Add(-max(due.Sub(e.part.fetched), 0) / 10 * time.Duration(e.early) / perMille)
		if e.retry.After(due) {
			due = e.retry
		}
		if !ok || due.Before(when) {
			s, when, ok = e.s, due, true
		}
	}
	return s, when, ok
}

// refresh gets one statement again; a failure is remembered and tried later.
func (c *Client) refresh(ctx context.Context, s statement) {
	ch := c.flight.DoChan(s.key, func() (any, error) { return c.again(context.WithoutCancel(ctx), s) })
	select {
	case <-ch: // what happened is in the store
	case <-ctx.Done():
	}
}

func (c *Client) again(ctx context.Context, s statement) (found, error) {
	e, _ := c.store.peek(s.key)
	p, marks, err := c.fetch(ctx, s)
	if err != nil {
		c.count.failed.Add(1)
		c.store.fail(s, e.part, err, c.cfg.Clock())
		return found{}, err
	}
	c.count.fetched.Add(1)
	c.keep(s, p, marks)
	return found{part: p}, nil
}
