package doctor

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

func vsock(_ context.Context, e *exam) verdict {
	if err := e.openable("/dev/vhost-vsock"); err != nil {
		return warn(err.Error(), "load vhost_vsock; without it host and guest talk over a serial port, which works, and QGS cannot be reached from TDs")
	}
	return ok("can be opened")
}

func hugepages(_ context.Context, e *exam) verdict {
	total := 0
	var have []string
	for _, n := range e.names("/sys/kernel/mm/hugepages") {
		free, _ := strconv.Atoi(e.read("/sys/kernel/mm/hugepages/" + n + "/free_hugepages"))
		all, _ := strconv.Atoi(e.read("/sys/kernel/mm/hugepages/" + n + "/nr_hugepages"))
		total += all
		if all > 0 {
			have = append(have, fmt.Sprintf("%s: %d of %d free", strings.TrimPrefix(n, "hugepages-"), free, all))
		}
	}
	if total == 0 {
		return ok("none reserved (VMs with hugepages: true cannot start)")
	}
	return ok(strings.Join(have, ", "))
}

// gpus wants every GPU of NVIDIA bound to vfio-pci, alone in its IOMMU group but for
// its own functions and bridges.
func gpus(_ context.Context, e *exam) verdict {
	const dir = "/sys/bus/pci/devices"
	var found int
	var bad []string
	for _, slot := range e.names(dir) {
		d := dir + "/" + slot
		if e.read(d+"/vendor") != "0x10de" || !strings.HasPrefix(e.read(d+"/class"), "0x03") {
			continue
		}
		found++
		if drv := e.link(d + "/driver"); drv != "vfio-pci" {
			bad = append(bad, slot+" is bound to "+orElse(drv, "nothing"))
		}
		group := e.link(d + "/iommu_group")
		if group == "" {
			bad = append(bad, slot+" is in no IOMMU group")
			continue
		}
		for _, other := range e.names("/sys/kernel/iommu_groups/" + group + "/devices") {
			if path.Ext(other) != "" && strings.TrimSuffix(other, path.Ext(other)) != strings.TrimSuffix(slot, path.Ext(slot)) && !strings.HasPrefix(e.read(dir+"/"+other+"/class"), "0x0604") {
				bad = append(bad, slot+" shares IOMMU group "+group+" with "+other)
			}
		}
	}
	const fix = "start the kernel with intel_iommu=on (or amd_iommu=on) and vfio-pci.ids=10de:..., and keep nvidia and nouveau off the host"
	switch {
	case found == 0 && e.cfg.GPUs:
		return fail("there is no NVIDIA GPU", "check the slot and the BIOS (above 4G decoding)")
	case found == 0:
		return skip("there is no NVIDIA GPU")
	case len(bad) > 0 && e.cfg.GPUs:
		return fail(strings.Join(bad, "; "), fix)
	case len(bad) > 0:
		return warn(strings.Join(bad, "; "), fix)
	}
	return ok(fmt.Sprintf("%d bound to vfio-pci", found))
}

const (
	littleDisk = 20 << 30 // bytes: an image and a small VM
	enoughDisk = 100 << 30
)

func diskSpace(_ context.Context, e *exam) verdict {
	var texts []string
	worst := ok("")
	for _, d := range e.cfg.Dirs {
		free, _, err := e.probe.Disk(d)
		if err != nil {
			return fail(d+": "+err.Error(), "make the directory")
		}
		texts = append(texts, fmt.Sprintf("%s: %d GiB free", d, free>>30))
		switch {
		case free < littleDisk:
			worst = fail("", "make room: VMs keep their disks here")
		case free < enoughDisk && worst.result == OK:
			worst = warn("", "room for few VMs; make more before it matters")
		}
	}
	worst.found = strings.Join(texts, ", ")
	return worst
}

func fileSystem(_ context.Context, e *exam) verdict {
	var texts []string
	worst := ok("")
	for _, d := range e.cfg.Dirs {
		_, fs, err := e.probe.Disk(d)
		if err != nil {
			return fail(d+": "+err.Error(), "make the directory")
		}
		texts = append(texts, d+": "+fs)
		switch fs {
		case "ext4", "xfs", "btrfs", "zfs":
		case "tmpfs":
			worst = fail("", "disks of VMs would be in memory, and gone after a restart: use another file system")
		default:
			if worst.result == OK {
				worst = warn("", "ext4, xfs, btrfs and zfs are known to be durable under VM disks; this one is not")
			}
		}
	}
	worst.found = strings.Join(texts, ", ")
	return worst
}

func clock(_ context.Context, e *exam) verdict {
	synced, bound, err := e.probe.Clock()
	const fix = "run chrony or systemd-timesyncd; certificates and the KMS's leases need a clock within seconds"
	switch {
	case err != nil:
		return skip(err.Error())
	case !synced:
		return warn("the kernel's clock is not synchronised", fix)
	case bound > 1e9:
		return warn(fmt.Sprintf("synchronised, but it may be off by %v", bound), fix)
	}
	return ok(fmt.Sprintf("synchronised within %v", bound))
}

func forwarding(_ context.Context, e *exam) verdict {
	if v := e.read("/proc/sys/net/ipv4/ip_forward"); v != "1" {
		return warn("IPv4 forwarding is off", "bridged VMs reach nothing without: sysctl net.ipv4.ip_forward=1 (user mode networking does not need it)")
	}
	if v := e.read("/proc/sys/net/ipv6/conf/all/forwarding"); v != "1" {
		return warn("IPv4 forwarding is on, IPv6 forwarding is off", "for IPv6 in bridged VMs: sysctl net.ipv6.conf.all.forwarding=1")
	}
	return ok("IPv4 and IPv6 forwarding are on")
}

func taps(_ context.Context, e *exam) verdict {
	if err := e.openable("/dev/net/tun"); err != nil {
		return warn(err.Error(), "load tun; without it only user mode networking works")
	}
	var bridges []string
	for _, n := range e.names("/sys/class/net") {
		if e.exists("/sys/class/net/" + n + "/bridge") {
			bridges = append(bridges, n)
		}
	}
	if len(bridges) == 0 {
		return ok("/dev/net/tun can be opened; there is no bridge yet")
	}
	return ok("/dev/net/tun can be opened; bridges: " + strings.Join(bridges, ", "))
}

func nftables(_ context.Context, e *exam) verdict {
	options, _ := e.kernelOptions()
	switch {
	case strings.Contains("\n"+e.read("/proc/modules"), "\nnf_tables "):
		return ok("nf_tables is loaded")
	case e.exists("/sys/module/nf_tables"), options["CONFIG_NF_TABLES"]:
		return ok("in the kernel")
	case len(options) == 0 && e.first("/usr/sbin/nft") != "":
		return ok("nft is installed; the kernel's configuration is not to be seen")
	}
	return fail("no sign of nf_tables", "install a kernel with CONFIG_NF_TABLES: anti-spoofing and port rules of VMs need it")
}

// ports reads who listens from /proc.
func ports(_ context.Context, e *exam) verdict {
	if len(e.cfg.Ports) == 0 {
		return skip("no ports were named")
	}
	busy := map[int]bool{}
	for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for line := range strings.Lines(e.read(f)) {
			w := strings.Fields(line)
			if len(w) < 4 || w[3] != "0A" { // LISTEN
				continue
			}
			_, hex, _ := strings.Cut(w[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil {
				busy[int(n)] = true
			}
		}
	}
	var taken []string
	for _, p := range slices.Sorted(slices.Values(e.cfg.Ports)) {
		if busy[p] {
			taken = append(taken, strconv.Itoa(p))
		}
	}
	if len(taken) > 0 {
		return warn("something listens on "+strings.Join(taken, ", "), "if it is not the VMM itself, choose other ports or stop it (ss -ltnp)")
	}
	return ok(fmt.Sprintf("%v are free", e.cfg.Ports))
}

const manyFiles = 65536

func openFiles(_ context.Context, e *exam) verdict {
	for line := range strings.Lines(e.read("/proc/self/limits")) {
		rest, found := strings.CutPrefix(line, "Max open files")
		w := strings.Fields(rest)
		if !found || len(w) < 2 {
			continue
		}
		hard, err := strconv.Atoi(w[1])
		if w[1] != "unlimited" && (err != nil || hard < manyFiles) {
			return warn("at most "+w[1], fmt.Sprintf("set LimitNOFILE=%d or more for the VMM: each VM holds some 30 files", manyFiles))
		}
		return ok("at most " + w[1])
	}
	return skip("/proc/self/limits does not say")
}

func cgroups(_ context.Context, e *exam) verdict {
	have := strings.Fields(e.read("/sys/fs/cgroup/cgroup.controllers"))
	if len(have) == 0 {
		return warn("not version 2", "start the kernel with systemd.unified_cgroup_hierarchy=1: limits of VMs need version 2")
	}
	var missing []string
	for _, c := range []string{"cpu", "io", "memory", "pids"} {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return warn("version 2 without "+strings.Join(missing, ", "), "delegate these controllers to the VMM's service (Delegate=yes)")
	}
	return ok("version 2 with cpu, io, memory, pids")
}

// userIDs looks for accounts within the range of the VMs' users.
func userIDs(_ context.Context, e *exam) verdict {
	base, count := e.cfg.UIDBase, e.cfg.UIDCount
	if base == 0 || count < 1 {
		return skip("no range was named")
	}
	overlap := func(first, n int) bool { return first < base+count && base < first+n }
	for line := range strings.Lines(e.read("/etc/passwd")) {
		w := strings.Split(strings.TrimSpace(line), ":")
		if len(w) < 3 {
			continue
		}
		if id, err := strconv.Atoi(w[2]); err == nil && overlap(id, 1) {
			return fail("user "+w[0]+" has id "+w[2], "choose a range without accounts")
		}
	}
	for line := range strings.Lines(e.read("/etc/subuid")) {
		w := strings.Split(strings.TrimSpace(line), ":")
		if len(w) < 3 {
			continue
		}
		first, err1 := strconv.Atoi(w[1])
		n, err2 := strconv.Atoi(w[2])
		if err1 == nil && err2 == nil && overlap(first, n) {
			return fail("/etc/subuid gives "+w[0]+" ids from "+w[1], "choose a range that containers do not use")
		}
	}
	for line := range strings.Lines(e.read("/proc/self/uid_map")) {
		w := strings.Fields(line)
		if len(w) < 3 {
			continue
		}
		first, err1 := strconv.Atoi(w[0])
		n, err2 := strconv.Atoi(w[2])
		if err1 == nil && err2 == nil && first <= base && base+count <= first+n {
			return ok(fmt.Sprintf("%d to %d are free", base, base+count-1))
		}
	}
	return fail(fmt.Sprintf("%d to %d do not exist in this user namespace", base, base+count-1), "run the VMM on the host itself, or choose a lower range")
}
