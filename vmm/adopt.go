package vmm

import (
	"context"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// adopt finds the machine that runs since before this VMM, and what was missed.
func (v *vm) adopt(ctx context.Context) {
	v.mu.Lock()
	r := v.rec
	v.mu.Unlock()
	if r.VM.Boots == 0 {
		return
	}
	inst, alive, err := v.adoptMachine(ctx)
	if err != nil {
		v.lost()
		return
	}
	if err := v.serveHost(ctx); err != nil {
		v.log.Error("host API", "error", err)
	}
	switch r.VM.State {
	case vmmapi.StateRunning, vmmapi.StateBooting, vmmapi.StateStopping:
	default:
		if !alive { // its end was accounted for
			v.mu.Lock()
			v.last = inst
			v.mu.Unlock()
			v.keepLogs(ctx, inst)
			v.mu.Lock()
			v.endLogs()
			v.mu.Unlock()
			return
		}
	}
	v.log.Info("adopted a machine", "state", r.VM.State, "alive", alive)
	v.started(ctx, inst)
	if alive {
		v.replug(ctx)
		v.catchUp(ctx, inst)
	}
}

// adoptMachine asks until the engine answers.
func (v *vm) adoptMachine(ctx context.Context) (machine.Instance, bool, error) {
	for {
		inst, alive, err := v.m.driver.Adopt(ctx, v.rec.VM.Spec.ID)
		if err == nil || cvm.CodeOf(err) == cvm.NotFound {
			return inst, alive, err
		}
		v.log.Warn("looking for the machine", "error", err)
		if run.Pause(ctx, 2*time.Second) != nil {
			return nil, false, ctx.Err()
		}
	}
}

// lost: no machine is there. One that should run is started again (by step).
func (v *vm) lost() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.unplug()
	switch v.rec.VM.State {
	case vmmapi.StateRunning, vmmapi.StateBooting, vmmapi.StateStopping:
		v.changeLocked("lost", "the machine is gone; the host was restarted or its engine cleaned", func(r *record) {
			r.VM.State = vmmapi.StateStopped
			if r.VM.Desired == running {
				r.VM.State = vmmapi.StateStarting
			}
		})
	}
}

// catchUp asks the guest how far it is: its notifications of the meantime are lost.
func (v *vm) catchUp(ctx context.Context, inst machine.Instance) {
	v.m.wg.Go(func() {
		for delay := 200 * time.Millisecond; ctx.Err() == nil; delay = min(2*delay, 5*time.Second) {
			v.mu.Lock()
			known := v.inst != inst || v.rec.VM.State == vmmapi.StateRunning || v.rec.BootFailed
			v.mu.Unlock()
			if known {
				return
			}
			var b guestapi.Boot
			if err := v.m.guestCall(ctx, inst, http.MethodGet, "/v1/boot", &b); err == nil {
				v.caughtUp(inst, b)
				return
			}
			if run.Pause(ctx, delay) != nil {
				return
			}
		}
	})
}

// caughtUp takes the guest's answer, unless another machine runs by now.
func (v *vm) caughtUp(inst machine.Instance, b guestapi.Boot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inst != inst {
		return
	}
	if b.Instance != "" {
		_ = v.heard(guestapi.Notify{Event: "instance.info", Payload: b.Instance})
	}
	if b.Progress != "" {
		_ = v.heard(guestapi.Notify{Event: "boot.progress", Payload: b.Progress})
	}
	if b.Ready {
		_ = v.heard(guestapi.Notify{Event: "ready"})
	}
}
