package qemu

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// SNPCPU is the processor model of SEV-SNP machines; it enters their launch digest.
const SNPCPU = "EPYC-v4"

const (
	maxCmdline = 4096 // bytes
	maxDisks   = 16   // verity volumes
	maxNICs    = 8
	maxGPUs    = 32
	maxForward = 256
)

// The shapes of what goes into option lists.
var (
	idRE   = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	tapRE  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
	slotRE = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)
)

// check returns all problems at once.
func (l *Launch) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if !idRE.MatchString(l.ID) {
		bad("machine id %q: want a lowercase UUID", l.ID)
	}
	switch l.Accel {
	case TDX, KVM, TCG:
	case SNP:
		if l.SEV.CBitPos < 1 || l.SEV.CBitPos > 63 || l.SEV.ReducedPhysBits < 0 || l.SEV.ReducedPhysBits > 63 {
			bad("sev: c-bit %d, reduced physical bits %d: not what a processor reports", l.SEV.CBitPos, l.SEV.ReducedPhysBits)
		}
	default:
		bad("accelerator %q: want tdx, snp, kvm or tcg", l.Accel)
	}
	if l.Accel == TCG && (l.TBSizeMiB < 1 || l.TBSizeMiB > 4096) {
		bad("translation cache of %d MiB: want 1 to 4096", l.TBSizeMiB)
	}
	if l.VCPU < 1 || l.VCPU > 1024 || l.MemoryMiB < 1 || l.MemoryMiB > 64<<20 {
		bad("size: %d vCPU, %d MiB", l.VCPU, l.MemoryMiB)
	}
	errs = append(errs, l.checkInherited())
	if len(l.Cmdline) > maxCmdline || strings.ContainsFunc(l.Cmdline, control) {
		bad("kernel command line: %d bytes, want at most %d and no control characters", len(l.Cmdline), maxCmdline)
	}
	if l.PCIHole64Bytes > 1<<50 {
		bad("pci_hole64_size %d: too large", l.PCIHole64Bytes)
	}
	errs = append(errs, l.checkFiles(), l.checkNICs(), l.checkGPUs(), l.checkNUMA())
	if l.Limits.DiskBytesPerSec < 0 || l.Limits.DiskIOPS < 0 {
		bad("limits: negative")
	}
	return errors.Join(errs...)
}

// checkInherited wants a monitor and a host link.
func (l *Launch) checkInherited() error {
	if l.LinkFD == 0 && l.CID == 0 {
		return cvm.Errorf(cvm.Invalid, "neither a virtio-serial port nor vsock: want a host link")
	}
	if l.CID != 0 && (l.CID < hostlink.FirstCID || l.CID > hostlink.LastCID) || l.CID == 0 && l.VSockFD != 0 {
		return cvm.Errorf(cvm.Invalid, "vsock context id %d: want %d to %d", l.CID, hostlink.FirstCID, uint32(hostlink.LastCID))
	}
	seen := map[int]bool{}
	for what, fd := range map[string]int{"monitor": l.QMPFD, "link": l.LinkFD, "vsock": l.VSockFD} {
		if fd == 0 && (what == "link" || what == "vsock" && l.CID == 0) {
			continue
		}
		if fd < 3 || seen[fd] {
			return cvm.Errorf(cvm.Invalid, "%s, file descriptor %d: want inherited ones, each for one thing", what, fd)
		}
		seen[fd] = true
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// checkFiles wants absolute paths: a name with a colon would be a protocol to QEMU.
func (l *Launch) checkFiles() error {
	var errs []error
	path := func(what, p string) {
		if !filepath.IsAbs(p) || strings.ContainsFunc(p, control) || len(p) > 1024 {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "%s %q: want an absolute path without control characters", what, p))
		}
	}
	path("firmware", l.Firmware)
	path("kernel", l.Kernel)
	path("initrd", l.Initrd)
	path("rootfs", l.Rootfs)
	path("data disk", l.DataDisk)
	path("shared disk", l.SharedDisk)
	path("serial log", l.SerialLog)
	path("pid file", l.PIDFile)
	for _, v := range l.Volumes {
		path("volume", v)
	}
	if len(l.Volumes) > maxDisks {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "%d volumes, at most %d", len(l.Volumes), maxDisks))
	}
	if l.DataFormat != FormatRaw && l.DataFormat != FormatQCOW2 {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "data disk format %q: want raw or qcow2", l.DataFormat))
	}
	return errors.Join(errs...)
}

func (l *Launch) checkNICs() error {
	var errs []error
	bad := func(i int, format string, args ...any) {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "network card %d: %w", i, cvm.Errorf(cvm.Invalid, format, args...)))
	}
	if len(l.NICs) > maxNICs {
		bad(len(l.NICs), "at most %d cards", maxNICs)
	}
	for i, n := range l.NICs {
		if len(n.MAC) != 6 || n.MAC[0]&1 != 0 {
			bad(i, "mac %q: want six bytes of a unicast address", n.MAC)
		}
		switch n.Mode {
		case machine.NICTap:
			if !tapRE.MatchString(n.Tap) {
				bad(i, "tap %q: not an interface name", n.Tap)
			}
			if len(n.Forwards) > 0 {
				bad(i, "ports are forwarded by the host's network plane, not by a tap")
			}
		case machine.NICUser:
			if err := checkUser(n); err != nil {
				bad(i, "%w", err)
			}
		default:
			bad(i, "mode %q: want user or tap", n.Mode)
		}
	}
	return errors.Join(errs...)
}

func checkUser(n machine.NIC) error {
	if n.Net.IsValid() && !n.Net.Addr().Is4() || n.DHCPStart.IsValid() && (!n.DHCPStart.Is4() || !n.Net.Contains(n.DHCPStart)) {
		return cvm.Errorf(cvm.Invalid, "network %s, addresses from %s: want an IPv4 network and an address in it", n.Net, n.DHCPStart)
	}
	if len(n.Forwards) > maxForward {
		return cvm.Errorf(cvm.Invalid, "%d forwarded ports, at most %d", len(n.Forwards), maxForward)
	}
	for _, f := range n.Forwards {
		if f.Protocol != "tcp" && f.Protocol != "udp" {
			return cvm.Errorf(cvm.Invalid, "forward: protocol %q, want tcp or udp", f.Protocol)
		}
		if !f.Host.Addr().Is4() || f.Host.Port() == 0 || f.GuestPort == 0 {
			return cvm.Errorf(cvm.Invalid, "forward %s to %d: want an IPv4 address with a port, and a port", f.Host, f.GuestPort)
		}
	}
	return nil
}

func (l *Launch) checkGPUs() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if len(l.GPUs) > maxGPUs {
		bad("%d GPUs and switches, at most %d", len(l.GPUs), maxGPUs)
	}
	seen := map[string]bool{}
	for _, g := range l.GPUs {
		if !slotRE.MatchString(g.Slot) {
			bad("GPU slot %q: want domain:bus:device.function in lower case", g.Slot)
		}
		if seen[g.Slot] {
			bad("GPU slot %s is there twice", g.Slot)
		}
		seen[g.Slot] = true
	}
	return errors.Join(errs...)
}

func (l *Launch) checkNUMA() error {
	if len(l.NUMA) == 0 {
		return nil
	}
	if len(l.NUMA) > maxNUMA {
		return cvm.Errorf(cvm.Invalid, "%d NUMA nodes, at most %d", len(l.NUMA), maxNUMA)
	}
	vcpus, mib := 0, 0
	seen := map[int]bool{}
	for _, n := range l.NUMA {
		if n.Node < 0 || n.Node > 1023 || seen[n.Node] || n.VCPUs < 1 || n.MemoryMiB < 1 {
			return cvm.Errorf(cvm.Invalid, "NUMA node %d with %d vCPU and %d MiB: each node of the host once, with both", n.Node, n.VCPUs, n.MemoryMiB)
		}
		seen[n.Node] = true
		vcpus, mib = vcpus+n.VCPUs, mib+n.MemoryMiB
	}
	if vcpus != l.VCPU || mib != l.MemoryMiB {
		return cvm.Errorf(cvm.Invalid, "NUMA nodes hold %d vCPU and %d MiB, the machine has %d and %d", vcpus, mib, l.VCPU, l.MemoryMiB)
	}
	if bus := 5 + len(l.GPUs) + len(l.NUMA); bus > maxBus {
		return cvm.Errorf(cvm.Invalid, "%d devices on %d nodes: no bus numbers left", len(l.GPUs), len(l.NUMA))
	}
	return nil
}
