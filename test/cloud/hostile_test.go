package cloud

import (
	"context"
	"sync"

	"github.com/confidential-cloud/phala/vmm/machine"
)

// hostileDriver is a host that changes what it was told to run.
type hostileDriver struct {
	machine.Driver
	mu    sync.Mutex
	on    string // the machine that it cheats
	cheat func(*machine.Machine) error
	after func(machine.Machine) error // what it does to a machine that was just started
}

var theHost = &hostileDriver{}

// hostile puts the host that may cheat between the VMM and the machines.
func hostile(d machine.Driver) machine.Driver {
	theHost.Driver = d
	return theHost
}

// against names the machine that is cheated; all others are run as they should be.
func (h *hostileDriver) against(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on, h.cheat, h.after = id, nil, nil
}

// cheats makes every launch of that machine go through edit; nil ends it.
func (h *hostileDriver) cheats(edit func(*machine.Machine) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cheat = edit
}

// cheatsAfter does something to that machine after each start; nil ends it.
func (h *hostileDriver) cheatsAfter(do func(machine.Machine) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.after = do
}

func (h *hostileDriver) Launch(ctx context.Context, m machine.Machine) (machine.Instance, error) {
	h.mu.Lock()
	cheat, after := h.cheat, h.after
	if m.ID != h.on {
		cheat, after = nil, nil
	}
	h.mu.Unlock()
	if cheat != nil {
		if err := cheat(&m); err != nil {
			return nil, err
		}
	}
	inst, err := h.Driver.Launch(ctx, m)
	if err == nil && after != nil {
		err = after(m)
	}
	return inst, err
}
