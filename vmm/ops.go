package vmm

import (
	"context"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// put defines a VM, idempotently by id.
func (m *VMM) put(s vmmapi.Spec) (vmmapi.VM, error) {
	if err := m.cfg.checkSpec(&s); err != nil {
		return vmmapi.VM{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := digest(s)
	if v := m.vms[s.ID]; v != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.rec.Deleting {
			return vmmapi.VM{}, cvm.Errorf(cvm.Conflict, "VM %s is being deleted", s.ID).WithReason("vm-deleting")
		}
		if sum != v.rec.Created && sum != digest(v.rec.VM.Spec) {
			return vmmapi.VM{}, cvm.Errorf(cvm.Conflict, "VM %s exists with another spec", s.ID).WithReason("vm-differs").
				WithFix("use PUT app or resources to change it, or another id")
		}
		return v.rec.VM, nil
	}
	if err := m.drain.admits(); err != nil {
		return vmmapi.VM{}, err
	}
	if len(m.vms) >= m.cfg.Limits.MaxVMs {
		return vmmapi.VM{}, cvm.Errorf(cvm.Exhausted, "this node has its %d VMs", m.cfg.Limits.MaxVMs).WithReason("node-full")
	}
	if _, err := m.image(s.Image); err != nil {
		return vmmapi.VM{}, err
	}
	v := m.newVM(record{Created: sum, VM: vmmapi.VM{Spec: s, State: vmmapi.StateCreated, Desired: stopped}})
	if err := v.reserve(v.rec); err != nil {
		return vmmapi.VM{}, err
	}
	if err := m.store.save(&v.rec); err != nil {
		m.pool.Release(s.ID)
		return vmmapi.VM{}, err
	}
	v.change("created", "created", func(*record) {})
	m.vms[s.ID] = v
	out, loops := v.rec.VM, m.ctx()
	m.wg.Go(func() { v.loop(loops) })
	return out, nil
}

// target is the VM that an order is for, and the generation its sender saw (nil: any).
type target struct {
	id    string
	match *int64
}

func (t target) check(v *vm) error {
	if g := v.rec.VM.Generation; t.match != nil && *t.match != g {
		return cvm.Errorf(cvm.Conflict, "VM %s has generation %d, If-Match says %d", t.id, g, *t.match).WithReason("generation").
			WithFix("read the VM again and decide anew")
	}
	return nil
}

// edit runs fn on a VM's record and wakes its loop.
func (m *VMM) edit(ctx context.Context, t target, fn func(v *vm) error) (vmmapi.VM, error) {
	id := t.id
	v, err := m.settled(ctx, id)
	if err != nil {
		return vmmapi.VM{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rec.Deleting {
		return vmmapi.VM{}, cvm.Errorf(cvm.Conflict, "VM %s is being deleted", id).WithReason("vm-deleting")
	}
	if err := t.check(v); err != nil {
		return vmmapi.VM{}, err
	}
	if err := fn(v); err != nil {
		return vmmapi.VM{}, err
	}
	v.poke()
	return v.rec.VM, nil
}

func (m *VMM) putApp(ctx context.Context, t target, a vmmapi.App) (vmmapi.VM, error) {
	if err := joinInvalid([]error{checkApp(&a)}); err != nil {
		return vmmapi.VM{}, err
	}
	return m.edit(ctx, t, func(v *vm) error {
		if err := v.notUpdating(); err != nil {
			return err
		}
		next := v.rec.VM.Spec
		next.App = a
		if err := joinInvalid([]error{m.cfg.checkHost(&next)}); err != nil { // its volumes
			return err
		}
		v.changeLocked("app.updated", "the app was updated; it takes effect at the next start", func(r *record) { r.VM.Spec.App, r.Served = a, false })
		return nil
	})
}

// respec changes a spec as a whole, checked as a whole; it takes effect at the next start.
func (m *VMM) respec(ctx context.Context, t target, change func(*vmmapi.Spec) error) (vmmapi.VM, error) {
	return m.edit(ctx, t, func(v *vm) error {
		if err := v.notUpdating(); err != nil {
			return err
		}
		next, old := v.rec, &v.rec.VM.Spec
		s := &next.VM.Spec
		if err := change(s); err != nil {
			return err
		}
		if err := m.cfg.checkSpec(s); err != nil {
			return err
		}
		if s.Resources.DiskMiB < old.Resources.DiskMiB {
			return cvm.Errorf(cvm.Invalid, "resources.disk_mib %d: a disk does not shrink, it has %d", s.Resources.DiskMiB, old.Resources.DiskMiB).WithReason("disk-shrinks")
		}
		if v.alive() && attachments(s) != attachments(old) {
			return cvm.Errorf(cvm.Precondition, "VM %s runs: its ports, networks, GPUs and volumes change only while it does not", t.id).WithReason("vm-running").WithFix("stop it first")
		}
		if _, err := m.image(s.Image); err != nil {
			return err
		}
		if err := v.reserve(next); err != nil {
			return err
		}
		v.changeLocked("spec", "the VM was changed; it takes effect at the next start", func(r *record) {
			r.Served = r.Served && digestApp(&r.VM.Spec) == digestApp(s)
			r.VM.Spec = *s
		})
		return nil
	})
}

// attachments is what a running machine cannot exchange.
func attachments(s *vmmapi.Spec) string {
	return digest(vmmapi.Spec{Ports: s.Ports, Networks: s.Networks, GPUs: s.GPUs, Volumes: s.Volumes, PinNUMA: s.PinNUMA, Hugepages: s.Hugepages, NoTEE: s.NoTEE})
}

func digestApp(s *vmmapi.Spec) string { return digest(vmmapi.Spec{App: s.App, Image: s.Image}) }

func (m *VMM) putResources(ctx context.Context, t target, res vmmapi.Resources) (vmmapi.VM, error) {
	if err := joinInvalid([]error{m.cfg.checkResources(res)}); err != nil {
		return vmmapi.VM{}, err
	}
	return m.edit(ctx, t, func(v *vm) error {
		if err := v.notUpdating(); err != nil {
			return err
		}
		old := v.rec.VM.Spec.Resources
		if res.DiskMiB < old.DiskMiB {
			return cvm.Errorf(cvm.Invalid, "resources.disk_mib %d: a disk does not shrink, it has %d", res.DiskMiB, old.DiskMiB).WithReason("disk-shrinks")
		}
		next := v.rec
		next.VM.Spec.Resources = res
		if err := v.reserve(next); err != nil {
			return err
		}
		v.changeLocked("resized", "the size changed; it takes effect at the next start", func(r *record) { r.VM.Spec.Resources = res })
		return nil
	})
}

// putImage chooses another guest image; the present one keeps running until then.
func (m *VMM) putImage(ctx context.Context, t target, name string) (vmmapi.VM, error) {
	if !image.ValidName(name) {
		return vmmapi.VM{}, joinInvalid([]error{cvm.Errorf(cvm.Invalid, "image %q: not an image name", name)})
	}
	if _, err := m.image(name); err != nil {
		return vmmapi.VM{}, err
	}
	return m.edit(ctx, t, func(v *vm) error {
		if err := v.notUpdating(); err != nil {
			return err
		}
		v.changeLocked("image", "the guest image changed; it takes effect at the next start", func(r *record) { r.VM.Spec.Image = name })
		return nil
	})
}

// start wants the VM to run. A running VM stays as it is.
func (m *VMM) start(ctx context.Context, t target) (vmmapi.VM, error) {
	return m.edit(ctx, t, func(v *vm) error {
		r := &v.rec
		if r.Update != nil {
			return nil // it is being started
		}
		if r.VM.Desired == running && r.VM.State != vmmapi.StateFailed && r.VM.State != vmmapi.StateStopping && r.VM.Error == nil {
			return nil
		}
		return v.order("start", v.alive() && (r.VM.State == vmmapi.StateFailed || r.VM.State == vmmapi.StateStopping || r.BootFailed))
	})
}

// restart stops the machine if there is one, and starts it.
func (m *VMM) restart(ctx context.Context, t target) (vmmapi.VM, error) {
	return m.edit(ctx, t, func(v *vm) error {
		if err := v.notUpdating(); err != nil {
			return err
		}
		return v.order("restart", v.alive())
	})
}

// order makes the VM wanted, with a clean record of failures.
func (v *vm) order(kind string, again bool) error {
	if err := v.m.drain.mayStart(v.m.now()); err != nil {
		return err
	}
	next := v.rec
	next.VM.Desired, next.VM.State = running, vmmapi.StateStarting
	if err := v.reserve(next); err != nil {
		return err
	}
	v.changeLocked(kind, kind+" requested", func(r *record) {
		r.VM.Desired, r.VM.Error, r.VM.BootProgress = running, nil, ""
		r.Restart, r.Attempts, r.NextTry = again, 0, time.Time{}
		if !v.alive() {
			r.VM.State = vmmapi.StateStarting
		} else if again {
			r.VM.State, r.BootFailed = vmmapi.StateStopping, false
		}
	})
	return nil
}

// stopVM wants the VM not to run.
func (m *VMM) stopVM(ctx context.Context, t target) (vmmapi.VM, error) {
	return m.edit(ctx, t, func(v *vm) error {
		if v.rec.VM.Desired == stopped {
			return nil
		}
		v.cancelUpdate()
		v.changeLocked("stop", "stop requested", func(r *record) {
			r.VM.Desired, r.Restart, r.NextTry = stopped, false, time.Time{}
			r.VM.State = vmmapi.StateStopping
			if !v.alive() {
				r.VM.State, r.VM.BootProgress = vmmapi.StateStopped, ""
			}
		})
		if !v.alive() {
			m.releaseCompute(&v.rec)
		}
		return nil
	})
}

// remove deletes the VM; what does not exist is deleted already.
func (m *VMM) remove(t target, keep bool) error {
	v, err := m.find(t.id)
	if err != nil {
		return nil //nolint:nilerr // idempotent
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := t.check(v); err != nil {
		return err
	}
	if !v.rec.Deleting {
		v.cancelUpdate()
		v.changeLocked("deleting", map[bool]string{true: "deleting; the volumes are kept", false: "deleting with its volumes"}[keep], func(r *record) {
			r.Deleting, r.VM.Deleting, r.KeepState, r.VM.Desired = true, true, keep, stopped
			r.VM.State = vmmapi.StateStopping
		})
	}
	v.poke()
	return nil
}
