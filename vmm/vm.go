package vmm

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/vmm/hostapi"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/logs"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// vm is one VM: a record of what is wanted, and a loop (the only one that touches
// the machine) that makes it so. API calls change the record and wake the loop.
type vm struct {
	m    *VMM
	log  *slog.Logger
	wake chan struct{}
	// adopted is closed when it is known whether a machine runs since before this VMM.
	adopted chan struct{}
	exit    chan exited

	mu   sync.Mutex
	rec  record
	inst machine.Instance // the run that is alive; nil when none is
	last machine.Instance // the newest run, alive or not: its console
	host *hostapi.Server
	// launching: the driver is at work; the guest may speak before inst is set.
	launching bool
	cancel    context.CancelFunc   // of the guest's pull for an update, while it goes on
	changed   chan struct{}        // closed at the next event
	gone      bool                 // deleted: nothing follows
	logs      map[string]*logs.Log // by channel, for drivers that write files
}

type exited struct {
	inst machine.Instance
	exit machine.Exit
}

const (
	running = "running" // VM.Desired
	stopped = "stopped"

	// lingering is how long a guest that reported a boot error may take to exit.
	lingering = 10 * time.Second
	// healthyAfter this long a run forgets the failed attempts before it.
	healthyAfter = 5 * time.Minute
)

func (m *VMM) newVM(r record) *vm {
	return &vm{m: m, rec: r, log: m.log.With("vm", r.VM.Spec.ID), wake: make(chan struct{}, 1), adopted: make(chan struct{}), exit: make(chan exited, 1), changed: make(chan struct{}), logs: map[string]*logs.Log{}}
}

func (v *vm) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// loop runs until ctx ends or the VM is deleted.
func (v *vm) loop(ctx context.Context) {
	defer v.closeHost()
	v.adopt(ctx)
	close(v.adopted)
	for ctx.Err() == nil {
		again, gone := v.step(ctx)
		if gone {
			v.vanish()
			return
		}
		if again <= 0 {
			again = time.Hour
		}
		t := time.NewTimer(again)
		select {
		case <-ctx.Done():
		case <-v.wake:
		case <-t.C:
		case e := <-v.exit:
			v.exited(e)
		}
		t.Stop()
	}
}

// step moves one step towards what is wanted. again is when to look again even if
// nothing happens; gone says that the VM was deleted.
func (v *vm) step(ctx context.Context) (again time.Duration, gone bool) {
	v.mu.Lock()
	inst := v.inst
	v.mu.Unlock()
	deadline := v.tendUpdate(ctx, inst)
	again, gone = v.act(ctx)
	if deadline > 0 && (again <= 0 || deadline < again) {
		again = deadline
	}
	return again, gone
}

// act does what the record asks for next.
func (v *vm) act(ctx context.Context) (again time.Duration, gone bool) {
	v.mu.Lock()
	r, inst := v.rec, v.inst
	v.mu.Unlock()
	now := v.m.now()
	switch {
	case r.Deleting:
		return v.delete(ctx, inst)
	case inst != nil && (r.VM.Desired == stopped || r.Restart):
		return v.stop(ctx, inst), false
	case inst != nil && r.BootFailed:
		if left := r.NextTry.Sub(now); left > 0 { // NextTry: until when it may linger
			return left, false
		}
		return v.stop(ctx, inst), false
	case inst == nil && r.VM.Desired == running && r.VM.State != vmmapi.StateFailed:
		if left := r.NextTry.Sub(now); left > 0 && !r.Restart {
			return left, false
		}
		return v.launch(ctx), false
	case inst == nil && r.VM.Desired == stopped && (r.VM.State == vmmapi.StateStopping || r.VM.State == vmmapi.StateStarting):
		v.change("stopped", "stopped", func(r *record) { r.VM.State = vmmapi.StateStopped })
	}
	return 0, false
}

// change edits the record, stores it, and writes an event if kind is not empty.
func (v *vm) change(kind, message string, edit func(*record)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changeLocked(kind, message, edit)
}

func (v *vm) changeLocked(kind, message string, edit func(*record)) {
	edit(&v.rec)
	if moves(kind) {
		v.rec.VM.Generation++
	}
	if kind != "" {
		v.rec.EventSeq++
		e := vmmapi.Event{Seq: v.rec.EventSeq, Time: v.m.now().UTC(), Kind: kind, Message: message}
		if err := v.m.store.appendEvent(v.rec.VM.Spec.ID, e); err != nil {
			v.log.Error("writing an event", "kind", kind, "error", err)
		}
	}
	if err := v.m.store.save(&v.rec); err != nil {
		v.log.Error("saving the record", "error", err)
	}
	if kind != "" {
		close(v.changed)
		v.changed = make(chan struct{})
	}
}

// moves reports whether an event stands for an order or another spec.
func moves(kind string) bool {
	switch kind {
	case "created", "app.updated", "resized", "image", "spec", "start", "restart", "stop", "deleting",
		"update.requested", "update.applied", "update.switching", "update.cancelled", "rolled-back":
		return true
	}
	return false
}

// vanish ends the event streams of a deleted VM.
func (v *vm) vanish() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone = true
	close(v.changed)
	v.changed = make(chan struct{})
}

// launch prepares the files and starts the machine. An error is a failed attempt.
func (v *vm) launch(ctx context.Context) time.Duration {
	v.change("starting", "starting", func(r *record) {
		r.VM.State, r.VM.BootProgress, r.Restart, r.BootFailed, r.NextTry = vmmapi.StateStarting, "", false, false, time.Time{}
		r.VM.StartedAt, r.VM.ReadyAt, r.VM.Boots = v.m.now().UTC(), time.Time{}, r.VM.Boots+1
		r.beginBoot(r.VM.StartedAt)
		if r.updating(vmmapi.UpdateBooting) {
			u := *r.Update
			u.Launched, r.Update = true, &u
		}
	})
	if ctx.Err() != nil { // killed before the machine was made: the next VMM makes it
		return 0
	}
	v.setLaunching(true)
	inst, err := v.doLaunch(ctx)
	if ctx.Err() != nil { // the VMM stops: the next one looks what is there
		return 0
	}
	if err != nil {
		v.setLaunching(false)
		v.log.Error("starting the machine", "error", err)
		v.failed(&vmmapi.VMError{Reason: orWord(cvm.ReasonOf(err), "start-failed"), Message: err.Error(), Stage: "start", Fix: fixOf(err)}, temporaryStart(err))
		return 0
	}
	v.started(ctx, inst)
	v.mu.Lock()
	defer v.mu.Unlock()
	// The guest may already have said something: do not go back.
	if v.rec.VM.State == vmmapi.StateStarting && !v.rec.BootFailed {
		v.changeLocked("", "", func(r *record) { r.VM.State = vmmapi.StateBooting })
	}
	return 0
}

// alive: there is a machine, or there will be in a moment.
func (v *vm) alive() bool { return v.inst != nil || v.launching }

func (v *vm) setLaunching(b bool) {
	v.mu.Lock()
	v.launching = b
	v.mu.Unlock()
}

func (v *vm) doLaunch(ctx context.Context) (machine.Instance, error) {
	v.mu.Lock()
	r := v.rec
	v.mu.Unlock()
	s := r.VM.Spec
	im, err := v.m.image(s.Image)
	if err != nil {
		return nil, err
	}
	doc, err := appcompose.Parse(s.App.AppCompose)
	if err != nil {
		return nil, err
	}
	m := machine.Machine{
		ID: s.ID, Name: s.Name, Boot: r.VM.Boots,
		Image:  machine.Image{Name: im.Name, Dir: im.Dir, Hash: im.Hash},
		Size:   machine.Size{VCPU: s.Resources.VCPU, MemoryMiB: s.Resources.MemoryMiB, DiskMiB: s.Resources.DiskMiB},
		Shared: v.m.store.shared(s.ID), Run: v.m.runDir(s.ID), NoTEE: s.NoTEE,
	}
	inst, err := v.plugIn(ctx, &r, &m, im, doc)
	if err != nil {
		v.unplug()
	}
	return inst, err
}

// plugIn gives the machine what it runs on and starts it; after an error the caller
// takes it all back.
func (v *vm) plugIn(ctx context.Context, r *record, m *machine.Machine, im *image.Image, doc *appcompose.Document) (machine.Instance, error) {
	err := v.outfit(ctx, r, m)
	if err != nil {
		return nil, err
	}
	if isSNP(m, v.m.described()) {
		if err := v.settleInstance(r, doc); err != nil {
			return nil, err
		}
	}
	if err := bind(m, doc, r.VM.Spec.AppID, r.VM.InstanceID, v.m.described()); err != nil {
		return nil, err
	}
	if m.VMConfig, err = composeVMConfig(im, m, v.m.described()); err != nil {
		return nil, err
	}
	if err := v.m.writeShared(r, m.VMConfig, m.MRConfig); err != nil {
		return nil, err
	}
	if err := v.serveHost(ctx); err != nil {
		return nil, err
	}
	return v.m.driver.Launch(ctx, *m)
}

// started watches a run.
func (v *vm) started(ctx context.Context, inst machine.Instance) {
	v.mu.Lock()
	v.inst, v.last, v.launching = inst, inst, false
	v.mu.Unlock()
	v.keepLogs(ctx, inst)
	v.m.wg.Go(func() {
		for ctx.Err() == nil {
			e, err := inst.Wait(ctx)
			if err != nil {
				if ctx.Err() == nil {
					v.log.Warn("waiting for the machine", "error", err)
				}
				if run.Pause(ctx, time.Second) != nil {
					return
				}
				continue
			}
			select {
			case v.exit <- exited{inst, e}:
			case <-ctx.Done():
			}
			return
		}
	})
}

// serveHost makes the host API's socket, once per boot: a word of the machine
// before must not count for this one.
func (v *vm) serveHost(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeHostLocked()
	boot := v.rec.VM.Boots
	h, err := hostapi.New(hostapi.Config{
		Path: filepath.Join(v.m.runDir(v.rec.VM.Spec.ID), filepath.Base(guestapi.HostSock)),
		Name: v.rec.VM.Spec.Name, Log: v.log,
		Notify: func(n guestapi.Notify) error { return v.notify(boot, n) },
	})
	if err != nil {
		return err
	}
	v.host = h
	v.m.wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			v.log.Error("host API", "error", err)
		}
	})
	return nil
}

func (v *vm) closeHost() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeHostLocked()
}

func (v *vm) closeHostLocked() {
	if v.host != nil {
		_ = v.host.Close()
		v.host = nil
	}
}

// stop asks the guest, then the engine. What happens next follows from the record
// when the run has ended.
func (v *vm) stop(ctx context.Context, inst machine.Instance) time.Duration {
	v.change("stopping", "stopping", func(r *record) {
		if !r.BootFailed {
			r.VM.State = vmmapi.StateStopping
		}
		r.VM.BootProgress = ""
	})
	if e, ok := v.stopMachine(ctx, inst); ok {
		v.exited(e)
		return 0
	}
	if ctx.Err() != nil {
		return 0
	}
	return time.Second // the engine refused: try again
}

// stopMachine ends a run: politely within StopGrace, then by force.
func (v *vm) stopMachine(ctx context.Context, inst machine.Instance) (exited, bool) {
	grace := time.Duration(v.m.cfg.StopGrace)
	asked, cancel := context.WithTimeout(ctx, grace)
	err := v.m.guestShutdown(asked, inst)
	if err == nil {
		select {
		case e := <-v.exit:
			cancel()
			return e, true
		case <-asked.Done():
		}
	}
	cancel()
	if ctx.Err() != nil {
		return exited{}, false
	}
	if err := inst.Stop(ctx, 5*time.Second); err != nil {
		v.log.Error("stopping the machine", "error", err)
		return exited{}, false
	}
	select {
	case e := <-v.exit:
		e.exit.Requested = true
		return e, true
	case <-ctx.Done():
	case <-time.After(grace):
		v.log.Error("the machine was stopped but its end is not seen")
	}
	return exited{}, false
}

// delete stops the machine and removes what belongs to the VM.
func (v *vm) delete(ctx context.Context, inst machine.Instance) (time.Duration, bool) {
	if inst != nil {
		v.change("", "", func(r *record) { r.VM.State = vmmapi.StateStopping })
		e, ok := v.stopMachine(ctx, inst)
		if !ok {
			return time.Second, false
		}
		v.mu.Lock()
		if v.inst == e.inst {
			v.inst = nil
		}
		v.mu.Unlock()
	}
	v.mu.Lock()
	id, keep := v.rec.VM.Spec.ID, v.rec.KeepState
	v.mu.Unlock()
	if err := v.m.driver.Remove(ctx, id, keep); err != nil {
		v.log.Error("removing the machine", "error", err)
		return 3 * time.Second, false
	}
	v.closeHost()
	if err := v.m.host.net.Forget(ctx, id); err != nil {
		v.log.Error("removing the VM's network", "error", err)
		return 3 * time.Second, false
	}
	if err := errors.Join(os.RemoveAll(v.m.runDir(id)), v.m.store.remove(id)); err != nil {
		v.log.Error("removing the VM's files", "error", err)
		return 3 * time.Second, false
	}
	v.m.forget(id)
	v.log.Info("deleted", "volumes_kept", keep)
	return 0, true
}
