// Package pool keeps the account of what a node gives to its VMs: CPU, memory,
// disk, ports of the host, GPUs, NUMA nodes, huge pages, user ids, context ids of
// vsock. Nothing is
// given twice, a claim is granted as a whole or not at all, and a refusal names
// everything that is missing and who has it.
//
// Set makes a VM hold exactly a claim. Force repeats a grant of an earlier VMM;
// Release gives everything back. The account lives in memory: it follows from the
// VMs' records.
package pool

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Capacity is what a node has for VMs. Over-commit, if any, is already in it.
type Capacity struct {
	vmmapi.Resources
	Nodes []Node // NUMA, by id; none: claims that pin are refused
	// CPUFactor is how many virtual CPUs a CPU of a NUMA node stands for; below 1 is 1.
	CPUFactor float64
	GPUs      []machine.GPU // that may be given away, by slot
	// Kinds are the slots, by product, that a claim for a number of cards may get.
	Kinds map[string][]string
	// FirstUID and UIDs: user ids of hypervisors; none: 0 is granted.
	FirstUID, UIDs int
	// FirstCID and CIDs: context ids of vsock; none: 0 is granted.
	FirstCID uint32
	CIDs     int
	// CIDInUse says whether somebody outside has a context id; nil asks nobody.
	CIDInUse func(uint32) bool
}

// Node is a NUMA node.
type Node struct {
	ID        int
	CPUs      []int
	MemoryMiB int
	HugeMiB   int // huge pages, part of MemoryMiB
}

// Claim is what one VM holds.
type Claim struct {
	vmmapi.Resources
	Ports []Port
	// GPUs by slot, exclusively; AllGPUs: every card of the node.
	GPUs    []string
	AllGPUs bool
	// GPUCount cards of the product GPUKind, whichever are free: a VM that runs keeps
	// those it has.
	GPUKind  string
	GPUCount int
	// PinNUMA gives the VM CPUs and memory of certain NUMA nodes; HugePages takes
	// its memory from the nodes' huge pages.
	PinNUMA, HugePages bool
}

// compute reports whether the VM is to run; else it holds disk and ports only.
func (c *Claim) compute() bool { return c.VCPU > 0 || c.MemoryMiB > 0 }

// Grant is where a claim was placed.
type Grant struct {
	UID   int                `json:"uid,omitempty"`
	CID   uint32             `json:"cid,omitempty"`
	GPUs  []string           `json:"gpus,omitempty"`
	Nodes []machine.NUMANode `json:"nodes,omitempty"`
}

type holding struct {
	claim Claim
	grant Grant
}

// Pool is safe for concurrent use.
type Pool struct {
	capacity Capacity
	// inUse says who outside listens on a port: "" is nobody.
	inUse func(Port) string

	mu   sync.Mutex
	held map[string]holding
}

// New makes a pool. A capacity of zero admits nothing. inUse is asked about each
// port that a VM did not hold before; nil asks nobody.
func New(capacity Capacity, inUse func(Port) string) *Pool {
	if inUse == nil {
		inUse = func(Port) string { return "" }
	}
	return &Pool{capacity: capacity, inUse: inUse, held: map[string]holding{}}
}

// Set makes id hold exactly c, or changes nothing and returns code exhausted (or
// invalid) with all that is missing. Holding less than before always succeeds. The
// same claim after the same history is placed in the same way.
func (p *Pool) Set(id string, c Claim) (Grant, error) {
	if err := c.validate(); err != nil {
		return Grant{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.held[id]
	delete(p.held, id) // what it has is free for itself
	g, missing := p.placeLocked(id, &c, &before)
	if len(missing) > 0 {
		if before.claim.Resources != (vmmapi.Resources{}) || len(before.claim.Ports) > 0 {
			p.held[id] = before
		}
		return Grant{}, cvm.Errorf(cvm.Exhausted, "this node is full: %s", strings.Join(missing, "; ")).
			WithReason("node-full").WithFix("choose a smaller instance type, stop a VM, or use another node")
	}
	p.held[id] = holding{c, g}
	return g, nil
}

func (c *Claim) validate() error {
	if c.VCPU < 0 || c.MemoryMiB < 0 || c.DiskMiB < 0 {
		return cvm.Errorf(cvm.Invalid, "resources: negative size")
	}
	if c.GPUCount < 0 || c.GPUCount > 0 && (c.GPUKind == "" || c.AllGPUs || len(c.GPUs) > 0) {
		return cvm.Errorf(cvm.Invalid, "GPUs: want slots, all, or a number of one kind")
	}
	for i, a := range c.Ports {
		if a.Number == 0 || !a.Addr.IsValid() || (a.Protocol != "tcp" && a.Protocol != "udp") {
			return cvm.Errorf(cvm.Invalid, "port %s: want tcp or udp, an address and a number", a)
		}
		for _, b := range c.Ports[:i] {
			if a.overlaps(b) {
				return cvm.Errorf(cvm.Invalid, "ports %s and %s: the same port twice", b, a)
			}
		}
	}
	return nil
}

// placeLocked finds room for c among what the others hold.
func (p *Pool) placeLocked(id string, c *Claim, before *holding) (g Grant, missing []string) {
	used, had := p.usedLocked(), before.claim.Resources
	check := func(what, unit string, want, had, used, capacity int) {
		if free := capacity - used; want > had && want > free {
			missing = append(missing, fmt.Sprintf("%s: %d%s wanted, %d%s free of %d%s", what, want, unit, max(free, 0), unit, capacity, unit))
		}
	}
	check("vcpu", "", c.VCPU, had.VCPU, used.VCPU, p.capacity.VCPU)
	check("memory", " MiB", c.MemoryMiB, had.MemoryMiB, used.MemoryMiB, p.capacity.MemoryMiB)
	check("disk", " MiB", c.DiskMiB, had.DiskMiB, used.DiskMiB, p.capacity.DiskMiB)
	missing = append(missing, p.portsLocked(c.Ports, before.claim.Ports)...)
	var m []string
	if g.UID, m = p.uidLocked(before.grant.UID); m != nil {
		missing = append(missing, m...)
	}
	if g.CID, m = p.cidLocked(before); m != nil {
		missing = append(missing, m...)
	}
	if !c.compute() {
		return g, missing
	}
	if g.GPUs, m = p.gpusLocked(c, before.grant.GPUs); m != nil {
		missing = append(missing, m...)
	}
	if g.Nodes, m = p.nodesLocked(c, g.GPUs, before); m != nil {
		missing = append(missing, m...)
	}
	return g, missing
}

// uidLocked takes the smallest free user id; a VM keeps the one it has, because
// its files are that user's.
func (p *Pool) uidLocked(had int) (int, []string) {
	if p.capacity.UIDs == 0 {
		return 0, nil
	}
	taken := map[int]bool{}
	for _, h := range p.held {
		taken[h.grant.UID] = true
	}
	if had != 0 && !taken[had] {
		return had, nil
	}
	for uid := p.capacity.FirstUID; uid < p.capacity.FirstUID+p.capacity.UIDs; uid++ {
		if !taken[uid] {
			return uid, nil
		}
	}
	return 0, []string{fmt.Sprintf("user ids: all %d are taken", p.capacity.UIDs)}
}

// cidLocked takes the smallest free context id; a VM keeps the one it has, stopped or
// not. While it does not run, somebody outside may have taken it.
func (p *Pool) cidLocked(before *holding) (uint32, []string) {
	if p.capacity.CIDs == 0 {
		return 0, nil
	}
	taken := map[uint32]bool{}
	for _, h := range p.held {
		taken[h.grant.CID] = true
	}
	outside := func(cid uint32) bool { return p.capacity.CIDInUse != nil && p.capacity.CIDInUse(cid) }
	if had := before.grant.CID; had != 0 && !taken[had] && (before.claim.compute() || !outside(had)) {
		return had, nil
	}
	for i := range uint32(p.capacity.CIDs) { //nolint:gosec // checked with the configuration
		if cid := p.capacity.FirstCID + i; !taken[cid] && !outside(cid) {
			return cid, nil
		}
	}
	return 0, []string{fmt.Sprintf("vsock context ids: all %d are taken", p.capacity.CIDs)}
}

// gpusLocked leases cards; had are those that the VM holds.
func (p *Pool) gpusLocked(c *Claim, had []string) (out, missing []string) {
	if c.GPUCount > 0 {
		return p.countedLocked(c, had)
	}
	if c.AllGPUs {
		for _, g := range p.capacity.GPUs {
			out = append(out, g.Slot)
		}
		if len(out) == 0 {
			return nil, []string{"GPUs: this node has none"}
		}
	} else {
		out = slices.Sorted(slices.Values(c.GPUs))
	}
	for i, slot := range out {
		if !slices.ContainsFunc(p.capacity.GPUs, func(g machine.GPU) bool { return g.Slot == slot }) {
			missing = append(missing, fmt.Sprintf("GPU %s: not on this node", slot))
		} else if who := p.leaserLocked(slot); who != "" {
			missing = append(missing, fmt.Sprintf("GPU %s: held by VM %s", slot, who))
		} else if i > 0 && out[i-1] == slot {
			missing = append(missing, fmt.Sprintf("GPU %s: named twice", slot))
		}
	}
	return out, missing
}

// countedLocked chooses cards of a kind: those that the VM has, then by slot.
func (p *Pool) countedLocked(c *Claim, had []string) (out, missing []string) {
	kind := p.capacity.Kinds[c.GPUKind]
	var free []string
	for _, own := range []bool{true, false} {
		for _, slot := range kind {
			if slices.Contains(had, slot) == own && p.leaserLocked(slot) == "" {
				free = append(free, slot)
			}
		}
	}
	if len(free) < c.GPUCount {
		return nil, []string{fmt.Sprintf("GPUs %s: %d wanted, %d free of %d", c.GPUKind, c.GPUCount, len(free), len(kind))}
	}
	out = free[:c.GPUCount]
	slices.Sort(out)
	return out, nil
}

func (p *Pool) leaserLocked(slot string) string {
	for _, id := range p.idsLocked() {
		if slices.Contains(p.held[id].grant.GPUs, slot) {
			return id
		}
	}
	return ""
}

func (p *Pool) idsLocked() []string {
	ids := make([]string, 0, len(p.held))
	for id := range p.held {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Force makes id hold what an earlier VMM granted, without asking: its machine may
// run.
func (p *Pool) Force(id string, c Claim, g Grant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.compute() {
		g.GPUs, g.Nodes = nil, nil
	}
	p.held[id] = holding{c, g}
}

// Shrink gives back what a VM that does not run needs not: all but disk, ports,
// user id and context id.
func (p *Pool) Shrink(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.held[id]; ok {
		h.claim.VCPU, h.claim.MemoryMiB = 0, 0
		h.grant.GPUs, h.grant.Nodes = nil, nil
		p.held[id] = h
	}
}

// Release gives back everything id holds.
func (p *Pool) Release(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, id)
}

// Capacity is what the pool was made with.
func (p *Pool) Capacity() Capacity { return p.capacity }

// Used is what is held.
func (p *Pool) Used() vmmapi.Resources {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usedLocked()
}

// Leases says which VM holds which card, by slot.
func (p *Pool) Leases() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]string{}
	for id, h := range p.held {
		for _, slot := range h.grant.GPUs {
			out[slot] = id
		}
	}
	return out
}

func (p *Pool) usedLocked() (u vmmapi.Resources) {
	for _, h := range p.held {
		u.VCPU += h.claim.VCPU
		u.MemoryMiB += h.claim.MemoryMiB
		u.DiskMiB += h.claim.DiskMiB
	}
	return u
}
