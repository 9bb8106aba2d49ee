package confine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// controllers whose limits are set; in version 1 each has a tree of its own.
var controllers = [...]string{"memory", "cpu", "pids"}

// group is the directory of a VM's group; ctl is of version 1.
func (c *Confiner) group(ctl, id string) string {
	if c.v2 {
		return filepath.Join(c.cfg.Root, c.cfg.Cgroup, id)
	}
	return filepath.Join(c.cfg.Root, ctl, c.cfg.Cgroup, id)
}

// trees are the directories of one VM's groups.
func (c *Confiner) trees(id string) (out []string) {
	for _, ctl := range controllers {
		if g := c.group(ctl, id); !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

func (c *Confiner) makeGroup(id string, l limits) error {
	if c.v2 {
		return c.makeV2(id, l)
	}
	files := map[string][][2]string{
		"memory": {{"memory.limit_in_bytes", strconv.FormatInt(l.memory, 10)}, {"memory.swappiness", "0"}},
		"cpu":    {{"cpu.cfs_period_us", "100000"}, {"cpu.cfs_quota_us", strconv.Itoa(100000 * l.cpus)}, {"cpu.shares", strconv.Itoa(l.weight * 1024 / 100)}},
		"pids":   {{"pids.max", strconv.Itoa(l.tasks)}},
	}
	for _, ctl := range controllers {
		if err := fill(c.group(ctl, id), files[ctl]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Confiner) makeV2(id string, l limits) error {
	parent := filepath.Join(c.cfg.Root, c.cfg.Cgroup)
	if err := os.MkdirAll(parent, 0o755); err != nil { //nolint:gosec // the kernel's own file system
		return err
	}
	// From the root down, or the VM's directory has no such files.
	for _, dir := range between(c.cfg.Root, parent) {
		if err := writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+memory +cpu +pids"); err != nil {
			return err
		}
	}
	return fill(c.group("", id), [][2]string{
		{"memory.max", strconv.FormatInt(l.memory, 10)},
		// What a guest without hardware protection holds must not reach a disk in clear.
		{"memory.swap.max", "0"},
		{"memory.oom.group", "1"},
		{"cpu.max", fmt.Sprintf("%d 100000", 100000*l.cpus)},
		{"cpu.weight", strconv.Itoa(l.weight)},
		{"pids.max", strconv.Itoa(l.tasks)},
	})
}

// between lists root and the directories down to leaf.
func between(root, leaf string) []string {
	out := []string{leaf}
	for leaf != root {
		leaf = filepath.Dir(leaf)
		out = append(out, leaf)
	}
	slices.Reverse(out)
	return out
}

// fill makes a group's directory and writes its files. Those about swap are not in
// every kernel.
func fill(dir string, files [][2]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the kernel's own file system
		return err
	}
	for _, f := range files {
		err := writeFile(filepath.Join(dir, f[0]), f[1])
		if err != nil && !(strings.Contains(f[0], "swap") && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// writeFile writes an existing file in one piece: the kernel's files are not made.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// OOMKilled reports whether the kernel ended a process of the VM's group because
// the group had no memory left. Ask before Release.
func (c *Confiner) OOMKilled(id string) bool {
	if c == nil || c.cfg.Cgroup == "" || c.systemd {
		return false
	}
	name := "memory.oom_control"
	if c.v2 {
		name = "memory.events"
	}
	b, _ := os.ReadFile(filepath.Join(c.group("memory", id), name))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" {
			return f[1] != "0"
		}
	}
	return false
}

// Release removes the VM's groups. Processes that are still in them are an error
// of code conflict after some seconds; what does not exist is removed already.
func (c *Confiner) Release(ctx context.Context, id string) error {
	if c == nil || c.cfg.Cgroup == "" || c.systemd {
		return nil // a scope goes with its last process
	}
	for _, dir := range c.trees(id) {
		if err := removeGroup(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// removeGroup waits a little: a process that has ended leaves its group after it
// was waited for.
func removeGroup(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if run.Pause(ctx, 20*time.Millisecond) != nil {
			procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			return cvm.Errorf(cvm.Conflict, "control group %s is still in use by processes %q: %w", dir, strings.Fields(string(procs)), err).WithReason("confine")
		}
	}
}

// Sweep removes the groups of VMs that are not to be kept and in which nothing
// runs, and returns the ids of those it left because something does.
func (c *Confiner) Sweep(keep map[string]bool) (alive []string) {
	if c == nil || c.cfg.Cgroup == "" || c.systemd {
		return nil
	}
	for _, ctl := range controllers {
		dir := filepath.Dir(c.group(ctl, "x"))
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if !e.IsDir() || keep[e.Name()] {
				continue
			}
			if os.Remove(filepath.Join(dir, e.Name())) != nil && !slices.Contains(alive, e.Name()) {
				alive = append(alive, e.Name())
			}
		}
	}
	return alive
}
