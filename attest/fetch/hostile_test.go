package fetch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// hardware is another machine or vendor beside the bench's.
func (b *bench) hardware(t *testing.T, c simtee.Config) *simtee.Hardware {
	t.Helper()
	if c.Seed == nil {
		c.Seed = make([]byte, 32)
	}
	if c.Clock == nil {
		c.Clock = b.clock
	}
	hw, err := simtee.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

// roots admit the bench's vendor.
func (b *bench) roots() []attest.Root { return []attest.Root{attest.SimulatedRoot(b.hw.RootSPKI())} }

// until blocks a handler as long as the client waits.
func until(r *http.Request) { <-r.Context().Done() }

// hostile are services that must be passed over. Some are honest about everything
// but one thing.
func hostile(t *testing.T, b *bench) map[string]http.Handler {
	t.Helper()
	good := b.hw.Handler()
	elsewhere, _ := counted(t, good)
	// edited changes an honest answer.
	edited := func(edit func(http.Header, []byte) []byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			good.ServeHTTP(rec, r)
			body := edit(rec.Header(), rec.Body.Bytes())
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write(body)
		})
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 64<<20))
	_ = z.Close()
	header := func(w http.ResponseWriter) { w.Header().Set("TCB-Info-Issuer-Chain", "x") }
	return map[string]http.Handler{
		"error":      http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }),
		"not found":  http.NotFoundHandler(),
		"no content": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }),
		"nonsense":   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }),
		"never":      http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { until(r) }),
		"redirects":  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }),
		"two chains": edited(func(h http.Header, body []byte) []byte {
			h["Tcb-Info-Issuer-Chain"] = append(h["Tcb-Info-Issuer-Chain"], "x")
			return body
		}),
		"no chain": edited(func(h http.Header, body []byte) []byte { h.Del("TCB-Info-Issuer-Chain"); return body }),
		"cut":      edited(func(_ http.Header, body []byte) []byte { return body[:len(body)/2] }),
		"edited": edited(func(_ http.Header, body []byte) []byte {
			return bytes.Replace(body, []byte(`"UpToDate"`), []byte(`"OutOfDate"`), 1)
		}),
		"smuggling": edited(func(_ http.Header, body []byte) []byte {
			return bytes.Replace(body, []byte(`{"tcbInfo":`), []byte(`{"TCBINFO":{},"tcbInfo":`), 1)
		}),
		"header hang": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { header(w); w.(http.Flusher).Flush(); until(r) }),
		"slow loris": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			header(w)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				if _, err := w.Write([]byte{' '}); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
				}
			}
		}),
		"endless": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			header(w)
			for block := make([]byte, 64<<10); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}),
		// All is right with these but how it is sent.
		"huge headers": edited(func(h http.Header, body []byte) []byte {
			for i := range 16 {
				h.Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 8<<10))
			}
			return body
		}),
		"packed": edited(func(h http.Header, body []byte) []byte {
			h.Set("Content-Encoding", "gzip")
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = z.Write(body)
			_ = z.Close()
			return b.Bytes()
		}),
		"redirects to the right place": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere+r.URL.String(), http.StatusFound)
		}),
		"gzip bomb": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			header(w)
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		}),
		"other vendor":  b.hardware(t, simtee.Config{Seed: bytes.Repeat([]byte{7}, 32)}).Handler(),
		"other model":   b.hardware(t, simtee.Config{Faults: simtee.Faults{OtherFMSPC: true}}).Handler(),
		"ended":         b.hardware(t, simtee.Config{Faults: simtee.Faults{Expired: true}}).Handler(),
		"not yet":       b.hardware(t, simtee.Config{Faults: simtee.Faults{Future: true}}).Handler(),
		"signed by CA":  b.hardware(t, simtee.Config{Faults: simtee.Faults{SignedByCA: true}}).Handler(),
		"signer's name": b.hardware(t, simtee.Config{Faults: simtee.Faults{SignerName: "Intel SGX Something"}}).Handler(),
	}
}

// A service that is dead, slow, huge, lying or somebody else's is passed over; if
// none is left the error says so. Nothing of it enters a cache, and no goroutine stays.
func TestHostileServices(t *testing.T) {
	b := newBench(t)
	good, _ := counted(t, b.hw.Handler())
	runtime.GC()
	before := runtime.NumGoroutine()
	for name, h := range hostile(t, b) {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(h)
			defer s.Close()
			dir := t.TempDir()
			alone := client(t, fetch.Config{URLs: []string{s.URL}, Roots: b.roots(), Dir: dir, Clock: b.clock, Timeout: 300 * time.Millisecond})
			defer alone.Close()
			began := time.Now()
			if _, err := alone.For(context.Background(), b.ev()); cvm.CodeOf(err) != cvm.Unavailable || cvm.ReasonOf(err) != fetch.ReasonUnavailable {
				t.Errorf("want unavailable: %v", err)
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("it took %s", d)
			}
			if s := alone.Stats(); s.Bytes > 1<<20 {
				t.Errorf("it keeps %d bytes", s.Bytes)
			}
			both := client(t, fetch.Config{URLs: []string{s.URL, good}, Roots: b.roots(), Dir: dir, Clock: b.clock, Timeout: time.Second})
			defer both.Close()
			set, err := both.For(context.Background(), b.ev())
			if want, werr := b.hw.Collateral(b.clock()); err != nil || werr != nil || !same(set, want) {
				t.Errorf("no failover: %v %v", err, werr)
			}
		})
	}
	wait(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// wait polls a condition that other goroutines make true.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// A listener that accepts and never speaks TLS is left after the timeout.
func TestDeadTLS(t *testing.T) {
	b := newBench(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f := client(t, fetch.Config{URLs: []string{"https://" + ln.Addr().String()}, Clock: b.clock, Timeout: 200 * time.Millisecond})
	if _, err := f.For(context.Background(), b.ev()); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
		t.Errorf("%v", err)
	}
}

// TLS is checked against the system's roots, or those that were given.
func TestTLS(t *testing.T) {
	b := newBench(t)
	s := httptest.NewTLSServer(b.hw.Handler())
	defer s.Close()
	f := client(t, fetch.Config{URLs: []string{s.URL}, Clock: b.clock})
	if _, err := f.For(context.Background(), b.ev()); err == nil {
		t.Error("a certificate of nobody was accepted")
	}
	f = client(t, fetch.Config{URLs: []string{s.URL}, Clock: b.clock, TLS: s.Client().Transport.(*http.Transport).TLSClientConfig})
	if _, err := f.For(context.Background(), b.ev()); err != nil {
		t.Error(err)
	}
}

// A dead service is not asked first every time; once it works again it is.
func TestHealthMemory(t *testing.T) {
	b := newBench(t)
	var down atomic.Bool
	var asked atomic.Int64
	first, _ := counted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		b.hw.Handler().ServeHTTP(w, r)
	}))
	second, n := counted(t, b.hw.Handler())
	f := client(t, fetch.Config{URLs: []string{first, second}, Roots: b.roots(), Clock: b.clock, Refresh: 2 * time.Minute})
	get := func() {
		t.Helper()
		if _, err := f.For(context.Background(), b.ev()); err != nil {
			t.Fatal(err)
		}
	}
	down.Store(true)
	get()
	if asked.Load() == 0 || n.Load() != 1 {
		t.Fatalf("first asked %d times, second %d", asked.Load(), n.Load())
	}
	// It fails again and again: the penalty (5 minutes in the end) outgrows the refresh
	// interval.
	step := func() bool {
		before := asked.Load()
		b.pass(2*time.Minute + time.Second)
		get()
		return asked.Load() != before
	}
	for range 6 {
		step()
	}
	for !step() {
	}
	before := asked.Load()
	if step() {
		t.Errorf("the dead service was asked %d times more, before the one that works", asked.Load()-before)
	}
	down.Store(false)
	b.pass(6 * time.Minute)
	second2 := n.Load()
	get()
	if asked.Load() == before || n.Load() != second2 {
		t.Error("the service that works again is not asked")
	}
}

// While every service is down, callers are answered at once from what is still
// valid, marked stale, and services are not asked for each of them; when it ends,
// or gets older than the policy allows, nothing is served.
func TestStaleAndItsEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		maxAge time.Duration
		good   time.Duration // still served then
		over   time.Duration // no longer
	}{
		{"the vendor's end", 0, 27 * 24 * time.Hour, 31 * 24 * time.Hour},
		{"a policy tighter than the vendor's", 24 * time.Hour, 23 * time.Hour, 25 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			var down atomic.Bool
			var asked atomic.Int64
			url, _ := counted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if down.Load() {
					panic(http.ErrAbortHandler)
				}
				b.hw.Handler().ServeHTTP(w, r)
			}))
			f := client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Dir: t.TempDir(), Clock: b.clock, MaxAge: c.maxAge})
			a, err := f.Ask(context.Background(), b.ev())
			if err != nil || a.Stale {
				t.Fatalf("stale %v: %v", a.Stale, err)
			}
			down.Store(true)
			start := b.clock()
			b.pass(c.good)
			before := asked.Load()
			for i := range 50 {
				if a, err = f.Ask(context.Background(), b.ev()); err != nil || !a.Stale || !a.Fetched.Equal(start) {
					t.Fatalf("call %d: stale %v, fetched %s: %v", i, a.Stale, a.Fetched, err)
				}
			}
			if n := asked.Load() - before; n > 8 { // four statements, which HTTP may ask for twice
				t.Errorf("%d requests to a dead service for 50 callers", n)
			}
			if s := f.Stats(); s.Stale != 50 {
				t.Errorf("%d stale answers counted, want 50", s.Stale)
			}
			b.pass(c.over - c.good)
			if _, err := f.For(context.Background(), b.ev()); cvm.ReasonOf(err) != fetch.ReasonUnavailable {
				t.Errorf("served after its end: %v", err)
			}
		})
	}
}

// Evidence under a root that is not admitted, or whose chain nobody signed, makes
// no request.
func TestStrangersAskNothing(t *testing.T) {
	b := newBench(t)
	var asked atomic.Int64
	url, _ := counted(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(500) }))
	f := client(t, fetch.Config{URLs: []string{url}, Roots: attest.IntelRoots(), Clock: b.clock})
	if _, err := f.For(context.Background(), b.ev()); cvm.CodeOf(err) != cvm.Denied || cvm.ReasonOf(err) != fetch.ReasonRoot {
		t.Errorf("%v", err)
	}
	f = client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Clock: b.clock})
	b.pass(100 * 365 * 24 * time.Hour) // the chain of the quote has ended
	if _, err := f.For(context.Background(), b.ev()); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("%v", err)
	}
	if asked.Load() != 0 {
		t.Errorf("%d requests", asked.Load())
	}
}

// Memory is bounded by count and bytes whatever is asked for.
func TestBoundedMemory(t *testing.T) {
	b := newBench(t)
	var url string
	models := http.NewServeMux()
	models.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmspc := r.URL.Query().Get("fmspc")
		if fmspc == "" {
			fmspc = "000000000001"
		}
		b.hardware(t, simtee.Config{FMSPC: fmspc}).Handler().ServeHTTP(w, r)
	})
	url, _ = counted(t, models)
	f := client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Dir: t.TempDir(), Clock: b.clock, Entries: 8, Bytes: 40 << 10})
	for i := range 20 {
		if _, err := f.ForFMSPC(context.Background(), b.hw.RootSPKI(), [6]byte{0, 0, 0, 0, 1, byte(i)}, "platform"); err != nil {
			t.Fatal(err)
		}
		if s := f.Stats(); s.Entries > 8 || s.Bytes > 40<<10 {
			t.Fatalf("%d entries, %d bytes", s.Entries, s.Bytes)
		}
	}
	// Failures are bounded as well.
	dead := client(t, fetch.Config{URLs: []string{"http://127.0.0.1:1"}, Roots: b.roots(), Clock: b.clock, Entries: 8})
	for i := range 20 {
		if _, err := dead.ForFMSPC(context.Background(), b.hw.RootSPKI(), [6]byte{byte(i)}, "platform"); err == nil {
			t.Fatal("collateral of nobody")
		}
	}
	if s := dead.Stats(); s.Entries > 8 {
		t.Errorf("%d entries", s.Entries)
	}
}

// A service that alternates between right and wrong gives the right answers only.
func TestAlternating(t *testing.T) {
	b := newBench(t)
	var n atomic.Int64
	bad := b.hardware(t, simtee.Config{Seed: bytes.Repeat([]byte{9}, 32)}).Handler()
	url, _ := counted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			bad.ServeHTTP(w, r)
			return
		}
		b.hw.Handler().ServeHTTP(w, r)
	}))
	f := client(t, fetch.Config{URLs: []string{url}, Roots: b.roots(), Clock: b.clock})
	for range 10 {
		set, err := f.For(context.Background(), b.ev())
		if err == nil {
			want, _ := b.hw.Collateral(b.clock())
			if !same(set, want) {
				t.Fatal("a wrong answer came through")
			}
			return
		}
		if cvm.ReasonOf(err) != fetch.ReasonUnavailable {
			t.Fatal(err)
		}
		b.pass(6 * time.Minute)
	}
	t.Error("the right answers never came together")
}
