package measure

import (
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// TCG event types of the steps of a boot, as TDVF logs them.
const (
	evSeparator      = 0x00000004
	evEventTag       = 0x00000006
	evVariableConfig = 0x80000001
	evVariableBoot   = 0x80000002
	evApplication    = 0x80000003
	evAction         = 0x80000007
	evFirmwareBlob2  = 0x8000000a
	evHandoffTables2 = 0x8000000b
)

// Launch computes what a TD measures that is started with these very files in the
// shape that vm_config states, and whose firmware was given these ACPI blobs
// (digests of loader, RSDP, tables). It is what the launcher's side computes: of
// vm_config only the shape is read, never what the image should measure.
func Launch(f Files, vmConfig string, acpi [3]cvm.Measurement) (Boot, error) {
	c, err := ParseVMConfig(vmConfig)
	if err != nil {
		return Boot{}, err
	}
	if c.Variant == VariantContainer {
		return Boot{}, cvm.Errorf(cvm.Invalid, "vm_config: tdx_attestation_variant %q has no firmware to launch", c.Variant)
	}
	m, err := New(f)
	if err != nil {
		return Boot{}, err
	}
	return m.boot(c, acpi)
}

// CCEL is a boot event log (CCEL table data) with one event per step, which replays
// to Registers.
func (b Boot) CCEL() ([]byte, error) {
	var events []eventlog.Event
	for imr, steps := range b.Steps {
		for _, s := range steps {
			e := eventlog.Event{IMR: uint32(imr), Digest: s.Digest[:]} //nolint:gosec // 0..2
			e.Type, e.Payload = s.logged()
			events = append(events, e)
		}
	}
	return eventlog.EncodeCCEL(events)
}

// logged is the type and the payload of the step's event. Verifiers find the ACPI
// digests by theirs; the other payloads are for people.
func (s Step) logged() (typ uint32, payload []byte) {
	payload = []byte(s.Input)
	switch s.Input {
	case InputACPILoader, InputACPIRSDP, InputACPITables:
		return eventlog.EvPlatformConfigFlags, []byte(eventlog.ACPIMarker)
	case InputHOB:
		return evHandoffTables2, payload
	case InputVolume:
		return evFirmwareBlob2, payload
	case InputKernel:
		return evApplication, payload
	case InputCmdline, InputInitrd:
		return evEventTag, payload
	case inputSeparator:
		return evSeparator, payload
	case inputBootOrder, inputBoot0000:
		return evVariableBoot, payload
	case inputBootCall, inputExit, inputExited:
		return evAction, payload
	}
	return evVariableConfig, payload
}
