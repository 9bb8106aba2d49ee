package measure_test

import (
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
	"github.com/confidential-cloud/phala/cvm"
)

func entry(cpus uint32, memory uint64, qemu string, n byte) measure.ACPI {
	d := acpiOf(n)
	return measure.ACPI{Topology: config(cpus, memory, qemu).Topology, Loader: d[0], RSDP: d[1], Tables: d[2]}
}

// log is what the firmware would have logged of a boot.
func log(b measure.Boot) (out []eventlog.Event) {
	for i, steps := range b.Steps {
		for _, s := range steps {
			out = append(out, eventlog.Event{IMR: uint32(i), Type: 1, Digest: s.Digest[:]}) //nolint:gosec // 0..2
		}
	}
	return out
}

func TestExplain(t *testing.T) {
	m := sampleImage(t)
	other := files()
	other.Initrd, other.Kernel, other.Firmware = []byte("another initrd"), append(sample.Kernel(), 1), sample.Firmware()
	other.Firmware[0x8000] ^= 1
	o, err := measure.New(other)
	if err != nil {
		t.Fatal(err)
	}
	o.Hash, o.Version = cvm.ImageHash{0xbb}, "other"
	unlisted := files()
	unlisted.Initrd, unlisted.Cmdline = append(sample.Initrd(), 1), "quiet"
	u, err := measure.New(unlisted)
	if err != nil {
		t.Fatal(err)
	}
	p := measure.Policy{Images: []measure.Image{m, o}, ACPI: []measure.ACPI{
		entry(2, 2*gib, "9.2.1", 2), entry(4, 2*gib, "9.2.1", 4), entry(2, 2*gib, "10.0.0", 3), entry(2, 200*gib, "9.2.1", 6),
	}}
	want := expect(t, m, config(2, 2*gib, "9.2.1"), acpiOf(2))
	for _, tc := range []struct {
		name   string
		got    measure.Result
		logged string // what is said when the log is there
		blind  string // and when only the registers are
	}{
		{"nothing", want, "", ""},
		{"4 vCPU", expect(t, m, config(4, 2*gib, "9.2.1"), acpiOf(4)),
			"RTMR0 entry 8 differs: ACPI table loader: those of 4 vCPU, expected 2; RTMR0 entry 9 differs: ACPI RSDP: those of 4 vCPU, expected 2; RTMR0 entry 10 differs: ACPI tables: those of 4 vCPU, expected 2",
			"RTMR0 differs: memory size, ACPI tables (vCPU, devices, QEMU version) or firmware variables: that of 4 vCPU, expected 2"},
		{"other QEMU", expect(t, m, config(2, 2*gib, "9.2.1"), acpiOf(3)),
			"RTMR0 entry 8 differs: ACPI table loader: those of QEMU 10.0.0, expected 9.2.1", "that of QEMU 10.0.0, expected 9.2.1"},
		{"unknown tables", expect(t, m, config(2, 2*gib, "9.2.1"), acpiOf(9)),
			"RTMR0 entry 10 differs: ACPI tables", "RTMR0 differs: memory size, ACPI tables (vCPU, devices, QEMU version) or firmware variables"},
		{"memory", expect(t, m, config(2, 48*gib, "9.2.1"), acpiOf(2)),
			"RTMR0 entry 0 differs: memory layout (TD HOB): 48 GiB of memory, expected 2 GiB", ": 48 GiB of memory, expected 2 GiB"},
		{"memory that moves the initrd", expect(t, m, config(2, 1*gib, "9.2.1"), acpiOf(2)),
			"RTMR1 entry 0 differs: kernel file: 1 GiB of memory, expected 2 GiB", "RTMR1 differs: kernel file (or the memory size, where it enters the kernel's header): 1 GiB of memory"},
		{"listed shape", expect(t, m, config(2, 200*gib, "9.2.1"), acpiOf(6)),
			"those of memory 200 GiB, expected 2 GiB", "that of memory 200 GiB, expected 2 GiB"},
		{"two passes", expect(t, m, config(2, 2*gib, "8.2.2"), acpiOf(2)),
			"MRTD differs: firmware file: the right one, added in two passes (QEMU 8), which vm_config does not say", "MRTD differs: firmware file: the right one, added in two passes"},
		{"another listed image", expect(t, o, config(2, 2*gib, "9.2.1"), acpiOf(2)),
			"MRTD differs: firmware file: that of image other bb00000000000000, added in one pass (QEMU 9 and newer); RTMR1 entry 0 differs: kernel file: that of image other bb00000000000000; RTMR2 entry 1 differs: initrd file: that of image other bb00000000000000",
			"RTMR2 differs: kernel command line or initrd file: that of image other"},
		{"an unlisted image", expect(t, u, config(2, 2*gib, "9.2.1"), acpiOf(2)),
			"RTMR2 entry 0 differs: kernel command line; RTMR2 entry 1 differs: initrd file", "RTMR2 differs: kernel command line or initrd file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for how, x := range map[string]struct {
				events []eventlog.Event
				want   string
			}{
				"logged": {log(tc.got.Boot), tc.logged}, "blind": {nil, tc.blind},
				"lying log": {log(want.Boot), tc.blind}, // does not replay to what was quoted
			} {
				ds := measure.Explain(p, want, x.events, tc.got.Registers)
				if (len(ds) == 0) != (x.want == "") || !strings.Contains(measure.Words(ds), x.want) {
					t.Errorf("%s: %q, want %q", how, measure.Words(ds), x.want)
				}
			}
		})
	}
}

func TestExplainMoreEntries(t *testing.T) {
	m := sampleImage(t)
	want := expect(t, m, config(2, 2*gib, "9.2.1"), acpiOf(2))
	got := expect(t, m, config(2, 2*gib, "9.2.1"), acpiOf(2))
	extra := measure.Step{Input: "shim", Digest: cvm.Measurement{9}}
	got.Boot.Steps[1] = append([]measure.Step{extra}, got.Boot.Steps[1]...)
	got.Registers = got.Boot.Registers()
	s := measure.Words(measure.Explain(measure.Policy{}, want, log(got.Boot), got.Registers))
	if !strings.Contains(s, "RTMR1 entry 0 differs: kernel file") || !strings.Contains(s, "6 entries, expected 5") {
		t.Error(s)
	}
}

// A text that the log proves by its digest is quoted; one that it does not is not.
func TestExplainQuotesTheLog(t *testing.T) {
	c, other := mustContainer(t, vmConfig), strings.Replace(vmConfig, `"cpu_count":2`, `"cpu_count":3`, 1)
	ccel, err := measure.ContainerCCEL(other)
	if err != nil {
		t.Fatal(err)
	}
	events, err := eventlog.ParseCCEL(ccel)
	if err != nil {
		t.Fatal(err)
	}
	got := mustContainer(t, other).Registers
	if s := measure.Words(measure.Explain(measure.Policy{}, c, events, got)); s != `RTMR0 entry 0 differs: VM shape: "phala-container-shape:v1:cpu_count=3;memory_size=2147483648"` {
		t.Error(s)
	}
	for i := range events {
		events[i].Payload = []byte("cpu_count=1")
	}
	if s := measure.Words(measure.Explain(measure.Policy{}, c, events, got)); s != "RTMR0 entry 0 differs: VM shape" {
		t.Error(s)
	}
	if s := measure.Words(measure.Explain(measure.Policy{}, c, nil, got)); s != "RTMR0 differs: VM shape: 3 vCPU, expected 2" {
		t.Error(s)
	}
}

func mustContainer(t *testing.T, vmConfig string) measure.Result {
	t.Helper()
	r, err := measure.Expected(measure.Policy{Variants: []string{"container"}}, vmConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The full allow-list must not make a refusal dear.
func BenchmarkExplain(b *testing.B) {
	m := sampleImage(b)
	p := measure.Policy{Images: []measure.Image{m}}
	for i := range measure.MaxACPIEntries {
		p.ACPI = append(p.ACPI, entry(uint32(i%900+1), uint64(i+1)*gib, "9.2.1", 8)) //nolint:gosec // small
	}
	want := expect(b, m, config(2, 2*gib, "9.2.1"), acpiOf(2))
	for b.Loop() {
		measure.Explain(p, want, nil, measure.Registers{})
	}
}
