package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/verity"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// fakeImage is a VM image with a real hash tree; the seed makes another one.
func fakeImage(t *testing.T, seed string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "image")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "rootfs.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := bytes.Repeat([]byte(seed + "0123456789abcdef")[:16], 300*verity.BlockSize/16)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	root, err := verity.Build(t.Context(), f, verity.Superblock{DataBlocks: 300}, f, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	meta, _ := json.Marshal(map[string]any{"kernel": "bzImage", "rootfs": "rootfs.img", "version": "1.0-" + seed, "driver": "qemu",
		"cmdline": fmt.Sprintf("console=ttyS0 %s=%x %s=%d", verity.HashKey, root, verity.SizeKey, len(data))})
	writeSums(t, dir, map[string][]byte{"bzImage": bytes.Repeat([]byte("kernel"+seed), 1000), image.MetadataFile: meta})
	return dir
}

// writeSums writes files, their sums and the digest.
func writeSums(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	var sums bytes.Buffer
	for n, b := range files {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), n)
	}
	files[image.SumsFile] = sums.Bytes()
	files[image.DigestFile] = []byte(fmt.Sprintf("%x\n", sha256.Sum256(sums.Bytes())))
	for n, b := range files {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func hashOf(t *testing.T, dir string) cvm.ImageHash {
	t.Helper()
	im, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return im.Hash
}

// hub is a real registry on loopback; evil may answer in its place.
type hub struct {
	*httptest.Server
	host string
	mu   sync.Mutex
	evil func(w http.ResponseWriter, r *http.Request, next http.Handler) bool
	seen []string // method, path and range of each request
}

func newHub(t *testing.T) *hub {
	h := &hub{}
	inner := gcr.New(gcr.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.seen = append(h.seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
		evil := h.evil
		h.mu.Unlock()
		if evil != nil && evil(w, r, inner) {
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	h.host = strings.TrimPrefix(h.URL, "http://")
	return h
}

func (h *hub) play(f func(w http.ResponseWriter, r *http.Request, next http.Handler) bool) {
	h.mu.Lock()
	h.evil, h.seen = f, nil
	h.mu.Unlock()
}

func (h *hub) requests(part string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.seen {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

func (h *hub) push(t *testing.T, dir, tag string, c PushConfig) Pushed {
	t.Helper()
	c.Ref = h.host + "/os/phala:" + tag
	p, err := Push(t.Context(), dir, c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func puller(t *testing.T, c Config) *Puller {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.Pause = time.Millisecond
	if c.KeepFree == 0 {
		c.KeepFree = 1
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// get pulls and waits.
func get(t *testing.T, p *Puller, r vmmapi.PullRequest) vmmapi.Pull {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := p.Start(ctx, r)
	if err != nil {
		return vmmapi.Pull{Phase: vmmapi.PullFailed, Error: problem(err)}
	}
	s, err = p.Wait(ctx, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused expects a failed pull with a reason, and nothing in the directory.
func refused(t *testing.T, p *Puller, r vmmapi.PullRequest, reason string) vmmapi.Pull {
	t.Helper()
	s := get(t, p, r)
	if s.Error == nil || s.Error.Reason != reason {
		t.Fatalf("want %s, got %s %+v", reason, s.Phase, s.Error)
	}
	entries, _ := os.ReadDir(p.cfg.Dir)
	for _, e := range entries {
		if e.Name() != workDir {
			t.Fatalf("%s is in the image directory", e.Name())
		}
	}
	return s
}

func done(t *testing.T, p *Puller, r vmmapi.PullRequest) vmmapi.Pull {
	t.Helper()
	s := get(t, p, r)
	if s.Phase != vmmapi.PullDone {
		t.Fatalf("%s %+v", s.Phase, s.Error)
	}
	if _, err := Check(t.Context(), filepath.Join(p.cfg.Dir, s.Name), s.Hash); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPushThenPull(t *testing.T) {
	h, dir := newHub(t), fakeImage(t, "a")
	pushed := h.push(t, dir, "v1", PushConfig{})
	if again := h.push(t, dir, "v2", PushConfig{}); again.Digest != pushed.Digest {
		t.Fatalf("the same files give %s and %s", pushed.Digest, again.Digest)
	}
	p := puller(t, Config{})
	s := done(t, p, vmmapi.PullRequest{Ref: pushed.Ref})
	if s.Name != "phala-1.0-a" || s.Hash != hashOf(t, dir) || s.DoneBytes != s.TotalBytes || s.TotalBytes != pushed.Bytes || s.Digest != pushed.Digest {
		t.Fatalf("%+v", s)
	}
	done(t, p, vmmapi.PullRequest{Ref: h.host + "/os/phala:v1", Hash: pushed.Hash, Name: "second"}) // side by side
	h.play(nil)
	done(t, p, vmmapi.PullRequest{Ref: pushed.Ref}) // there already
	if n := h.requests("/blobs/"); n != 0 {
		t.Errorf("what is there was fetched again: %d requests", n)
	}
	other := h.push(t, fakeImage(t, "b"), "b", PushConfig{})
	if s := get(t, p, vmmapi.PullRequest{Ref: other.Ref, Name: "second"}); s.Error == nil || s.Error.Reason != "image-differs" {
		t.Errorf("another image under a name that is taken: %+v", s)
	}
	done(t, p, vmmapi.PullRequest{Ref: other.Ref})
	if left, _ := os.ReadDir(p.work("stage")); len(left) != 0 {
		t.Errorf("half-made directories are left: %v", left)
	}
}

func TestUnpinnedIsRefused(t *testing.T) {
	h := newHub(t)
	h.push(t, fakeImage(t, "a"), "v1", PushConfig{})
	refused(t, puller(t, Config{}), vmmapi.PullRequest{Ref: h.host + "/os/phala:v1"}, "image-unpinned")
}

func TestReferences(t *testing.T) {
	p := puller(t, Config{})
	for _, ref := range []string{"", "phala", "os/phala:v1", "http://127.0.0.1/os:1", "registry.localhost/os/phala:v1", "127.0.0.1:1/Os/x:v1", "127.0.0.1:1/x@sha256:12"} {
		refused(t, p, vmmapi.PullRequest{Ref: ref}, "image-reference")
	}
	for _, name := range []string{"..", "a/b", ".hidden", strings.Repeat("x", 65)} {
		refused(t, p, vmmapi.PullRequest{Ref: "127.0.0.1:1/os/phala:v1", Name: name}, "image-name")
	}
	refused(t, p, vmmapi.PullRequest{Ref: "127.0.0.1:1/os/phala:v1", Hash: cvm.ImageHash{1}}, "registry-unavailable")
}

// blobOf is the path of a file's blob in the hub.
func blobOf(t *testing.T, dir, file string) string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return "/blobs/" + digestText(sha256.Sum256(b))
}

func TestHostileRegistry(t *testing.T) {
	h, dir := newHub(t), fakeImage(t, "a")
	pushed := h.push(t, dir, "v1", PushConfig{})
	other := h.push(t, fakeImage(t, "b"), "b", PushConfig{})
	rootfs := blobOf(t, dir, "rootfs.img")
	onRootfs := func(f func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request, http.Handler) bool {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if !strings.HasSuffix(r.URL.Path, rootfs) {
				return false
			}
			f(w, r)
			return true
		}
	}
	serveManifest := func(tag string) func(http.ResponseWriter, *http.Request, http.Handler) bool {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				r.URL.Path = "/v2/os/phala/manifests/" + tag
				next.ServeHTTP(w, r)
				return true
			}
			return false
		}
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	byDigest := vmmapi.PullRequest{Ref: pushed.Ref}
	byHash := vmmapi.PullRequest{Ref: h.host + "/os/phala:v1", Hash: pushed.Hash}
	for _, c := range []struct {
		name, reason string
		req          vmmapi.PullRequest
		evil         func(http.ResponseWriter, *http.Request, http.Handler) bool
	}{
		{"other manifest under the digest", "image-digest", byDigest, serveManifest(other.Digest)},
		{"other image under the tag", "image-hash", byHash, serveManifest(other.Digest)},
		{"other bytes of the same length", "image-digest", byDigest, onRootfs(func(w http.ResponseWriter, _ *http.Request) {
			st, _ := os.Stat(filepath.Join(dir, "rootfs.img"))
			_, _ = w.Write(make([]byte, st.Size()))
		})},
		{"endless", "image-digest", byDigest, onRootfs(func(w http.ResponseWriter, r *http.Request) {
			for b := make([]byte, 64<<10); r.Context().Err() == nil; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		})},
		{"truncated", "image-truncated", byDigest, onRootfs(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("short")) })},
		{"endless manifest", "image-refused", byHash, func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if strings.Contains(r.URL.Path, "/manifests/") { // the right one, and then white space without end
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				_, _ = w.Write(append(rec.Body.Bytes(), bytes.Repeat([]byte(" "), 2*maxManifest)...))
				return true
			}
			return false
		}},
		{"redirect to another host", "image-redirect", byDigest, onRootfs(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		})},
		{"redirects in a circle", "registry-unavailable", byDigest, onRootfs(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		})},
		{"not there", "image-missing", byDigest, onRootfs(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })},
		{"denied", "registry-denied", byDigest, onRootfs(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := puller(t, Config{})
			h.play(c.evil)
			refused(t, p, c.req, c.reason)
			h.play(nil)
			done(t, p, c.req) // and nothing that it left behind is in the way
		})
	}
}

func TestPublicRegistryLeadsNobodyInside(t *testing.T) {
	reached := false
	g := guard{"registry.example", roundTrip(func(*http.Request) (*http.Response, error) { reached = true; return nil, io.EOF })}
	for _, u := range []string{"http://registry.example/v2/", "http://cdn.example/x", "https://127.0.0.1/x", "https://10.1.2.3:8443/x", "https://[::1]/x", "https://169.254.169.254/x", "https://localhost/x"} {
		r, _ := http.NewRequest(http.MethodGet, u, nil)
		if res, err := g.RoundTrip(r); cvm.ReasonOf(err) != "image-redirect" || res != nil || reached {
			t.Errorf("%s: %v", u, err)
		}
	}
	r, _ := http.NewRequest(http.MethodGet, "https://cdn.example/x", nil)
	if res, err := g.RoundTrip(r); res != nil || !errors.Is(err, io.EOF) || !reached {
		t.Errorf("a CDN with TLS: %v", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestResume(t *testing.T) {
	h, dir := newHub(t), fakeImage(t, "a")
	pushed := h.push(t, dir, "v1", PushConfig{})
	rootfs := blobOf(t, dir, "rootfs.img")
	p := puller(t, Config{})
	cut := func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, rootfs) {
			return false
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		b, _ := os.ReadFile(filepath.Join(dir, "rootfs.img"))
		_, _ = w.Write(b[:100_000])
		return true
	}
	h.play(cut)
	s := refused(t, p, vmmapi.PullRequest{Ref: pushed.Ref}, "registry-unavailable")
	if s.DoneBytes < 100_000 || s.DoneBytes >= s.TotalBytes {
		t.Fatalf("%d of %d bytes", s.DoneBytes, s.TotalBytes)
	}
	// A new process goes on from there.
	p = puller(t, Config{Dir: p.cfg.Dir})
	ranged := func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, rootfs) {
			return false
		}
		http.ServeFile(w, r, filepath.Join(dir, "rootfs.img"))
		return true
	}
	h.play(ranged)
	done(t, p, vmmapi.PullRequest{Ref: pushed.Ref})
	if h.requests("bytes=100000-") != 1 || h.requests(rootfs) != 1 {
		t.Errorf("not resumed: %v", h.seen)
	}
	// A registry that ignores ranges, and a kept part that is not of this file.
	for name, part := range map[string][]byte{"no ranges": bytes.Repeat([]byte("a012345678"), 100), "wrong part": []byte("something else"), "longer than the file": make([]byte, 2<<20)} {
		p := puller(t, Config{})
		if err := os.MkdirAll(p.work("blobs"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.work("blobs", strings.TrimPrefix(rootfs, "/blobs/sha256:")), part, 0o600); err != nil {
			t.Fatal(err)
		}
		h.play(nil)
		if name == "wrong part" {
			h.play(ranged)
		}
		t.Run(name, func(t *testing.T) {
			if s := done(t, p, vmmapi.PullRequest{Ref: pushed.Ref}); s.DoneBytes != s.TotalBytes {
				t.Errorf("progress: %d of %d", s.DoneBytes, s.TotalBytes)
			}
		})
	}
}

// TestStall: a connection on which nothing comes is given up.
func TestStall(t *testing.T) {
	h, dir := newHub(t), fakeImage(t, "a")
	pushed := h.push(t, dir, "v1", PushConfig{})
	h.play(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, blobOf(t, dir, "bzImage")) {
			return false
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	refused(t, puller(t, Config{Stall: 20 * time.Millisecond}), vmmapi.PullRequest{Ref: pushed.Ref}, "image-truncated")
}

// TestJoin: the same pull twice is one pull.
func TestJoin(t *testing.T) {
	h, dir := newHub(t), fakeImage(t, "a")
	pushed := h.push(t, dir, "v1", PushConfig{})
	gate := make(chan struct{})
	h.play(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-gate
		}
		return false
	})
	p := puller(t, Config{})
	first, err := p.Start(t.Context(), vmmapi.PullRequest{Ref: pushed.Ref})
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.Start(t.Context(), vmmapi.PullRequest{Ref: pushed.Ref})
	if err != nil || second.ID != first.ID {
		t.Fatalf("two pulls: %v %v", second, err)
	}
	// By another name it is another request, which finds what the first one brought.
	third, err := p.Start(t.Context(), vmmapi.PullRequest{Ref: h.host + "/os/phala:v1", Hash: pushed.Hash})
	if err != nil || third.ID == first.ID {
		t.Fatalf("%v %v", third, err)
	}
	close(gate)
	for _, id := range []string{first.ID, third.ID} {
		if s, err := p.Wait(t.Context(), id); err != nil || s.Phase != vmmapi.PullDone {
			t.Fatalf("%+v %v", s, err)
		}
	}
	if n := h.requests(blobOf(t, dir, "rootfs.img")); n != 1 {
		t.Errorf("the root filesystem was fetched %d times", n)
	}
	if len(p.Pulls()) != 2 || p.Pulls()[0].ID != third.ID {
		t.Errorf("%+v", p.Pulls())
	}
}

func TestDiskSpace(t *testing.T) {
	h := newHub(t)
	pushed := h.push(t, fakeImage(t, "a"), "v1", PushConfig{})
	little := func(string) (int64, error) { return 1<<30 + 1000, nil }
	h.play(nil)
	refused(t, puller(t, Config{KeepFree: 1 << 30, Free: little}), vmmapi.PullRequest{Ref: pushed.Ref}, "disk-full")
	if h.requests("/blobs/") != 0 {
		t.Error("blobs were fetched without room for them")
	}
	refused(t, puller(t, Config{MaxBytes: 1000}), vmmapi.PullRequest{Ref: pushed.Ref}, "image-refused")
}

// keyPair writes a pair of PEM files.
func keyPair(t *testing.T, kind string) (priv, pub string) {
	t.Helper()
	var k, q any
	var err error
	switch kind {
	case "ed25519":
		q, k, err = ed25519.GenerateKey(rand.Reader)
	default:
		curve := elliptic.P256()
		if kind == "p384" {
			curve = elliptic.P384()
		}
		var e *ecdsa.PrivateKey
		e, err = ecdsa.GenerateKey(curve, rand.Reader)
		k, q = e, e.Public()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	priv = write("image.key", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(q)
	return priv, write(kind+".pub", "PUBLIC KEY", der, err)
}

func TestSignatures(t *testing.T) {
	for _, kind := range []string{"ed25519", "p256"} {
		t.Run(kind, func(t *testing.T) {
			h, dir := newHub(t), fakeImage(t, "a")
			priv, pub := keyPair(t, kind)
			signer, err := LoadSigner(priv)
			if err != nil {
				t.Fatal(err)
			}
			key, err := LoadKey(pub)
			if err != nil {
				t.Fatal(err)
			}
			signed := h.push(t, dir, "v1", PushConfig{Signer: signer})
			unsigned := h.push(t, fakeImage(t, "b"), "b", PushConfig{})
			_, stranger := keyPair(t, kind)
			other, err := LoadKey(stranger)
			if err != nil {
				t.Fatal(err)
			}
			withKey := func() *Puller { return puller(t, Config{Keys: []Key{other, key}}) }
			if s := done(t, withKey(), vmmapi.PullRequest{Ref: h.host + "/os/phala:v1"}); s.SignedBy != kind+".pub" { // the signature is the pin
				t.Errorf("%+v", s)
			}
			noBlobs := func(reason string, p *Puller, ref string) {
				t.Helper()
				refused(t, p, vmmapi.PullRequest{Ref: ref}, reason)
				if n := h.requests(blobOf(t, dir, "rootfs.img")); n != 0 {
					t.Errorf("%s: blobs were fetched before the signature was checked", reason)
				}
			}
			h.play(nil)
			noBlobs("image-signature", puller(t, Config{Keys: []Key{other}}), signed.Ref) // another key's
			noBlobs("image-signature", withKey(), unsigned.Ref)                           // none; a digest does not replace it
			sigTag := func(d string) string { return strings.Replace(d, ":", "-", 1) + ".sig" }
			h.play(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool { // the signature of another image
				if strings.HasSuffix(r.URL.Path, sigTag(unsigned.Digest)) {
					r.URL.Path = "/v2/os/phala/manifests/" + sigTag(signed.Digest)
				}
				next.ServeHTTP(w, r)
				return true
			})
			noBlobs("image-signature", withKey(), unsigned.Ref)
			h.play(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool { // a flipped bit in the signature
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				b := rec.Body.Bytes()
				if strings.HasSuffix(r.URL.Path, ".sig") {
					i := bytes.Index(b, []byte(signatureKey)) + len(signatureKey) + 20
					b[i] ^= 1
				}
				w.WriteHeader(rec.Code)
				_, _ = w.Write(b)
				return true
			})
			noBlobs("image-signature", withKey(), signed.Ref)
		})
	}
	for _, bad := range []func() error{
		func() error { k, _ := keyPair(t, "p384"); _, err := LoadSigner(k); return err },
		func() error { _, k := keyPair(t, "p384"); _, err := LoadKey(k); return err },
		func() error { k, _ := keyPair(t, "p256"); _, err := LoadKey(k); return err },
		func() error { _, k := keyPair(t, "p256"); _, err := LoadSigner(k); return err },
		func() error { _, err := LoadKey("/does/not/exist"); return err },
	} {
		if cvm.CodeOf(bad()) != cvm.Invalid {
			t.Errorf("%v", bad())
		}
	}
}

// TestSignedHashDecides: the signer names another os_image_hash than the image has.
func TestSignedHashDecides(t *testing.T) {
	if _, err := parseStatement([]byte(`{"critical":{"image":{"docker-manifest-digest":"`+digestText([32]byte{1})+`"},"type":"cosign container image signature"},"optional":{"os_image_hash":7}}`), [32]byte{1}); cvm.ReasonOf(err) != "image-signature" {
		t.Error(err)
	}
	for _, s := range []string{"", "{}", `{"critical":{"image":{"docker-manifest-digest":"` + digestText([32]byte{1}) + `"},"type":"something else"}}`} {
		if _, err := parseStatement([]byte(s), [32]byte{1}); cvm.ReasonOf(err) != "image-signature" {
			t.Errorf("%s: %v", s, err)
		}
	}
	// A statement as cosign writes it, without our addition.
	if h, err := parseStatement([]byte(`{"critical":{"identity":{"docker-reference":"x"},"image":{"docker-manifest-digest":"`+digestText([32]byte{1})+`"},"type":"cosign container image signature"},"optional":null}`), [32]byte{1}); err != nil || h != "" {
		t.Error(h, err)
	}
}

// entry is one entry of a tar.
type entry struct {
	name, body string
	kind       byte
	link       string
}

func tarGz(t *testing.T, entries []entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		if err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.body)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if w.Close() != nil || z.Close() != nil {
		t.Fatal("tar")
	}
	return buf.Bytes()
}

// archive stores a layer in the reference's form and returns its reference.
func (h *hub) archive(t *testing.T, layer []byte) string {
	t.Helper()
	ref, err := parseRef(h.host + "/os/ref:" + hex.EncodeToString(layer[len(layer)-6:]))
	if err != nil {
		t.Fatal(err)
	}
	d, err := pushBytes(ref, "application/vnd.oci.image.layer.v1.tar+gzip", layer, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := manifest{SchemaVersion: 2, MediaType: manifestType, Layers: []descriptor{d}}
	if m.Config, err = pushBytes(ref, "application/vnd.oci.image.config.v1+json", []byte(`{}`), nil); err != nil {
		t.Fatal(err)
	}
	sum, err := pushManifest(ref, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ref.Context().Name() + "@" + digestText(sum)
}

func entriesOf(t *testing.T, dir string) (out []entry) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{name: "./" + f.Name(), body: string(b)})
	}
	return out
}

// TestReferenceForm: one tar.gz layer; files that the sums do not list are dropped.
func TestReferenceForm(t *testing.T) {
	h, dir := newHub(t), fakeImage(t, "a")
	entries := append([]entry{{name: "./", kind: tar.TypeDir}}, append(entriesOf(t, dir), entry{name: "README", body: "hello"})...)
	p := puller(t, Config{})
	s := done(t, p, vmmapi.PullRequest{Ref: h.archive(t, tarGz(t, entries)), Name: "dstack-1"})
	if _, err := os.Stat(filepath.Join(p.cfg.Dir, s.Name, "README")); err == nil || s.Hash != hashOf(t, dir) {
		t.Errorf("%+v %v", s, err)
	}
}

func TestHostileArchives(t *testing.T) {
	h, dir := newHub(t), fakeImage(t, "a")
	good := entriesOf(t, dir)
	outside := filepath.Join(t.TempDir(), "outside")
	many := make([]entry, maxFiles+1)
	for i := range many {
		many[i] = entry{name: fmt.Sprint("f", i)}
	}
	for name, extra := range map[string][]entry{
		"dot dot":           {{name: "../evil", body: "x"}},
		"absolute":          {{name: outside, body: "x"}},
		"below a directory": {{name: "sub/evil", body: "x"}},
		"symlink":           {{name: "link", kind: tar.TypeSymlink, link: outside}},
		"hard link":         {{name: "link", kind: tar.TypeLink, link: outside}},
		"through a symlink": {{name: "bzImage2", kind: tar.TypeSymlink, link: outside}, {name: "bzImage2", body: "x"}},
		"device":            {{name: "dev", kind: tar.TypeBlock}},
		"fifo":              {{name: "fifo", kind: tar.TypeFifo}},
		"directory":         {{name: "sub", kind: tar.TypeDir}},
		"twice":             {{name: "bzImage", body: "other"}},
		"too many":          many,
		"hidden":            {{name: ".pull", body: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, puller(t, Config{}), vmmapi.PullRequest{Ref: h.archive(t, tarGz(t, append(extra, good...)))}, "image-refused")
			if _, err := os.Lstat(outside); err == nil {
				t.Fatal("written outside of the directory")
			}
		})
	}
	refused(t, puller(t, Config{}), vmmapi.PullRequest{Ref: h.archive(t, tarGz(t, good)), Hash: cvm.ImageHash{1}}, "image-hash")
	bomb := tarGz(t, append([]entry{{name: "bomb", body: strings.Repeat("\x00", 40<<20)}}, good...))
	refused(t, puller(t, Config{MaxBytes: 2 << 20}), vmmapi.PullRequest{Ref: h.archive(t, bomb)}, "image-refused")
	calls := 0
	shrinking := func(string) (int64, error) { calls++; return 1 << 30 / int64(calls*calls*calls*calls), nil }
	refused(t, puller(t, Config{KeepFree: 1 << 20, Free: shrinking}), vmmapi.PullRequest{Ref: h.archive(t, bomb)}, "disk-full")
	refused(t, puller(t, Config{}), vmmapi.PullRequest{Ref: h.archive(t, []byte("this is not gzip"))}, "image-refused")
	refused(t, puller(t, Config{}), vmmapi.PullRequest{Ref: h.archive(t, tarGz(t, good)[:2000])}, "image-refused")
}

// TestContentIsChecked: images whose own parts do not fit together.
func TestContentIsChecked(t *testing.T) {
	h := newHub(t)
	change := func(fn func(dir string, files map[string]string)) []byte {
		dir := fakeImage(t, "a")
		files := map[string]string{}
		for _, e := range entriesOf(t, dir) {
			files[strings.TrimPrefix(e.name, "./")] = e.body
		}
		fn(dir, files)
		var out []entry
		for n, b := range files {
			out = append(out, entry{name: n, body: b})
		}
		return tarGz(t, out)
	}
	resum := func(files map[string]string, meta string) {
		files[image.MetadataFile] = meta
		sums := fmt.Sprintf("%x  bzImage\n%x  %s\n", sha256.Sum256([]byte(files["bzImage"])), sha256.Sum256([]byte(meta)), image.MetadataFile)
		files[image.SumsFile], files[image.DigestFile] = sums, fmt.Sprintf("%x\n", sha256.Sum256([]byte(sums)))
	}
	for name, c := range map[string]struct {
		reason string
		fn     func(dir string, f map[string]string)
	}{
		"kernel changed":          {"image-broken", func(_ string, f map[string]string) { f["bzImage"] += "x" }},
		"digest changed":          {"image-broken", func(_ string, f map[string]string) { f[image.DigestFile] = strings.Repeat("0", 64) }},
		"metadata changed":        {"image-broken", func(_ string, f map[string]string) { f[image.MetadataFile] += " " }},
		"no sums":                 {"image-broken", func(_ string, f map[string]string) { delete(f, image.SumsFile) }},
		"no root filesystem":      {"image-refused", func(_ string, f map[string]string) { delete(f, "rootfs.img") }},
		"root filesystem changed": {"rootfs-corrupt", func(_ string, f map[string]string) { f["rootfs.img"] = "X" + f["rootfs.img"][1:] }},
		"root filesystem short":   {"rootfs-superblock", func(_ string, f map[string]string) { f["rootfs.img"] = f["rootfs.img"][:302*verity.BlockSize] }},
		"nothing commits to it": {"image-refused", func(_ string, f map[string]string) {
			resum(f, `{"rootfs":"rootfs.img","version":"1","kernel":"bzImage"}`)
		}},
		"root filesystem outside": {"image-refused", func(_ string, f map[string]string) { resum(f, `{"rootfs":"../rootfs.img","version":"1"}`) }},
		"half a command line": {"cmdline", func(_ string, f map[string]string) {
			resum(f, `{"rootfs":"rootfs.img","version":"1","cmdline":"dstack.rootfs_hash=00"}`)
		}},
		"version with a slash": {"image-refused", func(_ string, f map[string]string) { resum(f, `{"version":"../../x"}`) }},
		"another root filesystem's": {"rootfs-hash-mismatch", func(_ string, f map[string]string) {
			b, _ := os.ReadFile(filepath.Join(fakeImage(t, "b"), "rootfs.img"))
			f["rootfs.img"] = string(b)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, puller(t, Config{}), vmmapi.PullRequest{Ref: h.archive(t, change(c.fn))}, c.reason)
		})
	}
	if _, err := Push(t.Context(), t.TempDir(), PushConfig{Ref: h.host + "/os/phala:x"}); cvm.ReasonOf(err) != "image-broken" {
		t.Errorf("pushed what is no image: %v", err)
	}
	if _, err := Push(t.Context(), fakeImage(t, "a"), PushConfig{Ref: h.host + "/os/phala@" + digestText([32]byte{})}); cvm.ReasonOf(err) != "image-reference" {
		t.Errorf("pushed to a digest: %v", err)
	}
}

func TestDeleteAndCollect(t *testing.T) {
	h := newHub(t)
	p := puller(t, Config{})
	for i, seed := range []string{"a", "b", "c", "d"} {
		s := done(t, p, vmmapi.PullRequest{Ref: h.push(t, fakeImage(t, seed), seed, PushConfig{}).Ref})
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(filepath.Join(p.cfg.Dir, s.Name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	names := func() string {
		images, err := image.List(p.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, im := range images {
			out = append(out, strings.TrimPrefix(im.Name, "phala-1.0-"))
		}
		return strings.Join(out, "")
	}
	used := func(n string) bool { return n == "phala-1.0-a" }
	dry, err := p.Collect(vmmapi.GCRequest{Keep: 1, DryRun: true}, used)
	if err != nil || names() != "abcd" || fmt.Sprint(dry.Removed) != "[phala-1.0-c phala-1.0-b]" || dry.Bytes < 2*300*verity.BlockSize {
		t.Fatalf("%s %+v %v", names(), dry, err)
	}
	wet, err := p.Collect(vmmapi.GCRequest{Keep: 1}, used)
	if err != nil || names() != "ad" || fmt.Sprint(wet.Removed) != fmt.Sprint(dry.Removed) {
		t.Fatalf("%s %+v %v", names(), wet, err)
	}
	if _, err := p.Collect(vmmapi.GCRequest{Keep: -1}, used); cvm.CodeOf(err) != cvm.Invalid {
		t.Error(err)
	}
	for name, code := range map[string]cvm.Code{"../x": cvm.Invalid, workDir: cvm.Invalid, "phala-1.0-b": cvm.NotFound} {
		if err := p.Delete(name); cvm.CodeOf(err) != code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := p.Delete("phala-1.0-d"); err != nil || names() != "a" {
		t.Errorf("%s %v", names(), err)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"artifactType":"` + ArtifactType + `","layers":[{"mediaType":"` + FileType + `","digest":"` + digestText([32]byte{}) + `","size":3,"annotations":{"` + titleKey + `":"bzImage"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + digestText([32]byte{1}) + `","size":3}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseManifest(b, 1000)
		if err != nil {
			return
		}
		if c.size() < 0 || c.size() > 1000 || len(c.Blobs) == 0 || len(c.Blobs) > maxFiles {
			t.Fatalf("out of bounds: %+v", c)
		}
		for _, l := range c.Blobs {
			if !c.Archive && !image.ValidName(l.Name) || c.Archive && len(c.Blobs) != 1 {
				t.Fatalf("%+v", c)
			}
		}
	})
}

// FuzzUnpack: whatever a layer holds, only plain files within the bounds appear.
func FuzzUnpack(f *testing.F) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.WriteHeader(&tar.Header{Name: "a", Size: 3, Mode: 0o600})
	_, _ = w.Write([]byte("abc"))
	_ = w.WriteHeader(&tar.Header{Name: "../b", Typeflag: tar.TypeSymlink, Linkname: "/"})
	_ = w.Close()
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var z bytes.Buffer
		g := gzip.NewWriter(&z)
		_, _ = g.Write(b)
		_ = g.Close()
		top := t.TempDir()
		dir := filepath.Join(top, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_ = unpack(context.Background(), &z, dir, 10_000, func(int64) error { return nil })
		if all, _ := os.ReadDir(top); len(all) != 1 || treeSize(dir) > 10_000 {
			t.Fatalf("%v, %d bytes", all, treeSize(dir))
		}
		for _, e := range func() []os.DirEntry { es, _ := os.ReadDir(dir); return es }() {
			if !e.Type().IsRegular() {
				t.Fatalf("%s is %v", e.Name(), e.Type())
			}
		}
	})
}
