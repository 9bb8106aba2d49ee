package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/vmm/machine"
)

// cards are the network cards. They have no option ROM: nothing of the host's runs
// in the firmware.
func (b *builder) cards() {
	for i, n := range b.l.NICs {
		id := "net" + strconv.Itoa(i)
		if n.Mode == machine.NICTap {
			b.opt("-netdev", "tap", "id", id, "ifname", n.Tap, "script", "no", "downscript", "no", "vhost", "off")
		} else {
			b.opt("-netdev", "user", userNet(id, n)...)
		}
		b.virtio("virtio-net-pci", "netdev", id, "mac", n.MAC.String(), "romfile", "")
	}
}

func userNet(id string, n machine.NIC) []string {
	kv := []string{"id", id}
	if n.Net.IsValid() {
		kv = append(kv, "net", n.Net.Masked().String())
	}
	if n.DHCPStart.IsValid() {
		kv = append(kv, "dhcpstart", n.DHCPStart.String())
	}
	restrict := "off"
	if n.Restrict {
		restrict = "on"
	}
	kv = append(kv, "restrict", restrict)
	for _, f := range n.Forwards {
		kv = append(kv, "hostfwd", fmt.Sprintf("%s:%s:%d-:%d", f.Protocol, f.Host.Addr(), f.Host.Port(), f.GuestPort))
	}
	return kv
}

// numa places memory: one node of the guest per node of the host, in the order
// given (the reference's order came from a map and changed from boot to boot).
func (b *builder) numa() {
	l := b.l
	if len(l.NUMA) == 0 {
		if l.Hugepages {
			b.memory("mem0", l.MemoryMiB, -1)
			b.opt("-numa", "node", "nodeid", "0", "cpus", cpus(0, l.VCPU), "memdev", "mem0")
		}
		return
	}
	first, bus := 0, 5
	for k, n := range l.NUMA {
		mem := "mem" + strconv.Itoa(k)
		b.memory(mem, n.MemoryMiB, n.Node)
		b.opt("-numa", "node", "nodeid", strconv.Itoa(k), "cpus", cpus(first, n.VCPUs), "memdev", mem)
		first += n.VCPUs
		if gpus := b.gpusOf(n.Node); gpus > 0 {
			// QEMU reads addr as hexadecimal.
			b.opt("-device", "pxb-pcie", "id", bridge(k), "bus", "pcie.0", "addr", fmt.Sprintf("%#x", firstBridge+k),
				"numa_node", strconv.Itoa(k), "bus_nr", strconv.Itoa(bus))
			bus += gpus + 1
		}
	}
}

const (
	firstBridge = 10 // slot of the first node's bridge on pcie.0
	maxNUMA     = 16 // bridges end below slot 0x1f, which is the chipset's
	maxBus      = 255
)

func bridge(k int) string { return "pcie.node" + strconv.Itoa(k) }

func cpus(first, n int) string {
	if n == 1 {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d-%d", first, first+n-1)
}

// memory of a node of the host; -1: of any.
func (b *builder) memory(id string, mib, node int) {
	kv := []string{"id", id, "size", strconv.Itoa(mib) + "M"}
	kind := "memory-backend-ram"
	switch {
	case b.l.Hugepages:
		kind, kv = "memory-backend-file", append(kv, "mem-path", "/dev/hugepages", "share", "on", "prealloc", "yes")
	case b.l.Accel == SNP:
		kind, kv = "memory-backend-memfd", append(kv, "share", "true")
	}
	if node >= 0 {
		kv = append(kv, "host-nodes", strconv.Itoa(node), "policy", "bind")
	}
	b.opt("-object", kind, kv...)
}

// gpusOf counts the GPUs (no switches) of a host node.
func (b *builder) gpusOf(node int) (n int) {
	for _, g := range b.l.GPUs {
		if !g.Switch && g.Node == node {
			n++
		}
	}
	return n
}

// passthrough adds GPUs below the bridge of their node, then the switches.
func (b *builder) passthrough() {
	l := b.l
	if len(l.GPUs) == 0 {
		return
	}
	b.opt("-object", "iommufd", "id", "iommufd0")
	port := 0
	each := func(switches bool) {
		for _, g := range l.GPUs {
			if g.Switch != switches {
				continue
			}
			port++
			n := strconv.Itoa(port)
			b.opt("-device", "pcie-root-port", "id", "pci."+n, "bus", b.busOf(g), "chassis", n)
			b.opt("-device", "vfio-pci", "host", g.Slot, "bus", "pci."+n, "iommufd", "iommufd0")
		}
	}
	each(false)
	each(true)
}

func (b *builder) busOf(g machine.GPU) string {
	if g.Switch {
		return "pcie.0"
	}
	for k, n := range b.l.NUMA {
		if n.Node == g.Node {
			return bridge(k)
		}
	}
	return "pcie.0"
}

// lines is a command line as golden files and logs have it: one option a line.
func lines(args []string) string {
	var s strings.Builder
	for i, a := range args {
		switch {
		case i == 0:
		case strings.HasPrefix(a, "-"):
			s.WriteByte('\n')
		default:
			s.WriteByte(' ')
		}
		s.WriteString(a)
	}
	return s.String() + "\n"
}
