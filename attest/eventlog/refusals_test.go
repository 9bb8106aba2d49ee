package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/eventlog"
)

// acpi is one of the three events that carry the digests of the ACPI blobs.
func acpi(b byte) eventlog.Event {
	return eventlog.Event{IMR: 0, Type: eventlog.EvPlatformConfigFlags, Digest: bytes.Repeat([]byte{b}, 48), Payload: []byte("ACPI DATA")}
}

func encode(t testing.TB, events ...eventlog.Event) []byte {
	t.Helper()
	b, err := eventlog.EncodeCCEL(events)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func refused(t *testing.T, name string, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %v, want %q", name, err, words)
	}
}

func TestCCELRefusalsByName(t *testing.T) {
	zeros := eventlog.Event{IMR: 1, Type: 7, Digest: make([]byte, 48), Payload: make([]byte, 8)}
	good := encode(t, zeros)
	const spec, first = 32, 32 + 33 // where the Spec ID payload and the second entry begin
	at := func(i int, b ...byte) []byte {
		out := slices.Clone(good)
		copy(out[i:], b)
		return out
	}
	longer := slices.Concat(good[:28], binary.LittleEndian.AppendUint32(nil, 34), good[32:first], []byte{0}, good[first:])
	for _, tc := range []struct {
		name, words string
		b           []byte
	}{
		{"over the limit", "at most", append(slices.Clone(good), make([]byte, 16<<20)...)},
		{"first entry of another type", "begin with a Spec ID", at(4, 4)}, {"first entry of register 5", "begin with a Spec ID", at(0, 5)},
		{"Spec ID cut", "begin with a Spec ID", good[:spec+10]}, {"two algorithms", "2 digest algorithms", at(spec+24, 2)},
		{"no algorithm", "0 digest algorithms", at(spec+24, 0)}, {"SHA-256", "digest algorithm 0xb", at(spec+28, 0x0b)},
		{"SHA-384 of 32 bytes", "want SHA-384", at(spec+30, 32)}, {"vendor data missing", "malformed Spec ID", at(spec+32, 1)},
		{"bytes after the vendor data", "malformed Spec ID", longer},
		{"cut inside a payload of zeros", "truncated", good[:len(good)-1]}, {"cut before the payload", "truncated", good[:len(good)-8]},
		{"the same byte after the log", "truncated", append(slices.Clone(good), 1, 1)},
		{"register 4", "register index 5", at(first, 5)}, {"two digests", "2 digests", at(first+8, 2)}, {"event of SHA-256", "algorithm 0xb", at(first+12, 0x0b)},
		{"4,097 events", "more than 4096", encode(t, slices.Repeat([]eventlog.Event{zeros}, eventlog.MaxEvents+1)...)},
	} {
		_, err := eventlog.ParseCCEL(tc.b)
		refused(t, tc.name, err, tc.words)
	}
	events, err := eventlog.ParseCCEL(at(first, 0)) // index 0 measures into no register
	if err != nil || len(events) != 0 {
		t.Errorf("index 0: %d events, %v", len(events), err)
	}
	for name, e := range map[string]eventlog.Event{
		"register": {IMR: 4, Digest: make([]byte, 48)}, "digest": {Digest: make([]byte, 47)},
		"payload": {Digest: make([]byte, 48), Payload: make([]byte, eventlog.MaxPayload+1)},
	} {
		_, err := eventlog.EncodeCCEL([]eventlog.Event{e})
		refused(t, name, err, "cannot be encoded")
	}
}

func TestACPIRefusals(t *testing.T) {
	three := []eventlog.Event{acpi(1), acpi(2), acpi(3)}
	if d, err := eventlog.ACPIDigests(three); err != nil || d[2][0] != 3 {
		t.Fatalf("%v %v", d, err)
	}
	spoil := func(fn func(*eventlog.Event)) []eventlog.Event {
		l := slices.Clone(three)
		fn(&l[1])
		return l
	}
	for name, l := range map[string][]eventlog.Event{
		"two": three[:2], "four": append(slices.Clone(three), acpi(4)), "none": nil,
		"one of register 1":     spoil(func(e *eventlog.Event) { e.IMR = 1 }),
		"one of another type":   spoil(func(e *eventlog.Event) { e.Type = 1 }),
		"one of another marker": spoil(func(e *eventlog.Event) { e.Payload = []byte("ACPI DATB") }),
		"one without digest":    spoil(func(e *eventlog.Event) { e.Digest = nil }),
	} {
		_, err := eventlog.ACPIDigests(l)
		refused(t, name, err, "ACPI events")
	}
	if _, ok := eventlog.ReplayBoot([]eventlog.Event{acpi(1), {IMR: 0, Digest: make([]byte, 20)}}, 0); ok {
		t.Error("a register replays with a digest of 20 bytes")
	}
}

func TestCheckRuntimeRefusals(t *testing.T) {
	a, b := eventlog.Runtime{Name: "a", Payload: []byte{1}}, eventlog.Runtime{Name: "b", Payload: []byte{2}, Version: 2}
	sound := func() []eventlog.Event { return []eventlog.Event{a.Event(), b.Event()} }
	runtime := []eventlog.Runtime{a, b}
	if err := eventlog.CheckRuntime(sound(), runtime); err != nil {
		t.Fatal(err)
	}
	stripped := eventlog.Strip(sound())
	if err := eventlog.CheckRuntime(stripped, runtime); err != nil {
		t.Fatal(err)
	}
	spoil := func(i int, fn func(*eventlog.Event)) []eventlog.Event {
		l := sound()
		l[0].Digest = nil // so that nothing but the spoiled field tells
		l[1].Digest, l[1].Preimage = nil, nil
		fn(&l[i])
		return l
	}
	for _, tc := range []struct {
		name, words string
		l           []eventlog.Event
	}{
		{"another name", "differs from runtime event", spoil(0, func(e *eventlog.Event) { e.Name = "c" })},
		{"another payload", "differs from runtime event", spoil(0, func(e *eventlog.Event) { e.Payload = []byte{3} })},
		{"another version", "differs from runtime event", spoil(1, func(e *eventlog.Event) { e.Version = 1 })},
		{"another digest", "digest does not match", spoil(0, func(e *eventlog.Event) { e.Digest = make([]byte, 48) })},
		{"preimage of a V1 event", "preimage", spoil(0, func(e *eventlog.Event) { e.Preimage = a.Preimage() })},
		{"preimage with a space", "preimage", spoil(1, func(e *eventlog.Event) { e.Preimage = append([]byte(" "), b.Preimage()...) })},
		{"another register", "in RTMR2", spoil(0, func(e *eventlog.Event) { e.IMR = 2 })},
		{"another type", "in RTMR3", spoil(0, func(e *eventlog.Event) { e.Type = 1 })},
		{"one missing", "has 1 runtime events, 2 were replayed", sound()[:1]},
		{"one too many", "more runtime events", append(sound(), a.Event())},
	} {
		refused(t, tc.name, eventlog.CheckRuntime(tc.l, runtime), tc.words)
	}
}

func TestLimits(t *testing.T) {
	long := strings.Repeat("x", 4*eventlog.MaxName+1)
	for _, tc := range []struct {
		name, words string
		e           eventlog.Event
	}{
		{"register", "register 4", eventlog.Event{IMR: 4}}, {"digest", "digest of 1 bytes", eventlog.Event{Digest: []byte{1}}},
		{"long name", "name too long", eventlog.Event{Name: long}}, {"name not UTF-8", "not UTF-8", eventlog.Event{Name: "\xff"}},
		{"payload", "payload over", eventlog.Event{Payload: make([]byte, eventlog.MaxPayload+1)}},
		{"preimage", "payload over", eventlog.Event{Preimage: make([]byte, 3*eventlog.MaxPayload+1)}},
		{"version -1", "version -1", eventlog.Event{Version: -1}}, {"version 3", "version 3", eventlog.Event{Version: 3}},
	} {
		refused(t, tc.name, tc.e.Validate(), tc.words)
	}
	for _, tc := range []struct {
		name, words string
		r           eventlog.Runtime
	}{
		{"no name", "1 to", eventlog.Runtime{}}, {"long name", "1 to", eventlog.Runtime{Name: strings.Repeat("a", eventlog.MaxName+1)}},
		{"colon", "only a-z", eventlog.Runtime{Name: "a:b"}}, {"capital", "only a-z", eventlog.Runtime{Name: "A"}},
		{"payload", "at most", eventlog.Runtime{Name: "a", Payload: make([]byte, eventlog.MaxPayload+1)}},
		{"version -1", "version -1", eventlog.Runtime{Name: "a", Version: -1}}, {"version 3", "version 3", eventlog.Runtime{Name: "a", Version: 3}},
	} {
		refused(t, tc.name, tc.r.Validate(), tc.words)
		_, err := eventlog.ReplayRuntime([]eventlog.Runtime{{Name: "a"}, tc.r})
		refused(t, tc.name, err, "runtime event 1")
	}
	_, err := eventlog.ReplayRuntime(slices.Repeat([]eventlog.Runtime{{Name: "a"}}, eventlog.MaxEvents+1))
	refused(t, "4,097 runtime events", err, "at most 4096")
	_, err = eventlog.ParseJSON([]byte("[" + strings.Repeat(`{"imr":3},`, eventlog.MaxEvents) + `{"imr":3}]`))
	refused(t, "4,097 events in JSON", err, "at most 4096")
	_, err = eventlog.ParseJSON(fmt.Appendf(nil, "[]%s", strings.Repeat(" ", 16<<20)))
	refused(t, "16 MiB of JSON", err, "at most")
}

// What is accepted re-encodes to the same bytes, but for padding and entries that
// measure into no register.
func FuzzCCELReencodes(f *testing.F) {
	f.Add(encode(f, acpi(1), eventlog.Event{IMR: 2, Type: 7, Digest: make([]byte, 48)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := eventlog.ParseCCEL(b)
		if err != nil {
			return
		}
		again, err := eventlog.EncodeCCEL(events)
		if err != nil {
			return // a payload over what evidence may carry
		}
		second, err := eventlog.ParseCCEL(again)
		if err != nil || len(second) != len(events) {
			t.Fatalf("%d of %d events: %v", len(second), len(events), err)
		}
		for i := range events {
			if second[i].IMR != events[i].IMR || !bytes.Equal(second[i].Digest, events[i].Digest) || !bytes.Equal(second[i].Payload, events[i].Payload) {
				t.Fatalf("event %d differs", i)
			}
		}
	})
}

// A log of runtime events is accepted or refused alike however it is cut: what
// reads as a launch is a prefix-closed, ordered list.
func FuzzReadLaunch(f *testing.F) {
	f.Add([]byte{0, 1, 2, 4, 6, 7, 9, 10, 11})
	names := []string{eventlog.SystemPreparing, eventlog.AppID, eventlog.ComposeHash, eventlog.InitScriptHash, eventlog.GPUPolicyHash, eventlog.GPUAttestation,
		eventlog.InstanceID, eventlog.BootMRDone, eventlog.OSImageHash, eventlog.KeyProvider, eventlog.StorageFS, eventlog.SystemReady, "app-event"}
	sizes := []int{0, 20, 32, 32, 32, 1, 20, 0, 32, 1, 1, 0, 3}
	f.Fuzz(func(t *testing.T, order []byte) {
		var log []eventlog.Runtime
		for _, o := range order {
			i := int(o) % len(names)
			log = append(log, eventlog.Runtime{Name: names[i], Payload: make([]byte, sizes[i])})
		}
		if _, err := eventlog.ReadLaunch(log); err != nil {
			return
		}
		counts := map[string]int{}
		for i := range log {
			if _, err := eventlog.ReadLaunch(log[:i]); err != nil {
				t.Fatalf("accepted, but not its first %d events: %v", i, err)
			}
			counts[log[i].Name]++
		}
		for _, n := range names[:len(names)-1] {
			if n != eventlog.InitScriptHash && counts[n] > 1 {
				t.Fatalf("%s %d times", n, counts[n])
			}
		}
	})
}

// Types are not measured. One that nobody knows crashes go-eventlog; here it is a
// number that changes nothing but what an ACPI event is.
func TestUnknownTypeIsHarmless(t *testing.T) {
	for _, typ := range []uint32{0xffffffff, 0x80000000, 0, 0x0b} {
		e := acpi(1)
		e.Type = typ
		events, err := eventlog.ParseCCEL(encode(t, e))
		if err != nil || len(events) != 1 || events[0].Type != typ {
			t.Fatalf("type %#x: %v %v", typ, events, err)
		}
		known, ok1 := eventlog.ReplayBoot([]eventlog.Event{acpi(1)}, 0)
		mr, ok2 := eventlog.ReplayBoot(events, 0)
		if !ok1 || !ok2 || mr != known {
			t.Errorf("type %#x replays to another register", typ)
		}
		if _, err := eventlog.EncodeJSON(events); err != nil {
			t.Error(err)
		}
	}
}
