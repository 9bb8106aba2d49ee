package jobs

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// errorOf turns what went wrong into what people see. Errors without a code are
// ours alone: their text stays in the log.
func errorOf(err error) *cloudapi.CVMError {
	var e *cvm.Error
	if !errors.As(err, &e) {
		return &cloudapi.CVMError{Reason: "internal", Message: "the cloud API failed at this operation (see its log)"}
	}
	reason := e.Reason
	if reason == "" {
		reason = string(e.Code)
	}
	return &cloudapi.CVMError{Reason: reason, Message: e.Message, Fix: e.Fix}
}

// vmError is why the VM failed, in the guest's or the VMM's words.
func vmError(vm vmmapi.VM) *cloudapi.CVMError {
	if vm.Error == nil {
		return &cloudapi.CVMError{Reason: "vm-failed", Message: "the VM stopped without saying why", Fix: "look at the serial log"}
	}
	return &cloudapi.CVMError{Reason: vm.Error.Reason, Message: vm.Error.Message, Stage: vm.Error.Stage, Fix: vm.Error.Fix}
}

// settle gives a CVM the status it rests in.
func settle(c *store.Change, status string, e *cloudapi.CVMError) {
	c.CVM.Error = e
	text := "the CVM is " + status
	switch status {
	case cloudapi.StatusFailed:
		if e != nil {
			c.Emit(cloudapi.Event{Kind: cloudapi.EventError, Status: status, Message: e.Message, Error: e})
			text = "failed: " + e.Message
		}
	case cloudapi.StatusRunning:
		c.CVM.StoppedAt, c.CVM.BootProgress = time.Time{}, ""
	case cloudapi.StatusStopped:
		c.CVM.StoppedAt, c.CVM.BootProgress = c.At, ""
	case cloudapi.StatusDeleted:
		c.CVM.DeletedAt = c.At
		// Nothing needs it any more; ciphertext kept for nothing is still kept.
		c.CVM.EncryptedEnv, c.CVM.EnvSignature = nil, nil
		defer c.Emit(cloudapi.Event{Kind: cloudapi.EventDeleted, Status: status, Message: "the CVM is deleted"})
	}
	c.SetStatus(status, text)
}

// record stores what a VM shows during an operation, when it is new.
func (t *task) record(ctx context.Context, vm vmmapi.VM) error {
	if same(t.seen, vm) {
		return nil
	}
	events, err := t.vmm.Events(ctx, t.cvm.UUID)
	if err != nil && cvm.CodeOf(err) != cvm.Unavailable && cvm.CodeOf(err) != cvm.NotFound {
		return err
	}
	err = t.change(ctx, func(c *store.Change, _ *store.Operation) {
		observe(c, vm, events)
	})
	if err == nil {
		t.seen = vm
	}
	return err
}

func same(a, b vmmapi.VM) bool {
	return a.State == b.State && a.BootProgress == b.BootProgress && a.Boots == b.Boots && a.InstanceID == b.InstanceID && a.StartedAt.Equal(b.StartedAt)
}

// observe copies a VM's facts and events to its CVM.
func observe(c *store.Change, vm vmmapi.VM, events []vmmapi.Event) {
	if !vm.InstanceID.IsZero() {
		c.CVM.InstanceID = vm.InstanceID.String()
	}
	c.CVM.BootProgress = vm.BootProgress
	c.CVM.StartedAt = vm.StartedAt
	for _, e := range events {
		kind := cloudapi.EventVM
		switch e.Kind {
		case "boot.progress":
			kind = cloudapi.EventProgress
		case "boot.error", "crashed":
			kind = cloudapi.EventError
		}
		c.VMEvents = append(c.VMEvents, store.VMEvent{Seq: e.Seq, Event: cloudapi.Event{
			Time: e.Time, Kind: kind, Message: e.Message, Generation: c.CVM.Generation,
		}})
	}
}

// sync compares resting CVMs with what their nodes show, until ctx ends: VMs crash,
// restart by themselves, and lose their host.
//
// A round over many nodes may take long: the pause after it is no shorter, so that
// the database and the nodes are there for others half of the time at least.
func (r *Runner) sync(ctx context.Context) {
	for {
		begin := time.Now()
		if err := r.deleteDue(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("scheduled deletions", "err", err)
		}
		for some := range slices.Chunk(r.cfg.Nodes(), syncChunk) {
			r.syncNodes(ctx, some)
		}
		if run.Pause(ctx, max(r.cfg.Sync, time.Since(begin))) != nil {
			return
		}
	}
}

// syncAtOnce is how many nodes are compared at the same time: one that does not
// answer holds up few others. syncChunk is for how many of them the database is asked
// at once.
const (
	syncAtOnce = 16
	syncChunk  = 200
)

func (r *Runner) syncNodes(ctx context.Context, nodes []int64) {
	// Before the VMs, so that a CVM whose VM was made in between is not missed in them.
	on, err := r.cfg.Store.OnNodes(ctx, nodes)
	if err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("comparing CVMs with their nodes", "err", err)
	}
	var at errgroup.Group
	at.SetLimit(syncAtOnce)
	for node, cvms := range on {
		at.Go(func() error {
			if err := r.syncNode(ctx, node, cvms); err != nil && ctx.Err() == nil && cvm.CodeOf(err) != cvm.Unavailable {
				r.cfg.Log.Warn("comparing CVMs with their node", "node", node, "err", err)
			}
			return nil
		})
	}
	_ = at.Wait()
}

func (r *Runner) syncNode(ctx context.Context, node int64, cvms []store.Resident) error {
	vmm, err := r.cfg.Node(node)
	if err != nil {
		return err
	}
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	vms, err := vmm.List(ask)
	if err != nil {
		return err
	}
	byID := make(map[string]vmmapi.VM, len(vms))
	for _, v := range vms {
		byID[v.Spec.ID] = v
	}
	for _, c := range cvms {
		vm, ok := byID[c.UUID]
		if asShown(c, vm, ok) {
			continue
		}
		whole, err := r.cfg.Store.CVM(ctx, c.ID)
		if err != nil {
			return err
		}
		// It was changed meanwhile: what the node said may be older.
		if !whole.Live() || !whole.UpdatedAt.Equal(c.UpdatedAt) {
			continue
		}
		if err := r.syncOne(ctx, vmm, whole, vm, ok); err != nil {
			return err
		}
	}
	return nil
}

// asShown tells of a CVM, without all of it, that its node shows what is known; false
// means that the rest must be looked at.
func asShown(c store.Resident, vm vmmapi.VM, found bool) bool {
	status, _ := resting(vm, found)
	return found && status == c.Status && (status == cloudapi.StatusRunning || status == cloudapi.StatusStopped) &&
		(vm.InstanceID.IsZero() || vm.InstanceID.String() == c.InstanceID)
}

func (r *Runner) syncOne(ctx context.Context, vmm VMM, c store.CVM, vm vmmapi.VM, found bool) error {
	status, e := resting(vm, found)
	// A CVM that was never started, or was stopped before its VM existed, has none; one
	// that failed keeps saying why.
	if down := !found || status == cloudapi.StatusStopped; down && (c.Status == cloudapi.StatusStopped || c.Status == cloudapi.StatusFailed) {
		return nil
	}
	progress := status == cloudapi.StatusStarting && c.BootProgress != vm.BootProgress
	// A host that boots it again may get another refusal: the newest is the reason.
	again := found && status == cloudapi.StatusFailed && vm.StartedAt.Unix() != c.StartedAt.Unix()
	if status == c.Status && !again && (vm.InstanceID.IsZero() || vm.InstanceID.String() == c.InstanceID) && !progress {
		return nil
	}
	var events []vmmapi.Event
	if found {
		var err error
		if events, err = vmm.Events(ctx, c.UUID); err != nil {
			return err
		}
	}
	_, err := r.cfg.Store.Change(ctx, c.ID, nil, func(ch *store.Change) error {
		// An operation is at work, or something came between, after which what the node
		// said is old: its job knows better, and the next look sees it.
		if len(ch.Ops) > 0 || !ch.CVM.Live() || ch.CVM.Generation != c.Generation || ch.CVM.Status != c.Status || !ch.CVM.UpdatedAt.Equal(c.UpdatedAt) {
			return nil
		}
		if found {
			observe(ch, vm, events)
		}
		if status != ch.CVM.Status || again {
			settle(ch, status, e)
		}
		return nil
	})
	return err
}

// resting maps a VM's state to the status of a CVM without operation.
func resting(vm vmmapi.VM, found bool) (string, *cloudapi.CVMError) {
	if !found {
		return cloudapi.StatusFailed, &cloudapi.CVMError{Reason: "vm-missing", Message: "the node does not know this VM any more", Fix: "start it again; its state volume may be lost"}
	}
	switch vm.State {
	case vmmapi.StateRunning:
		return cloudapi.StatusRunning, nil
	case vmmapi.StateStarting, vmmapi.StateBooting:
		return cloudapi.StatusStarting, nil
	case vmmapi.StateStopping:
		return cloudapi.StatusStopping, nil
	case vmmapi.StateStopped, vmmapi.StateCreated:
		return cloudapi.StatusStopped, nil
	}
	return cloudapi.StatusFailed, vmError(vm)
}
