package vmm

import (
	"context"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/vmm/confine"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/netplane"
	"github.com/confidential-cloud/phala/vmm/pci"
	"github.com/confidential-cloud/phala/vmm/pool"
	"github.com/confidential-cloud/phala/vmm/qemu"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// place is what of the host belongs to a VM, kept in its record: a new VMM holds
// the same for it again.
type place struct {
	Grant pool.Grant     `json:"grant,omitzero"`
	NICs  []netplane.NIC `json:"nics,omitempty"`
}

// hostPlane is what a node has beside CPU, memory and disk.
type hostPlane struct {
	net     *netplane.Plane
	confine *confine.Confiner
	gpus    []pci.Device
	alone   map[string]string // by slot: why a card cannot be given by itself; "" where it can
	nodes   []pci.Node
}

// newHostPlane looks what the host has. Nothing in the kernel changes.
func newHostPlane(c *Config) (h hostPlane, err error) {
	if h.gpus, err = pci.Discover(c.Sysfs, c.GPUs); err != nil {
		return h, err
	}
	h.alone = map[string]string{}
	for _, g := range h.gpus {
		if _, err := pci.Attachable(c.Sysfs, h.gpus, []string{g.Slot}); err != nil {
			h.alone[g.Slot] = err.Error()
		}
	}
	if h.nodes, err = pci.Topology(c.Sysfs, c.HugepageKiB); err != nil {
		return h, err
	}
	if c.Driver == "qemu" && (c.Confine.UIDs > 0 || c.Confine.Cgroup != "") {
		if h.confine, err = confine.New(c.Confine); err != nil {
			return h, err
		}
	}
	if h.net, err = netplane.New(c.Networks, c.Confine.FirstUID, c.Confine.UIDs, c.Log); err != nil {
		return h, err
	}
	return h, nil
}

// newPool is the account of what the host has.
func (h *hostPlane) newPool(c *Config) *pool.Pool {
	p := pool.Capacity{Resources: c.capacity(), CPUFactor: c.OverCommit, FirstUID: c.Confine.FirstUID, UIDs: c.Confine.UIDs}
	if c.Driver == "qemu" {
		p.FirstCID, p.CIDs, p.CIDInUse = c.QEMU.CIDStart, c.QEMU.CIDs(), qemu.CIDInUse
	}
	for _, n := range h.nodes {
		p.Nodes = append(p.Nodes, pool.Node{ID: n.ID, CPUs: n.CPUs, MemoryMiB: n.MemoryMiB, HugeMiB: n.HugeMiB})
	}
	p.Kinds = map[string][]string{}
	for _, g := range h.gpus {
		p.GPUs = append(p.GPUs, machine.GPU{Slot: g.Slot, Switch: g.Switch, Node: g.Node})
		if !g.Switch && h.alone[g.Slot] == "" {
			p.Kinds[g.Product] = append(p.Kinds[g.Product], g.Slot)
		}
	}
	return pool.New(p, pool.Listening)
}

// claim is what a VM holds of the pool.
func (m *VMM) claim(r *record) pool.Claim {
	s := &r.VM.Spec
	c := pool.Claim{Resources: held(r), PinNUMA: s.PinNUMA, HugePages: s.Hugepages}
	c.Ports, _ = m.cfg.hostPorts(s)
	if s.GPUs != nil {
		c.GPUs, c.AllGPUs = s.GPUs.Slots, s.GPUs.AttachMode == "all"
		c.GPUKind, c.GPUCount = s.GPUs.Product, s.GPUs.Count
	}
	return c
}

func (m *VMM) wish(r *record) netplane.Wish {
	w := netplane.Wish{ID: r.VM.Spec.ID, UID: r.Place.Grant.UID, NICs: r.Place.NICs}
	_, w.Ports = m.cfg.hostPorts(&r.VM.Spec)
	if l := r.VM.Spec.Limits; l != nil {
		w.BytesPerSec = l.NetBytesPerSec
	}
	return w
}

// reserve makes the VM hold what next needs, as a whole or not at all; next becomes
// the record only afterwards.
func (v *vm) reserve(next record) error {
	id := next.VM.Spec.ID
	fresh := v.rec.Place.NICs == nil
	nics, err := v.m.host.net.Assign(id, next.VM.Spec.Networks, v.rec.Place.NICs)
	if err != nil {
		return err
	}
	next.Place.NICs = nics
	w := v.m.wish(&next)
	err = v.m.host.net.Check(&w)
	var g pool.Grant
	if err == nil {
		g, err = v.m.pool.Set(id, v.m.claim(&next))
	}
	if err != nil {
		if fresh {
			v.m.host.net.Drop(id)
		}
		return err
	}
	v.rec.Place = place{Grant: g, NICs: nics}
	return nil
}

// hold takes what a VM occupies now, which is never more than it was promised.
func (m *VMM) hold(r *record) { m.pool.Force(r.VM.Spec.ID, m.claim(r), r.Place.Grant) }

// recall repeats what an earlier VMM gave to a VM.
func (v *vm) recall() {
	r := &v.rec
	if r.Place.NICs == nil { // of a VMM that gave none
		if nics, err := v.m.host.net.Assign(r.VM.Spec.ID, r.VM.Spec.Networks, nil); err == nil {
			r.Place.NICs = nics
		}
	}
	v.m.hold(r)
	v.m.host.net.Hold(v.m.wish(r), r.VM.Desired == running)
}

// outfit fills in what the machine has of this host, and makes it ready: taps with
// their guards, cards with vfio-pci.
func (v *vm) outfit(ctx context.Context, r *record, m *machine.Machine) error {
	s, g := &r.VM.Spec, &r.Place.Grant
	m.UID, m.CID, m.NUMA, m.Hugepages = g.UID, g.CID, g.Nodes, s.Hugepages
	if l := s.Limits; l != nil {
		m.Limits = machine.Limits{DiskBytesPerSec: l.DiskBytesPerSec, DiskIOPS: l.DiskIOPS, NetBytesPerSec: l.NetBytesPerSec}
	}
	volumes, err := volumesOf(s)
	if err == nil {
		err = v.m.cfg.checkVolumes(volumes) // again: time went by
	}
	if err != nil {
		return err
	}
	for _, name := range volumes {
		m.Volumes = append(m.Volumes, machine.Volume{Path: filepath.Join(v.m.cfg.VolumesDir, name)})
	}
	if err := v.attachGPUs(g.GPUs, m); err != nil {
		return err
	}
	nics, err := v.m.host.net.Attach(ctx, v.m.wish(r))
	m.NICs = nics
	return err
}

// attachGPUs checks the leased cards once more and hands them to vfio-pci, with
// which they stay: the host's own drivers do not touch what a VM had.
func (v *vm) attachGPUs(slots []string, m *machine.Machine) error {
	if len(slots) == 0 {
		return nil
	}
	cards, err := pci.Attachable(v.m.cfg.Sysfs, v.m.host.gpus, slots)
	if err != nil {
		return err
	}
	b := pci.NewBinder(v.m.cfg.Sysfs)
	for _, c := range cards {
		if err := b.Bind(c.Slot); err != nil {
			return err
		}
		m.GPUs = append(m.GPUs, machine.GPU{Slot: c.Slot, Switch: c.Switch, Node: c.Node})
	}
	return nil
}

// unplug removes what a run had in the host's network.
func (v *vm) unplug() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := v.m.host.net.Detach(ctx, v.rec.VM.Spec.ID); err != nil {
		v.log.Error("removing the VM's network", "error", err)
	}
}

// replug repairs the network of a machine that was found running.
func (v *vm) replug(ctx context.Context) {
	v.mu.Lock()
	w := v.m.wish(&v.rec)
	v.mu.Unlock()
	if _, err := v.m.host.net.Attach(ctx, w); err != nil {
		v.log.Error("the network of a machine that runs", "error", err)
	}
}

// startHost makes the bridges and removes what VMs that are gone left behind.
func (m *VMM) startHost(ctx context.Context) error {
	if err := m.host.net.Start(ctx); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, v := range m.all() {
		keep[v.rec.VM.Spec.ID] = true
	}
	if err := m.host.net.Sweep(ctx, keep); err != nil {
		m.log.Warn("cleaning the network", "error", err)
	}
	for _, id := range m.host.confine.Sweep(keep) {
		m.log.Warn("processes run in the control group of a VM that is not known", "vm", id)
	}
	m.wg.Go(func() {
		if err := m.host.net.Run(ctx); err != nil {
			m.log.Error("serving the guests' networks", "error", err)
		}
	})
	return nil
}

// describeHost adds what the host has to GET /v1/node.
func (m *VMM) describeHost(n *vmmapi.Node) {
	leases := m.pool.Leases()
	for _, g := range m.host.gpus {
		n.GPUs = append(n.GPUs, vmmapi.NodeGPU{Slot: g.Slot, Product: g.Product, Switch: g.Switch, Node: g.Node, HeldBy: leases[g.Slot], Problem: m.host.alone[g.Slot]})
	}
	for _, x := range m.host.nodes {
		n.NUMA = append(n.NUMA, vmmapi.NodeNUMA{ID: x.ID, CPUs: x.CPUs, MemoryMiB: x.MemoryMiB, HugeMiB: x.HugeMiB})
	}
	if p := m.cfg.Ports; p.Enabled {
		n.Ports = &vmmapi.NodePorts{Addresses: []string{p.Address.String()}, Ranges: p.Ranges}
		for _, a := range p.Addresses {
			n.Ports.Addresses = append(n.Ports.Addresses, a.String())
		}
	}
	for _, mode := range m.cfg.Networks.Modes {
		if mode == netplane.ModeUser {
			n.Networks = append(n.Networks, vmmapi.NodeNetwork{Mode: mode})
			continue
		}
		for _, b := range m.cfg.Networks.Bridges {
			x := vmmapi.NodeNetwork{Mode: mode, Bridge: b.Name, Managed: b.Managed}
			if b.Managed {
				x.IPv4 = b.IPv4.Masked().String()
			}
			if b.IPv6.IsValid() {
				x.IPv6 = b.IPv6.Masked().String()
			}
			n.Networks = append(n.Networks, x)
		}
	}
	n.Warnings = append(n.Warnings, m.host.net.Warnings()...)
}
