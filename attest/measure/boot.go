package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"unicode/utf16"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// Step is one measurement of a boot: what is measured, in words, and its digest.
type Step struct {
	Input  string          `json:"input"`
	Digest cvm.Measurement `json:"digest"`
}

// Boot is what a TD must measure until its kernel runs: MRTD, and in order what
// RTMR0 to RTMR2 are extended with.
type Boot struct {
	MRTD  cvm.Measurement
	Steps [3][]Step
}

// Registers replays the steps.
func (b Boot) Registers() Registers {
	return Registers{MRTD: b.MRTD, RTMR: [3]cvm.Measurement{replay(b.Steps[0]), replay(b.Steps[1]), replay(b.Steps[2])}}
}

func replay(steps []Step) (mr cvm.Measurement) {
	for _, s := range steps {
		mr = eventlog.Extend(mr, s.Digest)
	}
	return mr
}

// Names of the inputs of a boot, as Step.Input has them.
const (
	InputFirmware   = "firmware" // of MRTD
	InputHOB        = "memory layout (TD HOB)"
	InputVolume     = "firmware's variable store"
	InputACPILoader = "ACPI table loader"
	InputACPIRSDP   = "ACPI RSDP"
	InputACPITables = "ACPI tables"
	InputKernel     = "kernel file"
	InputCmdline    = "kernel command line"
	InputInitrd     = "initrd file"
	InputShape      = "VM shape"
	InputInit       = "image (init)"
	InputRoot       = "image (root filesystem)"

	inputSeparator = "separator"
	inputBootOrder = "variable BootOrder"
	inputBoot0000  = "variable Boot0000"
	inputBootCall  = "boot option call"
	inputExit      = "end of boot services"
	inputExited    = "end of boot services, success"
)

// Expect computes what a TD with this shape measures when it boots the image. Of
// the config only the shape is used; acpi are the digests of table loader, RSDP
// and tables.
func (m Image) Expect(c VMConfig, acpi [3]cvm.Measurement) (Result, error) {
	b, err := m.boot(c, acpi)
	if err != nil {
		return Result{Config: c}, err
	}
	return Result{Config: c, Boot: b, Registers: b.Registers(), image: &m}, nil
}

// boot is the order of OVMF before 2025-05 with a kernel given to QEMU
// (dstack-core A.3).
func (m Image) boot(s VMConfig, acpi [3]cvm.Measurement) (Boot, error) {
	b := Boot{MRTD: m.MRTD}
	two, err := s.twoPass()
	if err != nil {
		return b, err
	}
	if two {
		b.MRTD = m.MRTDTwoPass
	}
	hob, err := m.layout.hob(s.MemorySize)
	if err != nil {
		return b, err
	}
	kernel, err := m.kernelFor(s.MemorySize)
	if err != nil {
		return b, err
	}
	b.Steps[0] = rtmr0(sha512.Sum384(hob), m.Volume, acpi)
	b.Steps[1] = []Step{
		{InputKernel, kernel},
		text(inputBootCall, "Calling EFI Application from Boot Option"),
		text(inputSeparator, "\x00\x00\x00\x00"),
		text(inputExit, "Exit Boot Services Invocation"),
		text(inputExited, "Exit Boot Services Returned with Success"),
	}
	b.Steps[2] = []Step{{InputCmdline, m.Cmdline}, {InputInitrd, m.Initrd}}
	return b, nil
}

func rtmr0(hob, volume cvm.Measurement, acpi [3]cvm.Measurement) []Step {
	global := guid(0x8be4df61, 0x93ca, 0x11d2, [8]byte{0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c})
	security := guid(0xd719b2cb, 0x3d3a, 0x4596, [8]byte{0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f})
	absent := func(id [16]byte, name string) Step {
		return Step{"variable " + name, sha512.Sum384(eventlog.EFIVariable(id, name, nil))}
	}
	return []Step{
		{InputHOB, hob}, {InputVolume, volume},
		absent(global, "SecureBoot"), absent(global, "PK"), absent(global, "KEK"),
		absent(security, "db"), absent(security, "dbx"),
		text(inputSeparator, "\x00\x00\x00\x00"),
		{InputACPILoader, acpi[0]}, {InputACPIRSDP, acpi[1]}, {InputACPITables, acpi[2]},
		text(inputBootOrder, "\x00\x00"),
		{inputBoot0000, sha512.Sum384(boot0000())},
	}
}

func text(name, s string) Step { return Step{name, sha512.Sum384([]byte(s))} }

// boot0000 is the boot option that OVMF makes for its own menu (an EFI_LOAD_OPTION,
// UEFI 3.1.3): active, hidden, of category app; the path names UiApp in the volume
// of the boot phase.
func boot0000() []byte {
	const loadOption, volumeNode, fileNode = 0x109, 0x07, 0x06
	dxe := guid(0x7cb8bdc9, 0xf8eb, 0x4f34, [8]byte{0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1})
	app := guid(0x462caa21, 0x7614, 0x4503, [8]byte{0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31})
	path := append([]byte{4, volumeNode, 20, 0}, dxe[:]...)
	path = append(append(path, 4, fileNode, 20, 0), app[:]...)
	path = append(path, 0x7f, 0xff, 4, 0)
	b := binary.LittleEndian.AppendUint32(nil, loadOption)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path))) //nolint:gosec // 44
	return append(append(b, utf16le("UiApp")...), path...)
}

// utf16le is a text as the firmware holds it, with its final NUL.
func utf16le(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return append(b, 0, 0)
}
