package serve

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/prpc"
)

// ReasonSocketPolicy is of what the app's own policy does not give to a service.
const ReasonSocketPolicy = "socket-policy"

// Outcomes of a request for keys.
const (
	outcomeOK      = "ok"
	outcomeRefused = "refused" // by the policy
	outcomeError   = "error"
)

// caller is who a socket belongs to. Who asks is known by the socket that was
// mounted into the container before it started, never by what is asked of the
// kernel about the peer: SO_PEERCRED names the process that connected, which may
// have ended, given its connection to another container, or have its number used
// again by the time it is looked up.
type caller struct {
	b       *Backend
	service string // "" is the socket that every service shares
	limited bool
	access  appcompose.SocketAccess
}

// anyone is the socket of services that no policy limits.
func (b *Backend) anyone() *caller { return &caller{b: b} }

func (b *Backend) callerOf(service string) *caller {
	a, limited := b.App.SocketPolicy.For(service)
	return &caller{b: b, service: service, limited: limited, access: a}
}

// DstackOf is dstack.sock of one service, held to the app's socket policy.
func (b *Backend) DstackOf(service string) http.Handler { return b.callerOf(service).dstack() }

// TappdOf is tappd.sock of one service.
func (b *Backend) TappdOf(service string) http.Handler { return b.callerOf(service).tappd() }

// ask is what a method needs.
type ask struct {
	method  string
	key     bool // path and purpose are asked for
	path    string
	purpose string
	// What the access must have.
	quote, tls, sign bool
}

// may decides, and names the rule that covers a key.
func (c *caller) may(a ask) (rule string, err error) {
	if !c.limited {
		return "", nil
	}
	no := func(format string, args ...any) error {
		return cvm.Errorf(cvm.Denied, "socket policy: service %s may not "+format, append([]any{c.service}, args...)...).WithReason(ReasonSocketPolicy).
			WithFix("add it to socket_policy.containers." + c.service + " of the app-compose (it is measured: the compose hash changes)")
	}
	if a.key {
		var ok bool
		if rule, ok = c.access.Rule(a.path); !ok {
			return "", no("ask for the key of path %q", shown(a.path))
		}
		if !c.access.Allows(a.purpose) {
			return rule, no("ask for keys of purpose %q", shown(a.purpose))
		}
	}
	switch {
	case a.quote && !c.access.Quote:
		return rule, no("ask for quotes")
	case a.tls && !c.access.TLS:
		return rule, no("ask for TLS keys")
	case a.sign && !c.access.Sign:
		return rule, no("sign with the app's key")
	}
	return rule, nil
}

// shown bounds foreign text in an error.
func shown(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// guard checks and counts each call of a method.
func guard[Req, Resp any](c *caller, want func(Req) ask, fn func(context.Context, Req) (Resp, error)) prpc.Method {
	return prpc.Unary(func(ctx context.Context, r Req) (resp Resp, err error) {
		a := want(r)
		rule, err := c.may(a)
		if err != nil {
			c.b.count(c, a, rule, outcomeRefused)
			return resp, err
		}
		resp, err = fn(ctx, r)
		outcome := outcomeOK
		if err != nil {
			outcome = outcomeError
		}
		c.b.count(c, a, rule, outcome)
		return resp, err
	})
}

// asks is the same ask for every request of a method.
func asks[Req any](a ask) func(Req) ask { return func(Req) ask { return a } }

// counter is one row of the request counters. Its labels take few values: services
// and rules are the policy's, purposes are the policy's or "other".
type counter struct{ service, method, rule, purpose, outcome string }

type counters struct {
	mu sync.Mutex
	n  map[counter]uint64
}

// count counts. Paths and purposes that no policy names are not shown: /metrics may
// be public, and their number has no bound.
func (b *Backend) count(c *caller, a ask, rule, outcome string) {
	k := counter{service: c.service, method: a.method, rule: rule, outcome: outcome}
	if a.key {
		if k.rule == "" {
			k.rule = "other"
		}
		if k.purpose = "other"; a.purpose == "" || slices.Contains(c.access.Purposes, a.purpose) {
			k.purpose = a.purpose
		}
	}
	b.asked.mu.Lock()
	defer b.asked.mu.Unlock()
	if b.asked.n == nil {
		b.asked.n = map[counter]uint64{}
	}
	b.asked.n[k]++
	if outcome == outcomeRefused {
		b.logger().Warn("refused by the socket policy", "service", c.service, "method", a.method)
	}
}

// Requests are the counters, in order.
func (b *Backend) Requests() []guestapi.KeyRequests {
	b.asked.mu.Lock()
	defer b.asked.mu.Unlock()
	out := []guestapi.KeyRequests{}
	for k, n := range b.asked.n {
		out = append(out, guestapi.KeyRequests{Service: k.service, Method: k.method, Path: k.rule, Purpose: k.purpose, Outcome: k.outcome, Count: n})
	}
	slices.SortFunc(out, func(x, y guestapi.KeyRequests) int { return strings.Compare(label(x), label(y)) })
	return out
}

func label(r guestapi.KeyRequests) string {
	return fmt.Sprintf("service=%q,method=%q,path=%q,purpose=%q,outcome=%q", r.Service, r.Method, r.Path, r.Purpose, r.Outcome)
}

// requestMetrics is the counters as Prometheus text.
func requestMetrics(rows []guestapi.KeyRequests) []byte {
	var out strings.Builder
	out.WriteString("# HELP phala_guest_key_requests_total What containers asked the guest agent for.\n# TYPE phala_guest_key_requests_total counter\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "phala_guest_key_requests_total{%s} %d\n", label(r), r.Count)
	}
	return []byte(out.String())
}
