package measure

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Topology is what of a VM's shape decides its ACPI tables (and, of it, the memory
// size also the memory layout). Names and meanings are vm_config's.
type Topology struct {
	QEMUVersion      string `json:"qemu_version"`
	CPUCount         uint32 `json:"cpu_count"`
	MemorySize       uint64 `json:"memory_size"` // bytes
	PIC              bool   `json:"pic,omitempty"`
	PCIHole64Size    uint64 `json:"pci_hole64_size,omitempty"` // bytes
	HugePages        bool   `json:"hugepages,omitempty"`
	NumGPUs          uint32 `json:"num_gpus,omitempty"`
	NumNVSwitches    uint32 `json:"num_nvswitches,omitempty"`
	NumNICs          uint32 `json:"num_nics,omitempty"` // 0 says 1
	NumVerityVolumes uint32 `json:"num_verity_volumes,omitempty"`
	SWTPM            bool   `json:"swtpm,omitempty"`
	HotplugOff       bool   `json:"hotplug_off,omitempty"`
	HostShareMode    string `json:"host_share_mode,omitempty"`
}

// qemuMajor is the major version, or 9 when it is not stated, as the reference has it.
func (t Topology) qemuMajor() (int, error) {
	if t.QEMUVersion == "" {
		return 9, nil
	}
	major, _, _ := strings.Cut(t.QEMUVersion, ".")
	n, err := strconv.Atoi(major)
	if err != nil || n < 8 || n > 99 {
		return 0, cvm.Errorf(cvm.Unsupported, "qemu_version %q: want 8 or newer", t.QEMUVersion)
	}
	return n, nil
}

// ACPI is one entry of an allow-list: the digests of the three ACPI blobs that a
// QEMU version gives a guest of this topology. The host chooses these tables and
// the guest's kernel runs their code; who releases an image boots it once per
// topology on a host of their own and lists what was measured.
type ACPI struct {
	Topology
	Loader cvm.Measurement `json:"loader"`
	RSDP   cvm.Measurement `json:"rsdp"`
	Tables cvm.Measurement `json:"tables"`
}

// Digests are loader, RSDP and tables, in the order in which they are measured.
func (a ACPI) Digests() [3]cvm.Measurement { return [3]cvm.Measurement{a.Loader, a.RSDP, a.Tables} }

// ACPIFile is the name of an image's allow-list beside its other files.
const ACPIFile = "acpi.json"

// Limits of an allow-list.
const (
	maxACPIFile    = 4 << 20 // bytes
	MaxACPIEntries = 4096
)

type acpiFile struct {
	Version int    `json:"version"` // 1
	Entries []ACPI `json:"entries"`
}

// ParseACPI reads an allow-list file (acpi.json). The file must be byte for byte
// what EncodeACPI writes: what an edit left twice or in another spelling is refused.
func ParseACPI(b []byte) ([]ACPI, error) {
	if len(b) > maxACPIFile {
		return nil, cvm.Errorf(cvm.Invalid, "%s: %d bytes, at most %d", ACPIFile, len(b), maxACPIFile)
	}
	var f acpiFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "%s: %w", ACPIFile, err)
	}
	if f.Version != 1 {
		return nil, cvm.Errorf(cvm.Unsupported, "%s: version %d, want 1", ACPIFile, f.Version)
	}
	if err := CheckACPI(f.Entries); err != nil {
		return nil, err
	}
	again, err := EncodeACPI(f.Entries)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, cvm.Errorf(cvm.Invalid, "%s: not in the form in which it was written", ACPIFile).
			WithFix("make it with `phala measure acpi`; do not edit it by hand")
	}
	return f.Entries, nil
}

// EncodeACPI writes an allow-list file.
func EncodeACPI(entries []ACPI) ([]byte, error) {
	if entries == nil {
		entries = []ACPI{}
	}
	b, err := json.MarshalIndent(acpiFile{1, entries}, "", "  ")
	return append(b, '\n'), err
}

// CheckACPI refuses entries that could never match, or would match without saying
// anything: an empty digest, an unknown shape.
func CheckACPI(entries []ACPI) error {
	if len(entries) > MaxACPIEntries {
		return cvm.Errorf(cvm.Invalid, "ACPI allow-list: %d entries, at most %d", len(entries), MaxACPIEntries)
	}
	for i, e := range entries {
		_, err := e.qemuMajor()
		switch {
		case err != nil || e.QEMUVersion == "":
			return cvm.Errorf(cvm.Invalid, "ACPI allow-list entry %d: qemu_version %q", i, e.QEMUVersion)
		case e.CPUCount < 1 || e.CPUCount > maxCPU || e.MemorySize < 1 || e.MemorySize > maxMemory:
			return cvm.Errorf(cvm.Invalid, "ACPI allow-list entry %d: %d vCPU, %d bytes of memory", i, e.CPUCount, e.MemorySize)
		case slices.Contains(e.list(), cvm.Measurement{}):
			return cvm.Errorf(cvm.Invalid, "ACPI allow-list entry %d: a digest is missing", i)
		case e.normal() != e.Topology:
			return cvm.Errorf(cvm.Invalid, "ACPI allow-list entry %d: num_nics 1 is written as nothing", i)
		}
	}
	return nil
}

func (a ACPI) list() []cvm.Measurement { d := a.Digests(); return d[:] }

// normal makes equal shapes equal values.
func (t Topology) normal() Topology {
	if t.NumNICs == 1 {
		t.NumNICs = 0
	}
	return t
}

// WithDefaults fills in what vm_config leaves to the QEMU version: a PIC up to
// QEMU 8 where pic is nil.
func (t Topology) WithDefaults(pic *bool) Topology {
	t = t.normal()
	if pic != nil {
		t.PIC = *pic
		return t
	}
	major, err := t.qemuMajor() // an unreadable version is refused where it matters
	t.PIC = err == nil && major == 8
	return t
}

// ACPIFor finds the entry of a topology.
func ACPIFor(entries []ACPI, t Topology) (ACPI, bool) {
	t = t.normal()
	i := slices.IndexFunc(entries, func(a ACPI) bool { return a.Topology == t })
	if i < 0 {
		return ACPI{}, false
	}
	return entries[i], true
}

// admits reports whether the policy lists these digests for this topology.
func (p Policy) admits(t Topology, got [3]cvm.Measurement) bool {
	t = t.normal()
	return slices.ContainsFunc(p.ACPI, func(a ACPI) bool { return a.Topology == t && a.Digests() == got })
}
