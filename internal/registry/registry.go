// Package registry is a container registry in the process: go-containerregistry's
// handler with blobs and manifests kept in a directory. It serves images that were
// built here, and, on listeners of its own, images that need credentials.
//
// Who may write: this process (Push), and clients on loopback. On any other
// address it is read-only, so that a guest cannot replace what others pull.
package registry

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	gcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// Config of a registry.
type Config struct {
	Dir   string   // blobs and manifests
	Addrs []string // addresses of the open realm, "127.0.0.1:5080"
	// Private is a second realm with its own storage; nil for none.
	Private *Private
	Log     *slog.Logger
}

// Private is the realm for which credentials are needed.
type Private struct {
	Addrs    []string
	User     string
	Password keys.Secret
}

// Registry serves one or two realms.
type Registry struct {
	cfg   Config
	open  *realm
	priv  *realm
	ready chan struct{}

	mu    sync.Mutex
	addrs []string
	paddr []string
}

// New opens the stored images. It does not listen yet; Push works at once.
func New(cfg Config) (*Registry, error) {
	if cfg.Dir == "" || (len(cfg.Addrs) == 0 && cfg.Private == nil) {
		return nil, cvm.Errorf(cvm.Invalid, "registry: a directory and an address are needed")
	}
	if p := cfg.Private; p != nil && (p.User == "" || p.Password.Len() == 0) {
		return nil, cvm.Errorf(cvm.Invalid, "registry: the private realm needs a user and a password")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{cfg: cfg, ready: make(chan struct{})}
	var err error
	if r.open, err = newRealm(filepath.Join(cfg.Dir, "open"), cfg.Log); err != nil {
		return nil, err
	}
	if cfg.Private != nil {
		if r.priv, err = newRealm(filepath.Join(cfg.Dir, "private"), cfg.Log); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Ready is closed when every address listens.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// Addrs are the addresses of the open realm once Ready, in the order of the configuration.
func (r *Registry) Addrs() []string { r.mu.Lock(); defer r.mu.Unlock(); return r.addrs }

// PrivateAddrs are those of the private realm.
func (r *Registry) PrivateAddrs() []string { r.mu.Lock(); defer r.mu.Unlock(); return r.paddr }

// Run listens and serves until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	var servers []*http.Server
	errc := make(chan error, 16)
	serve := func(addrs []string, h http.Handler) ([]string, error) {
		var out []string
		for _, a := range addrs {
			ln, err := net.Listen("tcp", a)
			if err != nil {
				return nil, cvm.Errorf(cvm.Unavailable, "registry: %w", err).WithFix("choose another port or stop what uses it")
			}
			s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
			servers = append(servers, s)
			out = append(out, ln.Addr().String())
			go func() { errc <- s.Serve(ln) }()
		}
		return out, nil
	}
	defer func() {
		for _, s := range servers {
			_ = s.Close()
		}
	}()
	open, err := serve(r.cfg.Addrs, readOnlyOutside(r.open))
	if err != nil {
		return err
	}
	var priv []string
	if r.priv != nil {
		if priv, err = serve(r.cfg.Private.Addrs, basicAuth(*r.cfg.Private, readOnlyOutside(r.priv))); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.addrs, r.paddr = open, priv
	r.mu.Unlock()
	close(r.ready)
	select {
	case <-ctx.Done():
		return nil
	case err := <-errc:
		return fmt.Errorf("registry: %w", err)
	}
}

// readOnlyOutside refuses writes that did not come in over loopback.
func readOnlyOutside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			local, _ := req.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
			if local == nil || !local.IP.IsLoopback() {
				refuse(w, http.StatusForbidden, "DENIED", "this address of the registry is read-only")
				return
			}
		}
		next.ServeHTTP(w, req)
	})
}

func basicAuth(p Private, next http.Handler) http.Handler {
	want := sha256.Sum256(append([]byte(p.User+":"), p.Password.Reveal()...))
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, pass, ok := req.BasicAuth()
		got := sha256.Sum256([]byte(user + ":" + pass))
		if !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="phala"`)
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			return
		}
		next.ServeHTTP(w, req)
	})
}

// refuse answers in the registry's own error format.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// Push stores an image in the open realm as repo:tag and returns its digest,
// "sha256:...". It does not need Run.
func (r *Registry) Push(ctx context.Context, repo, tag string, img v1.Image) (string, error) {
	return r.open.push(ctx, repo, tag, img)
}

// PushPrivate is Push into the private realm.
func (r *Registry) PushPrivate(ctx context.Context, repo, tag string, img v1.Image) (string, error) {
	if r.priv == nil {
		return "", cvm.Errorf(cvm.Precondition, "registry: there is no private realm")
	}
	return r.priv.push(ctx, repo, tag, img)
}

// Push writes an image to any registry over HTTP(S). ref is "host:port/repo:tag";
// plain HTTP is used for loopback and private addresses. user may be "".
func Push(ctx context.Context, ref string, img v1.Image, user string, password keys.Secret) (string, error) {
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", cvm.Errorf(cvm.Invalid, "image reference: %w", err)
	}
	auth := authn.Anonymous
	if user != "" {
		auth = &authn.Basic{Username: user, Password: string(password.Reveal())}
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx), remote.WithAuth(auth)); err != nil {
		return "", cvm.Errorf(cvm.Unavailable, "pushing %s: %w", ref, err)
	}
	return digestOf(img)
}

func digestOf(img v1.Image) (string, error) {
	d, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("image digest: %w", err)
	}
	return d.String(), nil
}

// realm is one store with its handler.
type realm struct {
	store   *manifests
	handler http.Handler
}

func newRealm(dir string, l *slog.Logger) (*realm, error) {
	store, err := openManifests(filepath.Join(dir, "manifests"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs"), 0o755); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r := &realm{store: store, handler: gcr.New(
		gcr.WithBlobHandler(gcr.NewDiskBlobHandler(filepath.Join(dir, "blobs"))),
		gcr.Logger(log.New(io.Discard, "", 0)))}
	if err := store.replay(r.handler); err != nil {
		l.Warn("registry: some stored images are not served", "error", err)
	}
	return r, nil
}

// ServeHTTP keeps every manifest that the handler accepted.
func (r *realm) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	repo, ref, ok := manifestPath(req.URL.Path)
	if !ok || (req.Method != http.MethodPut && req.Method != http.MethodDelete) {
		r.handler.ServeHTTP(w, req)
		return
	}
	if err := r.store.change(r.handler, w, req, repo, ref); err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the registry could not keep the manifest")
	}
}

// push goes through the same handler as a client, over memory.
func (r *realm) push(ctx context.Context, repo, tag string, img v1.Image) (string, error) {
	t, err := name.NewTag("in.memory/"+repo+":"+tag, name.Insecure)
	if err != nil {
		return "", cvm.Errorf(cvm.Invalid, "image name: %w", err)
	}
	if err := remote.Write(t, img, remote.WithContext(ctx), remote.WithTransport(inMemory{r})); err != nil {
		return "", cvm.Errorf(cvm.Internal, "storing image %s:%s: %w", repo, tag, err)
	}
	return digestOf(img)
}

// inMemory is a transport that calls a handler.
type inMemory struct{ h http.Handler }

func (t inMemory) RoundTrip(req *http.Request) (*http.Response, error) {
	w := newRecorder()
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	t.h.ServeHTTP(w, in)
	if err := req.Context().Err(); err != nil {
		return nil, errors.Join(err)
	}
	return w.response(req), nil
}
