package confine

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/internal/cpio"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// TestScopeUnderSystemd: a process starts in a scope with its limits, as its user, and
// the scope goes with it.
func TestScopeUnderSystemd(t *testing.T) {
	if _, err := os.Stat(Default().SystemdMark); err != nil || os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root and a running systemd (TestInAMachine brings one: PHALA_VM=1)")
	}
	cfg := Default()
	cfg.Cgroup, cfg.FirstUID, cfg.UIDs, cfg.Groups, cfg.OverheadMiB = "phalatest", 64000, 10, []uint32{36}, 64
	c, err := New(cfg)
	if err != nil || !c.systemd {
		t.Fatalf("systemd is not seen: %v", err)
	}
	// run gives what script writes, and how it ended.
	run := func(script string) (string, error) {
		cage, err := c.Prepare(machine.Machine{ID: vmID, UID: 64003, Size: machine.Size{VCPU: 2, MemoryMiB: 16}})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		cage.Command(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := cage.Started(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		err = errors.Join(cmd.Wait(), c.Release(t.Context(), vmID))
		return out.String(), err
	}
	group := "/phalatest.slice/phala-vm-" + vmID + ".scope"
	out, err := run(`cat /proc/self/cgroup; cd /sys/fs/cgroup` + group + ` && cat memory.max memory.swap.max cpu.max cpu.weight pids.max; echo pid $$; id -u; id -G; grep NoNewPrivs /proc/self/status`)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"0::" + group + "\n", "83886080\n0\n300000 100000\n200\n288\n", "\n64003\n64003 36\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	// 200 MiB in one shell variable.
	if out, err := run(`y=$(head -c 209715200 /dev/zero | tr '\0' a); echo ${#y}`); err == nil {
		t.Errorf("200 MiB in a scope of 80: %s", out)
	}
	for range 50 { // systemd collects a scope when it is told that its group is empty
		if _, err = os.Stat("/sys/fs/cgroup" + group); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("the scope is left")
}

// TestInAMachine runs the tests of this package where control groups are of version 2
// with all controllers and systemd is the first process: in an emulated machine with
// the image's kernel and Debian's systemd.
func TestInAMachine(t *testing.T) {
	if os.Getenv("PHALA_VM") != "1" {
		t.Skip("SKIPPED: installs a system and boots a machine with it (PHALA_VM=1)")
	}
	kernels, _ := filepath.Glob("../../build/images/phala-*/bzImage")
	if len(kernels) == 0 {
		t.Skip("SKIPPED: no built image (make image)")
	}
	for _, p := range []string{"qemu-system-x86_64", "mmdebstrap"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("SKIPPED: " + p + " is not installed")
		}
	}
	initrd := systemInitrd(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-M", "q35,hpet=off", "-m", "1536M", "-smp", "2",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-kernel", kernels[0], "-initrd", initrd,
		"-append", "console=ttyS0 panic=1 oops=panic tsc=reliable no_timer_check quiet rdinit=/lib/systemd/systemd systemd.unit=confine.service systemd.show_status=false").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	for _, name := range []string{"TestProcessIsConfined", "TestMemoryLimitHolds", "TestVersion2InAKernel", "TestScopeUnderSystemd"} {
		if !strings.Contains(string(out), "--- PASS: "+name) {
			t.Errorf("%s did not pass in the machine", name)
		}
	}
}

// systemInitrd is an initramfs with a small Debian whose only work is this test binary.
func systemInitrd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	system := filepath.Join(dir, "system.tar")
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv", "bookworm", system)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no Debian to be installed from here: %v\n%s", err, out)
	}
	var a cpio.Archive
	f, err := os.Open(system)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Trim(strings.TrimPrefix(h.Name, "."), "/")
		if name == "" || strings.HasPrefix(name, "usr/share/doc/") || strings.HasPrefix(name, "usr/share/locale/") || strings.HasPrefix(name, "var/cache/") {
			continue
		}
		switch mode := int(h.Mode); h.Typeflag {
		case tar.TypeDir:
			a.Add(name, cpio.Dir|mode, 0, 0, nil)
		case tar.TypeSymlink:
			a.Add(name, cpio.Link|0o777, 0, 0, []byte(h.Linkname))
		case tar.TypeReg:
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			a.Add(name, cpio.File|mode, 0, 0, b)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	a.Add("confine.test", cpio.File|0o755, 0, 0, program)
	a.Add("etc/systemd/system/confine.service", cpio.File|0o644, 0, 0, []byte(`[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/confine.test -test.v
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
`))
	b, err := a.Gzip()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
