package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// maxFirstAttempts bounds the tries of an app that never served: whoever deploys it
// waits for an answer. One that served before is tried again for ever, more and more
// slowly, because it should come back by itself.
const maxFirstAttempts = 3

// temporary reasons of a boot error: trying again may help.
func temporary(reason string) bool {
	switch reason {
	case kmsapi.ReasonChainStale, kmsapi.ReasonNoQuorum, kmsapi.ReasonRateLimited, kmsapi.ReasonNonceExpired,
		"kms-unreachable", "gateway-unreachable", "lease-lost":
		return true
	}
	return false
}

// permanent reasons: the KMS understood and refused. Only a person can help.
func permanent(reason string) bool {
	switch reason {
	case kmsapi.ReasonEvidence, kmsapi.ReasonRoot, kmsapi.ReasonPhase, kmsapi.ReasonBinding,
		kmsapi.ReasonGovernance, kmsapi.ReasonComposeMismatch, kmsapi.ReasonEnvSwapped, kmsapi.ReasonEnvRolledBack:
		return true
	}
	return false
}

// temporaryStart reports whether a failed start of the machine may succeed later.
func temporaryStart(err error) bool {
	switch cvm.CodeOf(err) {
	case cvm.Invalid, cvm.Precondition, cvm.Unsupported, cvm.NotFound:
		return false
	}
	return true
}

// retries decides whether the VM is tried again by itself.
func retries(r *record, e *vmmapi.VMError, maybe bool) bool {
	switch {
	case r.VM.Spec.Restart == "never", permanent(e.Reason):
		return false
	case r.Served:
		return true
	}
	return maybe && r.Attempts < maxFirstAttempts
}

// eventExhausted is the reference's name for "not tried again by itself".
const eventExhausted = "vmm.auto_restart.exhausted"

// failed notes why the machine does not run and whether it is tried again. While
// a try is planned the state is starting, with the error shown; failed is final
// until someone acts.
func (v *vm) failed(e *vmmapi.VMError, maybe bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failedLocked(e, maybe, "crashed")
}

func (v *vm) failedLocked(e *vmmapi.VMError, maybe bool, kind string) {
	v.changeLocked(kind, describe(e), func(r *record) {
		r.VM.Error = e
		r.Attempts++
		r.bootFailed(e)
		if r.VM.Desired != running {
			r.VM.State = vmmapi.StateStopped
			return
		}
		if !retries(r, e, maybe) {
			r.VM.State, r.VM.BootProgress, r.NextTry = vmmapi.StateFailed, "", time.Time{}
			return
		}
		delay := v.m.backOff(r.Attempts)
		r.VM.State, r.NextTry = vmmapi.StateStarting, v.m.now().Add(delay)
		r.VM.BootProgress = fmt.Sprintf("trying again in %s: %s", delay, e.Reason)
		r.VM.Restarts++
	})
	if v.rec.VM.Desired != running {
		v.m.releaseCompute(&v.rec)
	}
	v.gaveUp(e)
}

// gaveUp: an update goes back to the version before, anything else stays failed.
func (v *vm) gaveUp(e *vmmapi.VMError) {
	switch {
	case v.rec.VM.State != vmmapi.StateFailed:
	case v.rec.updating(vmmapi.UpdateBooting):
		v.rollBack(e)
	default:
		v.m.releaseCompute(&v.rec)
		if v.rec.Attempts > 1 && v.rec.VM.Spec.Restart != "never" && !permanent(e.Reason) {
			v.changeLocked(eventExhausted, fmt.Sprintf("not started again after %d attempts", v.rec.Attempts), func(*record) {})
		}
	}
}

func describe(e *vmmapi.VMError) string {
	s := e.Message
	if e.Stage != "" {
		s = e.Stage + ": " + s
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

func (m *VMM) backOff(attempt int) time.Duration {
	d := time.Duration(m.cfg.BackOff)
	for range min(attempt-1, 20) {
		d = min(2*d, time.Duration(m.cfg.BackOffMax))
	}
	return d
}

// exited says what the end of a run means.
func (v *vm) exited(x exited) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inst != x.inst {
		return // of a run that was already accounted for
	}
	v.inst = nil
	v.endLogs()
	v.unplug()
	r := &v.rec
	r.endBoot(x.exit, v.m.now().UTC())
	switch {
	case r.Deleting, r.Restart:
		v.changeLocked("stopped", "stopped", func(r *record) { r.VM.State = vmmapi.StateStopping })
	case r.VM.Desired == stopped:
		v.changeLocked("stopped", "stopped", func(r *record) {
			r.VM.State, r.VM.BootProgress, r.BootFailed, r.NextTry = vmmapi.StateStopped, "", false, time.Time{}
		})
		v.m.releaseCompute(r)
	case r.BootFailed:
		e := r.VM.Error
		if e == nil {
			e = &vmmapi.VMError{Reason: "boot-failed", Message: "the guest's boot ended"}
		}
		v.changeLocked("", "", func(r *record) { r.BootFailed = false })
		v.failedLocked(e, temporary(e.Reason), "crashed")
	case x.exit.Requested: // stopped, and wanted again before it ended
		v.changeLocked("stopped", "stopped", func(r *record) { r.VM.State = vmmapi.StateStarting })
	default:
		ready := r.VM.State == vmmapi.StateRunning
		if ready && v.m.now().Sub(r.VM.ReadyAt) > healthyAfter {
			r.Attempts = 0
		}
		v.failedLocked(crash(x.exit, ready, r.VM.BootProgress), true, "crashed")
	}
	v.poke()
}

// crash classifies an end that nobody asked for.
func crash(e machine.Exit, ready bool, progress string) *vmmapi.VMError {
	switch {
	case e.OOMKilled:
		return &vmmapi.VMError{Reason: "out-of-memory", Message: "the VM ran out of memory", Fix: "choose an instance type with more memory"}
	case e.Reason != "" && !ready:
		return &vmmapi.VMError{Reason: e.Reason, Message: e.Detail, Stage: "initramfs", Fix: "the image's files on this host are damaged or not the image's: pull the image again, and see the console"}
	case ready:
		return &vmmapi.VMError{Reason: "guest-crashed", Message: "the guest ended by itself: " + e.Detail, Fix: "see its console"}
	}
	return &vmmapi.VMError{Reason: "guest-exited", Message: "the guest ended before it was ready: " + e.Detail, Stage: progress, Fix: "see its console"}
}

// notify handles what the guest says. It is untrusted: it changes what is shown
// about this VM and nothing else.
func (v *vm) notify(boot int, n guestapi.Notify) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if boot != v.rec.VM.Boots {
		return cvm.Errorf(cvm.Conflict, "this is boot %d, the message is of boot %d", v.rec.VM.Boots, boot).WithReason("old-boot")
	}
	return v.heard(n)
}

func (v *vm) heard(n guestapi.Notify) error {
	defer v.poke()
	if v.inst == nil && !v.launching {
		v.late(n)
		return nil
	}
	if v.rec.VM.Desired == running && v.rec.VM.State == vmmapi.StateStarting && n.Event != "boot.error" {
		v.rec.VM.State = vmmapi.StateBooting
	}
	switch n.Event {
	case "boot.progress":
		v.changeLocked(n.Event, n.Payload, func(r *record) {
			r.VM.BootProgress = n.Payload
			r.noteStage(n.Event, n.Payload, v.m.now())
		})
	case guestapi.EventStage:
		v.changeLocked(n.Event, n.Payload, func(r *record) { r.noteStage(n.Event, n.Payload, v.m.now()) })
	case "boot.error":
		v.bootError(n.Payload)
	case "instance.info":
		return v.instanceInfo(n.Payload)
	case "ready":
		v.ready(n.Payload)
	default:
		v.changeLocked(n.Event, n.Payload, func(*record) {})
	}
	return nil
}

// late is a message of a run whose end was seen first. A boot error still says
// more than the crash that was concluded from that end.
func (v *vm) late(n guestapi.Notify) {
	v.changeLocked(n.Event, n.Payload, func(r *record) {
		if e := parseBootError(n.Payload); n.Event == "boot.error" && r.VM.Error != nil && r.VM.Error.Reason == "guest-exited" {
			r.VM.Error = e
			if r.VM.State == vmmapi.StateStarting && !retries(r, e, temporary(e.Reason)) {
				r.VM.State, r.VM.BootProgress, r.NextTry = vmmapi.StateFailed, "", time.Time{}
			}
		}
	})
	if n.Event == "boot.error" && v.rec.VM.Error != nil {
		v.gaveUp(v.rec.VM.Error)
	}
}

func (v *vm) ready(message string) {
	if v.rec.Restart { // the word of a machine that is to go, perhaps of an older version
		v.changeLocked("ready", orWord(message, "ready"), func(*record) {})
		return
	}
	confirmed := false
	v.changeLocked("ready", orWord(message, "ready"), func(r *record) {
		r.bootReady(v.m.now().UTC())
		r.VM.ReadyAt, r.VM.Error, r.BootFailed, r.Served = v.m.now().UTC(), nil, false, true
		if r.VM.Desired == running {
			r.VM.State, r.VM.BootProgress = vmmapi.StateRunning, ""
		}
		if confirmed = r.updating(vmmapi.UpdateBooting); confirmed { // in the same write: nobody asks a second time
			r.endUpdate(vmmapi.UpdateDone, nil, r.VM.ReadyAt)
		}
	})
	if confirmed {
		v.changeLocked("update.done", "the new version is ready", func(*record) {})
		v.m.hold(&v.rec)
	}
}

func (v *vm) bootError(payload string) {
	e := parseBootError(payload)
	v.changeLocked("boot.error", describe(e), func(r *record) {
		r.VM.Error, r.BootFailed = e, true
		r.NextTry = v.m.now().Add(lingering)
		if r.VM.Desired == running && !retries(r, e, temporary(e.Reason)) {
			r.VM.State = vmmapi.StateFailed // shown at once; the machine goes soon
		}
		r.bootFailed(e)
	})
	if v.rec.updating(vmmapi.UpdateBooting) {
		v.gaveUp(e)
	}
}

// parseBootError reads a VMError; a guest that sends plain text is quoted.
func parseBootError(payload string) *vmmapi.VMError {
	var e vmmapi.VMError
	if json.Unmarshal([]byte(payload), &e) != nil || e.Message == "" {
		e = vmmapi.VMError{Message: orWord(payload, "the guest's boot failed")}
	}
	e.Reason = orWord(e.Reason, "boot-failed")
	return &e
}

// instanceInfo keeps .instance_info for the next boots. The instance id must
// follow from its seed and the app: the host shows it to people.
func (v *vm) instanceInfo(payload string) error {
	var in guestapi.InstanceInfo
	if err := json.Unmarshal([]byte(payload), &in); err != nil {
		return cvm.Errorf(cvm.Invalid, "instance.info: %w", err)
	}
	id, err := cvm.ParseInstanceID(in.InstanceID)
	if err != nil {
		return err
	}
	app, err := cvm.ParseAppID(in.AppID)
	if err != nil {
		return err
	}
	if app != v.rec.VM.Spec.AppID {
		return cvm.Errorf(cvm.Invalid, "instance.info: app %s, this VM is app %s", app, v.rec.VM.Spec.AppID)
	}
	b, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding instance.info: %w", err)
	}
	v.changeLocked("instance.info", id.String(), func(r *record) { r.VM.InstanceID, r.Instance = id, string(b) })
	return nil
}

// guestClient speaks HTTP over the guest's socket.
func guestClient(inst machine.Instance) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, ResponseHeaderTimeout: 60 * time.Second,
		// A guest is a stranger: no packed answers, no endless headers.
		DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return inst.DialGuest(ctx) },
	}}
}

func (m *VMM) guestCall(ctx context.Context, inst machine.Instance, method, path string, out any) error {
	c := rpc.Client{Base: "http://guest", HTTP: guestClient(inst)}
	return c.Call(ctx, method, path, nil, out)
}

// guestShutdown asks the guest to stop its containers. It returns nil as well when
// the guest hung up in the middle of it: it may be gone already.
func (m *VMM) guestShutdown(ctx context.Context, inst machine.Instance) error {
	conn, err := inst.DialGuest(ctx)
	if err != nil {
		return err
	}
	_ = conn.Close()
	err = m.guestCall(ctx, inst, http.MethodPost, "/v1/shutdown", nil)
	if code := cvm.CodeOf(err); err != nil && code != cvm.Unavailable {
		return err
	}
	return nil
}

func orWord(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func fixOf(err error) string {
	var e *cvm.Error
	if errors.As(err, &e) {
		return e.Fix
	}
	return ""
}
