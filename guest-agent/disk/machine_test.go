package disk

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const makeRoot = "mmdebstrap --variant=extract --include=cryptsetup-bin,e2fsprogs,btrfs-progs,kmod,linux-image-cloud-amd64/trixie-backports,linux-base/trixie-backports trixie DIR (both suites as sources)"

// TestOnRealDisks boots this test binary as the init of an emulated machine with
// Debian's kernel and cryptsetup, and runs TestMachine* there.
func TestOnRealDisks(t *testing.T) {
	root := os.Getenv("PHALA_GUEST_ROOT")
	if root == "" {
		t.Skip("SKIPPED: PHALA_GUEST_ROOT names no guest root with kernel and modules; made by: " + makeRoot)
	}
	for _, tool := range []string{"qemu-system-x86_64", "cpio"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if libs, err := needed(self); err != nil || len(libs) > 0 {
		t.Skipf("SKIPPED: this test binary is not static (CGO_ENABLED=0): %v %v", libs, err)
	}
	kernels, err := filepath.Glob(filepath.Join(root, "usr/lib/modules/*/vmlinuz"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("%d kernels below %s", len(kernels), root)
	}
	initrd := packRoot(t, root, self, filepath.Base(filepath.Dir(kernels[0])))
	vda := filepath.Join(t.TempDir(), "vda")
	if err := os.WriteFile(vda, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(vda, 1<<30); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	run, serial := "^TestMachine", filepath.Join(t.TempDir(), "serial")
	t.Logf("console: %s", serial)
	if r := os.Getenv("PHALA_GUEST_TESTS"); r != "" {
		run = r
	}
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-M", "q35", "-m", "2048M", "-smp", "2", "-nodefaults", "-nographic", "-no-reboot",
		"-kernel", kernels[0], "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet loglevel=1 tsc=reliable -- -test.v -test.failfast=false -test.run="+run,
		"-drive", "file="+vda+",if=none,id=a,format=raw,cache=unsafe", "-device", "virtio-blk-pci,drive=a", "-serial", "file:"+serial).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	out, err = os.ReadFile(serial)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", bytes.ReplaceAll(out, []byte("\r"), nil))
	if !regexp.MustCompile(`MACHINE: exit 0\s`).Match(out) || bytes.Contains(out, []byte("no tests to run")) {
		t.Error("the tests on the machine did not pass")
	}
}

// needed lists the shared libraries of a program.
func needed(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	libs, err := f.ImportedLibraries()
	return libs, firstError(err, f.Close())
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// kmod runs a tool of the root's own kmod, by the root's own loader.
func kmod(root, name string, args ...string) *exec.Cmd {
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	return exec.Command(filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"),
		append([]string{"--argv0", name, "--library-path", lib, filepath.Join(root, "usr/bin/kmod")}, args...)...)
}

// packRoot makes an initramfs of the tools, their libraries and the modules.
func packRoot(t *testing.T, root, self, version string) string {
	t.Helper()
	if out, err := kmod(root, "depmod", "-b", root, version).CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v: %s", err, out)
	}
	dir := t.TempDir()
	seen := map[string]bool{}
	put := func(rel string) {
		if seen[rel] {
			return
		}
		seen[rel] = true
		b, err := os.ReadFile(filepath.Join(root, rel))
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, rel)
		if err := firstError(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, b, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	var program func(rel string)
	program = func(rel string) {
		put(rel)
		libs, err := needed(filepath.Join(root, rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range libs {
			if l = "usr/lib/x86_64-linux-gnu/" + l; !seen[l] {
				program(l)
			}
		}
	}
	for _, p := range []string{"usr/sbin/cryptsetup", "usr/sbin/mke2fs", "usr/sbin/mkfs.btrfs", "usr/bin/kmod"} {
		program(p)
	}
	put("usr/lib64/ld-linux-x86-64.so.2")
	for _, m := range machineModules() {
		out, err := kmod(root, "modprobe", "-d", root, "-S", version, "--show-depends", m).Output()
		if err != nil {
			t.Logf("module %s: not there (built in?)", m)
		}
		for _, l := range strings.Split(string(out), "\n") {
			if f := strings.Fields(l); len(f) > 1 && f[0] == "insmod" {
				rel, err := filepath.Rel(root, strings.Replace(f[1], root+"/lib/", root+"/usr/lib/", 1))
				if err != nil {
					t.Fatal(err)
				}
				put(rel)
			}
		}
	}
	for _, f := range []string{"modules.dep", "modules.dep.bin", "modules.alias.bin", "modules.symbols.bin", "modules.builtin", "modules.builtin.bin", "modules.softdep"} {
		put("usr/lib/modules/" + version + "/" + f)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	err = firstError(os.WriteFile(filepath.Join(dir, "init"), b, 0o755), os.Symlink("usr/lib", filepath.Join(dir, "lib")),
		os.Symlink("usr/lib64", filepath.Join(dir, "lib64")), os.Symlink("../bin/kmod", filepath.Join(dir, "usr/sbin/modprobe")))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "initrd")
	c := exec.Command("sh", "-c", fmt.Sprintf("find . | cpio -o -H newc --quiet > %s", out))
	c.Dir = dir
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, b)
	}
	return out
}
