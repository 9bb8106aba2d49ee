package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// updating is the node's word for "another update of this VM is under way".
const updating = "update-in-progress"

// switchVersion has the node update a VM that runs: its guest pulls first, and what
// does not get ready is rolled back. It is not handled where the VM does not run, or
// by a node that knows no updates: then the new version is put and the VM restarts.
func (t *task) switchVersion(ctx context.Context) (handled bool, err error) {
	switch t.op.Kind {
	case store.Update, store.Resize, store.Upgrade:
	default:
		return false, nil
	}
	if t.op.StayDown || t.op.AppPut || t.op.BootsBefore != 0 {
		return false, nil
	}
	var vm vmmapi.VM
	there := true
	err = t.try(ctx, func() (err error) {
		vm, err = t.vmm.Get(ctx, t.cvm.UUID)
		if there = err == nil || cvm.CodeOf(err) != cvm.NotFound; !there {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return true, err
	case !there || !t.op.UpdateAsked && vm.Desired != vmmapi.StateRunning:
		return false, nil
	case !t.op.UpdateAsked:
		err = t.change(ctx, func(_ *store.Change, o *store.Operation) { o.UpdateAsked, o.LastUpdate = true, requested(vm) })
		if err != nil {
			return true, err
		}
	}
	if !t.asked(vm) {
		asked, err := t.ask(ctx, vm)
		if err != nil || !asked {
			return err != nil, err
		}
	}
	return t.confirm(ctx)
}

// requested is when the newest update of a VM was asked for.
func requested(vm vmmapi.VM) time.Time {
	if vm.LastUpdate == nil {
		return time.Time{}
	}
	return vm.LastUpdate.RequestedAt
}

// asked tells whether the VM's newest update is this operation's own: an earlier run
// may have died after asking.
func (t *task) asked(vm vmmapi.VM) bool {
	at := requested(vm)
	return !at.IsZero() && !at.Equal(t.op.LastUpdate)
}

// ask requests the update; one that the node refuses changes nothing there.
func (t *task) ask(ctx context.Context, vm vmmapi.VM) (asked bool, err error) {
	want := t.spec()
	q := vmmapi.UpdateRequest{App: &want.App, Resources: &want.Resources}
	if want.Image != vm.Spec.Image {
		q.Image = want.Image
	}
	err = t.try(ctx, func() error {
		_, err := t.vmm.Update(ctx, t.cvm.UUID, q)
		return err
	})
	var e *cvm.Error
	switch {
	case err == nil:
		return true, nil
	case !errors.As(err, &e): // this process stops, or the operation was overtaken
		return true, err
	case e.Reason == "" && (e.Code == cvm.NotFound || e.Code == cvm.Unsupported): // no such route, or the VM went meanwhile
		return false, nil
	}
	return true, &refusal{errorOf(err)}
}

// refusal ends an update whose VM is as it was.
type refusal struct{ why *cloudapi.CVMError }

func (r *refusal) Error() string { return r.why.Message }

// refused ends an update that the node did not begin.
func (t *task) refused(ctx context.Context, r *refusal) error {
	t.log.Warn("update refused", "err", r)
	var vm vmmapi.VM
	err := t.try(ctx, func() (err error) {
		vm, err = t.vmm.Get(ctx, t.cvm.UUID)
		return err
	})
	if err != nil {
		return err
	}
	return t.undone(ctx, vm, r.why)
}

// confirm waits for the outcome. Not handled: the VM was stopped meanwhile, has the
// new version and must be started.
func (t *task) confirm(ctx context.Context) (handled bool, err error) {
	handled, phase := true, ""
	err = t.wait(ctx, func(vm vmmapi.VM, gone bool) (bool, error) {
		if gone {
			return false, cvm.Errorf(cvm.Unavailable, "the VM is gone from its node").WithReason("vm-missing")
		}
		u := vm.LastUpdate
		if u == nil {
			return false, cvm.Errorf(cvm.Unavailable, "the node forgot the update").WithReason("update-lost").WithFix("update again")
		}
		if u.UnderWay() {
			return false, t.tell(ctx, u, &phase)
		}
		status, e := resting(vm, true)
		switch {
		case u.Phase == vmmapi.UpdateApplied:
			handled = false
			return true, t.change(ctx, func(_ *store.Change, o *store.Operation) { o.AppPut = true })
		case status == cloudapi.StatusStarting || status == cloudapi.StatusStopping:
			return false, nil
		case u.Phase == vmmapi.UpdateDone:
			return true, t.finish(ctx, store.Done, status, e)
		}
		return true, t.undone(ctx, vm, updateError(u))
	})
	return handled, err
}

// tell records how far an update is, once per phase: lines of a pull are too many.
func (t *task) tell(ctx context.Context, u *vmmapi.Update, phase *string) error {
	if *phase == u.Phase {
		return nil
	}
	*phase = u.Phase
	text := "the running version goes on while the new one is pulled"
	if u.Phase == vmmapi.UpdateBooting {
		text = "the new version starts; if it does not get ready the old one comes back"
	}
	return t.change(ctx, func(c *store.Change, o *store.Operation) {
		c.Emit(cloudapi.Event{Kind: cloudapi.EventProgress, Status: c.CVM.Status, Generation: o.Generation, Message: text})
	})
}

func updateError(u *vmmapi.Update) *cloudapi.CVMError {
	e := &cloudapi.CVMError{Reason: "update-" + u.Phase, Message: "the update was given up because the VM was stopped at its node", Fix: "update again"}
	if u.Error != nil {
		e = &cloudapi.CVMError{Reason: u.Error.Reason, Message: u.Error.Message, Stage: u.Error.Stage, Fix: u.Error.Fix}
	}
	return e
}

// undone ends an update that left or brought back the old version: the CVM is again
// what its VM is, and says why. A disk that grew stays grown.
func (t *task) undone(ctx context.Context, vm vmmapi.VM, why *cloudapi.CVMError) error {
	status, _ := resting(vm, true)
	return t.change(ctx, func(c *store.Change, o *store.Operation) {
		if o.Before != nil {
			o.Before.Restore(&c.CVM.Body)
			if grown := vm.Spec.Resources.DiskMiB >> 10; grown > c.CVM.DiskGB {
				c.CVM.DiskGB = grown
			}
		}
		c.Finish(o, store.Failed)
		if status != cloudapi.StatusFailed { // settle tells it otherwise
			c.Emit(cloudapi.Event{Kind: cloudapi.EventError, Status: status, Generation: o.Generation, Error: why,
				Message: "the update failed and the version before it is kept: " + why.Message})
		}
		settle(c, status, why)
	})
}
