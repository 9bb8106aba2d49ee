package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// part is one vendor statement as it was got, with the chain that came with it.
type part struct {
	key     string
	body    []byte
	chain   []byte    // PEM of its issuers, leaf first; empty where none comes with it
	fetched time.Time // when a service gave it
	from    string    // base URL, or "bundle"
	ends    time.Time // of the statement and its issuers, whichever is first; set by check
}

// statement is what to ask, whom, and how to judge the answer.
type statement struct {
	key     string // names it in caches and files
	of      *services
	paths   func(base string) []string // tried in order while a service answers "not found"
	headers []string                   // the first that is set holds the issuers' chain
	decode  func([]byte) ([]byte, error)
	lasting bool // a certificate: it never changes, so that its age does not matter
	// check verifies the part for a time, says when it ends and what it would raise.
	check func(p *part, at time.Time) (ends time.Time, marks collateral.Floor, err error)
}

// found is a part and whether a newer one should have been had.
type found struct {
	*part
	stale bool
}

// minPause keeps statements that are about to end from being asked for all the time.
const minPause = time.Minute

// due is when a part should be asked for again. One that says it was fetched after at
// (a file that somebody wrote, or a clock that was wrong) is due at once: else it could
// hold newer statements back for as long as it is valid.
func (c *Client) due(p *part, s statement, at time.Time) time.Time {
	switch {
	case s.lasting:
		return p.ends
	case p.fetched.After(at.Add(minPause)):
		return at
	}
	age := c.cfg.Refresh
	if c.cfg.MaxAge > 0 {
		age = min(age, c.cfg.MaxAge*2/3)
	}
	age = min(age, p.ends.Sub(p.fetched)*2/3)
	return p.fetched.Add(max(age, minPause))
}

// usable says whether a part may be served at all.
func (c *Client) usable(p *part, s statement, at time.Time) bool {
	switch {
	case p == nil || !at.Before(p.ends):
		return false
	case s.lasting || c.cfg.MaxAge == 0:
		return true
	}
	return at.Before(p.fetched.Add(c.cfg.MaxAge)) && !p.fetched.After(at.Add(minPause))
}

// get returns a statement from memory, disk, bundle or a service.
func (c *Client) get(ctx context.Context, s statement) (found, error) {
	if f, ok, err := c.held(s, c.cfg.Clock()); ok {
		return f, err
	}
	// The shared fetch must not die with the first caller.
	ch := c.flight.DoChan(s.key, func() (any, error) { return c.renew(context.WithoutCancel(ctx), s) })
	select {
	case r := <-ch:
		f, _ := r.Val.(found)
		return f, r.Err
	case <-ctx.Done():
		return found{}, cvm.Errorf(cvm.Unavailable, "collateral: %w", ctx.Err()).WithReason(ReasonUnavailable)
	}
}

// held answers from memory, if there is something fresh or if services failed a
// moment ago.
func (c *Client) held(s statement, at time.Time) (found, bool, error) {
	e, ok := c.store.get(s.key, at)
	switch {
	case !ok:
		return found{}, false, nil
	case c.usable(e.part, s, at) && at.Before(c.due(e.part, s, at)):
		c.count.hits.Add(1)
		return found{part: e.part}, true, nil
	case !at.Before(e.retry):
		return found{}, false, nil
	case c.usable(e.part, s, at):
		c.count.hits.Add(1)
		return found{part: e.part, stale: true}, true, nil
	case e.err != nil:
		return found{}, true, e.err
	}
	return found{}, false, nil
}

// renew gets a statement that memory does not hold, or that is due. What no service
// gives is served from what there is, marked stale, as long as that is valid.
func (c *Client) renew(ctx context.Context, s statement) (found, error) {
	at := c.cfg.Clock()
	if f, ok, err := c.held(s, at); ok { // another flight ended just now
		return f, err
	}
	old, unfit := c.best(s, at)
	if old != nil && at.Before(c.due(old, s, at)) {
		c.store.put(s, old, at)
		c.poke()
		return found{part: old}, nil
	}
	p, marks, err := c.fetch(ctx, s)
	if err == nil {
		c.count.fetched.Add(1)
		c.keep(s, p, marks)
		return found{part: p}, nil
	}
	if unfit != nil {
		err = cvm.Errorf(cvm.Unavailable, "%w; at hand, but %w", err, unfit).WithReason(ReasonUnavailable).WithFix(fixOf(err))
	}
	c.count.failed.Add(1)
	if !errors.Is(err, errBusy) { // else nobody was asked
		c.store.fail(s, old, err, c.cfg.Clock())
		c.poke()
	}
	if at = c.cfg.Clock(); c.usable(old, s, at) {
		c.cfg.Log.Warn("no service gives newer collateral: what is at hand is served", "statement", s.key, "fetched", old.fetched, "until", old.ends, "error", err)
		return found{part: old, stale: true}, nil
	}
	return found{}, err
}

// keep remembers a fetched part everywhere.
func (c *Client) keep(s statement, p *part, marks collateral.Floor) {
	c.store.put(s, p, c.cfg.Clock())
	if err := errors.Join(c.floors.raise(marks), c.disk.write(p)); err != nil {
		c.cfg.Log.Warn("the collateral cache cannot be written", "dir", c.cfg.Dir, "error", err)
	}
	c.poke()
}

func fixOf(err error) string {
	var e *cvm.Error
	if errors.As(err, &e) {
		return e.Fix
	}
	return ""
}

// best is the newest usable part among memory, disk and bundle, and why others are
// not usable.
func (c *Client) best(s statement, at time.Time) (best *part, unfit error) {
	if e, ok := c.store.get(s.key, at); ok && c.usable(e.part, s, at) {
		best = e.part
	}
	for _, p := range []*part{c.disk.read(s.key), c.bundled[s.key]} {
		if p == nil || best != nil && !p.fetched.After(best.fetched) {
			continue
		}
		q := *p
		if err := c.judge(s, &q, at); err != nil {
			unfit = errors.Join(unfit, fmt.Errorf("what came from %s at %s is refused: %w", q.from, q.fetched.UTC().Format(time.RFC3339), err))
			continue
		}
		if c.usable(&q, s, at) {
			best = &q
			c.count.disk.Add(1)
		} else {
			unfit = errors.Join(unfit, fmt.Errorf("what came from %s at %s is older than the policy allows", q.from, q.fetched.UTC().Format(time.RFC3339)))
		}
	}
	return best, unfit
}

// judge verifies a part and that it goes no further back than the floors.
func (c *Client) judge(s statement, p *part, at time.Time) error {
	_, err := c.judged(s, p, at)
	return err
}

func (c *Client) judged(s statement, p *part, at time.Time) (collateral.Floor, error) {
	ends, marks, err := s.check(p, at)
	if err != nil {
		return nil, err
	}
	p.ends = ends
	if !at.Before(ends) {
		return nil, fmt.Errorf("it ended %s", ends.UTC().Format(time.RFC3339))
	}
	return marks, c.floors.check(marks)
}

// fetch asks the services in the order of their health.
func (c *Client) fetch(ctx context.Context, s statement) (*part, collateral.Floor, error) {
	if err := s.of.enter(ctx); err != nil {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "no collateral %s: %w", s.key, err).WithReason(ReasonUnavailable).WithFix("try again later")
	}
	defer s.of.leave()
	order, err := s.of.order(c.cfg.Clock())
	errs := []error{err}
	unknown := len(order) > 0 // every service answered that there is no such thing
	for _, srv := range order {
		one, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		p, marks, err := c.from(one, srv, s)
		cancel()
		srv.note(err, c.cfg.Clock())
		if err == nil {
			return p, marks, nil
		}
		c.cfg.Log.Warn("collateral service failed", "url", srv.base, "statement", s.key, "error", err)
		unknown = unknown && isNotFound(err)
		errs = append(errs, fmt.Errorf("%s: %w", srv.base, err))
	}
	fix := "check that the collateral service can be reached, or give a bundle (phala collateral export)"
	if unknown {
		fix = "the services do not know this platform: check that it is registered with its vendor"
	}
	return nil, nil, cvm.Errorf(cvm.Unavailable, "no collateral %s: %w", s.key, errors.Join(errs...)).WithReason(ReasonUnavailable).WithFix(fix)
}

// from gets one statement from one service and judges it.
func (c *Client) from(ctx context.Context, srv *service, s statement) (*part, collateral.Floor, error) {
	var last error
	for _, u := range s.paths(srv.base) {
		body, chain, err := c.ask(ctx, u, s.headers)
		if err != nil {
			if last = err; isNotFound(err) {
				continue
			}
			return nil, nil, err
		}
		if s.decode != nil {
			if body, err = s.decode(body); err != nil {
				return nil, nil, fmt.Errorf("GET %s: %w", u, err)
			}
		}
		at := c.cfg.Clock()
		p := &part{key: s.key, body: body, chain: chain, fetched: at, from: srv.base}
		marks, err := c.judged(s, p, at)
		if err != nil {
			return nil, nil, fmt.Errorf("GET %s: %w", u, err)
		}
		return p, marks, nil
	}
	return nil, nil, last
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
