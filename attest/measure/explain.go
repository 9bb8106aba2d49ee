package measure

import (
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// Difference is one input of a boot that was not the expected one.
type Difference struct {
	Register string          `json:"register"`        // MRTD, RTMR0, RTMR1, RTMR2
	Entry    int             `json:"entry"`           // position in the register's log, from 0; -1: the log does not say
	Input    string          `json:"input"`           // what differs, or the candidates when the log does not say
	Want     cvm.Measurement `json:"want"`            // of the entry, or of the register when Entry is -1
	Got      cvm.Measurement `json:"got"`             //
	Found    string          `json:"found,omitempty"` // what was measured instead, when something plausible gives it
}

// String is one sentence, for example "RTMR0 entry 10: ACPI tables: those of 4 vCPU, expected 2".
func (d Difference) String() string {
	s := d.Register
	if d.Entry >= 0 {
		s += fmt.Sprintf(" entry %d", d.Entry)
	}
	s += " differs: " + d.Input
	if d.Found != "" {
		s += ": " + d.Found
	}
	return s
}

// Words joins differences for a check's reason.
func Words(ds []Difference) string {
	var out []string
	for _, d := range ds {
		out = append(out, d.String())
	}
	return strings.Join(out, "; ")
}

// Explain says which inputs of the boot differ from what was expected, where the
// registers got are not want.Registers. It compares the log entry by entry where
// the log replays to the register, and otherwise tries what is plausible: other
// memory sizes and vCPU counts, the ACPI tables and images that the policy lists,
// and the other way of building MRTD. It explains only: nothing is admitted by it.
func Explain(p Policy, want Result, events []eventlog.Event, got Registers) []Difference {
	x := explainer{p: p, want: want, got: got}
	var out []Difference
	if want.Registers.MRTD != got.MRTD {
		out = append(out, Difference{Register: "MRTD", Entry: -1, Input: x.mrtdInput(), Want: want.Registers.MRTD, Got: got.MRTD, Found: x.mrtd()})
	}
	for i := range got.RTMR {
		if want.Registers.RTMR[i] == got.RTMR[i] {
			continue
		}
		if mr, ok := eventlog.ReplayBoot(events, uint32(i)); ok && mr == got.RTMR[i] { //nolint:gosec // 0..2
			out = append(out, x.entries(i, events)...)
		} else {
			out = append(out, Difference{Register: rtmr(i), Entry: -1, Input: x.candidates(i),
				Want: want.Registers.RTMR[i], Got: got.RTMR[i], Found: x.register(i)})
		}
	}
	return out
}

func rtmr(i int) string { return fmt.Sprintf("RTMR%d", i) }

type explainer struct {
	p    Policy
	want Result
	got  Registers
}

func (x explainer) mrtdInput() string {
	if x.want.image == nil {
		return "image"
	}
	return InputFirmware + " file"
}

func (x explainer) mrtd() string {
	images := x.p.Images
	if m := x.want.image; m != nil {
		images = append([]Image{*m}, images...)
	}
	for _, m := range images {
		var how string
		switch x.got.MRTD {
		case m.MRTD:
			how = "one pass (QEMU 9 and newer)"
		case m.MRTDTwoPass:
			how = "two passes (QEMU 8)"
		default:
			continue
		}
		if x.want.image != nil && m.MRTD == x.want.image.MRTD {
			return "the right one, added in " + how + ", which vm_config does not say"
		}
		return "that of image " + m.name() + ", added in " + how
	}
	return ""
}

// entries compares the register's log, which replays, with the expected steps.
func (x explainer) entries(i int, events []eventlog.Event) []Difference {
	var log []eventlog.Event
	for _, e := range events {
		if int(e.IMR) == i {
			log = append(log, e)
		}
	}
	steps := x.want.Boot.Steps[i]
	var out []Difference
	for n := range min(len(log), len(steps)) {
		if got := cvm.Measurement(log[n].Digest); got != steps[n].Digest {
			out = append(out, Difference{Register: rtmr(i), Entry: n, Input: steps[n].Input,
				Want: steps[n].Digest, Got: got, Found: x.entry(steps[n].Input, log[n])})
		}
		if len(log) != len(steps) && len(out) > 0 {
			break // what follows is shifted and says nothing
		}
	}
	if len(log) == len(steps) {
		return out
	}
	return append(out, Difference{Register: rtmr(i), Entry: min(len(log), len(steps)), Input: "number of entries",
		Want: x.want.Registers.RTMR[i], Got: x.got.RTMR[i],
		Found: fmt.Sprintf("%d entries, expected %d: another firmware, or a boot that took another way", len(log), len(steps))})
}

// entry says what was measured instead of one input.
func (x explainer) entry(input string, e eventlog.Event) string {
	d := cvm.Measurement(e.Digest)
	switch input {
	case InputHOB:
		return x.memory(func(memory uint64) bool { return x.hobIs(memory, d) })
	case InputACPILoader, InputACPIRSDP, InputACPITables:
		return x.p.acpiOf(x.want.Config.Topology, d)
	case InputKernel, InputCmdline, InputInitrd:
		if s := x.otherImage(func(m Image) bool { return d == m.Kernel || d == m.Cmdline || d == m.Initrd }); s != "" {
			return s
		}
		if input == InputKernel {
			return x.memory(func(memory uint64) bool { k, err := x.kernel(memory); return err == nil && k == d })
		}
	}
	return payload(e)
}

// payload quotes a log entry whose digest is that of its own text.
func payload(e eventlog.Event) string {
	if d := sha512.Sum384(e.Payload); len(e.Payload) == 0 || len(e.Payload) > 256 || cvm.Measurement(e.Digest) != d {
		return ""
	}
	for _, r := range string(e.Payload) {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return fmt.Sprintf("%d bytes that the log holds", len(e.Payload))
		}
	}
	return fmt.Sprintf("%q", e.Payload)
}

// candidates names what may differ in a register whose log is not there.
func (x explainer) candidates(i int) string {
	if x.want.image == nil {
		return x.want.Boot.Steps[i][0].Input
	}
	return [...]string{"memory size, ACPI tables (vCPU, devices, QEMU version) or firmware variables",
		InputKernel + " (or the memory size, where it enters the kernel's header)", InputCmdline + " or " + InputInitrd}[i]
}

// register tries what is plausible for a whole register.
func (x explainer) register(i int) string {
	if x.want.image == nil {
		return x.container(i)
	}
	switch i {
	case 0:
		return x.rtmr0()
	case 1:
		is := func(kernel cvm.Measurement) bool {
			steps := slices.Clone(x.want.Boot.Steps[1])
			steps[0].Digest = kernel
			return replay(steps) == x.got.RTMR[1]
		}
		if s := x.otherImage(func(m Image) bool { return is(m.Kernel) }); s != "" {
			return s
		}
		return x.memory(func(memory uint64) bool { k, err := x.kernel(memory); return err == nil && is(k) })
	}
	return x.otherImage(func(m Image) bool { return eventlog.Replay(m.Cmdline, m.Initrd) == x.got.RTMR[2] })
}

// maxTries bounds the ACPI entries that are tried for one register.
const maxTries = 128

func (x explainer) rtmr0() string {
	steps := slices.Clone(x.want.Boot.Steps[0])
	try := func(memory uint64) bool {
		hob, err := x.want.image.layout.hob(memory)
		if err != nil {
			return false
		}
		steps[0].Digest = sha512.Sum384(hob)
		return replay(steps) == x.got.RTMR[0]
	}
	if s := x.memory(try); s != "" {
		return s
	}
	for n, a := range x.p.ACPI {
		if n == maxTries {
			break
		}
		for k, d := range a.Digests() {
			steps[8+k].Digest = d
		}
		if try(a.MemorySize) {
			return "that of " + shape(a.Topology, x.want.Config.Topology)
		}
	}
	return ""
}

func (x explainer) container(i int) string {
	is := func(c VMConfig) bool {
		b, err := containerBoot(c)
		return err == nil && b.Registers().RTMR[i] == x.got.RTMR[i]
	}
	c := x.want.Config
	for c.CPUCount = 1; c.CPUCount <= 64; c.CPUCount++ {
		if is(c) {
			return shape(c.Topology, x.want.Config.Topology)
		}
	}
	return x.memory(func(memory uint64) bool {
		c := x.want.Config
		c.MemorySize = memory
		return is(c)
	})
}

func (x explainer) otherImage(is func(Image) bool) string {
	for _, m := range x.p.Images {
		if m.Hash != x.want.Config.OSImageHash && is(m) {
			return "that of image " + m.name()
		}
	}
	return ""
}

func (x explainer) kernel(memory uint64) (cvm.Measurement, error) {
	if x.want.image == nil {
		return cvm.Measurement{}, cvm.Errorf(cvm.Unsupported, "no image")
	}
	return x.want.image.kernelFor(memory)
}

func (x explainer) hobIs(memory uint64, d cvm.Measurement) bool {
	if x.want.image == nil {
		return false
	}
	hob, err := x.want.image.layout.hob(memory)
	return err == nil && sha512.Sum384(hob) == d
}
