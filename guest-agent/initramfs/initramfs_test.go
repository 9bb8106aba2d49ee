package initramfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/verity"
)

func TestVerityTable(t *testing.T) {
	root := verity.Root{Size: 40960}
	root.Hash[31] = 0xab
	s := verity.Superblock{DataBlocks: 10, Salt: []byte{1, 2}}
	hash := strings.Repeat("0", 62) + "ab"
	if got, want := verityTable("/dev/vda", root, s), "1 /dev/vda /dev/vda 4096 4096 10 11 sha256 "+hash+" 0102"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s.Salt = nil
	if got, want := verityTable("/dev/vdb", root, s, panicOption), "1 /dev/vdb /dev/vdb 4096 4096 10 11 sha256 "+hash+" - 1 panic_on_corruption"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTarget(t *testing.T) {
	b := target("verity", 80, "params")
	if len(b)%8 != 0 || binary.NativeEndian.Uint64(b[8:]) != 80 || int(binary.NativeEndian.Uint32(b[20:])) != len(b) {
		t.Errorf("dm_target_spec % x", b)
	}
	if string(bytes.TrimRight(b[24:40], "\x00")) != "verity" || !bytes.HasPrefix(b[unix.SizeofDmTargetSpec:], []byte("params\x00")) {
		t.Errorf("dm_target_spec % x", b)
	}
}

// TestCheckTop: the disk of another image is told from a damaged one.
func TestCheckTop(t *testing.T) {
	data := bytes.Repeat([]byte("phala"), 3*verity.BlockSize/5+5)[:3*verity.BlockSize]
	name := filepath.Join(t.TempDir(), "rootfs.img")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := verity.Superblock{DataBlocks: 3, Salt: []byte("salt")}
	hash, err := verity.Build(t.Context(), f, s, f, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	root := verity.Root{Hash: hash, Size: int64(len(data))}
	if err := checkTop(f, root, s); err != nil {
		t.Errorf("a good disk: %v", err)
	}
	single := verity.Root{Hash: sha256.Sum256(append([]byte("salt"), data[:verity.BlockSize]...)), Size: verity.BlockSize}
	if err := checkTop(f, single, verity.Superblock{DataBlocks: 1, Salt: []byte("salt")}); err != nil {
		t.Errorf("a disk of one block: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*verity.Root, *verity.Superblock)
		reason string
	}{
		"root hash": {func(r *verity.Root, _ *verity.Superblock) { r.Hash[0] ^= 1 }, "rootfs-hash-mismatch"},
		"salt":      {func(_ *verity.Root, s *verity.Superblock) { s.Salt = []byte("pepper") }, "rootfs-hash-mismatch"},
		"no tree":   {func(r *verity.Root, _ *verity.Superblock) { r.Size += 2 * verity.BlockSize }, ReasonCorrupt},
	} {
		r, s := root, s
		c.change(&r, &s)
		if err := checkTop(f, r, s); cvm.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v (reason %q, want %s)", name, err, cvm.ReasonOf(err), c.reason)
		}
	}
}

func TestFindDisk(t *testing.T) {
	sys := t.TempDir()
	disk := func(name, serial string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(sys, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if serial != "" {
			if err := os.WriteFile(filepath.Join(sys, name, "serial"), []byte(serial+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk("loop0", "")
	disk("vda", "phala-data")
	_, err := findDisk(sys, Serial, time.Millisecond)
	if cvm.ReasonOf(err) != ReasonMissing || !strings.Contains(err.Error(), "vda=phala-data") {
		t.Errorf("no such disk: %v", err)
	}
	disk("vdb", Serial)
	if name, err := findDisk(sys, Serial, time.Millisecond); err != nil || name != "vdb" {
		t.Errorf("got %q, %v", name, err)
	}
	disk("vdc", Serial)
	if name, err := findDisk(sys, Serial, time.Millisecond); cvm.ReasonOf(err) != ReasonMissing {
		t.Errorf("two disks with the serial number: got %q, %v", name, err)
	}
}

func TestLoadModules(t *testing.T) {
	dir := t.TempDir()
	if err := loadModules(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no list: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte("missing.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadModules(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a listed module is absent: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "missing.ko"), []byte("not a module"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadModules(dir); err == nil || !strings.Contains(err.Error(), "missing.ko") {
		t.Errorf("not a module: %v", err)
	}
}

func TestLine(t *testing.T) {
	if got := Line(cvm.Errorf(cvm.Invalid, "one\ntwo").WithReason("rootfs-missing")); got != "rootfs-missing: one two" {
		t.Error(got)
	}
	if got := Line(guarded(func() error { panic("boom") })); got != "init: panic: boom" {
		t.Error(got)
	}
}

func TestNotPID1(t *testing.T) {
	if err := boot(); err == nil || !strings.Contains(err.Error(), "first program") {
		t.Errorf("boot outside a machine: %v", err)
	}
}
