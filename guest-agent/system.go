package guestagent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// prepareSystem gives a container guest what a booted machine has: a writable
// /proc/sys and cgroup tree for dockerd, and a volatile work directory. It returns
// the cgroup that the app's containers must live below, "" for dockerd's default.
func prepareSystem(workDir string, log *slog.Logger) (cgroup string, err error) {
	if err := mountTmpfs(workDir); err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("reading mounts: %w", err)
	}
	for _, m := range readOnlyMounts(mounts) {
		// dockerd needs forwarding sysctls and its own cgroups; in a real VM both are
		// writable already.
		flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		if err := unix.Mount("", m, "", flags, ""); err != nil {
			return "", fmt.Errorf("making %s writable: %w", m, err)
		}
	}
	if err := delegateV2(cgroupRoot); err != nil {
		log.Warn("cgroup v2 delegation; limits of containers may not work", "err", err)
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("reading cgroups: %w", err)
	}
	return containerParent(b), nil
}

func mountTmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type == unix.TMPFS_MAGIC {
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=128m"); err != nil {
		return fmt.Errorf("tmpfs on %s (secrets must not reach a disk): %w", dir, err)
	}
	return nil
}

// readOnlyMounts picks, of mountinfo, the read-only /proc/sys and cgroup mounts.
func readOnlyMounts(mountinfo []byte) []string {
	var out []string
	for sc := bufio.NewScanner(bytes.NewReader(mountinfo)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) < 6 || (f[4] != "/proc/sys" && f[4] != cgroupRoot && !strings.HasPrefix(f[4], cgroupRoot+"/")) {
			continue
		}
		for _, o := range strings.Split(f[5], ",") {
			if o == "ro" {
				out = append(out, f[4])
			}
		}
	}
	return out
}

// delegateV2 moves our processes into a leaf and turns the controllers on for the
// others: in cgroup v2 a group with processes cannot limit its children. On v1
// there is nothing to do.
func delegateV2(root string) error {
	avail, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	own := filepath.Join(root, "phala-agent")
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	procs, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(procs)) {
		// A process that has just ended is no error.
		if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(pid), 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	for _, c := range strings.Fields(string(avail)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("controller %s: %w", c, err)
		}
	}
	return nil
}

// containerParent is where, of /proc/self/cgroup, the app's containers belong. In a
// cgroup namespace of its own the guest is the root already. With the host's
// namespace the containers must be put below the guest's own group, or its limits
// would not hold for them.
func containerParent(procCgroup []byte) string {
	best := ""
	for sc := bufio.NewScanner(bytes.NewReader(procCgroup)); sc.Scan(); {
		f := strings.SplitN(sc.Text(), ":", 3)
		if len(f) != 3 {
			continue
		}
		if n, err := strconv.Atoi(f[0]); err != nil || n < 0 {
			continue
		}
		memory := strings.Contains(","+f[1]+",", ",memory,")
		path := strings.TrimSuffix(f[2], "/phala-agent")
		if path == "/" || path == "" || strings.HasPrefix(path, "/..") {
			continue
		}
		if memory || (f[0] == "0" && best == "") {
			best = path + "/phala-app"
		}
	}
	return best
}
