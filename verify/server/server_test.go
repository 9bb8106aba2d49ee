package server_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/verify/server"
)

// world is a verifier in front of a simulated vendor's collateral service.
type world struct {
	url  string
	root attest.Root
	body []byte // a sound request
}

// source is a Collateral of a test.
type source func(context.Context, attest.Evidence) (collateral.Set, error)

func (s source) For(ctx context.Context, ev attest.Evidence) (collateral.Set, error) {
	return s(ctx, ev)
}

func newWorld(t *testing.T, edit func(*server.Config)) world {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	g, err := hw.Boot(context.Background(), simtee.Boot{Name: "app", AppID: cvm.AppID{7}, Phase: claim.PhaseRunning})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := g.Evidence(context.Background(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	pcs := httptest.NewServer(hw.Handler())
	t.Cleanup(pcs.Close)
	w := world{root: attest.SimulatedRoot(hw.RootSPKI()), body: []byte(`{"attestation":"` + hex.EncodeToString(raw) + `"}`)}
	c, err := fetch.New(fetch.Config{URLs: []string{pcs.URL}, Roots: []attest.Root{w.root}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := server.Config{Roots: []attest.Root{w.root}, Collateral: c}
	if edit != nil {
		edit(&cfg)
	}
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

func (w world) post(t *testing.T, body []byte) (int, check.Reply) {
	t.Helper()
	res, err := http.Post(w.url+"/verify", "application/json", bytes.NewReader(body)) //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var r check.Reply
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, r
}

func TestVerify(t *testing.T) {
	w := newWorld(t, nil)
	if code, r := w.post(t, w.body); code != http.StatusOK || !r.IsValid || r.Details.AppInfo == nil || r.Details.TCBStatus != "UpToDate" {
		t.Errorf("%d %+v", code, r)
	}
	flipped := bytes.Clone(w.body)
	i := len(`{"attestation":"`) + 2*260 // in the quote's MRCONFIGID
	flipped[i] = map[bool]byte{true: '1', false: '0'}[flipped[i] == '0']
	if code, r := w.post(t, flipped); code != http.StatusOK || r.IsValid || r.Reason == nil || !strings.HasPrefix(*r.Reason, "Quote verification failed: quote.signature") {
		t.Errorf("%d %+v", code, r)
	}
	if code, r := w.post(t, []byte(`{"attestation":"00"}`)); code != http.StatusOK || r.IsValid || r.Reason == nil || !strings.HasPrefix(*r.Reason, "Internal error: ") {
		t.Errorf("%d %+v", code, r)
	}
	for name, body := range map[string]string{"not JSON": "x", "repeated": `{"quote":"00","quote":"00"}`, "too large": `{"quote":"` + strings.Repeat("0", rpc.MaxBody) + `"}`} {
		if code, _ := w.post(t, []byte(body)); code != http.StatusBadRequest {
			t.Errorf("%s: %d", name, code)
		}
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t, nil)
	for path, want := range map[string]string{"/health": `{"status":"ok","service":"dstack-verifier"}`, "/verify": "", "/": ""} {
		res, err := http.Get(w.url + path) //nolint:noctx // a test's own server
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if (res.StatusCode == http.StatusOK) != (want != "") || want != "" && string(b) != want {
			t.Errorf("GET %s: %d %s", path, res.StatusCode, b)
		}
	}
}

// Only an admitted root's evidence is verified, and without collateral none is.
func TestRefusals(t *testing.T) {
	other := newWorld(t, func(c *server.Config) { c.Roots = attest.IntelRoots() })
	if _, r := other.post(t, other.body); r.IsValid || !strings.HasPrefix(*r.Reason, "Quote verification failed: root.admitted") {
		t.Errorf("%+v", r)
	}
	down := newWorld(t, func(c *server.Config) {
		c.Collateral = source(func(context.Context, attest.Evidence) (collateral.Set, error) {
			return collateral.Set{}, cvm.Errorf(cvm.Unavailable, "nobody answers")
		})
	})
	if _, r := down.post(t, down.body); r.IsValid || *r.Reason != "Quote verification failed: nobody answers" || r.Details.QuoteVerified {
		t.Errorf("%+v", r)
	}
	for name, c := range map[string]server.Config{"no roots": {Collateral: source(nil)}, "no collateral": {Roots: attest.IntelRoots()}, "a negative limit": {Roots: attest.IntelRoots(), Collateral: source(nil), Parallel: -1}} {
		if _, err := server.New(c); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Beyond Parallel verifications others wait, and are told when they waited too long.
func TestConcurrentVerificationsAreBounded(t *testing.T) {
	const parallel, clients = 2, 6
	inside, free := make(chan struct{}, clients), make(chan struct{})
	w := newWorld(t, func(c *server.Config) {
		c.Parallel, c.Timeout = parallel, 200*time.Millisecond
		c.Collateral = source(func(context.Context, attest.Evidence) (collateral.Set, error) {
			inside <- struct{}{}
			<-free
			return collateral.Set{}, errors.New("late")
		})
	})
	codes := make(chan int, clients)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			code, _ := w.post(t, w.body)
			codes <- code
		})
	}
	for range clients - parallel {
		if code := <-codes; code != http.StatusTooManyRequests {
			t.Errorf("%d", code)
		}
	}
	if n := len(inside); n != parallel {
		t.Errorf("%d verifications at once, want %d", n, parallel)
	}
	close(free)
	wg.Wait()
}

// Run stops with its context.
func TestRunStops(t *testing.T) {
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", Roots: attest.IntelRoots(), Collateral: source(nil)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	addr, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- s.Run(ctx, func(a string) { addr <- a }) }()
	res, err := http.Get("http://" + <-addr + "/health") //nolint:noctx // a test's own server
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
