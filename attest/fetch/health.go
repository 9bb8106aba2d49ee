package fetch

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// services are the base URLs of one kind, with what is remembered of each. Each kind
// has its own bounds: who makes us ask one vendor much must not keep us from another.
type services struct {
	all     []*service
	slots   chan struct{} // bounds fetches at one time
	waiting atomic.Int64  // for a slot
}

// Bounds of each kind of service.
const (
	maxFetches = 16  // at one time
	maxWaiting = 256 // for one of them to end; more are refused
)

var errBusy = errors.New("too many questions at once")

// enter waits for a slot; leave gives it back.
func (s *services) enter(ctx context.Context) error {
	if len(s.all) == 0 {
		return nil
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > maxWaiting {
		return errBusy
	}
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *services) leave() {
	if len(s.all) > 0 {
		<-s.slots
	}
}

// service is one base URL. After a failure others are asked first for a while,
// twice as long after each further one.
type service struct {
	base string

	mu     sync.Mutex
	fails  int
	last   time.Time // until then others go first
	closed time.Time // until then it does not want to be asked (Retry-After)
}

// ServiceStats says how a service does.
type ServiceStats struct {
	URL      string
	Failures int // in a row
}

const (
	firstPenalty = 5 * time.Second
	maxPenalty   = 5 * time.Minute
)

func newServices(urls []string) (*services, error) {
	s := &services{slots: make(chan struct{}, maxFetches)}
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, cvm.Errorf(cvm.Invalid, "collateral: %q is not a base URL (http or https, no user, no query)", text)
		}
		s.all = append(s.all, &service{base: strings.TrimRight(text, "/")})
	}
	return s, nil
}

// order lists whom to ask: healthy ones as configured, then the others by how soon
// their penalty ends. Those that asked to be left alone are left alone.
func (s *services) order(at time.Time) ([]*service, error) {
	if len(s.all) == 0 {
		return nil, errors.New("no service is configured")
	}
	var well, ill []*service
	penalty := map[*service]time.Time{}
	var soonest time.Time
	for _, v := range s.all {
		v.mu.Lock()
		last, closed := v.last, v.closed
		v.mu.Unlock()
		switch {
		case at.Before(closed):
			if soonest.IsZero() || closed.Before(soonest) {
				soonest = closed
			}
		case at.Before(last):
			ill = append(ill, v)
			penalty[v] = last
		default:
			well = append(well, v)
		}
	}
	slices.SortStableFunc(ill, func(a, b *service) int { return penalty[a].Compare(penalty[b]) })
	if out := append(well, ill...); len(out) > 0 {
		return out, nil
	}
	return nil, cvm.Errorf(cvm.Unavailable, "every service asked to be left alone until %s at least", soonest.UTC().Format(time.RFC3339))
}

// note remembers how a request went. "Not found" is an answer of a healthy service.
func (v *service) note(err error, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil || isNotFound(err) {
		v.fails, v.last, v.closed = 0, time.Time{}, time.Time{}
		return
	}
	v.last = at.Add(penalty(v.fails))
	v.fails++
	var busy *statusError
	if errors.As(err, &busy) && busy.after > 0 {
		v.closed = at.Add(busy.after)
	}
}

// penalty doubles with each failure in a row.
func penalty(fails int) time.Duration { return min(firstPenalty<<min(fails, 10), maxPenalty) }

func (s *services) stats() (out []ServiceStats) {
	for _, v := range s.all {
		v.mu.Lock()
		out = append(out, ServiceStats{URL: v.base, Failures: v.fails})
		v.mu.Unlock()
	}
	return out
}
