package verity

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

// image makes a file of n data blocks with its tree behind them.
func image(t *testing.T, blocks int, salt []byte) (*os.File, Root) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "rootfs.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	r := rand.NewChaCha8([32]byte{byte(blocks)})
	data := make([]byte, blocks*BlockSize)
	_, _ = r.Read(data)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	size := int64(len(data))
	root, err := Build(context.Background(), f, Superblock{UUID: [16]byte{1}, DataBlocks: uint64(blocks), Salt: salt}, f, size)
	if err != nil {
		t.Fatal(err)
	}
	return f, Root{Hash: root, Size: size}
}

func sizeOf(t *testing.T, f *os.File) int64 {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

var counts = []int{1, 2, 127, 128, 129, 255, 256, 128*128 - 1, 128 * 128, 128*128 + 1}

func TestBuildThenVerify(t *testing.T) {
	for _, n := range counts {
		f, root := image(t, n, []byte("salt"))
		if err := Verify(t.Context(), f, sizeOf(t, f), root); err != nil {
			t.Errorf("%d blocks: %v", n, err)
		}
		if s, err := ReadSuperblock(f, sizeOf(t, f), root); err != nil || sizeOf(t, f) != root.Size+s.Size() {
			t.Errorf("%d blocks: %d bytes, %v", n, sizeOf(t, f), err)
		}
	}
}

// TestLikeVeritysetup: cryptsetup's own tool makes and accepts the same trees.
func TestLikeVeritysetup(t *testing.T) {
	tool, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("SKIPPED: veritysetup is not installed")
	}
	for _, n := range counts {
		f, root := image(t, n, []byte{1, 2, 3})
		out, err := exec.Command(tool, "verify", f.Name(), f.Name(), hex.EncodeToString(root.Hash[:]), fmt.Sprint("--hash-offset=", root.Size)).CombinedOutput()
		if err != nil {
			t.Errorf("%d blocks: veritysetup refuses ours: %v: %s", n, err, out)
		}
		theirs := filepath.Join(t.TempDir(), "theirs")
		data := make([]byte, root.Size)
		if _, err := f.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(theirs, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err = exec.Command(tool, "format", theirs, theirs, fmt.Sprint("--hash-offset=", root.Size), "--salt=010203", "--uuid=01000000-0000-0000-0000-000000000000").CombinedOutput()
		if err != nil || !strings.Contains(string(out), hex.EncodeToString(root.Hash[:])) {
			t.Fatalf("%d blocks: %v, want root hash %x: %s", n, err, root.Hash, out)
		}
		a, _ := os.ReadFile(f.Name())
		b, _ := os.ReadFile(theirs)
		if !bytes.Equal(a, b) {
			t.Errorf("%d blocks: the files differ", n)
		}
	}
}

func TestChangedBytesAreRefused(t *testing.T) {
	f, root := image(t, 300, nil)
	size := sizeOf(t, f)
	flip := func(at int64) {
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		at     int64
		reason string
	}{
		{"first data byte", 0, "rootfs-corrupt"},
		{"last data byte", root.Size - 1, "rootfs-corrupt"},
		{"superblock magic", root.Size, "rootfs-superblock"},
		{"superblock salt size", root.Size + 80, "rootfs-corrupt"}, // a salt of one zero byte: another tree
		{"superblock salt", root.Size + 88, "rootfs-superblock"},
		{"superblock data blocks", root.Size + 72, "rootfs-superblock"},
		{"top of the tree", root.Size + BlockSize, "rootfs-corrupt"},
		{"padding of the top", root.Size + 2*BlockSize - 1, "rootfs-corrupt"},
		{"last byte of the tree", size - 1, "rootfs-corrupt"},
	} {
		flip(c.at)
		if err := Verify(t.Context(), f, size, root); cvm.ReasonOf(err) != c.reason {
			t.Errorf("%s: want %s, got %v", c.name, c.reason, err)
		}
		flip(c.at)
	}
	other := root
	other.Hash[31] ^= 1
	if err := Verify(t.Context(), f, size, other); cvm.ReasonOf(err) != "rootfs-hash-mismatch" {
		t.Errorf("another root hash: %v", err)
	}
	if err := Verify(t.Context(), f, size-1, root); cvm.ReasonOf(err) != "rootfs-superblock" {
		t.Errorf("a file that ends early: %v", err)
	}
	if err := f.Truncate(size - BlockSize); err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), f, -1, root); cvm.ReasonOf(err) != "rootfs-corrupt" {
		t.Errorf("a device that ends early: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Verify(gone, f, size-BlockSize, root); err == nil {
		t.Error("verified after the context ended")
	}
}

func TestParseCmdline(t *testing.T) {
	h := strings.Repeat("ab", 32)
	good := "console=ttyS0 dstack.rootfs_hash=" + h + " dstack.rootfs_size=8192"
	if r, err := ParseCmdline(good); err != nil || r.Size != 8192 || r.Hash[0] != 0xab {
		t.Fatalf("%v %v", r, err)
	}
	for name, c := range map[string]string{
		"empty": "", "no size": "dstack.rootfs_hash=" + h, "no hash": "dstack.rootfs_size=4096", "hash twice": good + " dstack.rootfs_hash=" + h,
		"size twice": good + " dstack.rootfs_size=4096", "upper case": strings.ReplaceAll(good, "ab", "AB"), "short": strings.Replace(good, "abab", "", 1),
		"not whole blocks": strings.Replace(good, "8192", "8193", 1), "zero": strings.Replace(good, "8192", "0", 1), "sign": strings.Replace(good, "8192", "+8192", 1),
		"huge": strings.Replace(good, "8192", "9223372036854775807", 1), "negative": strings.Replace(good, "8192", "-4096", 1),
	} {
		if _, err := ParseCmdline(c); cvm.ReasonOf(err) != "cmdline" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Superblock{DataBlocks: 1}.Bytes())
	f.Add(Superblock{DataBlocks: 77, Salt: []byte("salt"), UUID: [16]byte{9}}.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err == nil && !bytes.Equal(s.Bytes(), b) {
			t.Fatalf("accepted, but re-encodes differently: %x", b)
		}
	})
}

// FuzzVerify: no bytes but the right ones give the root hash, and none panic.
func FuzzVerify(f *testing.F) {
	var good bytes.Buffer
	good.Write(bytes.Repeat([]byte{7}, 3*BlockSize))
	w := make(writerAt, 2*BlockSize)
	root, err := Build(context.Background(), bytes.NewReader(good.Bytes()), Superblock{DataBlocks: 3}, w, 0)
	if err != nil {
		f.Fatal(err)
	}
	good.Write(w)
	f.Add(good.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		err := Verify(context.Background(), bytes.NewReader(b), int64(len(b)), Root{root, 3 * BlockSize})
		same := len(b) >= good.Len() && bytes.Equal(b[:3*BlockSize], good.Bytes()[:3*BlockSize])
		if err == nil && !same {
			t.Fatal("other data was accepted")
		}
	})
}

type writerAt []byte

func (w writerAt) WriteAt(p []byte, at int64) (int, error) { return copy(w[at:], p), nil }
