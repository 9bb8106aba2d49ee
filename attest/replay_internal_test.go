package attest

import (
	"bytes"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
)

// What the memory of logs is keyed by differs wherever the evidence does, and so
// does not where two neighbours join to the same text.
func TestUnsignedPartsDiffer(t *testing.T) {
	make1 := func(edit func(ev *Evidence, e *eventlog.Event, r *eventlog.Runtime)) []byte {
		ev := Evidence{
			Config:        "{}",
			EventLog:      []eventlog.Event{{IMR: 3, Type: 7, Digest: []byte("d"), Name: "ab", Payload: []byte("cd"), Preimage: []byte("p")}},
			RuntimeEvents: []eventlog.Runtime{{Name: "ab", Payload: []byte("cd")}},
		}
		edit(&ev, &ev.EventLog[0], &ev.RuntimeEvents[0])
		return appendUnsigned(nil, ev)
	}
	seen := [][]byte{make1(func(*Evidence, *eventlog.Event, *eventlog.Runtime) {})}
	for i, edit := range []func(ev *Evidence, e *eventlog.Event, r *eventlog.Runtime){
		func(ev *Evidence, _ *eventlog.Event, _ *eventlog.Runtime) { ev.Config = "{} " },
		func(ev *Evidence, _ *eventlog.Event, _ *eventlog.Runtime) {
			ev.EventLog = append(ev.EventLog, ev.EventLog[0])
		},
		func(ev *Evidence, _ *eventlog.Event, _ *eventlog.Runtime) { ev.EventLog = nil },
		func(ev *Evidence, _ *eventlog.Event, _ *eventlog.Runtime) {
			ev.RuntimeEvents = append(ev.RuntimeEvents, ev.RuntimeEvents[0])
		},
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.IMR = 2 },
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.Type = 8 },
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.Digest = []byte("e") },
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.Digest, e.Preimage = []byte("dp"), nil },
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.Preimage = nil },
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.Name, e.Payload = "abc", []byte("d") },
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.Payload = []byte("ce") },
		func(_ *Evidence, e *eventlog.Event, _ *eventlog.Runtime) { e.Version = 2 },
		func(_ *Evidence, _ *eventlog.Event, r *eventlog.Runtime) { r.Name, r.Payload = "abc", []byte("d") },
		func(_ *Evidence, _ *eventlog.Event, r *eventlog.Runtime) { r.Payload = []byte("ce") },
		func(_ *Evidence, _ *eventlog.Event, r *eventlog.Runtime) { r.Version = 1 },
	} {
		b := make1(edit)
		for j, old := range seen {
			if bytes.Equal(old, b) {
				t.Errorf("edit %d is like %d", i, j-1)
			}
		}
		seen = append(seen, b)
	}
}

// Only logs of evidence that was verified are remembered, and none that is large.
func TestLogsOfVerifiedOnly(t *testing.T) {
	v := NewVerifier(16)
	for range 2 {
		if _, _, err := v.Verify(Evidence{Config: "{}"}, collateral.Set{}, Policy{}, time.Time{}); err == nil || v.logs.Len() != 0 {
			t.Fatalf("%v, %d logs", err, v.logs.Len())
		}
	}
	if _, key := v.replayed(Evidence{Config: string(make([]byte, maxReplayed))}); key != nil {
		t.Error("a large vm_config is to be remembered")
	}
	if _, key := v.replayed(Evidence{Config: "{}"}); key == nil {
		t.Error("a small one is not")
	}
}
