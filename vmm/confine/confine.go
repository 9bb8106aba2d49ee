// Package confine gives each machine's hypervisor process walls of its own: a
// user id, a control group with limits on memory, CPU and tasks, a process group.
//
// A driver calls, for one run of a machine:
//
//	cage, err := confiner.Prepare(m)        // the group and its limits, before anything runs
//	err = cage.Enter(dir)                   // and Own, Show: the files it may write and read
//	cmd := exec.Command(qemu, args...)
//	cage.Command(cmd)                       // user, session, group: changes cmd in place
//	err = cmd.Start()
//	err = cage.Started(cmd.Process.Pid)     // version 1 groups are joined here
//
// and when the run has ended (also of a run that an earlier VMM started):
//
//	oom := confiner.OOMKilled(id)
//	err = confiner.Release(ctx, id)
//
// Nothing is remembered in memory: everything follows from the machine's id, so a
// new VMM finds the groups of its predecessor. A nil *Confiner confines nothing.
package confine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Config of the walls, part of the VMM's file.
type Config struct {
	// FirstUID and UIDs are the user ids for hypervisors, one per VM, used by nothing
	// else on the host. UIDs 0: they run as the VMM's own user.
	FirstUID int `toml:"first_uid"`
	UIDs     int `toml:"uids"`
	// Groups are the supplementary group ids of hypervisors: those of /dev/kvm and
	// of the TEE's device.
	Groups []uint32 `toml:"groups"`
	// Cgroup is the name of the group that holds the VMs' groups; "" is none: no limits.
	Cgroup string `toml:"cgroup"`
	// OverheadMiB is what a hypervisor may use beside its guest's memory.
	OverheadMiB int `toml:"overhead_mib"`
	// Systemd: "auto" starts hypervisors in scopes of their own where systemd is the
	// first process, "never" does not.
	Systemd string `toml:"systemd"`

	// Root of the groups' file system and mark of a running systemd, for tests.
	Root        string `toml:"-"`
	SystemdMark string `toml:"-"`
}

// Default sets limits if the VMM may (as root), and no user ids: which are free only
// the host's owner knows.
func Default() Config {
	c := Config{OverheadMiB: 768, Systemd: "auto", Root: "/sys/fs/cgroup", SystemdMark: "/run/systemd/system"}
	if os.Geteuid() == 0 {
		c.Cgroup = "phala"
	}
	return c
}

// Validate returns all problems at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if c.UIDs < 0 || c.UIDs > 1<<20 || (c.UIDs > 0 && (c.FirstUID < 1000 || c.FirstUID+c.UIDs > math.MaxInt32)) {
		bad("confine: first_uid %d, uids %d: want a range of at most 2^20 user ids that begins at 1000 or later", c.FirstUID, c.UIDs)
	}
	if c.Cgroup != "" && (!filepath.IsLocal(c.Cgroup) || filepath.Clean(c.Cgroup) != c.Cgroup || c.Cgroup == ".") {
		bad("confine.cgroup %q: want a name like phala", c.Cgroup)
	}
	if c.OverheadMiB < 64 {
		bad("confine.overhead_mib %d: a hypervisor needs 64 at the least", c.OverheadMiB)
	}
	if c.Systemd != "auto" && c.Systemd != "never" {
		bad("confine.systemd %q: want auto or never", c.Systemd)
	}
	return errors.Join(errs...)
}

// Confiner makes cages. Safe for concurrent use.
type Confiner struct {
	cfg     Config
	systemd bool
	v2      bool
}

// New looks which kind of groups the host has. It makes nothing.
func New(cfg Config) (*Confiner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Confiner{cfg: cfg}
	if cfg.Systemd == "auto" {
		_, err := os.Stat(cfg.SystemdMark)
		c.systemd = err == nil
	}
	_, err := os.Stat(filepath.Join(cfg.Root, "cgroup.controllers"))
	c.v2 = err == nil
	return c, nil
}

// Cage confines one run of one machine.
type Cage struct {
	c   *Confiner
	id  string
	uid int
	lim limits
	fd  *os.File // the group of version 2, open until Started
}

// limits in the units of the group files.
type limits struct {
	memory int64 // bytes, of guest and hypervisor
	cpus   int   // the quota, in whole CPUs
	weight int   // 1 to 10000, the default is 100
	tasks  int
}

func (c *Confiner) limits(m *machine.Machine) limits {
	return limits{
		memory: int64(m.Size.MemoryMiB+c.cfg.OverheadMiB) << 20,
		// One more for the threads that do input and output.
		cpus: m.Size.VCPU + 1, weight: min(100*max(m.Size.VCPU, 1), 10000),
		tasks: 256 + 16*m.Size.VCPU,
	}
}

// Prepare makes the group of m with its limits; one that is left of an earlier run
// is used again. Code invalid for a user id outside the range, unavailable when
// the kernel refuses.
func (c *Confiner) Prepare(m machine.Machine) (*Cage, error) {
	if c == nil {
		return &Cage{}, nil
	}
	if m.UID != 0 && (m.UID < c.cfg.FirstUID || m.UID >= c.cfg.FirstUID+c.cfg.UIDs) {
		return nil, cvm.Errorf(cvm.Invalid, "machine %s: user id %d is not in confine's range", m.ID, m.UID)
	}
	if m.ID == "" || filepath.Base(m.ID) != m.ID || m.ID == ".." || m.ID == "." {
		return nil, cvm.Errorf(cvm.Invalid, "machine id %q cannot name a control group", m.ID)
	}
	cage := &Cage{c: c, id: m.ID, uid: m.UID, lim: c.limits(&m)}
	if c.cfg.Cgroup == "" || c.systemd {
		return cage, nil
	}
	if err := c.makeGroup(m.ID, cage.lim); err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "control group of VM %s: %w", m.ID, err).WithReason("confine").
			WithFix("are control groups mounted and writable? `confine.cgroup = \"\"` runs without limits")
	}
	if c.v2 {
		f, err := os.Open(c.group("", m.ID))
		if err != nil {
			return nil, fmt.Errorf("control group of VM %s: %w", m.ID, err)
		}
		cage.fd = f
	}
	return cage, nil
}

// Enter lets the process's user into a directory, to open what is in it by name and
// to change nothing of it: whoever may put a symbolic link there chooses which file
// of the host the VMM, as root, writes and reads next.
func (g *Cage) Enter(dir string) error { return g.give(dir, 0, 0o710) }

// Own gives files to the process's user, for it alone.
func (g *Cage) Own(files ...string) error {
	for _, f := range files {
		if err := g.give(f, g.uid, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Show lets the process's user read files.
func (g *Cage) Show(files ...string) error {
	for _, f := range files {
		if err := g.give(f, 0, 0o640); err != nil {
			return err
		}
	}
	return nil
}

// give sets owner and mode of a path, with the user's own group. Symbolic links are
// not followed.
func (g *Cage) give(path string, owner int, mode os.FileMode) error {
	if g.uid == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err == nil {
		err = errors.Join(f.Chown(owner, g.uid), f.Chmod(mode), f.Close())
	}
	if err != nil {
		return fmt.Errorf("giving %s to user %d: %w", path, g.uid, err)
	}
	return nil
}

// Command sets user, session and group of a command that was not started. Under
// systemd its argv is wrapped: systemd-run replaces itself with the command, so
// that the process id is the command's.
func (g *Cage) Command(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	a := cmd.SysProcAttr
	a.Setsid = true // its own process group: signals to the VMM's do not reach it
	if g.c == nil {
		return
	}
	if g.c.systemd && g.c.cfg.Cgroup != "" {
		args := g.scope(cmd.Path)
		cmd.Path, cmd.Args = args[0], append(args, cmd.Args[1:]...)
		return
	}
	if g.uid != 0 {
		a.Credential = &syscall.Credential{Uid: uint32(g.uid), Gid: uint32(g.uid), Groups: g.c.cfg.Groups} //nolint:gosec // in range, see Validate
	}
	if g.fd != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(g.fd.Fd())
	}
}

// scope is the command line before the program of a systemd scope.
func (g *Cage) scope(program string) []string {
	args := []string{
		"/usr/bin/systemd-run", "--scope", "--collect", "--quiet", "--unit=" + unit(g.id), "--slice=" + g.c.cfg.Cgroup,
		"-p", "MemoryMax=" + strconv.FormatInt(g.lim.memory, 10), "-p", "MemorySwapMax=0",
		"-p", fmt.Sprintf("CPUQuota=%d%%", 100*g.lim.cpus), "-p", fmt.Sprintf("CPUWeight=%d", g.lim.weight),
		"-p", fmt.Sprintf("TasksMax=%d", g.lim.tasks), "--",
	}
	if g.uid != 0 {
		groups := "--clear-groups"
		if len(g.c.cfg.Groups) > 0 {
			groups = "--groups="
			for i, id := range g.c.cfg.Groups {
				if i > 0 {
					groups += ","
				}
				groups += strconv.FormatUint(uint64(id), 10)
			}
		}
		args = append(args, "/usr/bin/setpriv", "--reuid="+strconv.Itoa(g.uid), "--regid="+strconv.Itoa(g.uid), groups, "--no-new-privs", "--")
	}
	return append(args, program)
}

func unit(id string) string { return "phala-vm-" + id + ".scope" }

// Started puts the process into the groups of version 1 (in version 2 and under
// systemd it was born there) and closes what Prepare opened. Call it once, also
// when the start failed, with pid 0.
func (g *Cage) Started(pid int) error {
	if g.fd != nil {
		_ = g.fd.Close()
		g.fd = nil
	}
	if g.c == nil || pid == 0 || g.c.cfg.Cgroup == "" || g.c.systemd || g.c.v2 {
		return nil
	}
	for _, ctl := range controllers {
		if err := writeFile(filepath.Join(g.c.group(ctl, g.id), "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return cvm.Errorf(cvm.Unavailable, "putting VM %s into its control group: %w", g.id, err).WithReason("confine")
		}
	}
	return nil
}
