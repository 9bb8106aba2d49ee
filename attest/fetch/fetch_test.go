package fetch_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

type bench struct {
	hw    *simtee.Hardware
	quote []byte
	now   time.Time
	mu    sync.Mutex
	read  func() time.Time // nil: now
}

func (b *bench) ev() attest.Evidence { return attest.Evidence{Quote: b.quote} }

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read != nil {
		return b.read()
	}
	return b.now
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func newBench(t testing.TB) *bench { return newBenchSeed(t, 0) }

// newBenchSeed is the bench of another vendor.
func newBenchSeed(t testing.TB, seed byte) *bench {
	t.Helper()
	b := &bench{now: time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)}
	var err error
	if b.hw, err = simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{seed}, 32), Clock: b.clock}); err != nil {
		t.Fatal(err)
	}
	td, err := b.hw.NewTD("a", simtee.Shape{})
	if err != nil {
		t.Fatal(err)
	}
	if b.quote, err = td.Quote(context.Background(), [64]byte{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// counted serves h and counts TCB info requests.
func counted(t *testing.T, h http.Handler) (string, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tcb") {
			n.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, &n
}

func client(t *testing.T, c fetch.Config) *fetch.Client {
	t.Helper()
	f, err := fetch.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func same(a, b collateral.Set) bool {
	return bytes.Equal(a.TCBInfo, b.TCBInfo) && bytes.Equal(a.QEIdentity, b.QEIdentity) && bytes.Equal(a.RootCRL, b.RootCRL) &&
		bytes.Equal(a.PCKCRL, b.PCKCRL) && bytes.Equal(a.TCBInfoIssuerChain, b.TCBInfoIssuerChain) && bytes.Equal(a.PCKCRLIssuerChain, b.PCKCRLIssuerChain)
}

func TestGetAndCache(t *testing.T) {
	b := newBench(t)
	url, n := counted(t, b.hw.Handler())
	f := client(t, fetch.Config{URLs: []string{url}, Clock: b.clock, Refresh: 10 * time.Minute})
	want, err := b.hw.Collateral(b.clock())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got, err := f.For(context.Background(), b.ev())
		if err != nil || !same(got, want) {
			t.Fatalf("%v", err)
		}
	}
	if n.Load() != 1 {
		t.Errorf("%d fetches, want 1", n.Load())
	}
	b.pass(11 * time.Minute)
	if _, err := f.For(context.Background(), b.ev()); err != nil || n.Load() != 2 {
		t.Errorf("%d fetches after Refresh: %v", n.Load(), err)
	}
	f.Forget()
	if _, err := f.For(context.Background(), b.ev()); err != nil || n.Load() != 3 {
		t.Errorf("%d fetches after Forget: %v", n.Load(), err)
	}
}

// Collateral that ends is not served from the cache, however long Refresh is: it is
// asked for again at two thirds of its life, and refused after its end.
func TestCacheEndsWithCollateral(t *testing.T) {
	b := newBench(t)
	url, n := counted(t, b.hw.Handler())
	f := client(t, fetch.Config{URLs: []string{url}, Clock: b.clock, Refresh: 1000 * time.Hour})
	for i, after := range []time.Duration{0, 19 * 24 * time.Hour, 2 * 24 * time.Hour} {
		b.pass(after)
		if _, err := f.For(context.Background(), b.ev()); err != nil {
			t.Fatal(err)
		}
		if want := []int64{1, 1, 2}[i]; n.Load() != want {
			t.Errorf("step %d: %d fetches, want %d", i, n.Load(), want)
		}
	}
}

func TestSingleFlight(t *testing.T) {
	b := newBench(t)
	gate, entered := make(chan struct{}), make(chan struct{}, 100)
	url, n := counted(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-gate
		b.hw.Handler().ServeHTTP(w, r)
	}))
	f := client(t, fetch.Config{URLs: []string{url}, Clock: b.clock})
	// The first caller gives up; the others still get their answer.
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan error, 1)
	go func() {
		_, err := f.For(ctx, b.ev())
		first <- err
	}()
	<-entered
	cancel()
	if err := <-first; cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("a caller that gave up: %v", err)
	}
	var wg sync.WaitGroup
	for range 1000 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := f.For(context.Background(), b.ev()); err != nil {
				t.Error(err)
			}
		}()
	}
	close(gate)
	wg.Wait()
	if n.Load() != 1 {
		t.Errorf("%d fetches, want 1", n.Load())
	}
}

func TestBadConfigAndQuote(t *testing.T) {
	for _, u := range [][]string{nil, {"ftp://x"}, {"nonsense"}, {"http://user:pw@x"}, {"http://x?y=1"}, {""}} {
		if _, err := fetch.New(fetch.Config{URLs: u}); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, c := range []fetch.Config{{Timeout: -1}, {Refresh: -1}, {MaxAge: -1}, {Entries: -1}, {Bytes: -1}} {
		c.URLs = []string{"http://x"}
		if _, err := fetch.New(c); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
	f := client(t, fetch.Config{URLs: []string{"http://127.0.0.1:1"}})
	if _, err := f.For(context.Background(), attest.Evidence{Quote: []byte("not a quote")}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("%v", err)
	}
	if _, err := f.For(context.Background(), attest.Evidence{Variant: "sgx"}); cvm.CodeOf(err) != cvm.Unsupported {
		t.Errorf("%v", err)
	}
}
