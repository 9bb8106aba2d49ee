package volumes

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/imagevolume"
	"github.com/confidential-cloud/phala/internal/registry/volume"
	"github.com/confidential-cloud/phala/internal/verity"
)

// appImage has a static program in one layer and, in a second, a file, a link to it
// and the removal of another.
func appImage(t *testing.T) v1.Image {
	t.Helper()
	src := filepath.Join(t.TempDir(), "main.go")
	prog := "package main\nimport (\"fmt\";\"os\")\nfunc main() { b, _ := os.ReadFile(\"/data/link\"); _, err := os.Stat(\"/gone\"); fmt.Print(string(b), os.IsNotExist(err), os.Getenv(\"X\")); os.WriteFile(\"/new\", nil, 0o600) }\n"
	if err := os.WriteFile(src, []byte(prog), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "app")
	c := exec.Command("go", "build", "-ldflags", "-s -w", "-o", bin, src)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, b)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	img := mutate.MediaType(empty.Image, types.DockerManifestSchema2)
	for _, files := range [][]tar.Header{
		{{Name: "app", Mode: 0o755, Size: int64(len(b))}, {Name: "gone", Mode: 0o644}},
		{{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "data/file", Mode: 0o644, Size: 6}, {Name: "data/link", Typeflag: tar.TypeLink, Linkname: "data/file"}, {Name: ".wh.gone", Mode: 0o644}},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range files {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			switch h.Size {
			case 6:
				_, err = w.Write([]byte("hello "))
			case int64(len(b)):
				_, err = w.Write(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, static.NewLayer(buf.Bytes(), types.DockerUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS = "amd64", "linux"
	cf.Config.Entrypoint, cf.Config.Env = []string{"/app"}, []string{"X=<x>"}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// make pushes the image to a registry of this process and makes a volume of it.
func makeVolume(t *testing.T) (file string, m volume.Made, ref string) {
	t.Helper()
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("SKIPPED: mksquashfs is not installed")
	}
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	ref = strings.TrimPrefix(s.URL, "http://") + "/team/app:1"
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, appImage(t)); err != nil {
		t.Fatal(err)
	}
	img, pulled, err := volume.Pull(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "app.img")
	if m, err = volume.Make(t.Context(), img, pulled, file); err != nil {
		t.Fatal(err)
	}
	again, err := volume.Make(t.Context(), img, pulled, file+"2")
	if err != nil || again.Root != m.Root {
		t.Errorf("made twice: %s and %s, %v", m.Root, again.Root, err)
	}
	if _, err := volume.Make(t.Context(), img, pulled, file); !errors.Is(err, os.ErrExist) {
		t.Errorf("an existing file was taken: %v", err)
	}
	return file, m, ref
}

// whole checks a disk whole, where the kernel has no device mapper.
func whole(loop func(string) string) Verifier {
	return func(ctx context.Context, _, disk string, size int64, root [32]byte) (string, error) {
		f, err := os.Open(disk)
		if err != nil {
			return "", err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return "", err
		}
		if err := verity.Verify(ctx, f, st.Size(), verity.Root{Hash: root, Size: size}); err != nil {
			return "", err
		}
		return loop(disk), nil
	}
}

func loopDevice(t *testing.T) func(string) string {
	return func(file string) string {
		out, err := exec.Command("losetup", "--find", "--show", "--read-only", file).CombinedOutput()
		if err != nil {
			t.Fatalf("losetup: %v %s", err, out)
		}
		dev := strings.TrimSpace(string(out))
		t.Cleanup(func() { _ = exec.Command("losetup", "--detach", dev).Run() })
		return dev
	}
}

// engine starts a dockerd of its own over root, and in a network of its own: a dockerd
// without a bridge removes docker0, which may be another's.
func engine(t *testing.T, root string) func(args ...string) (string, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vol")
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "d.sock")
	c := exec.Command("dockerd", "--data-root", root, "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"), "--host", "unix://"+sock,
		"--bridge", "none", "--iptables=false", "--ip-masq=false", "--storage-driver", "overlay2", "--containerd-namespace", filepath.Base(dir), "--containerd-plugins-namespace", filepath.Base(dir)+"p")
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_, none := net.InterfaceByName("docker0")
	t.Cleanup(func() {
		if _, err := net.InterfaceByName("docker0"); err != nil && none == nil {
			t.Errorf("the machine's docker0 is gone: %v", err)
		}
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
		_ = os.RemoveAll(dir)
	})
	docker := func(args ...string) (string, error) {
		b, err := exec.Command("docker", append([]string{"--host", "unix://" + sock}, args...)...).CombinedOutput()
		return string(b), err
	}
	for end := time.Now().Add(60 * time.Second); ; <-time.After(50 * time.Millisecond) {
		if _, err := docker("version"); err == nil {
			return docker
		}
		if time.Now().After(end) {
			t.Fatalf("dockerd: %s", said.String())
		}
	}
}

// TestContainerFromVolume: a real engine runs a container from the volume, without a
// pull; without the volume, a later boot has no such image.
func TestContainerFromVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("SKIPPED: dockerd is not installed")
	}
	file, m, ref := makeVolume(t)
	root, target := dockerRoot(t), filepath.Join(t.TempDir(), "vol")
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", target).Run() })
	c := Config{Find: func(int) (string, error) { return file, nil }, Verify: whole(loopDevice(t)), DockerRoot: root}
	v := appcompose.VerityVolume{Source: "app.img", Root: m.Root, Target: target}
	if err := Open(t.Context(), c, []appcompose.VerityVolume{v}); err != nil {
		t.Fatal(err)
	}
	t.Run("with it", func(t *testing.T) {
		docker := engine(t, root)
		for _, name := range []string{ref, m.Manifest.Names[0]} {
			if out, err := docker("run", "--rm", "--network", "none", "--pull", "never", name); err != nil || out != "hello true<x>" {
				t.Errorf("%s: %v %q", name, err, out)
			}
		}
	})
	if err := Open(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	t.Run("without it", func(t *testing.T) {
		if out, err := engine(t, root)("run", "--rm", "--network", "none", "--pull", "never", ref); err == nil || !strings.Contains(out, "No such image") {
			t.Errorf("the image is still there: %v %s", err, out)
		}
	})
	left, err := os.ReadDir(filepath.Join(root, "overlay2", "l"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the store: %v %v", left, err)
	}
}

// dockerRoot is a directory on which overlay mounts work.
func dockerRoot(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/var/lib", "phala-volumes-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Errorf("something is still mounted: %v", err)
		}
	})
	t.Cleanup(func() { _ = forget(root) })
	return root
}

func TestVolumesAreRefused(t *testing.T) {
	file, m, _ := makeVolume(t)
	orig, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "vol")
	mapped := whole(func(string) string { t.Error("a bad disk was mapped"); return "/nonexistent" })
	try := func(change func([]byte) []byte, root string) error {
		bad := filepath.Join(t.TempDir(), "bad.img")
		if err := os.WriteFile(bad, change(bytes.Clone(orig)), 0o600); err != nil {
			t.Fatal(err)
		}
		return Open(t.Context(), Config{Find: func(int) (string, error) { return bad, nil }, Verify: mapped}, []appcompose.VerityVolume{{Source: "a", Root: root, Target: target}})
	}
	flip := func(at int64) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	same := func(b []byte) []byte { return b }
	other := strings.Repeat("ab", 32)
	for name, c := range map[string]struct {
		change func([]byte) []byte
		root   string
		reason string
	}{
		"data": {flip(m.DataSize / 2), m.Root, ReasonCorrupt}, "tree": {flip(m.DataSize + 4096 + 7), m.Root, ReasonCorrupt}, "superblock": {flip(m.DataSize), m.Root, ReasonCorrupt},
		"another root": {same, other, ReasonCorrupt}, "no squashfs": {flip(0), m.Root, imagevolume.ReasonVolume}, "cut off": {func(b []byte) []byte { return b[:m.DataSize/2] }, m.Root, imagevolume.ReasonVolume},
		"no tree": {func(b []byte) []byte { return b[:m.DataSize] }, m.Root, ReasonCorrupt}, "empty": {func([]byte) []byte { return nil }, m.Root, imagevolume.ReasonVolume}, "root not hex": {same, "zz", imagevolume.ReasonVolume},
	} {
		if err := try(c.change, c.root); cvm.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	err = Open(t.Context(), Config{Find: func(i int) (string, error) { return "", fmt.Errorf("no phala-vol%d", i) }, Verify: mapped}, []appcompose.VerityVolume{{Source: "a", Root: m.Root, Target: target}})
	if cvm.ReasonOf(err) != ReasonMissing || !strings.Contains(err.Error(), "phala-vol0") {
		t.Errorf("no disk: %v", err)
	}
	if _, err := hex.DecodeString(m.Root); err != nil {
		t.Error(err)
	}
}

// TestForgetLeavesOthersAlone: a list that was tampered with removes nothing outside.
func TestForgetLeavesOthersAlone(t *testing.T) {
	root := t.TempDir()
	keep := filepath.Join(root, "keep")
	if err := os.MkdirAll(keep, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, listName), []byte(`[{"id":"../../../../../keep","layer":"x","cache":"../keep","names":["a:1"]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := forget(root); err == nil {
		t.Error("the list was followed")
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
}
