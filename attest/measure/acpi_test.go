package measure_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

func acpiEvents(d [3]cvm.Measurement) (out []eventlog.Event) {
	for _, v := range d {
		out = append(out, eventlog.Event{Type: eventlog.EvPlatformConfigFlags, Payload: []byte("ACPI DATA"), Digest: v[:]})
	}
	return out
}

const legacyConfig = `{"os_image_hash":"aa00000000000000000000000000000000000000000000000000000000000000","cpu_count":2,"memory_size":2147483648,"qemu_version":"9.2.1","num_nics":1,"hotplug_off":false}`

// The tables must be listed for the very shape that vm_config states.
func TestACPIAllowList(t *testing.T) {
	m := sampleImage(t)
	p := measure.Policy{Variants: []string{""}, Images: []measure.Image{m}, ACPI: []measure.ACPI{entry(2, 2*gib, "9.2.1", 2), entry(4, 2*gib, "9.2.1", 4)}}
	for _, tc := range []struct {
		name, old, repl string
		acpi            byte
		want            string // "" accepts
	}{
		{"listed", "", "", 2, ""},
		{"listed for 4 vCPU", `"cpu_count":2`, `"cpu_count":4`, 4, ""},
		{"listed for another shape", "", "", 4, "of another VM shape than vm_config states: 4 vCPU, expected 2"},
		{"unlisted", "", "", 9, "for this VM shape it lists other ACPI table loader"},
		{"unlisted shape", `"cpu_count":2`, `"cpu_count":8`, 9, "no entry for this VM shape (the nearest: 2 vCPU, expected 8)"},
		{"another QEMU", `9.2.1`, `9.2.2`, 2, "QEMU 9.2.1, expected 9.2.2"},
		{"another memory", `2147483648`, `4294967296`, 2, "memory 2 GiB, expected 4 GiB"},
		{"two NICs", `"num_nics":1`, `"num_nics":2`, 2, "NICs 1, expected 2"},
		{"a GPU", `"num_nics":1`, `"num_gpus":1`, 2, "GPUs 0, expected 1"},
		{"no NVSwitch", `"num_nics":1`, `"num_nvswitches":1`, 2, "NVSwitches 0, expected 1"},
		{"hotplug", `"hotplug_off":false`, `"hotplug_off":true`, 2, "hotplug_off false, expected true"},
		{"pic", `"num_nics":1`, `"pic":true`, 2, "pic false, expected true"},
		{"swtpm", `"num_nics":1`, `"swtpm":true`, 2, "swtpm false, expected true"},
		{"share", `"num_nics":1`, `"host_share_mode":"9p"`, 2, "host_share_mode , expected 9p"},
		{"hole", `"num_nics":1`, `"pci_hole64_size":7`, 2, "pci_hole64_size 0, expected 7"},
		{"huge pages", `"num_nics":1`, `"hugepages":true`, 2, "hugepages false, expected true"},
		{"volumes", `"num_nics":1`, `"num_verity_volumes":1`, 2, "verity volumes 0, expected 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := strings.Replace(legacyConfig, tc.old, tc.repl, 1)
			r, err := measure.Expected(p, c, acpiEvents(acpiOf(tc.acpi)))
			if tc.want == "" {
				if err != nil || r.ACPIUnchecked {
					t.Fatal(err)
				}
				return
			}
			if cvm.CodeOf(err) != cvm.Denied || cvm.ReasonOf(err) != "acpi-tables" || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%v, want %q", err, tc.want)
			}
			q := p
			q.AnyACPI = true
			if r, err := measure.Expected(q, c, acpiEvents(acpiOf(tc.acpi))); err != nil || !r.ACPIUnchecked {
				t.Errorf("any_acpi: %v, unchecked %v", err, r.ACPIUnchecked)
			}
		})
	}
	p.ACPI = nil
	if _, err := measure.Expected(p, legacyConfig, acpiEvents(acpiOf(2))); err == nil || !strings.Contains(err.Error(), "which is empty") {
		t.Errorf("no list: %v", err)
	}
}

func TestLegacyNeedsAListedImage(t *testing.T) {
	m := sampleImage(t)
	m.Hash[0]++
	p := measure.Policy{Variants: []string{""}, Images: []measure.Image{m}, AnyACPI: true}
	if _, err := measure.Expected(p, legacyConfig, acpiEvents(acpiOf(2))); cvm.ReasonOf(err) != "image-unknown" {
		t.Errorf("%v", err)
	}
}

func TestQEMUDecides(t *testing.T) {
	for _, tc := range []struct {
		old, repl string
		two, pic  bool
	}{
		{"", "", false, false}, {"9.2.1", "8.2.2", true, true}, {`"qemu_version":"9.2.1",`, "", false, false},
		{`"num_nics":1`, `"qemu_single_pass_add_pages":true`, true, false}, // the wire's name means the opposite
		{`"9.2.1","num_nics":1`, `"8.2.2","qemu_single_pass_add_pages":false,"pic":false`, false, false},
	} {
		c, err := measure.ParseVMConfig(strings.Replace(legacyConfig, tc.old, tc.repl, 1))
		if err != nil {
			t.Fatal(err)
		}
		m := sampleImage(t)
		r := expect(t, m, c, acpiOf(1))
		if (r.Registers.MRTD == m.MRTDTwoPass) != tc.two || c.PIC != tc.pic {
			t.Errorf("%q: two passes %v, pic %v", tc.repl, r.Registers.MRTD == m.MRTDTwoPass, c.PIC)
		}
	}
}

func TestParseACPI(t *testing.T) {
	good, err := measure.EncodeACPI([]measure.ACPI{entry(2, 2*gib, "9.2.1", 2)})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := measure.ParseACPI(good); err != nil || len(l) != 1 || l[0] != entry(2, 2*gib, "9.2.1", 2) {
		t.Fatalf("%v %v", l, err)
	}
	s := string(good)
	repl := func(old, by string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("no %q in %s", old, s)
		}
		return strings.Replace(s, old, by, 1)
	}
	for name, b := range map[string]string{
		"empty": "", "array": "[]", "data after": s + "{}", "spaces": s + "\n", "version": repl(`"version": 1`, `"version": 2`), "no version": repl(`"version": 1,`, ``),
		"unknown key": repl(`"cpu_count"`, `"any": true, "cpu_count"`), "twice": repl(`"cpu_count": 2`, `"cpu_count": 4, "cpu_count": 2`),
		"case variant": repl(`"cpu_count": 2`, `"CPU_Count": 2`), "no QEMU": repl(`9.2.1`, ``), "old QEMU": repl(`9.2.1`, `7.2`), "no CPU": repl(`"cpu_count": 2`, `"cpu_count": 0`),
		"no memory": repl(`2147483648`, `0`), "zero digest": repl(acpiOf(2)[0].String(), cvm.Measurement{}.String()), "short digest": repl(acpiOf(2)[0].String(), "02"),
		"num_nics 1": repl(`"memory_size": 2147483648,`, "\"memory_size\": 2147483648,\n      \"num_nics\": 1,"), "huge": strings.Repeat(" ", 5<<20),
	} {
		if _, err := measure.ParseACPI([]byte(b)); cvm.CodeOf(err) != cvm.Invalid && cvm.CodeOf(err) != cvm.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := make([]measure.ACPI, measure.MaxACPIEntries+1)
	if err := measure.CheckACPI(many); err == nil {
		t.Error("too many entries")
	}
}

func FuzzParseACPI(f *testing.F) {
	b, err := measure.EncodeACPI([]measure.ACPI{entry(2, 2*gib, "9.2.1", 2)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := measure.ParseACPI(b)
		if err != nil {
			return
		}
		if again, err := measure.EncodeACPI(l); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s re-encodes to %s", b, again)
		}
	})
}

func FuzzDecodeImage(f *testing.F) {
	m := sampleImage(f)
	if err := m.Volume.UnmarshalText([]byte("344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790")); err != nil {
		f.Fatal(err)
	}
	doc, err := m.Document()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := measure.DecodeImage(b)
		if err != nil {
			return
		}
		if again, err := m.Document(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x re-encodes to %x", b, again)
		}
		_, _ = m.Expect(config(1, 2*gib, "9.0"), acpiOf(1))
	})
}

// FuzzNew: files of strangers; the first half of the input overlays the firmware's
// metadata, the second the kernel's headers.
func FuzzNew(f *testing.F) {
	fw, k := files().Firmware, files().Kernel
	f.Add(fw[len(fw)-0x1000:], k[:0x400])
	f.Fuzz(func(t *testing.T, tail, head []byte) {
		x := files()
		copy(x.Firmware[max(0, len(x.Firmware)-len(tail)):], tail)
		copy(x.Kernel, head)
		a, err := measure.New(x)
		if err != nil {
			return
		}
		b, err := measure.New(x)
		if err != nil || a.MRTD != b.MRTD || a.Kernel != b.Kernel {
			t.Fatal("not a function")
		}
	})
}
