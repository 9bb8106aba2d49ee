package pool

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/confidential-cloud/phala/vmm/machine"
)

// free is what is left on a NUMA node.
type free struct {
	node              Node
	vcpu, memory, hug int
}

// freeLocked is what pinned VMs left on each node, by id.
func (p *Pool) freeLocked() []free {
	out := make([]free, 0, len(p.capacity.Nodes))
	for _, n := range p.capacity.Nodes {
		f := free{node: n, vcpu: int(float64(len(n.CPUs)) * max(p.capacity.CPUFactor, 1)), memory: n.MemoryMiB - n.HugeMiB, hug: n.HugeMiB}
		for _, h := range p.held {
			for _, s := range h.grant.Nodes {
				if s.Node != n.ID {
					continue
				}
				if h.claim.HugePages {
					f.hug -= s.MemoryMiB
				} else {
					f.memory -= s.MemoryMiB
				}
				if h.claim.PinNUMA {
					f.vcpu -= s.VCPUs
				}
			}
		}
		out = append(out, f)
	}
	return out
}

// nodesLocked places a claim on NUMA nodes: those of its GPUs, or as few as can
// hold it, the fullest first among those. A claim that neither pins nor takes huge
// pages floats, but huge pages are not memory that it could use.
func (p *Pool) nodesLocked(c *Claim, gpus []string, before *holding) ([]machine.NUMANode, []string) {
	if !c.PinNUMA && !c.HugePages {
		return nil, p.floatLocked(c, before)
	}
	all := p.freeLocked()
	if len(all) == 0 {
		return nil, []string{"NUMA: this host shows no nodes"}
	}
	if on := p.gpuNodes(gpus); len(on) > 0 {
		chosen := slices.DeleteFunc(slices.Clone(all), func(f free) bool { return !slices.Contains(on, f.node.ID) })
		if out, ok := split(c, chosen); ok {
			return out, nil
		}
		return nil, []string{p.noRoom(c, chosen)}
	}
	for k := 1; k <= len(all); k++ {
		if out, ok := smallest(c, all, k); ok {
			return out, nil
		}
	}
	return nil, []string{p.noRoom(c, all)}
}

// floatLocked checks memory that is in no huge page.
func (p *Pool) floatLocked(c *Claim, before *holding) []string {
	huge, used := 0, 0
	for _, n := range p.capacity.Nodes {
		huge += n.HugeMiB
	}
	for _, h := range p.held {
		if !h.claim.HugePages {
			used += h.claim.MemoryMiB
		}
	}
	had := before.claim.MemoryMiB
	if before.claim.HugePages {
		had = 0
	}
	if left := p.capacity.MemoryMiB - huge - used; huge > 0 && c.MemoryMiB > had && c.MemoryMiB > left {
		return []string{fmt.Sprintf("memory outside huge pages: %d MiB wanted, %d MiB free", c.MemoryMiB, max(left, 0))}
	}
	return nil
}

func (p *Pool) gpuNodes(gpus []string) (out []int) {
	for _, g := range p.capacity.GPUs {
		if slices.Contains(gpus, g.Slot) && g.Node >= 0 && !g.Switch && !slices.Contains(out, g.Node) {
			out = append(out, g.Node)
		}
	}
	slices.Sort(out)
	return out
}

// smallest tries k nodes: for one node the fullest that fits, for more those with
// the most room.
func smallest(c *Claim, all []free, k int) ([]machine.NUMANode, bool) {
	room := func(f free) int {
		if c.HugePages {
			return f.hug
		}
		return f.memory
	}
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b free) int {
		if k == 1 {
			return cmp.Compare(room(a), room(b))
		}
		return cmp.Compare(room(b), room(a))
	})
	if k == 1 {
		for _, f := range order {
			if out, ok := split(c, []free{f}); ok {
				return out, true
			}
		}
		return nil, false
	}
	chosen := order[:k]
	slices.SortFunc(chosen, func(a, b free) int { return cmp.Compare(a.node.ID, b.node.ID) })
	return split(c, chosen)
}

// split shares a claim over nodes as evenly as whole units go, the rest to the
// first ones, and reports whether it fits.
func split(c *Claim, nodes []free) ([]machine.NUMANode, bool) {
	k := len(nodes)
	if k == 0 || c.VCPU < k {
		return nil, false
	}
	out := make([]machine.NUMANode, 0, k)
	for i, f := range nodes {
		n := machine.NUMANode{Node: f.node.ID, VCPUs: c.VCPU / k, MemoryMiB: c.MemoryMiB / k}
		if i < c.VCPU%k {
			n.VCPUs++
		}
		if i == 0 {
			n.MemoryMiB += c.MemoryMiB % k
		}
		room := f.memory
		if c.HugePages {
			room = f.hug
		}
		if n.MemoryMiB > room || (c.PinNUMA && n.VCPUs > f.vcpu) {
			return nil, false
		}
		if c.PinNUMA {
			n.HostCPUs = f.node.CPUs
		}
		out = append(out, n)
	}
	return out, true
}

func (p *Pool) noRoom(c *Claim, nodes []free) string {
	what := "NUMA"
	if c.HugePages {
		what = "huge pages"
	}
	s := fmt.Sprintf("%s: %d vcpu and %d MiB wanted", what, c.VCPU, c.MemoryMiB)
	for _, f := range nodes {
		room := f.memory
		if c.HugePages {
			room = f.hug
		}
		s += fmt.Sprintf(", node %d has %d vcpu and %d MiB", f.node.ID, max(f.vcpu, 0), max(room, 0))
	}
	return s
}
