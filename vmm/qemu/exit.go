package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"

	"github.com/confidential-cloud/phala/vmm/machine"
)

// end is what is known of a run's end.
type end struct {
	reason    string // QEMU's word for the end of the guest, "" when it did not end
	status    *exec.ExitError
	seen      bool // the process was ours: status is all there is to know
	stopping  bool // Stop was called
	oom       bool
	said      string   // QEMU's last words
	panicLine string   // of the guest's kernel
	refused   []string // its initramfs' last line: whole, reason, text; nil if it has none
}

// Exit codes of ends that have none of their own.
const (
	codeReset   = 1  // the guest restarted itself
	codePanic   = 2  // its kernel panicked
	codeFault   = 3  // the processor or QEMU could not go on with it
	codeUnknown = -1 // nobody saw
	codeSignal  = 128
)

// classify says in words how a run ended. A panic is looked for in the console,
// because panic=1 makes it a restart.
func classify(e end) machine.Exit {
	x := machine.Exit{Requested: e.stopping, OOMKilled: e.oom && e.reason == ""}
	if x.OOMKilled {
		x.Code, x.Detail = codeSignal+int(syscall.SIGKILL), "the hypervisor used more memory than it may have"
		return x
	}
	switch e.reason {
	case "guest-shutdown", statusShutdown:
		x.Detail = "the guest powered off"
		if e.refused != nil {
			x.Reason, x.Detail = e.refused[1], "the guest refused to start: "+e.refused[2]
		}
		if e.panicLine != "" {
			x.Code, x.Detail = codePanic, "the guest's kernel panicked: "+e.panicLine
		}
		return x
	case "guest-reset":
		x.Code, x.Detail = codeReset, "the guest restarted itself"
		if e.panicLine != "" {
			x.Code, x.Detail = codePanic, "the guest's kernel panicked: "+e.panicLine
		}
		return x
	case "guest-panic", statusPanicked:
		x.Code, x.Detail = codePanic, "the guest's kernel panicked: "+e.panicLine
		return x
	case statusInternal:
		x.Code, x.Detail = codeFault, "the processor could not go on with the guest (KVM internal error): "+e.said
		return x
	case "host-qmp-quit", "host-qmp-system-reset", "host-signal", "host-ui":
		x.Code, x.Detail = 0, "the machine was ended by the host ("+e.reason+")"
		if e.reason == "host-signal" {
			x.Code = codeSignal + int(syscall.SIGTERM)
		}
		return x
	}
	return bare(x, e)
}

// bare is the end of a process whose guest had not ended.
func bare(x machine.Exit, e end) machine.Exit {
	switch {
	case x.Requested:
		x.Code, x.Detail = codeSignal+int(syscall.SIGKILL), "the guest did not power off in time and was ended"
	case !e.seen:
		x.Code, x.Detail = codeUnknown, "the hypervisor ended while no VMM watched: "+e.said
	case e.status == nil:
		x.Code, x.Detail = 0, "the hypervisor ended: "+e.said
	default:
		ws, _ := e.status.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			x.Code, x.Detail = codeSignal+int(ws.Signal()), fmt.Sprintf("the hypervisor crashed or was killed (signal: %s) %s", ws.Signal(), e.said)
		} else {
			x.Code, x.Detail = ws.ExitStatus(), fmt.Sprintf("the hypervisor ended with code %d: %s", ws.ExitStatus(), e.said)
		}
	}
	x.Detail = strings.TrimRight(x.Detail, ": ")
	return x
}

// refusedRE is what the guest's initramfs says last (guest-agent/initramfs, Run).
var refusedRE = regexp.MustCompile(`(?m)^phala-initramfs: ([a-z][a-z-]{0,39}): ([^\r\n]{0,300})\r?$`)

var panicRE = regexp.MustCompile(`Kernel panic - not syncing: [^\r\n]{0,200}`)

// consoleTail is how much of a console is searched for a panic, in bytes.
const consoleTail = 64 << 10

// finish accounts for a run whose process is gone, once.
func (i *instance) finish(ctx context.Context) (machine.Exit, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.result != nil {
		return *i.result, nil
	}
	console := tailText(i.p.serial, i.rec.Console, consoleTail)
	e := end{reason: i.mon.ended(), stopping: i.stopping.Load(), oom: i.d.cfg.Confine.OOMKilled(i.id), said: tailText(i.p.stderr, i.rec.Stderr, 400),
		panicLine: panicRE.FindString(console), refused: refusedRE.FindStringSubmatch(console)}
	e.panicLine = strings.TrimPrefix(e.panicLine, "Kernel panic - not syncing: ")
	if i.child != nil {
		<-i.child.done
		e.seen = true
		_ = errors.As(i.child.err, &e.status)
	}
	x := classify(e)
	if err := writeJSON(i.p.exit, exitRecord{Process: i.rec.Process, Exit: x}); err != nil && !errors.Is(err, os.ErrNotExist) {
		return x, fmt.Errorf("exit of VM %s: %w", i.id, err)
	}
	i.d.forget(ctx, i.id, i.rec.Run, i.rec.Simulated)
	i.result = &x
	return x, nil
}

// exitRecord is exit.json: how the run of this process ended.
type exitRecord struct {
	Process process      `json:"process"`
	Exit    machine.Exit `json:"exit"`
}

// forget removes what a run has outside of the machine's directory.
func (d *Driver) forget(ctx context.Context, id, run string, simulated bool) {
	if simulated && d.cfg.TEE != nil {
		_ = d.cfg.TEE.DestroyTD(ctx, tdName(id)) // the hardware may be gone, and its TDs with it
	}
	if err := d.cfg.Confine.Release(ctx, id); err != nil {
		d.log.Warn("removing a machine's control group", "vm", id, "error", err)
	}
	for _, s := range sockets(run) {
		if err := os.Remove(s); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.log.Warn("removing a machine's socket", "vm", id, "error", err)
		}
	}
}
