package fetch_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
)

func feedDay(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }

type signer struct{ private, public string }

func newSigner(t *testing.T) signer {
	t.Helper()
	s, v, err := note.GenerateKey(rand.Reader, "values.example")
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, v}
}

func (s signer) feed(t *testing.T, version uint64, evalNumber int) []byte {
	t.Helper()
	v := refvalue.Builtin()
	v.Version, v.Issued, v.Expires, v.MinEvalNumber = version, feedDay(1), feedDay(20), evalNumber
	b, err := refvalue.Sign(v, s.private)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// source serves what it holds.
type source struct{ body atomic.Pointer[[]byte] }

func (s *source) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if b := s.body.Load(); b != nil {
		_, _ = w.Write(*b)
		return
	}
	http.Error(w, "down", http.StatusServiceUnavailable)
}

func serveFeed(t *testing.T, b []byte) (*source, string) {
	t.Helper()
	s := &source{}
	if b != nil {
		s.body.Store(&b)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, srv.URL + "/feed"
}

func newFeed(t *testing.T, cfg fetch.FeedConfig) *fetch.Feed {
	t.Helper()
	if cfg.Clock == nil {
		cfg.Clock = func() time.Time { return feedDay(2) }
	}
	f, err := fetch.NewFeed(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func wantVersion(t *testing.T, f *fetch.Feed, want uint64) {
	t.Helper()
	v, err := f.Values()
	if want == 0 {
		if cvm.ReasonOf(err) != fetch.ReasonNoFeed || cvm.CodeOf(err) != cvm.Unavailable || v.Version != 0 {
			t.Fatalf("version %d: %v", v.Version, err)
		}
		return
	}
	if err != nil || v.Version != want {
		t.Fatalf("version %d, want %d: %v", v.Version, want, err)
	}
}

// Of several sources the newest counts, whoever is slow, old, dead or hostile.
func TestFeedTakesTheNewest(t *testing.T) {
	key, stranger := newSigner(t), newSigner(t)
	_, dead := serveFeed(t, nil)
	old, oldURL := serveFeed(t, key.feed(t, 3, 1))
	_, forged := serveFeed(t, stranger.feed(t, 9, 1))
	_, huge := serveFeed(t, bytes.Repeat([]byte("x"), refvalue.MaxFeed+1))
	redirect := httptest.NewServer(http.RedirectHandler(oldURL, http.StatusFound))
	t.Cleanup(redirect.Close)
	file := filepath.Join(t.TempDir(), "feed")
	if err := os.WriteFile(file, key.feed(t, 4, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFeed(t, fetch.FeedConfig{Sources: []string{dead, oldURL, forged, huge, redirect.URL, file, filepath.Join(t.TempDir(), "none")}, Keys: []string{key.public}})
	wantVersion(t, f, 0)
	if err := f.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, f, 4)
	newer := key.feed(t, 5, 1)
	old.body.Store(&newer)
	if err := f.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, f, 5)
}

func TestFeedNeverGoesBack(t *testing.T) {
	key, dir := newSigner(t), t.TempDir()
	s, url := serveFeed(t, key.feed(t, 7, 1))
	cfg := fetch.FeedConfig{Sources: []string{url}, Keys: []string{key.public}, Dir: dir}
	f := newFeed(t, cfg)
	if err := f.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	older, fork := key.feed(t, 6, 1), key.feed(t, 7, 2)
	for name, b := range map[string][]byte{"older": older, "fork": fork} {
		s.body.Store(&b)
		again := newFeed(t, cfg) // a restart remembers
		wantVersion(t, again, 7)
		for _, f := range []*fetch.Feed{f, again} {
			if err := f.Refresh(t.Context()); cvm.CodeOf(err) != cvm.Unavailable {
				t.Errorf("%s: %v", name, err)
			}
			wantVersion(t, f, 7)
		}
	}
	// What was kept is judged like what is fetched.
	kept, err := filepath.Glob(filepath.Join(dir, "reference-values-*.note"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%q: %v", kept, err)
	}
	path := kept[0]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(`"version": 7`), []byte(`"version": 1`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch.NewFeed(cfg); cvm.CodeOf(err) != cvm.Precondition {
		t.Errorf("an edited file: %v", err)
	}
}

// A long-lived reader sees the values expire; an expired feed still is the floor.
func TestFeedExpires(t *testing.T) {
	key, dir := newSigner(t), t.TempDir()
	s, url := serveFeed(t, key.feed(t, 7, 1))
	now := feedDay(19)
	cfg := fetch.FeedConfig{Sources: []string{url}, Keys: []string{key.public}, Dir: dir, Clock: func() time.Time { return now }}
	f := newFeed(t, cfg)
	if err := f.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, f, 7)
	now = feedDay(20)
	wantVersion(t, f, 0)
	f = newFeed(t, cfg)
	wantVersion(t, f, 0)
	now = feedDay(2)
	older := key.feed(t, 6, 1)
	s.body.Store(&older)
	if err := f.Refresh(t.Context()); err == nil {
		t.Error("an older feed after an expired one")
	}
}

func TestFeedConfig(t *testing.T) {
	key := newSigner(t)
	for name, cfg := range map[string]fetch.FeedConfig{
		"no source": {Keys: []string{key.public}}, "no key": {Sources: []string{"x"}}, "broken key": {Sources: []string{"x"}, Keys: []string{"k"}},
		"URL with a user": {Sources: []string{"https://a:b@example"}, Keys: []string{key.public}}, "no host": {Sources: []string{"https:///x"}, Keys: []string{key.public}},
		"no directory": {Sources: []string{"x"}, Keys: []string{key.public}, Dir: "/dev/null/x"},
	} {
		if _, err := fetch.NewFeed(cfg); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFeedRuns(t *testing.T) {
	key := newSigner(t)
	_, url := serveFeed(t, key.feed(t, 1, 1))
	asked := make(chan struct{})
	f := newFeed(t, fetch.FeedConfig{Sources: []string{url}, Keys: []string{key.public}, Every: time.Hour, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		res, err := http.DefaultTransport.RoundTrip(r)
		close(asked)
		return res, err
	})})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	<-asked
	cancel()
	if err := <-done; err == nil {
		t.Error("ended without an error")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
