// Package eventlog reads and replays the logs behind the runtime measurement
// registers: the firmware's CCEL (RTMR0-2) and the guest agent's runtime events
// (RTMR3). The log itself is untrusted; what replays to a quoted register is what
// happened. Digests are always recomputed where name and payload are known.
//
// Formats are those of the reference (dstack 0.6): event type 0x08000001, digest
// V1 and V2, the JSON of quote APIs.
package eventlog

import "github.com/confidential-cloud/phala/cvm"

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

// Zero is a register before anything extended it.
func Zero() cvm.Measurement { return cvm.Measurement{} }

// ParseCCEL reads the firmware's log (TCG2 crypto-agile, SHA-384 only).
func ParseCCEL(b []byte) ([]Event, error) { return nil, cvm.Errorf(cvm.Unsupported, "being built") }

// ParseJSON reads the JSON array of quote APIs.
func ParseJSON(b []byte) ([]Event, error) { return nil, cvm.Errorf(cvm.Unsupported, "being built") }

// EncodeJSON writes the JSON array of quote APIs and tcb_info.event_log.
func EncodeJSON(events []Event) ([]byte, error) {
	return nil, cvm.Errorf(cvm.Unsupported, "being built")
}

// Runtimes picks the runtime events of a log.
func Runtimes(events []Event) []Runtime { return nil }

// Strip is the reference's short form: boot events lose their payload (the ACPI
// marker stays), runtime events their digest.
func Strip(events []Event) []Event { return events }

// StripForCert keeps only what a verifier cannot recompute: the three ACPI
// events and the runtime events.
func StripForCert(events []Event) []Event { return events }
