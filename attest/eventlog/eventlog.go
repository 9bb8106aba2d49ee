// Package eventlog reads and replays the logs behind the runtime measurement
// registers: the firmware's CCEL (RTMR0-2) and the guest agent's runtime events
// (RTMR3). The log itself is untrusted; what replays to a quoted register is what
// happened. Digests are always recomputed where name and payload are known.
//
// Formats are those of the reference (dstack 0.6): event type 0x08000001, digest
// V1 and V2, the JSON of quote APIs.
package eventlog

import (
	"bytes"

	"github.com/confidential-cloud/phala/cvm"
)

// RuntimeType is the event type of every runtime event.
const RuntimeType uint32 = 0x08000001

// RuntimeIMR is the register that runtime events extend (RTMR3).
const RuntimeIMR uint32 = 3

// Names of the events that the guest emits at boot.
const (
	SystemPreparing = "system-preparing"
	AppID           = "app-id"
	ComposeHash     = "compose-hash"
	InitScriptHash  = "init-script-hash"
	GPUPolicyHash   = "gpu-policy-hash"
	GPUAttestation  = "gpu-attestation"
	InstanceID      = "instance-id"
	BootMRDone      = "boot-mr-done"
	OSImageHash     = "os-image-hash"
	KeyProvider     = "key-provider"
	StorageFS       = "storage-fs"
	SystemReady     = "system-ready"
)

// Limits of what is accepted from others.
const (
	MaxEvents  = 4096     // entries in one log
	MaxPayload = 64 << 10 // bytes in one event
	MaxName    = 64       // bytes in a name
)

// Event is one entry of a log as quote APIs and attestations carry it.
type Event struct {
	IMR      uint32 // 0-based register: 0..3
	Type     uint32
	Digest   []byte // 48 bytes, or empty in a stripped runtime event
	Name     string
	Payload  []byte
	Version  int    // digest version of a runtime event; 0 means 1
	Preimage []byte // V2 only: the hashed bytes, if carried
}

// Runtime is one runtime event: what the guest extended RTMR3 with.
type Runtime struct {
	Name    string
	Payload []byte
	Version int // 0 or 1: digest V1; 2: digest V2
}

// Runtimes picks the runtime events of a log (type RuntimeType in register
// RuntimeIMR), in order.
func Runtimes(events []Event) []Runtime {
	var out []Runtime
	for _, e := range events {
		if e.IMR == RuntimeIMR && e.Type == RuntimeType {
			out = append(out, Runtime{Name: e.Name, Payload: e.Payload, Version: e.Version})
		}
	}
	return out
}

// ACPIMarker is the payload of the three events that carry the digests of the
// firmware's ACPI blobs; their type is EvPlatformConfigFlags.
const ACPIMarker = "ACPI DATA"

// acpiNames are what the reference calls these events, in order.
func acpiNames() [3]string { return [3]string{"acpi-loader", "acpi-rsdp", "acpi-tables"} }

func isACPI(e Event) bool {
	return e.IMR == 0 && e.Type == evPlatformConfigFlags && string(e.Payload) == ACPIMarker
}

// Strip is the reference's short form: boot events keep their digest and lose
// their payload (the ACPI marker stays); runtime events keep their payload and
// lose their digest, which is recomputed anyway (V2 events keep digest and
// preimage, which its verifiers ask for).
func Strip(events []Event) []Event {
	out := make([]Event, 0, len(events))
	for _, e := range events {
		switch {
		case e.Type == RuntimeType && e.Version != 2:
			e.Digest = nil
		case e.Type != RuntimeType && !isACPI(e):
			e.Payload = nil
		}
		out = append(out, e)
	}
	return out
}

// StripForCert is Strip of the events that a verifier cannot do without: the
// three ACPI events and those of RTMR3.
func StripForCert(events []Event) []Event {
	var out []Event
	for _, e := range Strip(events) {
		if isACPI(e) || e.IMR == RuntimeIMR {
			out = append(out, e)
		}
	}
	return out
}

// ReplayBoot replays the boot events of one register (0, 1 or 2). ok is false
// when the log holds none, or one without a full digest.
func ReplayBoot(events []Event, imr uint32) (mr cvm.Measurement, ok bool) {
	for _, e := range events {
		if e.IMR != imr {
			continue
		}
		if len(e.Digest) != len(mr) {
			return cvm.Measurement{}, false
		}
		mr, ok = Extend(mr, cvm.Measurement(e.Digest)), true
	}
	return mr, ok
}

// ACPIDigests returns the three ACPI digests of a log: loader, RSDP, tables.
func ACPIDigests(events []Event) (d [3]cvm.Measurement, err error) {
	n := 0
	for _, e := range events {
		if !isACPI(e) {
			continue
		}
		if n == 3 || len(e.Digest) != 48 {
			return d, cvm.Errorf(cvm.Invalid, "event log: want exactly three ACPI events with a digest each")
		}
		d[n] = cvm.Measurement(e.Digest)
		n++
	}
	if n != 3 {
		return d, cvm.Errorf(cvm.Invalid, "event log: %d ACPI events, want 3", n)
	}
	return d, nil
}

// CheckRuntime refuses a log whose RTMR3 entries say something else than the
// runtime events that were replayed, or whose runtime events sit in another
// register.
func CheckRuntime(events []Event, runtime []Runtime) error {
	n := 0
	for i, e := range events {
		if (e.Type == RuntimeType) != (e.IMR == RuntimeIMR) {
			return cvm.Errorf(cvm.Invalid, "event log entry %d: type %#x in RTMR%d", i, e.Type, e.IMR)
		}
		if e.IMR != RuntimeIMR {
			continue
		}
		if n >= len(runtime) {
			return cvm.Errorf(cvm.Invalid, "event log has more runtime events than the %d replayed", len(runtime))
		}
		r := runtime[n]
		if r.Name != e.Name || !bytes.Equal(r.Payload, e.Payload) || max(r.Version, 1) != max(e.Version, 1) {
			return cvm.Errorf(cvm.Invalid, "event log entry %d (%s) differs from runtime event %d (%s)", i, trunc(e.Name), n, trunc(r.Name))
		}
		if len(e.Digest) != 0 && !r.is(e.Digest) {
			return cvm.Errorf(cvm.Invalid, "event log entry %d (%s): digest does not match name and payload", i, trunc(e.Name))
		}
		if len(e.Preimage) != 0 && (e.Version != 2 || !bytes.Equal(e.Preimage, r.Preimage())) {
			return cvm.Errorf(cvm.Invalid, "event log entry %d (%s): preimage is not the canonical one", i, trunc(e.Name))
		}
		n++
	}
	if n != 0 && n != len(runtime) {
		return cvm.Errorf(cvm.Invalid, "event log has %d runtime events, %d were replayed", n, len(runtime))
	}
	return nil
}
