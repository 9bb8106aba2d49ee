package initramfs

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/internal/verity"
)

// testImage is a small image with the real kernel, firmware and initramfs.
type testImage struct {
	dir, cmdline string
	root         verity.Root
	rootfs       []byte
}

// buildImage makes it with os/mkimage, from the packages that os/build.sh left in its
// cache and a root filesystem of two files.
func buildImage(t *testing.T) testImage {
	t.Helper()
	boots, _ := filepath.Glob("../../os/cache/boot-*")
	if len(boots) == 0 {
		t.Skip("SKIPPED: no kernel in os/cache: os/build.sh prod makes it")
	}
	for _, p := range []string{"qemu-system-x86_64", "mksquashfs", "xz"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("SKIPPED: " + p + " is not installed")
		}
	}
	dir := t.TempDir()
	build := func(out, pkg string) string {
		path := filepath.Join(dir, out)
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		return path
	}
	mkimage, program, agent := build("mkimage", "../../os/mkimage"), build("init", "../../cmd/phala-initramfs"), build("agent", "./testdata/agent")
	// Random bytes do not compress: the agent fills the first half of the image and a
	// file that only it reads the second, so that a byte of each can be found.
	blob := make([]byte, 4<<20)
	seed := rand.NewChaCha8([32]byte{4})
	_, _ = seed.Read(blob)
	f, err := os.OpenFile(agent, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(blob)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = seed.Read(blob)
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := write("base.tar", baseTar(t, blob))
	list, err := os.ReadFile("../../os/modules")
	if err != nil {
		t.Fatal(err)
	}
	early, _, _ := strings.Cut(string(list), "[disks]")
	img := testImage{dir: filepath.Join(dir, "image")}
	if err := os.Mkdir(img.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(mkimage, "-base", base, "-agent", agent, "-init", program, "-boot", boots[len(boots)-1], "-modules", write("modules", []byte(early)),
		"-lock", "../../os/packages.lock", "-version", "0.0.0", "-epoch", "1", "-level", "1", "-out", img.dir)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mkimage: %v\n%s", err, b)
	}
	img.read(t)
	return img
}

func (img *testImage) read(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(img.dir, "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	var meta struct{ Cmdline string }
	if err := json.Unmarshal(b, &meta); err != nil {
		t.Fatal(err)
	}
	img.cmdline = meta.Cmdline
	if img.root, err = verity.ParseCmdline(meta.Cmdline); err != nil {
		t.Fatal(err)
	}
	if img.rootfs, err = os.ReadFile(filepath.Join(img.dir, "rootfs.img")); err != nil {
		t.Fatal(err)
	}
	if err := verity.Verify(t.Context(), bytes.NewReader(img.rootfs), int64(len(img.rootfs)), img.root); err != nil {
		t.Fatalf("the image that was built: %v", err)
	}
}

func baseTar(t *testing.T, blob []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, d := range []string{"dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "usr/lib", "usr/share", "var", "var/lib"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string][]byte{"usr/lib/os-release": []byte("ID=test\n"), "usr/share/blob": blob} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// machine boots the image under emulation with these disks and returns the console.
func (img testImage) machine(t *testing.T, firmware bool, cmdline string, rootfs ...[]byte) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	args := []string{"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-M", "q35,hpet=off", "-m", "512M", "-smp", "1", "-nodefaults", "-nographic", "-no-reboot",
		"-serial", "stdio", "-kernel", filepath.Join(img.dir, "bzImage"), "-initrd", filepath.Join(img.dir, "initramfs.cpio.gz"), "-append", cmdline}
	if firmware {
		args = append(args, "-bios", filepath.Join(img.dir, "ovmf.fd"))
	}
	dir := t.TempDir()
	for i, b := range rootfs {
		name := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", "if=none,format=raw,readonly=on,id="+filepath.Base(name)+",file="+name,
			"-device", "virtio-blk-pci,serial="+Serial+",drive="+filepath.Base(name))
	}
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu: %v\n%s", err, tail(out))
	}
	return string(out)
}

func tail(b []byte) string { return string(b[max(0, len(b)-3000):]) }

func (img testImage) flipped(at int64) []byte {
	b := bytes.Clone(img.rootfs)
	b[at] ^= 1
	return b
}

// TestBoot boots a good image and bad ones; each refusal says its reason on the console
// and the agent is never started.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: boots machines")
	}
	img := buildImage(t)
	t.Run("good", func(t *testing.T) {
		out := img.machine(t, true, img.cmdline, img.rootfs)
		for _, want := range []string{"AGENT pid=1 args=init root=false usr=false etc=true var=true run=true tmp=true", "READ <nil>",
			"MOUNT / squashfs", "MOUNT /etc overlay", "MOUNT /var overlay", "MOUNT /run tmpfs", "MOUNT /dev devtmpfs"} {
			if !strings.Contains(out, want) {
				t.Errorf("the console lacks %q", want)
			}
		}
		if strings.Count(out, "MOUNT") != 9 { // and /, /proc, /sys, /tmp, /root: nothing of the initramfs is left
			t.Error("other mounts than the nine")
		}
		if t.Failed() {
			t.Log(tail([]byte(out)))
		}
	})
	size, tree := img.root.Size, img.root.Size+verity.BlockSize
	other := regexp.MustCompile(verity.HashKey+`=\w`).ReplaceAllString(img.cmdline, verity.HashKey+"=x")
	other = strings.Replace(other, "=x", "="+string("01"[b2i(img.root.Hash[0]>>4 == 0)]), 1)
	for _, c := range []struct {
		name, reason, cmdline string
		everyDay              bool
		disks                 [][]byte
	}{
		{"a byte of the agent flipped", ReasonCorrupt, img.cmdline, true, [][]byte{img.flipped(size / 4)}},
		{"a byte of the squashfs superblock flipped", ReasonCorrupt, img.cmdline, false, [][]byte{img.flipped(40)}},
		{"a byte of the hash tree's leaves flipped", ReasonCorrupt, img.cmdline, false, [][]byte{img.flipped(tree + verity.BlockSize)}},
		{"a byte of the hash tree's top flipped", "rootfs-hash-mismatch", img.cmdline, false, [][]byte{img.flipped(tree)}},
		{"another root hash on the command line", "rootfs-hash-mismatch", other, false, [][]byte{img.rootfs}},
		{"another size on the command line", "rootfs-superblock", strings.Replace(img.cmdline, verity.SizeKey+"=", verity.SizeKey+"=4096 x=", 1), false, [][]byte{img.rootfs}},
		{"a byte of the verity superblock flipped", "rootfs-superblock", img.cmdline, false, [][]byte{img.flipped(size + 8)}},
		{"truncated", "rootfs-superblock", img.cmdline, false, [][]byte{img.rootfs[:size+2*verity.BlockSize]}},
		{"no disk", ReasonMissing, img.cmdline, false, nil},
		{"two disks", ReasonMissing, img.cmdline, false, [][]byte{img.rootfs, img.rootfs}},
		{"no root hash", "cmdline", "console=ttyS0 panic=1", false, [][]byte{img.rootfs}},
	} {
		t.Run(c.name, func(t *testing.T) {
			everyDay(t, c.everyDay)
			out := img.machine(t, false, c.cmdline, c.disks...)
			if !strings.Contains(out, "\nphala-initramfs: "+c.reason+": ") || strings.Contains(out, "AGENT") {
				t.Errorf("want the refusal %s and no agent:\n%s", c.reason, tail([]byte(out)))
			}
		})
	}
	t.Run("a byte flipped that is read later", func(t *testing.T) {
		everyDay(t, false)
		out := img.machine(t, false, img.cmdline, img.flipped(size*9/10))
		if !strings.Contains(out, "AGENT") || strings.Contains(out, "READ") || !strings.Contains(out, "dm-verity device corrupted") {
			t.Errorf("want a machine that stops at the damaged block:\n%s", tail([]byte(out)))
		}
	})
}

func everyDay(t *testing.T, always bool) {
	t.Helper()
	if !always && os.Getenv("PHALA_VM") != "1" {
		t.Skip("SKIPPED: boots one more machine; PHALA_VM=1 runs it")
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
