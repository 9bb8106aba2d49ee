package compat

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/dry"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// rootKMS stands in for the KMS service: real keys of a real root, without the
// attested servers in front of it.
type rootKMS struct{ root *keys.Root }

func (k rootKMS) EnvKey(_ context.Context, app cvm.AppID) (v kmsapi.EnvKey, err error) {
	priv, err := k.root.EnvKey(app)
	if err != nil {
		return v, err
	}
	if v.PublicKey, err = keys.EnvPublicKey(priv); err != nil {
		return v, err
	}
	v.Timestamp = uint64(time.Now().Unix())
	v.Signature, v.SignatureV1, err = k.root.SignEnvKey(app, v.PublicKey, v.Timestamp)
	return v, err
}

func (k rootKMS) Meta(context.Context) (kmsapi.Meta, error) {
	spki, err := k.root.CASPKI()
	return kmsapi.Meta{RootSPKI: hex.EncodeToString(spki), K256PubKey: k.root.K256Public(), Simulated: true}, err
}

// stack is a cloud for the clients: API, VMM with the dry driver, edge.
type stack struct {
	t      *testing.T
	kms    rootKMS
	client *cloudapi.Client
	key    string
	front  string // http://127.0.0.1:port
	edge   *edge

	mu    sync.Mutex
	calls map[string][]string
}

// live runs a part until the test ends.
func live(t *testing.T, run func(context.Context) error) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		err := run(ctx)
		done <- err
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return ended
}

// onDevice is the dry driver on hardware with an identity: contracts know no zero.
type onDevice struct{ *dry.Driver }

func (d onDevice) Describe(ctx context.Context) (machine.Description, error) {
	out, err := d.Driver.Describe(ctx)
	out.DeviceID = cvm.DeviceID{7}
	return out, err
}

func startVMM(t *testing.T, dir string, guests *edge) vmm.Config {
	t.Helper()
	sock, err := os.MkdirTemp("", "compat") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sock) })
	c := vmm.Default()
	c.Listen, c.TokenFile, c.Dir, c.RunDir, c.ImagesDir = freeAddr(t), filepath.Join(dir, "token"), filepath.Join(dir, "vmm"), sock, filepath.Join(dir, "images")
	c.Driver, c.Machines, c.Log = "dry", onDevice{guests.driver}, slog.New(slog.DiscardHandler)
	c.Capacity = vmm.Capacity{VCPU: 32, MemoryMiB: 64 << 10, DiskMiB: 2000 << 10}
	for _, n := range []string{"dstack-0.5.5", "dstack-dev-0.5.5"} {
		writeImage(t, filepath.Join(c.ImagesDir, n), strings.Contains(n, "dev"))
	}
	m, err := vmm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ended := live(t, m.Run)
	select {
	case <-m.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return c
}

func newStack(t *testing.T, mod func(*api.Config)) *stack {
	t.Helper()
	dir := t.TempDir()
	root, err := keys.NewRoot(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := root.CASPKI()
	if err != nil {
		t.Fatal(err)
	}
	s := &stack{t: t, kms: rootKMS{root}, edge: newEdge(t), calls: map[string][]string{}}
	vc := startVMM(t, dir, s.edge)
	c := api.DefaultConfig()
	c.Dir, c.Log, c.Keys, c.KMS.RootSPKI = filepath.Join(dir, "api"), s.logger(), s.kms, hex.EncodeToString(spki)
	c.KMS.ID, c.KMS.URLs, c.KMS.GuestURLs = "kms-test", []string{"https://kms.apps.test:8701"}, []string{"https://172.31.77.1:8701"}
	c.Nodes = []api.NodeConfig{{URL: "http://" + vc.Listen, TokenFile: vc.TokenFile, Region: "us-test"}}
	c.Gateway = api.GatewayConfig{Domain: edgeDomain, Port: s.edge.port(), GuestURLs: []string{"https://172.31.77.1:8740"}}
	c.Poll, c.Sync, c.Image = 20*time.Millisecond, 100*time.Millisecond, "dstack-0.5.5"
	if mod != nil {
		mod(&c)
	}
	srv, err := api.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if s.key, err = srv.NewAdminKey(t.Context(), "compat"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	live(t, func(ctx context.Context) error { return srv.Serve(ctx, l) })
	s.client = &cloudapi.Client{Base: "http://" + l.Addr().String() + cloudapi.Prefix, Key: s.key}
	front := httptest.NewServer(s.recorder(&url.URL{Scheme: "http", Host: l.Addr().String()}))
	t.Cleanup(front.Close)
	s.front = front.URL
	return s
}

// logger keeps what the API says at error level: a failure of its own is one of ours.
func (s *stack) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(errorsOf{s.t}, &slog.HandlerOptions{Level: slog.LevelError}))
}

type errorsOf struct{ t *testing.T }

func (e errorsOf) Write(b []byte) (int, error) {
	e.t.Errorf("the API logged: %s", b)
	return len(b), nil
}

// prefix is what PHALA_CLOUD_API_PREFIX says for one command; its requests are
// recorded under the tag.
func (s *stack) prefix(tag string) string { return s.front + "/t/" + tag + cloudapi.Prefix }

func (s *stack) recorder(to *url.URL) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.FlushInterval = -1
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, tagged := strings.CutPrefix(r.URL.EscapedPath(), "/t/")
		if !tagged { // links in answers
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
	done, err := s.client.Progress(ctx, id, 0, nil)
	if err != nil {
		t.Fatalf("progress of %s: %v", id, err)
	}
	return done
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
