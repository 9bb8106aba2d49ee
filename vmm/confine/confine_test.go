package confine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

const vmID = "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001"

// real is a confiner on this host's groups; the test is skipped where there are none.
func real(t *testing.T, change func(*Config)) *Confiner {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root")
	}
	cfg := Default()
	cfg.Cgroup, cfg.SystemdMark = "phala-test-"+strconv.Itoa(os.Getpid()), "/nonexistent"
	cfg.FirstUID, cfg.UIDs = 64000, 10
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	probe, err := c.Prepare(machine.Machine{ID: "probe", Size: machine.Size{VCPU: 1, MemoryMiB: 64}})
	if err != nil {
		t.Skipf("SKIPPED: no writable control groups here: %v", err)
	}
	_ = probe.Started(0)
	if err := c.Release(t.Context(), "probe"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range c.trees("x") {
			_ = os.Remove(filepath.Dir(dir))
		}
	})
	return c
}

func TestProcessIsConfined(t *testing.T) {
	c := real(t, nil)
	m := machine.Machine{ID: vmID, UID: 64003, Size: machine.Size{VCPU: 2, MemoryMiB: 128}}
	cage, err := c.Prepare(m)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cage.Enter(dir), cage.Own(file)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc/hostname", link); err != nil {
		t.Fatal(err)
	}
	if cage.Own(link) == nil || cage.Show(link) == nil {
		t.Error("a symbolic link was followed")
	}
	st, err := os.Stat(file)
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 64003 {
		t.Fatalf("the VM's file is not its user's: %v %v", st, err)
	}
	cmd := exec.Command("/bin/sh", "-c", "read x; grep -h . /proc/self/status /proc/self/cgroup; id -u; id -G")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	cage.Command(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cage.Started(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(t.Context(), vmID); cvm.CodeOf(err) != cvm.Conflict {
		t.Errorf("released while a process is in it: %v", err)
	}
	if alive := c.Sweep(nil); !slices.Contains(alive, vmID) {
		t.Errorf("sweep does not name the living: %v", alive)
	}
	_, _ = in.Write([]byte("\n"))
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\n64003\n64003\n") {
		t.Errorf("user and groups: %s", out.String())
	}
	if !strings.Contains(out.String(), c.cfg.Cgroup+"/"+vmID) {
		t.Errorf("not in its group: %s", out.String())
	}
	if c.OOMKilled(vmID) {
		t.Error("OOM without one")
	}
	if err := c.Release(t.Context(), vmID); err != nil {
		t.Fatal(err)
	}
	for _, dir := range c.trees(vmID) {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
	if err := c.Release(t.Context(), vmID); err != nil {
		t.Error("a second release:", err)
	}
}

func TestMemoryLimitHolds(t *testing.T) {
	c := real(t, func(c *Config) { c.OverheadMiB = 64 })
	cage, err := c.Prepare(machine.Machine{ID: vmID, Size: machine.Size{VCPU: 1, MemoryMiB: 16}})
	if err != nil {
		t.Fatal(err)
	}
	// 200 MiB in one shell variable, after it was told that it is in its group.
	cmd := exec.Command("/bin/sh", "-c", "read x; y=$(head -c 209715200 /dev/zero | tr '\\0' a); echo ${#y}")
	in, _ := cmd.StdinPipe()
	cage.Command(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cage.Started(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	_, _ = in.Write([]byte("\n"))
	err = cmd.Wait()
	oom := c.OOMKilled(vmID)
	if rerr := c.Release(t.Context(), vmID); rerr != nil {
		t.Error(rerr)
	}
	if err == nil || !oom {
		t.Errorf("200 MiB in a group of 80: %v, out of memory %v", err, oom)
	}
}

// TestVersion2Files: what is written, on a tree that looks like the kernel's.
func TestVersion2Files(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "phala", vmID)
	touch := func(dir string, names ...string) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	touch(root, "cgroup.controllers", "cgroup.subtree_control")
	touch(filepath.Dir(dir), "cgroup.subtree_control")
	touch(dir, "memory.max", "memory.oom.group", "cpu.max", "cpu.weight", "pids.max") // no swap here
	cfg := Default()
	cfg.Root, cfg.SystemdMark = root, "/nonexistent"
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cage, err := c.Prepare(machine.Machine{ID: vmID, Size: machine.Size{VCPU: 4, MemoryMiB: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/true")
	cage.Command(cmd)
	if !cmd.SysProcAttr.UseCgroupFD || !cmd.SysProcAttr.Setsid {
		t.Error("the process is not born in its group")
	}
	_ = cage.Started(0)
	for name, want := range map[string]string{
		"memory.max": "1879048192", "memory.oom.group": "1", "cpu.max": "500000 100000", "cpu.weight": "400", "pids.max": "320",
		"../cgroup.subtree_control": "+memory +cpu +pids", "../../cgroup.subtree_control": "+memory +cpu +pids",
	} {
		if b, _ := os.ReadFile(filepath.Join(dir, name)); string(b) != want {
			t.Errorf("%s: %q, want %q", name, b, want)
		}
	}
	touch(dir, "memory.events")
	_ = os.WriteFile(filepath.Join(dir, "memory.events"), []byte("oom 3\noom_kill 2\n"), 0o600)
	if !c.OOMKilled(vmID) {
		t.Error("an OOM kill is not seen")
	}
}

// TestVersion2InAKernel: on a real tree of version 2 the process is born in its group,
// which is not removed while it lives. The limits need the controllers, which a kernel
// gives to one version only: where version 1 has them, they are not looked at.
func TestVersion2InAKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root")
	}
	root := t.TempDir()
	if err := syscall.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		t.Skipf("SKIPPED: no control groups of version 2 here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	cfg := Default()
	cfg.Root, cfg.Cgroup, cfg.SystemdMark = root, "phala-test-"+strconv.Itoa(os.Getpid()), "/nonexistent"
	c, err := New(cfg)
	if err != nil || !c.v2 {
		t.Fatalf("version 2 is not seen: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(filepath.Join(root, cfg.Cgroup)) })
	m := machine.Machine{ID: vmID, Size: machine.Size{VCPU: 2, MemoryMiB: 64}}
	b, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	have := strings.Fields(string(b))
	cage, err := c.Prepare(m)
	if limited := slices.Contains(have, "memory") && slices.Contains(have, "cpu") && slices.Contains(have, "pids"); !limited {
		if cvm.CodeOf(err) != cvm.Unavailable || cvm.ReasonOf(err) != "confine" {
			t.Errorf("limits that the kernel does not hold here: %v", err)
		}
		t.Logf("the limits are not looked at: this kernel's version 2 has only the controllers %q", have)
		if err := os.MkdirAll(c.group("", vmID), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(c.group("", vmID))
		if err != nil {
			t.Fatal(err)
		}
		cage = &Cage{c: c, id: vmID, fd: f}
	} else if err != nil {
		t.Fatal(err)
	} else if b, _ := os.ReadFile(filepath.Join(c.group("", vmID), "pids.max")); strings.TrimSpace(string(b)) != "288" {
		t.Errorf("pids.max %q", b)
	}
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cage.Command(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cage.Started(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "cgroup")); !strings.Contains(string(b), "0::/"+cfg.Cgroup+"/"+vmID+"\n") {
		t.Errorf("the process was born in %s", b)
	}
	if alive := c.Sweep(nil); !slices.Equal(alive, []string{vmID}) {
		t.Errorf("alive are %v", alive)
	}
	if err := c.Release(t.Context(), vmID); cvm.CodeOf(err) != cvm.Conflict || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("a group in use is removed: %v", err)
	}
	_ = in.Close()
	_ = cmd.Wait()
	if err := c.Release(t.Context(), vmID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.group("", vmID)); !os.IsNotExist(err) {
		t.Errorf("the group is left: %v", err)
	}
}

func TestSystemdScope(t *testing.T) {
	cfg := Default()
	cfg.SystemdMark, cfg.FirstUID, cfg.UIDs, cfg.Groups = t.TempDir(), 64000, 10, []uint32{104, 36}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cage, err := c.Prepare(machine.Machine{ID: vmID, UID: 64001, Size: machine.Size{VCPU: 2, MemoryMiB: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/qemu", "-m", "1024M")
	cage.Command(cmd)
	want := "/usr/bin/systemd-run --scope --collect --quiet --unit=phala-vm-" + vmID + ".scope --slice=phala" +
		" -p MemoryMax=1879048192 -p MemorySwapMax=0 -p CPUQuota=300% -p CPUWeight=200 -p TasksMax=288 --" +
		" /usr/bin/setpriv --reuid=64001 --regid=64001 --groups=104,36 --no-new-privs -- /usr/bin/qemu -m 1024M"
	if got := strings.Join(cmd.Args, " "); got != want || cmd.Path != "/usr/bin/systemd-run" || cmd.SysProcAttr.Credential != nil {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	c := &Confiner{cfg: Config{FirstUID: 64000, UIDs: 10, Cgroup: "phala", Root: t.TempDir()}}
	for _, m := range []machine.Machine{
		{ID: vmID, UID: 1}, {ID: vmID, UID: 64010}, {ID: "../up"}, {ID: ""}, {ID: ".."},
	} {
		if _, err := c.Prepare(m); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%q user %d: %v", m.ID, m.UID, err)
		}
	}
	for name, change := range map[string]func(*Config){
		"system users": func(c *Config) { c.FirstUID, c.UIDs = 1, 5 }, "no overhead": func(c *Config) { c.OverheadMiB = 0 },
		"path": func(c *Config) { c.Cgroup = "../x" }, "systemd": func(c *Config) { c.Systemd = "maybe" },
	} {
		cfg := Default()
		change(&cfg)
		if _, err := New(cfg); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	var none *Confiner
	cage, err := none.Prepare(machine.Machine{ID: "../x"})
	if err != nil || cage.Started(1) != nil || none.Release(t.Context(), vmID) != nil {
		t.Error("a nil confiner must do nothing")
	}
}
