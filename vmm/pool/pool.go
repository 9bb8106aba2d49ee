// Package pool keeps the account of a node's CPU, memory and disk: nothing is
// given twice, and a refusal says what is missing.
package pool

import (
	"fmt"
	"strings"
	"sync"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Pool is safe for concurrent use.
type Pool struct {
	capacity vmmapi.Resources

	mu   sync.Mutex
	held map[string]vmmapi.Resources
}

// New makes a pool of the given capacity. A capacity of zero admits nothing.
func New(capacity vmmapi.Resources) *Pool {
	return &Pool{capacity: capacity, held: map[string]vmmapi.Resources{}}
}

// Set makes id hold exactly r, or changes nothing and returns code exhausted with
// what is missing. Holding less than before always succeeds.
func (p *Pool) Set(id string, r vmmapi.Resources) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.VCPU < 0 || r.MemoryMiB < 0 || r.DiskMiB < 0 {
		return cvm.Errorf(cvm.Invalid, "resources: negative size")
	}
	used, before := p.usedLocked(), p.held[id]
	var missing []string
	check := func(what, unit string, want, had, used, capacity int) {
		if free := capacity - (used - had); want > had && want > free {
			missing = append(missing, fmt.Sprintf("%s: %d%s wanted, %d%s free of %d%s", what, want, unit, max(free, 0), unit, capacity, unit))
		}
	}
	check("vcpu", "", r.VCPU, before.VCPU, used.VCPU, p.capacity.VCPU)
	check("memory", " MiB", r.MemoryMiB, before.MemoryMiB, used.MemoryMiB, p.capacity.MemoryMiB)
	check("disk", " MiB", r.DiskMiB, before.DiskMiB, used.DiskMiB, p.capacity.DiskMiB)
	if len(missing) > 0 {
		return cvm.Errorf(cvm.Exhausted, "this node is full: %s", strings.Join(missing, "; ")).
			WithReason("node-full").WithFix("choose a smaller instance type, stop a VM, or use another node")
	}
	p.held[id] = r
	return nil
}

// Force makes id hold r without asking: for machines that already run when the
// VMM starts.
func (p *Pool) Force(id string, r vmmapi.Resources) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[id] = r
}

// Release gives back everything id holds.
func (p *Pool) Release(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, id)
}

// Capacity is what the pool was made with.
func (p *Pool) Capacity() vmmapi.Resources { return p.capacity }

// Used is what is held.
func (p *Pool) Used() vmmapi.Resources {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usedLocked()
}

func (p *Pool) usedLocked() (u vmmapi.Resources) {
	for _, r := range p.held {
		u.VCPU += r.VCPU
		u.MemoryMiB += r.MemoryMiB
		u.DiskMiB += r.DiskMiB
	}
	return u
}
