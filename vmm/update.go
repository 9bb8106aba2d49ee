package vmm

import (
	"context"
	"errors"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// An update ends in the old version or in the new one, never between. The record
// is replaced whole, so each step below is one durable write:
//
//	preparing   spec is the old one; the running guest pulls what the new one needs
//	booting     spec is the new one; Old is kept beside it until the guest was ready
//	(ended)     Update is gone; spec is the new one, or the old one again
//
// A VMM that was killed goes on from the phase it finds.

// version is what an update replaces.
type version struct {
	App       vmmapi.App       `json:"app"`
	Resources vmmapi.Resources `json:"resources"`
	Image     string           `json:"image"`
}

// pendingUpdate is the part of an update that nobody outside needs to see.
type pendingUpdate struct {
	Old    version       `json:"old"`
	Next   version       `json:"next"`
	Served bool          `json:"served"` // the old version was ready once
	Within time.Duration `json:"within"`
	// Launched: a machine of the new version existed; its disk may have grown.
	Launched bool `json:"launched"`
}

func versionOf(s *vmmapi.Spec) version { return version{s.App, s.Resources, s.Image} }
func (x version) apply(s *vmmapi.Spec) { s.App, s.Resources, s.Image = x.App, x.Resources, x.Image }

// back is the old version; a disk does not shrink.
func (u *pendingUpdate) back() version {
	x := u.Old
	if u.Launched {
		x.Resources.DiskMiB = u.Next.Resources.DiskMiB
	}
	return x
}

func (r *record) updating(phase string) bool {
	return r.Update != nil && r.VM.LastUpdate != nil && r.VM.LastUpdate.Phase == phase
}

// noteUpdate changes LastUpdate on a copy: answers given before keep theirs.
func (r *record) noteUpdate(fn func(u *vmmapi.Update)) {
	u := vmmapi.Update{}
	if r.VM.LastUpdate != nil {
		u = *r.VM.LastUpdate
	}
	fn(&u)
	r.VM.LastUpdate = &u
}

func (r *record) endUpdate(phase string, e *vmmapi.VMError, at time.Time) {
	r.Update = nil
	r.noteUpdate(func(u *vmmapi.Update) { u.Phase, u.Error, u.EndedAt, u.Progress = phase, e, at, "" })
}

// undo puts the old version back and ends the update.
func (r *record) undo(phase string, e *vmmapi.VMError, at time.Time) {
	if r.updating(vmmapi.UpdateBooting) {
		r.Update.back().apply(&r.VM.Spec)
		r.Served = r.Update.Served
	}
	r.endUpdate(phase, e, at)
}

// notUpdating refuses changes that would meet an update under way.
func (v *vm) notUpdating() error {
	if v.rec.Update == nil {
		return nil
	}
	return cvm.Errorf(cvm.Conflict, "VM %s is being updated (%s)", v.id(), v.rec.VM.LastUpdate.Phase).WithReason("update-in-progress").
		WithFix("wait until last_update has ended, or stop the VM to give the update up")
}

func (m *VMM) checkUpdate(q *vmmapi.UpdateRequest) error {
	var errs []error
	if q.App == nil && q.Resources == nil && q.Image == "" {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "update: nothing to change: name app, resources or image"))
	}
	if q.App != nil {
		errs = append(errs, checkApp(q.App))
	}
	if q.Resources != nil {
		errs = append(errs, m.cfg.checkResources(*q.Resources))
	}
	if q.Image != "" && !image.ValidName(q.Image) {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "image %q: not an image name", q.Image))
	}
	if s := q.ReadyWithinSeconds; s < 0 || s > 24*3600 {
		errs = append(errs, cvm.Errorf(cvm.Invalid, "ready_within_seconds %d: want 0 to 86400", s))
	}
	if err := joinInvalid(errs); err != nil || q.Image == "" {
		return err
	}
	_, err := m.image(q.Image)
	return err
}

// update replaces a VM's app, size and image together: everything is checked and
// reserved first, then pulled, then switched; what does not get ready is undone.
func (m *VMM) update(ctx context.Context, t target, q vmmapi.UpdateRequest) (vmmapi.VM, error) {
	if err := m.checkUpdate(&q); err != nil {
		return vmmapi.VM{}, err
	}
	return m.edit(ctx, t, func(v *vm) error {
		if err := v.notUpdating(); err != nil {
			return err
		}
		u := &pendingUpdate{Old: versionOf(&v.rec.VM.Spec), Next: versionOf(&v.rec.VM.Spec), Served: v.rec.Served, Within: time.Duration(m.cfg.UpdateWithin)}
		if q.App != nil {
			u.Next.App = *q.App
		}
		if q.Resources != nil {
			u.Next.Resources = *q.Resources
		}
		u.Next.Image = orWord(q.Image, u.Next.Image)
		if q.ReadyWithinSeconds > 0 {
			u.Within = time.Duration(q.ReadyWithinSeconds) * time.Second
		}
		return v.beginUpdate(u)
	})
}

func (v *vm) beginUpdate(u *pendingUpdate) error {
	if old := u.Old.Resources; u.Next.Resources.DiskMiB < old.DiskMiB {
		return cvm.Errorf(cvm.Invalid, "resources.disk_mib %d: a disk does not shrink, it has %d", u.Next.Resources.DiskMiB, old.DiskMiB).WithReason("disk-shrinks")
	}
	doc, err := appcompose.Parse(u.Next.App.AppCompose)
	if err != nil {
		return err
	}
	wanted := v.rec
	next := wanted.VM.Spec
	u.Next.apply(&next)
	if err := joinInvalid([]error{v.m.cfg.checkHost(&next)}); err != nil { // its volumes
		return err
	}
	wanted.Update = u
	if wanted.VM.State == vmmapi.StateFailed { // it will be started
		wanted.VM.State = vmmapi.StateStarting
	}
	if err := v.reserve(wanted); err != nil {
		return err
	}
	note := &vmmapi.Update{Phase: vmmapi.UpdatePreparing, ComposeHash: doc.Hash(), Image: u.Next.Image, Resources: u.Next.Resources, RequestedAt: v.m.now().UTC()}
	if v.rec.VM.Desired != running {
		v.changeLocked("update.applied", "updated while it does not run; the next start takes it", func(r *record) {
			u.Next.apply(&r.VM.Spec)
			r.Served = false
			note.Phase, note.EndedAt = vmmapi.UpdateApplied, note.RequestedAt
			r.VM.LastUpdate = note
		})
		return nil
	}
	ask := doc.Runner == appcompose.RunnerDockerCompose && string(u.Old.App.AppCompose) != string(u.Next.App.AppCompose)
	v.changeLocked("update.requested", "update to compose "+doc.Hash().String(), func(r *record) { r.Update, r.VM.LastUpdate = u, note })
	if !ask || !v.alive() || v.rec.VM.State != vmmapi.StateRunning {
		v.switchVersion() // there is nothing to pull, or nobody to ask
	}
	return nil
}

// prepare asks the running guest to pull; the loop calls it again after a restart.
func (v *vm) prepare(ctx context.Context, inst machine.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	u := v.rec.Update
	if v.cancel != nil || u == nil || !v.rec.updating(vmmapi.UpdatePreparing) {
		return
	}
	if inst == nil {
		v.switchVersion()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(v.m.cfg.PrepareWithin))
	v.cancel = cancel
	v.m.wg.Go(func() {
		defer cancel()
		v.prepared(ctx, u, v.m.guestPrepare(ctx, inst, u.Next.App.AppCompose, func(line string) { v.pulling(u, line) }))
	})
}

func (v *vm) pulling(u *pendingUpdate, line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rec.Update == u {
		v.rec.noteUpdate(func(n *vmmapi.Update) { n.Progress = line }) // not worth a durable write
	}
}

func (v *vm) prepared(ctx context.Context, u *pendingUpdate, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer v.poke()
	v.cancel = nil
	switch {
	case v.rec.Update != u: // cancelled meanwhile
	case err == nil:
		v.switchVersion()
	case errors.Is(context.Cause(ctx), context.Canceled): // the VMM stops: the next one asks again
	default:
		e := &vmmapi.VMError{Reason: orWord(cvm.ReasonOf(err), "prepare-failed"), Message: err.Error(), Stage: "prepare", Fix: orWord(fixOf(err), "nothing was changed; mend the cause and update again")}
		v.changeLocked("update.failed", describe(e), func(r *record) { r.endUpdate(vmmapi.UpdateFailed, e, v.m.now().UTC()) })
		v.m.hold(&v.rec)
	}
}

// switchVersion makes the new version the wanted one.
func (v *vm) switchVersion() {
	v.changeLocked("update.switching", "switching to the new version", func(r *record) {
		u := *r.Update
		u.Next.apply(&r.VM.Spec)
		r.Update, r.Served = &u, false
		r.again(v.alive())
		r.noteUpdate(func(n *vmmapi.Update) {
			n.Phase, n.Progress, n.ReadyBy = vmmapi.UpdateBooting, "", v.m.now().UTC().Add(u.Within)
		})
	})
}

// again wants a fresh machine, with a clean record of failures.
func (r *record) again(alive bool) {
	r.VM.Error, r.VM.BootProgress, r.BootFailed = nil, "", false
	r.Attempts, r.NextTry, r.Restart = 0, time.Time{}, alive
	if r.VM.State = vmmapi.StateStarting; alive {
		r.VM.State = vmmapi.StateStopping
	}
}

// rollBack returns to the old version because of e.
func (v *vm) rollBack(e *vmmapi.VMError) {
	v.changeLocked("rolled-back", "the new version failed: "+describe(e), func(r *record) {
		r.undo(vmmapi.UpdateRolledBack, e, v.m.now().UTC())
		if r.VM.Desired == running {
			r.again(v.alive())
		}
	})
	v.m.hold(&v.rec)
	v.poke()
}

// cancelUpdate ends an update because somebody wants the VM to stop.
func (v *vm) cancelUpdate() {
	if v.rec.Update == nil {
		return
	}
	if v.cancel != nil {
		v.cancel()
	}
	v.changeLocked("update.cancelled", "the VM was stopped before the new version was ready; the old one is kept", func(r *record) {
		r.undo(vmmapi.UpdateCancelled, nil, v.m.now().UTC())
	})
	v.m.hold(&v.rec)
}

// tendUpdate moves an update on; left is when to look again (0: nothing to wait for).
func (v *vm) tendUpdate(ctx context.Context, inst machine.Instance) (left time.Duration) {
	v.prepare(ctx, inst)
	v.mu.Lock()
	defer v.mu.Unlock()
	r := &v.rec
	if r.Deleting || !r.updating(vmmapi.UpdateBooting) {
		return 0
	}
	if r.VM.State == vmmapi.StateFailed { // the VMM was killed between the failure and the way back
		e := r.VM.Error
		if e == nil {
			e = &vmmapi.VMError{Reason: "boot-failed", Message: "the new version did not start"}
		}
		v.rollBack(e)
		return 0
	}
	left = r.VM.LastUpdate.ReadyBy.Sub(v.m.now())
	if left > 0 {
		return left
	}
	v.rollBack(&vmmapi.VMError{Reason: "update-timeout", Message: "the new version was not ready within " + r.Update.Within.String(), Stage: r.VM.BootProgress,
		Fix: "see its console and events, or allow more time with ready_within_seconds"})
	return 0
}
