package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxManifest bounds a manifest, in bytes (the distribution spec's floor for
// registries is 4 MiB).
const maxManifest = 4 << 20

// manifests keeps what go-containerregistry only has in memory: one file per
// reference, replayed into the handler at start.
type manifests struct {
	dir string
	mu  sync.Mutex
}

// stored is one file.
type stored struct {
	Repo        string `json:"repo"`
	Ref         string `json:"ref"` // tag or digest
	ContentType string `json:"content_type"`
	Body        []byte `json:"body"` // exact bytes: the digest is over them
}

func openManifests(dir string) (*manifests, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return &manifests{dir: dir}, nil
}

// manifestPath splits "/v2/<repo>/manifests/<ref>".
func manifestPath(p string) (repo, ref string, ok bool) {
	rest, ok := strings.CutPrefix(p, "/v2/")
	if !ok {
		return "", "", false
	}
	i := strings.LastIndex(rest, "/manifests/")
	if i <= 0 {
		return "", "", false
	}
	repo, ref = rest[:i], rest[i+len("/manifests/"):]
	return repo, ref, ref != "" && !strings.Contains(ref, "/")
}

func (m *manifests) file(repo, ref string) string {
	return filepath.Join(m.dir, url.PathEscape(repo)+"@"+url.PathEscape(ref)+".json")
}

// change lets the handler decide and keeps what it accepted.
func (m *manifests) change(h http.Handler, w http.ResponseWriter, req *http.Request, repo, ref string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "the manifest is too large")
		return nil
	}
	path := m.file(repo, ref)
	if len(filepath.Base(path)) > 255 {
		refuse(w, http.StatusBadRequest, "NAME_INVALID", "the name is too long")
		return nil
	}
	in := req.Clone(req.Context())
	in.Body = io.NopCloser(bytes.NewReader(body))
	rec := newRecorder()
	h.ServeHTTP(rec, in)
	if rec.status < 300 {
		if err := m.keep(req.Method, path, stored{repo, ref, req.Header.Get("Content-Type"), body}); err != nil {
			return err
		}
	}
	rec.copyTo(w)
	return nil
}

func (m *manifests) keep(method, path string, s stored) error {
	if method == http.MethodDelete {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forgetting a manifest: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding a manifest: %w", err)
	}
	tmp := path[:len(path)-len(".json")] + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return fmt.Errorf("keeping a manifest: %w", err)
	}
	return os.Rename(tmp, path)
}

// replay feeds the stored manifests to a new handler. Indexes need the manifests
// they name, so what fails is tried once more at the end.
func (m *manifests) replay(h http.Handler) error {
	files, err := filepath.Glob(filepath.Join(m.dir, "*.json"))
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	var again []stored
	var errs []error
	for _, f := range files {
		var s stored
		b, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err == nil && f != m.file(s.Repo, s.Ref) {
			err = errors.New("the file's name does not fit its content")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(f), err))
			continue
		}
		if put(h, s) != nil {
			again = append(again, s)
		}
	}
	for _, s := range again {
		if err := put(h, s); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func put(h http.Handler, s stored) error {
	u := url.URL{Path: "/v2/" + s.Repo + "/manifests/" + s.Ref}
	req := &http.Request{Method: http.MethodPut, URL: &u, Header: http.Header{"Content-Type": {s.ContentType}}, Body: io.NopCloser(bytes.NewReader(s.Body)), ContentLength: int64(len(s.Body))}
	rec := newRecorder()
	h.ServeHTTP(rec, req)
	if rec.status >= 300 {
		return fmt.Errorf("%s:%s: status %d", s.Repo, s.Ref, rec.status)
	}
	return nil
}

// recorder is a response in memory.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: http.Header{}, status: http.StatusOK} }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *recorder) copyTo(w http.ResponseWriter) {
	for k, v := range r.header {
		w.Header()[k] = v
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes())
}

func (r *recorder) response(req *http.Request) *http.Response {
	return &http.Response{
		Status: fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)), StatusCode: r.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.header, Body: io.NopCloser(&r.body), ContentLength: int64(r.body.Len()), Request: req,
	}
}
