package fetch_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/confidential-cloud/phala/attest/fetch"
)

// virtual is a bench whose time is that of the synctest bubble.
func virtual(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	start := time.Now()
	b.read = func() time.Time { return b.now.Add(time.Since(start)) }
	return b
}

// inBubble runs a client beside f and ends it.
func inBubble(t *testing.T, cfg func(*bench) fetch.Config, f func(*testing.T, *bench, *fetch.Client)) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t)
		c := client(t, cfg(b))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		f(t, b, c)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// counting serves h in process and counts all requests.
func counting(t *testing.T, h http.Handler, n *atomic.Int64) http.RoundTripper {
	return byHost{t, map[string]http.Handler{"http://pcs": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		h.ServeHTTP(w, r)
	})}}
}

// Statements are asked for again before callers would have to, and no more often.
func TestRunRefreshes(t *testing.T) {
	var n atomic.Int64
	inBubble(t, func(b *bench) fetch.Config {
		return fetch.Config{URLs: []string{"http://pcs"}, Roots: b.roots(), Clock: b.clock, Refresh: 30 * time.Minute, Transport: counting(t, b.hw.Handler(), &n)}
	}, func(t *testing.T, b *bench, c *fetch.Client) {
		time.Sleep(10 * time.Hour) // virtual time: nothing was asked for, so nothing happens
		if n.Load() != 0 {
			t.Errorf("%d requests before the first caller", n.Load())
		}
		for i := range 12 { // half a day with a caller every hour
			before := n.Load()
			a, err := c.Ask(context.Background(), b.ev())
			if err != nil || a.Stale || b.clock().Sub(a.Fetched) > 30*time.Minute {
				t.Fatalf("hour %d: stale %v, %s old: %v", i, a.Stale, b.clock().Sub(a.Fetched), err)
			}
			if i > 0 && n.Load() != before {
				t.Errorf("hour %d: a caller waited for %d requests", i, n.Load()-before)
			}
			time.Sleep(time.Hour)
		}
		// Each of four statements every 27 to 30 minutes for 12 hours: 96 to 107.
		if got := n.Load(); got < 90 || got > 112 {
			t.Errorf("%d requests in 12 hours", got)
		}
		// Nobody asks any more: after a day the services have peace.
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		quiet := n.Load()
		time.Sleep(48 * time.Hour)
		if n.Load() != quiet {
			t.Errorf("%d requests that nobody needs", n.Load()-quiet)
		}
	})
}

// While services are down they are asked with growing pauses; callers are served.
func TestRunBacksOff(t *testing.T) {
	var n atomic.Int64
	var down atomic.Bool
	inBubble(t, func(b *bench) fetch.Config {
		good := b.hw.Handler()
		return fetch.Config{URLs: []string{"http://pcs"}, Roots: b.roots(), Clock: b.clock, Refresh: 30 * time.Minute,
			Transport: counting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if down.Load() {
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				good.ServeHTTP(w, r)
			}), &n)}
	}, func(t *testing.T, b *bench, c *fetch.Client) {
		ask := func() fetch.Answer {
			a, err := c.Ask(context.Background(), b.ev())
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		ask()
		down.Store(true)
		before := n.Load()
		time.Sleep(12 * time.Hour)
		if !ask().Stale {
			t.Error("an answer of twelve hours ago is not called stale")
		}
		// Four statements, every 5 minutes at most.
		if got := n.Load() - before; got < 4*20 || got > 4*12*13 {
			t.Errorf("%d requests to a dead service in 12 hours", got)
		}
		down.Store(false)
		time.Sleep(6 * time.Minute)
		if ask().Stale {
			t.Error("the service is back, the answer is still stale")
		}
	})
}

// What is about to end is not asked for all the time.
func TestNoBusyLoopAtTheEnd(t *testing.T) {
	var n atomic.Int64
	inBubble(t, func(b *bench) fetch.Config {
		s, err := b.hw.Collateral(b.now) // a service that stands still
		if err != nil {
			t.Fatal(err)
		}
		d := dialect{"TCB-Info-Issuer-Chain", func(s string) string { return strings.ReplaceAll(s, "\n", "%0A") }, func(b []byte) []byte { return b }, "/sgx/certification/v4/rootcacrl"}
		return fetch.Config{URLs: []string{"http://pcs"}, Roots: b.roots(), Clock: b.clock, Refresh: 1000 * time.Hour, Transport: counting(t, d.handler(t, s), &n)}
	}, func(t *testing.T, b *bench, c *fetch.Client) {
		time.Sleep(30*24*time.Hour - 2*time.Hour) // an hour before its end
		if _, err := c.Ask(context.Background(), b.ev()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(58 * time.Minute)
		if got := n.Load(); got > 4*15 {
			t.Errorf("%d requests in an hour", got)
		}
		time.Sleep(5 * time.Minute)
		if _, err := c.Ask(context.Background(), b.ev()); err == nil {
			t.Error("served after its end")
		}
	})
}
