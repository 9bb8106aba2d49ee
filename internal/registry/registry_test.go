package registry

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/confidential-cloud/phala/keys"
)

func binary(t *testing.T) v1.Image {
	t.Helper()
	p := filepath.Join(t.TempDir(), "app")
	b := make([]byte, 100_000)
	_, _ = rand.Read(b)
	if err := os.WriteFile(p, b, 0o755); err != nil {
		t.Fatal(err)
	}
	img, err := FromBinary(p, "app", ImageConfig{Ports: []string{"80/tcp"}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromBinary(p, "app", ImageConfig{Ports: []string{"80/tcp"}})
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := img.Digest(); a.String() != must(again.Digest()).String() {
		t.Fatal("the same binary gave two digests")
	}
	return img
}

func must(h v1.Hash, err error) v1.Hash {
	if err != nil {
		panic(err)
	}
	return h
}

func start(t *testing.T, c Config) *Registry {
	t.Helper()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	select {
	case <-r.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func pull(t *testing.T, ref string, o ...remote.Option) (v1.Image, error) {
	t.Helper()
	n, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return remote.Image(n, append(o, remote.WithContext(t.Context()))...)
}

func TestImagesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	img := binary(t)
	r, err := New(Config{Dir: dir, Addrs: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := r.Push(t.Context(), "phala-templates/hello", "latest", img)
	if err != nil {
		t.Fatal(err)
	}
	idx := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})
	r = start(t, Config{Dir: dir, Addrs: []string{"127.0.0.1:0"}})
	tag, _ := name.NewTag(r.Addrs()[0] + "/a/index:1")
	if err := remote.WriteIndex(tag, idx); err != nil { // a push over loopback
		t.Fatal(err)
	}
	r = start(t, Config{Dir: dir, Addrs: []string{"127.0.0.1:0"}})
	for _, ref := range []string{"/phala-templates/hello:latest", "/phala-templates/hello@" + digest, "/a/index:1"} {
		got, err := pull(t, r.Addrs()[0]+ref)
		if err != nil {
			t.Fatal(ref, err)
		}
		if d := must(got.Digest()).String(); d != digest {
			t.Errorf("%s: %s, want %s", ref, d, digest)
		}
		layers, _ := got.Layers()
		rc, err := layers[0].Compressed()
		if err != nil {
			t.Fatal(ref, err)
		}
		rc.Close()
	}
}

func TestGuestsCannotWrite(t *testing.T) {
	addr := outside(t)
	r := start(t, Config{Dir: t.TempDir(), Addrs: []string{net.JoinHostPort(addr, "0"), "127.0.0.1:0"}})
	img := binary(t)
	if _, err := r.Push(t.Context(), "xx", "1", img); err != nil {
		t.Fatal(err)
	}
	if _, err := Push(t.Context(), r.Addrs()[0]+"/xx:1", binary(t), "", keys.Secret{}); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Fatalf("a push from outside: %v", err)
	}
	if got, err := pull(t, r.Addrs()[0]+"/xx:1"); err != nil || must(got.Digest()) != must(img.Digest()) {
		t.Fatalf("a pull from outside: %v", err)
	}
	if _, err := Push(t.Context(), r.Addrs()[1]+"/xx:2", img, "", keys.Secret{}); err != nil {
		t.Fatalf("a push over loopback: %v", err)
	}
}

// outside is an address of this machine that is not loopback.
func outside(t *testing.T) string {
	t.Helper()
	as, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range as {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsPrivate() {
			return n.IP.String()
		}
	}
	t.Skip("SKIPPED: this machine has no private address besides loopback")
	return ""
}

func TestPrivateRealm(t *testing.T) {
	dir := t.TempDir()
	secret := keys.NewSecret([]byte("correct horse"))
	r := start(t, Config{Dir: dir, Addrs: []string{"127.0.0.1:0"}, Private: &Private{Addrs: []string{"127.0.0.1:0"}, User: "bob", Password: secret}})
	img := binary(t)
	if _, err := r.PushPrivate(t.Context(), "secret/app", "1", img); err != nil {
		t.Fatal(err)
	}
	ref := r.PrivateAddrs()[0] + "/secret/app:1"
	if _, err := pull(t, ref, remote.WithAuth(&authn.Basic{Username: "bob", Password: "correct horse"})); err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]authn.Authenticator{
		"nobody": authn.Anonymous, "wrong": &authn.Basic{Username: "bob", Password: "x"}, "other": &authn.Basic{Username: "eve", Password: "correct horse"},
	} {
		if _, err := pull(t, ref, remote.WithAuth(a)); err == nil {
			t.Errorf("%s could pull", name)
		}
	}
	if _, err := pull(t, r.Addrs()[0]+"/secret/app:1"); err == nil {
		t.Error("a private image is in the open realm")
	}
	if _, err := New(Config{Dir: dir, Private: &Private{Addrs: []string{"127.0.0.1:0"}, User: "bob"}}); err == nil {
		t.Error("a private realm without a password was made")
	}
}

func TestManifestPath(t *testing.T) {
	for in, want := range map[string]string{
		"/v2/a/manifests/1": "a 1", "/v2/a/b/manifests/sha256:x": "a/b sha256:x", "/v2/manifests/1": "", "/v2/a/manifests/": "",
		"/v2/a/manifests/b/c": "", "/v1/a/manifests/1": "", "/v2/a/blobs/1": "",
	} {
		repo, ref, ok := manifestPath(in)
		if got := strings.TrimSpace(repo + " " + ref); ok && got != want || !ok && want != "" {
			t.Errorf("%s: %q %v, want %q", in, got, ok, want)
		}
	}
}
