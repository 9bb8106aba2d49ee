package cloud

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/confidential-cloud/phala/internal/registry"
)

func repoRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// kvImage builds the two-service test app as an image that holds one static binary.
func kvImage(t *testing.T) v1.Image {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "app")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "./test/apps/kv")
	cmd.Dir, cmd.Env = repoRoot(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building kv: %v\n%s", err, out)
	}
	img, err := registry.FromBinary(bin, "app", registry.ImageConfig{Entrypoint: []string{"/app"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func push(t *testing.T, repo, tag string, img v1.Image) {
	t.Helper()
	if _, err := theCloud.Registry().Push(context.Background(), repo, tag, img); err != nil {
		t.Fatal(err)
	}
}

// nodeImage is Debian's Node with the unmodified npm SDK and the wallet app. The
// root filesystem is kept in build/ between runs.
func nodeImage(t *testing.T) v1.Image {
	t.Helper()
	root := repoRoot(t)
	base := filepath.Join(root, "build", "test-node.tar")
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is missing: the Node image of the wallet app cannot be made")
	}
	if out, err := exec.Command(filepath.Join(root, "test", "apps", "wallet", "base.sh"), base).CombinedOutput(); err != nil {
		t.Fatalf("base.sh: %v\n%s", err, out)
	}
	app := t.TempDir()
	for _, f := range []string{"package.json", "package-lock.json", "server.mjs"} {
		copyFile(t, filepath.Join(root, "test", "apps", "wallet", f), filepath.Join(app, f))
	}
	npm := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	npm.Dir = app
	if out, err := npm.CombinedOutput(); err != nil {
		t.Skipf("npm ci failed, so the SDK cannot be had here: %v\n%s", err, out)
	}
	merged := filepath.Join(t.TempDir(), "rootfs.tar")
	mergeTar(t, base, app, "app", merged)
	img, err := registry.FromRootfs(merged, registry.ImageConfig{Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// mergeTar writes base and the files below dir (as name/...) into one tar.
func mergeTar(t *testing.T, base, dir, name, to string) {
	t.Helper()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := tar.NewWriter(out)
	in, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && strings.HasPrefix(h.Name, "./dev/") && h.Typeflag != tar.TypeDir {
			continue
		}
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = io.Copy(w, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: "./" + name + "/" + rel, Mode: 0o644, Size: int64(len(b)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(fmt.Errorf("merging: %w", err))
	}
}
