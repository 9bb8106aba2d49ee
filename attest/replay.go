package attest

import (
	"encoding/binary"
	"slices"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

// replayed is what the parts of evidence that nobody signed come to: a pure
// function of the bytes of event log and vm_config, which no policy enters. What it
// is compared with, and judged by, is not in it.
type replayed struct {
	boot    [3]cvm.Measurement // RTMR0-2 by the firmware's log
	carried [3]bool            // which of them the log carries in full
	agrees  error              // between the log and the runtime events
	failed  error              // why the runtime events do not replay
	rtmr3   cvm.Measurement
	atBoot  cvm.Measurement // RTMR3 when boot-mr-done was measured; zero before
	config  measure.VMConfig
	unread  error // why vm_config is not one
}

func replay(ev Evidence) *replayed {
	r := &replayed{agrees: eventlog.CheckRuntime(ev.EventLog, ev.RuntimeEvents)}
	if !isShort(ev.EventLog) { // short forms do not carry the firmware's log
		for i := range r.boot {
			r.boot[i], r.carried[i] = eventlog.ReplayBoot(ev.EventLog, uint32(i)) //nolint:gosec // 0..2
		}
	}
	r.config, r.unread = measure.ParseVMConfig(ev.Config)
	if r.rtmr3, r.failed = eventlog.ReplayRuntime(ev.RuntimeEvents); r.failed != nil {
		return r
	}
	switch n := 1 + slices.IndexFunc(ev.RuntimeEvents, func(e eventlog.Runtime) bool { return e.Name == eventlog.BootMRDone }); n {
	case 0:
	case len(ev.RuntimeEvents):
		r.atBoot = r.rtmr3
	default:
		r.atBoot, r.failed = eventlog.ReplayRuntime(ev.RuntimeEvents[:n])
	}
	return r
}

// isShort reports whether a log holds nothing of RTMR0-2 but the three ACPI events.
func isShort(events []eventlog.Event) bool {
	n := 0
	for i := range events {
		if events[i].IMR < eventlog.RuntimeIMR {
			n++
		}
	}
	if n != 3 {
		return false
	}
	_, err := eventlog.ACPIDigests(events)
	return err == nil
}

// maxReplayed bounds what is remembered of one machine's log and vm_config, in
// bytes. Larger ones are replayed at each call.
const maxReplayed = 16 << 10

// replayed is replay, or what it found about the same bytes; key is what to
// remember it by when they are new and verified, else nil.
func (v *Verifier) replayed(ev Evidence) (r *replayed, key []byte) {
	if v.logs == nil {
		return replay(ev), nil
	}
	key = appendUnsigned(make([]byte, 0, 2<<10), ev)
	if r, ok := v.logs.Get(key); ok {
		return r, nil
	}
	if len(key) > maxReplayed {
		key = nil
	}
	return replay(ev), key
}

// appendUnsigned writes all that replay reads, so that no two of them are alike.
func appendUnsigned(b []byte, ev Evidence) []byte {
	n := binary.LittleEndian.AppendUint32
	b = append(n(b, uint32(len(ev.Config))), ev.Config...) //nolint:gosec // bounded long before
	b = n(b, uint32(len(ev.EventLog)))                     //nolint:gosec // the same
	for i := range ev.EventLog {
		e := &ev.EventLog[i]
		b = n(n(b, e.IMR), e.Type)
		b = appendSized(appendSized(b, e.Digest), e.Preimage)
		b = appendRuntime(b, e.Name, e.Payload, e.Version)
	}
	for i := range ev.RuntimeEvents {
		e := &ev.RuntimeEvents[i]
		b = appendRuntime(b, e.Name, e.Payload, e.Version)
	}
	return b
}

func appendRuntime(b []byte, name string, payload []byte, version int) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(version))                    //nolint:gosec // a bijection
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...) //nolint:gosec // bounded long before
	return appendSized(b, payload)
}

func appendSized(b, part []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(part))), part...) //nolint:gosec // bounded long before
}
