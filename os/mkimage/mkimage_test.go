package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestInitramfs(t *testing.T) {
	early := []module{{path: "kernel/fs/b.ko", content: []byte("bb")}, {path: "kernel/a.ko", content: []byte("a")}}
	at := time.Unix(1767225600, 0)
	x, err := initramfs([]byte("program"), early, at)
	if err != nil {
		t.Fatal(err)
	}
	y, _ := initramfs([]byte("program"), early, at)
	if !bytes.Equal(x, y) {
		t.Error("two archives of the same files differ")
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("SKIPPED: cpio, the oracle, is not installed")
	}
	z, err := gzip.NewReader(bytes.NewReader(x))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cpio", "-i", "--to-stdout", "--quiet", "modules/list")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.Output(); err != nil || string(out) != "b.ko\na.ko\n" {
		t.Errorf("modules/list %q, %v: want the order in which they are loaded", out, err)
	}
	cmd = exec.Command("cpio", "-t", "--quiet")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.Output(); err != nil || string(out) != "dev\nlayers\nmodules\nnewroot\nproc\nsys\ndev/console\ninit\nmodules/b.ko\nmodules/a.ko\nmodules/list\n" {
		t.Errorf("%s%v", out, err)
	}
}

func TestReadLock(t *testing.T) {
	good := "base bash 5.2.37-2+b9 amd64 " + strings.Repeat("0a", 32) + "\n"
	name := filepath.Join(t.TempDir(), "lock")
	read := func(text string) ([]pkg, error) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readLock(name)
	}
	ps, err := read("# comment\n" + good)
	if err != nil || len(ps) != 1 || ps[0].purl() != "pkg:deb/debian/bash@5.2.37-2+b9?arch=amd64&distro=trixie" {
		t.Errorf("%v, %v", ps, err)
	}
	for _, bad := range []string{"", "# nothing\n", good + "\n", strings.Replace(good, "base", "other", 1), strings.Replace(good, "amd64", "arm64", 1),
		strings.Replace(good, "0a", "0A", 1), good[:len(good)-3] + "\n", strings.Replace(good, "bash", "../bash", 1), good + "base\n"} {
		if ps, err := read(bad); err == nil {
			t.Errorf("accepted %q: %v", bad, ps)
		}
	}
}

func TestModuleIndices(t *testing.T) {
	m := modules{all: []module{
		{path: "kernel/a.ko", name: "a", depends: []string{"b", "c"}, aliases: []string{"pci:v1*"}},
		{path: "kernel/b.ko", name: "b", depends: []string{"c"}},
		{path: "kernel/c.ko", name: "c", soft: []string{"pre: b"}},
	}}
	got := m.indices()
	// What b needs must be loaded before b: it comes after b, for modprobe begins at the end.
	if want := "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\n"; string(got["modules.dep"]) != want {
		t.Errorf("modules.dep:\n%s", got["modules.dep"])
	}
	if string(got["modules.alias"]) != "alias pci:v1* a\n" || string(got["modules.softdep"]) != "softdep c pre: b\n" {
		t.Errorf("%q %q", got["modules.alias"], got["modules.softdep"])
	}
}

func TestParseModuleRefuses(t *testing.T) {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"text": []byte("not an object"), "empty": nil, "a program": program} {
		if m, err := parseModule("kernel/x.ko", b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestRootTarRefuses(t *testing.T) {
	name := filepath.Join(t.TempDir(), "base.tar")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 2048), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readBase(name, time.Unix(0, 0)); err == nil || !strings.Contains(err.Error(), "base.tar") {
		t.Errorf("not a tar: %v", err)
	}
}
