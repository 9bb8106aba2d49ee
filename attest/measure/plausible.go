package measure

import (
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// memory tries usual sizes other than the stated one: below 4 GiB in steps of
// 256 MiB, up to 128 GiB of 1 GiB, up to 2 TiB of 16 GiB, and what the policy lists.
func (x explainer) memory(is func(bytes uint64) bool) string {
	const mib, gib = uint64(1) << 20, uint64(1) << 30
	stated := x.want.Config.MemorySize
	try := func(v uint64) bool { return v != stated && is(v) }
	found := func(v uint64) string {
		return fmt.Sprintf("%s of memory, expected %s", size(v), size(stated))
	}
	for _, r := range [][3]uint64{{256 * mib, 4 * gib, 256 * mib}, {5 * gib, 128 * gib, gib}, {144 * gib, 2048 * gib, 16 * gib}} {
		for v := r[0]; v <= r[1]; v += r[2] {
			if try(v) {
				return found(v)
			}
		}
	}
	for n, a := range x.p.ACPI {
		if n < maxTries && try(a.MemorySize) {
			return found(a.MemorySize)
		}
	}
	return ""
}

func size(v uint64) string {
	for _, u := range []struct {
		bytes uint64
		name  string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}} {
		if v >= u.bytes && v%u.bytes == 0 {
			return fmt.Sprintf("%d %s", v/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", v)
}

// shape says how one topology differs from the expected one.
func shape(got, want Topology) string {
	var out []string
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"QEMU", got.QEMUVersion, want.QEMUVersion}, {"vCPU", got.CPUCount, want.CPUCount}, {"memory", size(got.MemorySize), size(want.MemorySize)},
		{"pic", got.PIC, want.PIC}, {"pci_hole64_size", got.PCIHole64Size, want.PCIHole64Size}, {"hugepages", got.HugePages, want.HugePages},
		{"GPUs", got.NumGPUs, want.NumGPUs}, {"NVSwitches", got.NumNVSwitches, want.NumNVSwitches},
		{"NICs", max(got.NumNICs, 1), max(want.NumNICs, 1)}, {"verity volumes", got.NumVerityVolumes, want.NumVerityVolumes},
		{"swtpm", got.SWTPM, want.SWTPM}, {"hotplug_off", got.HotplugOff, want.HotplugOff}, {"host_share_mode", got.HostShareMode, want.HostShareMode},
	} {
		if f.got == f.want {
			continue
		}
		if f.name == "vCPU" {
			out = append(out, fmt.Sprintf("%v vCPU, expected %v", f.got, f.want))
		} else {
			out = append(out, fmt.Sprintf("%s %v, expected %v", f.name, f.got, f.want))
		}
	}
	if out == nil {
		return "this very shape"
	}
	return strings.Join(out, ", ")
}

// distance is how many fields differ. It is asked of every entry, also for evidence
// of strangers, so it must cost nothing.
func distance(a, b Topology) (n int) {
	for _, differs := range [...]bool{a.QEMUVersion != b.QEMUVersion, a.CPUCount != b.CPUCount, a.MemorySize != b.MemorySize, a.PIC != b.PIC,
		a.PCIHole64Size != b.PCIHole64Size, a.HugePages != b.HugePages, a.NumGPUs != b.NumGPUs, a.NumNVSwitches != b.NumNVSwitches,
		a.NumNICs != b.NumNICs, a.NumVerityVolumes != b.NumVerityVolumes, a.SWTPM != b.SWTPM, a.HotplugOff != b.HotplugOff,
		a.HostShareMode != b.HostShareMode} {
		if differs {
			n++
		}
	}
	return n
}

// nearest is the listed entry that differs least from t among those that match.
func (p Policy) nearest(t Topology, is func(ACPI) bool) (ACPI, bool) {
	var best ACPI
	n := -1
	for _, a := range p.ACPI {
		if !is(a) {
			continue
		}
		if d := distance(a.Topology, t); n < 0 || d < n {
			best, n = a, d
		}
	}
	return best, n >= 0
}

// acpiOf says of which listed topology one ACPI digest is.
func (p Policy) acpiOf(t Topology, d cvm.Measurement) string {
	if a, ok := p.nearest(t, func(a ACPI) bool { return slices.Contains(a.list(), d) }); ok {
		return "those of " + shape(a.Topology, t)
	}
	return ""
}

// whyACPI says why the tables of a log are refused.
func (p Policy) whyACPI(t Topology, got [3]cvm.Measurement) string {
	t = t.normal()
	if a, ok := p.nearest(t, func(a ACPI) bool { return a.Digests() == got }); ok {
		return "the host's ACPI tables are those of another VM shape than vm_config states: " + shape(a.Topology, t)
	}
	s := fmt.Sprintf("the host's ACPI tables (%s...) are not on the allow-list", got[2].String()[:16])
	if a, ok := p.nearest(t, func(a ACPI) bool { return a.Topology == t }); ok {
		for i, input := range []string{InputACPILoader, InputACPIRSDP, InputACPITables} {
			if got[i] != a.Digests()[i] {
				return s + ": for this VM shape it lists other " + input
			}
		}
	}
	if a, ok := p.nearest(t, func(ACPI) bool { return true }); ok {
		return s + ", which has no entry for this VM shape (the nearest: " + shape(a.Topology, t) + ")"
	}
	return s + ", which is empty"
}
