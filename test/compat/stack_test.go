package compat

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/test/drycloud"
	"github.com/confidential-cloud/phala/vmm/dry"
)

// stack is a cloud for the clients, with a recorder before the API and guests behind
// the edge.
type stack struct {
	*drycloud.Cloud
	front  string // http://127.0.0.1:port
	guests *guests

	mu    sync.Mutex
	calls map[string][]string
}

// newStack starts a cloud whose apps live on a chain, or on none.
func newStack(t *testing.T, chain *drycloud.Chain) *stack {
	t.Helper()
	g := &guests{apps: map[string]http.Handler{}}
	s := &stack{guests: g, calls: map[string][]string{}}
	s.Cloud = drycloud.New(t, drycloud.Options{Chain: chain, Edge: http.HandlerFunc(g.serve), Dry: dry.Config{Guest: g.boot, Script: script}})
	g.root, g.driver = s.CA, s.Driver
	api, err := url.Parse(strings.TrimSuffix(s.Prefix(), cloudapi.Prefix))
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(s.recorder(api))
	t.Cleanup(front.Close)
	s.front = front.URL
	return s
}

// tagged is what PHALA_CLOUD_API_PREFIX says for one command; its requests are
// recorded under the tag.
func (s *stack) tagged(tag string) string { return s.front + "/t/" + tag + cloudapi.Prefix }

func (s *stack) recorder(to *url.URL) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.FlushInterval = -1
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ours := strings.CutPrefix(r.URL.EscapedPath(), "/t/")
		if !ours { // links in answers
			proxy.ServeHTTP(w, r)
			return
		}
		tag, path, _ := strings.Cut(rest, "/")
		s.mu.Lock()
		line := r.Method + " /" + strings.TrimPrefix("/"+path, cloudapi.Prefix+"/")
		s.calls[tag] = append(s.calls[tag], line+" "+r.Header.Get("X-Phala-Version"))
		s.mu.Unlock()
		r.URL.Path, r.URL.RawPath = "/"+path, ""
		if u, err := url.PathUnescape(path); err == nil {
			r.URL.Path = "/" + u
		}
		proxy.ServeHTTP(w, r)
	})
}

// requests are what a command asked, without the versions.
func (s *stack) requests(tag string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, c := range s.calls[tag] {
		out = append(out, c[:strings.LastIndexByte(c, ' ')])
	}
	return slices.Clip(out)
}

// rest waits until nothing happens to a CVM any more.
func (s *stack) rest(t *testing.T, id string) cloudapi.Done {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done, err := s.Client.Progress(ctx, id, 0, nil)
	if err != nil {
		t.Fatalf("progress of %s: %v", id, err)
	}
	return done
}
