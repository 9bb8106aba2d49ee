// Package vm is what a real machine needs around the guest agent and a container
// gets from its engine: mounts, modules, devices, network, packet filter, clock, and
// an orderly end.
//
// Everything here runs in a machine that does nothing else, as root; most of it makes
// no sense anywhere else. What the host chose (addresses, name servers, the clock at
// power-on) is used, and nothing is believed because of it.
package vm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

// Reasons of failures.
const (
	ReasonSystem  = "guest-system"
	ReasonNetwork = "guest-network"
	ReasonTime    = "time-not-synchronised"
	ReasonTEE     = "tee-missing"
)

type mount struct {
	source, target, fs, data string
	flags                    uintptr
	optional                 bool // a kernel without it is good enough
}

const hardened = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mounts is what the initramfs left to us.
func mounts() []mount {
	return []mount{
		{source: "proc", target: "/proc", fs: "proc", flags: hardened},
		{source: "sysfs", target: "/sys", fs: "sysfs", flags: hardened},
		{source: "devtmpfs", target: "/dev", fs: "devtmpfs", data: "mode=0755", flags: unix.MS_NOSUID},
		{source: "devpts", target: "/dev/pts", fs: "devpts", data: "mode=0620,gid=5,ptmxmode=0666", flags: unix.MS_NOSUID | unix.MS_NOEXEC},
		{source: "tmpfs", target: "/dev/shm", fs: "tmpfs", data: "mode=1777", flags: unix.MS_NOSUID | unix.MS_NODEV},
		{source: "mqueue", target: "/dev/mqueue", fs: "mqueue", flags: hardened, optional: true},
		{source: "tmpfs", target: "/run", fs: "tmpfs", data: "mode=0755", flags: unix.MS_NOSUID | unix.MS_NODEV},
		{source: "tmpfs", target: "/tmp", fs: "tmpfs", data: "mode=1777", flags: unix.MS_NOSUID | unix.MS_NODEV},
		{source: "cgroup2", target: "/sys/fs/cgroup", fs: "cgroup2", data: "nsdelegate", flags: hardened},
		{source: "securityfs", target: "/sys/kernel/security", fs: "securityfs", flags: hardened, optional: true},
		{source: "configfs", target: "/sys/kernel/config", fs: "configfs", flags: hardened, optional: true},
		{source: "bpf", target: "/sys/fs/bpf", fs: "bpf", data: "mode=0700", flags: hardened, optional: true},
	}
}

// modules that nothing asks for by itself.
func modules() []string {
	return []string{
		"virtio_console", "virtio_net", "virtio_rng", "configfs", "overlay", "tun",
		"tdx_guest", "sev-guest", // they stay only where the hardware is
		"button", "evdev", "ptp_kvm", "br_netfilter",
	}
}

// hasVSock reports whether the host gave the machine a vsock device. Without one
// AF_VSOCK is not there for anybody.
func hasVSock(root string) bool {
	devices, _ := filepath.Glob(filepath.Join(root, "sys/bus/virtio/devices/*/device"))
	return slices.ContainsFunc(devices, func(name string) bool {
		b, err := os.ReadFile(name)
		return err == nil && strings.TrimSpace(string(b)) == "0x0013"
	})
}

// sysctls harden the kernel without taking from containers what they may use.
func sysctls() [][2]string {
	return [][2]string{
		{"kernel/core_pattern", "|/bin/false"}, {"fs/suid_dumpable", "0"}, // memory never becomes a file
		{"kernel/dmesg_restrict", "1"}, {"kernel/kptr_restrict", "2"}, {"kernel/perf_event_paranoid", "3"},
		{"kernel/unprivileged_bpf_disabled", "1"}, {"net/core/bpf_jit_harden", "2"},
		{"kernel/kexec_load_disabled", "1"}, {"kernel/sysrq", "0"}, {"kernel/yama/ptrace_scope", "1"},
		{"fs/protected_symlinks", "1"}, {"fs/protected_hardlinks", "1"}, {"fs/protected_fifos", "2"}, {"fs/protected_regular", "2"},
		{"net/ipv4/tcp_syncookies", "1"}, {"net/ipv4/conf/all/accept_redirects", "0"}, {"net/ipv4/conf/default/accept_redirects", "0"},
		{"net/ipv4/conf/all/send_redirects", "0"}, {"net/ipv4/conf/all/accept_source_route", "0"},
		{"net/ipv6/conf/all/accept_redirects", "0"}, {"net/ipv6/conf/default/accept_redirects", "0"},
		// dockerd turns forwarding on, and a forwarding machine ignores router
		// advertisements unless this is 2.
		{"net/ipv6/conf/all/accept_ra", "2"}, {"net/ipv6/conf/default/accept_ra", "2"},
		// Addresses of the card's own number: a managed bridge lets no other pass.
		{"net/ipv6/conf/all/addr_gen_mode", "0"}, {"net/ipv6/conf/default/addr_gen_mode", "0"},
		{"net/ipv6/conf/all/use_tempaddr", "0"}, {"net/ipv6/conf/default/use_tempaddr", "0"},
		{"vm/overcommit_memory", "1"}, {"vm/max_map_count", "262144"},
	}
}

// Prepare mounts what is missing, loads modules, hardens the kernel and forbids core
// dumps and swap. It may be called again.
func Prepare(ctx context.Context, log *slog.Logger) error {
	for _, m := range mounts() {
		err := m.do()
		if err != nil && !m.optional {
			return cvm.Errorf(cvm.Internal, "%w", err).WithReason(ReasonSystem)
		}
		if err != nil {
			log.Debug("not mounted", "err", err)
		}
	}
	load := append([]string{"-a"}, modules()...)
	if hasVSock("/") {
		load = append(load, "vmw_vsock_virtio_transport")
	}
	// What is built in or has no hardware here is no error; what is needed will be missed.
	if out, err := exec.CommandContext(ctx, "modprobe", load...).CombinedOutput(); err != nil {
		log.Info("kernel modules", "err", err, "says", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; "))
	}
	if err := (mount{source: "configfs", target: "/sys/kernel/config", fs: "configfs", flags: hardened}).do(); err != nil {
		log.Debug("not mounted", "err", err) // without it there is no TSM either
	}
	for _, s := range sysctls() {
		if err := os.WriteFile(filepath.Join("/proc/sys", s[0]), []byte(s[1]), 0o600); err != nil {
			log.Debug("sysctl", "name", s[0], "err", err)
		}
	}
	if err := lean("/"); err != nil {
		log.Debug("memory that the kernel holds back", "err", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return cvm.Errorf(cvm.Internal, "forbidding core dumps: %w", err).WithReason(ReasonSystem)
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20})
	return noSwap()
}

// do mounts unless the file system is there already.
func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if mounted(m.target, m.fs) {
		return nil
	}
	err := unix.Mount(m.source, m.target, m.fs, m.flags, m.data)
	if errors.Is(err, unix.EINVAL) && m.data != "" && m.fs == "cgroup2" {
		err = unix.Mount(m.source, m.target, m.fs, m.flags, "") // an option that this kernel does not know
	}
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mounting %s on %s: %w", m.fs, m.target, err)
	}
	return nil
}

func mounted(target, fs string) bool {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == target && f[2] == fs {
			return true
		}
	}
	return false
}

// noSwap refuses a machine that swaps: secrets are in memory only.
func noSwap() error {
	b, err := os.ReadFile("/proc/swaps")
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without swap
	}
	if err != nil {
		return cvm.Errorf(cvm.Internal, "swap: %w", err).WithReason(ReasonSystem)
	}
	if lines := strings.Split(strings.TrimSpace(string(b)), "\n"); len(lines) > 1 {
		return cvm.Errorf(cvm.Precondition, "the machine swaps to %s", strings.Fields(lines[1])[0]).WithReason(ReasonSystem)
	}
	return nil
}

// DelegateCgroups turns every controller on for what is below the root of cgroup v2,
// so that limits of containers hold. Unlike in a container, the root may keep its own
// processes.
func DelegateCgroups(root string) error {
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return cvm.Errorf(cvm.Internal, "cgroup v2: %w", err).WithReason(ReasonSystem)
	}
	for _, c := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0o600); err != nil {
			return cvm.Errorf(cvm.Internal, "cgroup controller %s: %w", c, err).WithReason(ReasonSystem)
		}
	}
	return nil
}

// Hostname names the machine after its app.
func Hostname(app cvm.AppID) error {
	name := "cvm-" + app.String()[:8]
	if err := unix.Sethostname([]byte(name)); err != nil {
		return cvm.Errorf(cvm.Internal, "host name: %w", err).WithReason(ReasonSystem)
	}
	hosts := "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 " + name + "\n"
	return errors.Join(os.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644), os.WriteFile("/etc/hosts", []byte(hosts), 0o644)) //nolint:gosec // read by everyone
}

// wait polls a condition until it holds or ctx ends.
func wait(ctx context.Context, every time.Duration, holds func() bool) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}
