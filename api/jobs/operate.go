package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// errSuperseded ends an operation that a later stop or delete overtook.
var errSuperseded = errors.New("superseded")

// task is one run of one operation's job.
type task struct {
	r    *Runner
	vmm  VMM
	log  *slog.Logger
	cvm  store.CVM
	op   store.Operation
	seen vmmapi.VM // as last recorded
}

// operate does an operation, or says how long to wait for its turn.
func (r *Runner) operate(ctx context.Context, id int64, generation int) (time.Duration, error) {
	op, err := r.cfg.Store.Operation(ctx, id, generation)
	if err != nil {
		return 0, fmt.Errorf("operation %d/%d: %w", id, generation, err)
	}
	if !op.Open() {
		return 0, nil // an earlier run finished it and died before saying so
	}
	open, err := r.cfg.Store.OpenOps(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("operation %d/%d: %w", id, generation, err)
	}
	if open[0].Generation < generation {
		return r.cfg.Poll, nil
	}
	c, err := r.cfg.Store.CVM(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("operation %d/%d: %w", id, generation, err)
	}
	t := &task{r: r, cvm: c, op: op, log: r.cfg.Log.With("cvm", c.UUID, "operation", op.Kind, "generation", generation)}
	var no *refusal
	err = t.run(ctx)
	switch {
	case errors.Is(err, errSuperseded):
		return 0, t.finish(ctx, store.Superseded, "", nil)
	case ctx.Err() != nil:
		return 0, ctx.Err() // the process stops; the next one goes on
	case errors.As(err, &no):
		return 0, t.refused(ctx, no)
	case err != nil:
		t.log.Warn("operation failed", "err", err)
		return 0, t.finish(ctx, store.Failed, cloudapi.StatusFailed, errorOf(err))
	}
	return 0, nil
}

func (t *task) run(ctx context.Context) error {
	var err error
	if t.vmm, err = t.r.cfg.Node(t.cvm.NodeID); err != nil {
		return err
	}
	switch t.op.Kind {
	case store.Deploy, store.Start, store.Restart, store.Update, store.Resize, store.Upgrade:
		return t.bringUp(ctx)
	case store.Stop, store.Shutdown:
		return t.bringDown(ctx)
	case store.Delete:
		return t.remove(ctx)
	}
	return cvm.Errorf(cvm.Internal, "unknown operation %q", t.op.Kind)
}

// bringUp makes the VM exist with the CVM's present app, starts it once, and waits
// until it runs or has failed.
func (t *task) bringUp(ctx context.Context) error {
	if handled, err := t.switchVersion(ctx); handled || err != nil {
		return err
	}
	vm, err := t.define(ctx)
	if err != nil {
		return err
	}
	if t.op.StayDown {
		return t.finish(ctx, store.Done, cloudapi.StatusStopped, nil)
	}
	if t.op.BootsBefore == 0 {
		err := t.change(ctx, func(_ *store.Change, o *store.Operation) { o.BootsBefore = vm.Boots + 1 })
		if err != nil {
			return err
		}
	}
	// A boot since then is this operation's own: the process died after asking for it.
	if vm.Boots < t.op.BootsBefore {
		if vm, err = t.boot(ctx, vm); err != nil {
			return err
		}
	}
	return t.wait(ctx, func(vm vmmapi.VM, gone bool) (bool, error) {
		switch {
		case gone:
			return false, cvm.Errorf(cvm.Unavailable, "the VM is gone from its node").WithReason("vm-missing")
		case vm.State == vmmapi.StateFailed && vm.Boots >= t.op.BootsBefore:
			return true, t.finish(ctx, store.Failed, cloudapi.StatusFailed, vmError(vm))
		case vm.State == vmmapi.StateRunning && (vm.Boots >= t.op.BootsBefore || t.alreadyUp(vm)):
			return true, t.finish(ctx, store.Done, cloudapi.StatusRunning, nil)
		}
		return false, nil
	})
}

// alreadyUp: a start of a VM that runs changes nothing.
func (t *task) alreadyUp(vm vmmapi.VM) bool {
	return (t.op.Kind == store.Start || t.op.Kind == store.Deploy) && vm.State == vmmapi.StateRunning
}

func (t *task) define(ctx context.Context) (vm vmmapi.VM, err error) {
	err = t.try(ctx, func() error {
		vm, err = t.vmm.Get(ctx, t.cvm.UUID)
		if cvm.CodeOf(err) == cvm.NotFound {
			vm, err = t.vmm.Put(ctx, t.spec())
			return err
		}
		if err != nil || t.op.AppPut || t.op.BootsBefore != 0 {
			return err
		}
		if vm, err = t.shape(ctx, vm); err != nil {
			return err
		}
		_, err = t.vmm.PutApp(ctx, t.cvm.UUID, t.app())
		return err
	})
	if err == nil && !t.op.AppPut {
		err = t.change(ctx, func(_ *store.Change, o *store.Operation) { o.AppPut = true })
	}
	return vm, err
}

// shape gives the VM the CVM's size and image, where they differ. A size that the
// node refuses is taken back: the CVM has what its VM has.
func (t *task) shape(ctx context.Context, vm vmmapi.VM) (vmmapi.VM, error) {
	want := t.spec()
	if want.Resources != vm.Spec.Resources {
		next, err := t.vmm.PutResources(ctx, t.cvm.UUID, want.Resources)
		if err != nil && cvm.CodeOf(err) != cvm.Unavailable {
			has := vm.Spec.Resources
			err = errors.Join(err, t.change(ctx, func(c *store.Change, _ *store.Operation) {
				c.CVM.VCPU, c.CVM.MemoryMiB, c.CVM.DiskGB = has.VCPU, has.MemoryMiB, has.DiskMiB>>10
				if c.CVM.GPUs == 0 { // whose cards are in their type's price keep the type: only their disk can differ
					c.CVM.InstanceType = ""
				}
			}))
		}
		if err != nil {
			return vm, err
		}
		vm = next
	}
	if want.Image != "" && want.Image != vm.Spec.Image {
		return t.vmm.PutImage(ctx, t.cvm.UUID, want.Image)
	}
	return vm, nil
}

func (t *task) boot(ctx context.Context, vm vmmapi.VM) (vmmapi.VM, error) {
	up := vm.State == vmmapi.StateRunning || vm.State == vmmapi.StateBooting || vm.State == vmmapi.StateStarting
	restart := t.op.Kind != store.Start && t.op.Kind != store.Deploy
	if up && !restart {
		return vm, nil
	}
	if t.op.Kind == store.Deploy {
		err := t.change(ctx, func(c *store.Change, _ *store.Operation) { c.SetStatus(cloudapi.StatusStarting, "the VM is starting") })
		if err != nil {
			return vm, err
		}
	}
	err := t.try(ctx, func() (err error) {
		if up {
			vm, err = t.vmm.Restart(ctx, t.cvm.UUID)
		} else {
			vm, err = t.vmm.Start(ctx, t.cvm.UUID)
		}
		return err
	})
	return vm, err
}

func (t *task) spec() vmmapi.Spec {
	c := t.cvm
	app, _ := cvm.ParseAppID(c.AppID) // stored ids are canonical
	s := vmmapi.Spec{
		ID: c.UUID, Name: c.Name, Image: c.Image, AppID: app, App: t.app(),
		Resources: vmmapi.Resources{VCPU: c.VCPU, MemoryMiB: c.MemoryMiB, DiskMiB: c.DiskGB << 10},
		KMSURLs:   t.r.cfg.KMSURLs, GatewayURLs: t.r.cfg.GatewayURLs,
	}
	if c.GPUs > 0 {
		s.GPUs = &vmmapi.GPUs{AttachMode: "count", Product: c.GPU, Count: c.GPUs}
	}
	return s
}

func (t *task) app() vmmapi.App {
	a := vmmapi.App{AppCompose: t.cvm.AppCompose, EncryptedEnv: t.cvm.EncryptedEnv, UserConfig: []byte(t.cvm.UserConfig)}
	if s := t.cvm.EnvSignature; s != nil {
		a.EnvSignature = &vmmapi.EnvSignature{Counter: s.Counter, Signer: s.Signer, Signature: s.Signature}
	}
	return a
}

func (t *task) bringDown(ctx context.Context) error {
	err := t.try(ctx, func() error {
		_, err := t.vmm.Stop(ctx, t.cvm.UUID)
		if cvm.CodeOf(err) == cvm.NotFound {
			return nil // never got that far
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.wait(ctx, func(vm vmmapi.VM, gone bool) (bool, error) {
		down := vm.State == vmmapi.StateStopped || vm.State == vmmapi.StateCreated ||
			vm.State == vmmapi.StateFailed && vm.Desired != vmmapi.StateRunning
		if gone || down {
			return true, t.finish(ctx, store.Done, cloudapi.StatusStopped, nil)
		}
		return false, nil
	})
}

func (t *task) remove(ctx context.Context) error {
	err := t.try(ctx, func() error {
		err := t.vmm.Delete(ctx, t.cvm.UUID, t.op.Volumes == "keep")
		if cvm.CodeOf(err) == cvm.NotFound {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.wait(ctx, func(_ vmmapi.VM, gone bool) (bool, error) {
		if !gone {
			return false, nil
		}
		return true, t.finish(ctx, store.Done, cloudapi.StatusDeleted, nil)
	})
}

// try calls fn until it succeeds, fails for a reason other than "no answer" or "an
// update is under way", or the operation is overtaken. The first failure of a row is
// told in an event.
func (t *task) try(ctx context.Context, fn func() error) error {
	for n := 0; ; n++ {
		err := fn()
		text := "the node does not answer; trying again until it does"
		if cvm.ReasonOf(err) == updating {
			text = "the VM is being updated; waiting until that has ended"
		} else if cvm.CodeOf(err) != cvm.Unavailable || err == nil {
			return err
		}
		if n == 0 {
			t.log.Warn("trying again", "what", text, "err", err)
			if err := t.change(ctx, func(c *store.Change, o *store.Operation) {
				c.Emit(cloudapi.Event{Kind: cloudapi.EventRetry, Status: c.CVM.Status, Generation: o.Generation, Message: text})
			}); err != nil {
				return err
			}
		}
		if err := t.pause(ctx, min(t.r.cfg.Poll<<min(n, 5), 5*time.Second)); err != nil {
			return err
		}
	}
}

// pause waits, and notices that the operation was overtaken.
func (t *task) pause(ctx context.Context, d time.Duration) error {
	signal, stop := t.r.cfg.Store.Watch(t.cvm.ID)
	defer stop()
	if err := t.overtaken(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-signal:
			if err := t.overtaken(ctx); err != nil {
				return err
			}
		}
	}
}

func (t *task) overtaken(ctx context.Context) error {
	open, err := t.r.cfg.Store.OpenOps(ctx, t.cvm.ID)
	if err != nil {
		return err
	}
	for _, o := range open {
		if o.Generation > t.op.Generation && Overtakes(o.Kind) {
			return errSuperseded
		}
	}
	return nil
}

// Overtakes tells whether an operation may begin while another one runs, which
// then ends as superseded.
func Overtakes(kind string) bool {
	return kind == store.Stop || kind == store.Shutdown || kind == store.Delete
}

// wait polls the VM, recording what it shows, until done says so.
func (t *task) wait(ctx context.Context, done func(vm vmmapi.VM, gone bool) (bool, error)) error {
	for {
		var vm vmmapi.VM
		gone := false
		err := t.try(ctx, func() (err error) {
			vm, err = t.vmm.Get(ctx, t.cvm.UUID)
			if gone = cvm.CodeOf(err) == cvm.NotFound && err != nil; gone {
				err = nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if !gone {
			if err := t.record(ctx, vm); err != nil {
				return err
			}
		}
		if ok, err := done(vm, gone); ok || err != nil {
			return err
		}
		if err := t.pause(ctx, t.r.cfg.Poll); err != nil {
			return err
		}
	}
}

// change edits the operation and its CVM and keeps the task's copies fresh.
func (t *task) change(ctx context.Context, fn func(*store.Change, *store.Operation)) error {
	c, err := t.r.cfg.Store.Change(ctx, t.cvm.ID, nil, func(c *store.Change) error {
		o := c.Op(t.op.Generation)
		if o == nil {
			return errSuperseded // somebody finished it: this run is a ghost
		}
		fn(c, o)
		t.op = *o
		return nil
	})
	if err != nil {
		return err
	}
	t.cvm = c
	return nil
}

// finish ends the operation; status "" leaves the CVM's to the one that overtook it.
func (t *task) finish(ctx context.Context, state, status string, e *cloudapi.CVMError) error {
	err := t.change(ctx, func(c *store.Change, o *store.Operation) {
		c.Finish(o, state)
		if status == "" {
			c.Emit(cloudapi.Event{Kind: cloudapi.EventOperation, Message: o.Kind + " was overtaken by a later operation", Generation: o.Generation})
			return
		}
		settle(c, status, e)
	})
	if errors.Is(err, errSuperseded) {
		return nil
	}
	return err
}
