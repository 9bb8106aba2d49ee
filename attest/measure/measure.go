// Package measure computes the registers a VM must show from what it was started
// with: the OS image and the VM's shape (vm_config). Reference values are always
// recomputed; nothing here believes a register that the evidence brings.
package measure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// Variants of vm_config.tdx_attestation_variant.
const (
	VariantLegacy    = ""          // recomputed from Policy.Images, which names the image
	VariantLite      = "lite"      // recomputed from vm_config.tdx_measurement, which os_image_hash covers
	VariantContainer = "container" // the container driver's simulated TDs
)

// maxVMConfig bounds a vm_config document, in bytes.
const maxVMConfig = 256 << 10

// Registers are the launch measurements of a TD.
type Registers struct {
	MRTD cvm.Measurement    `json:"mrtd"`
	RTMR [3]cvm.Measurement `json:"rtmr"`
}

// Policy says how an image may be bound to the registers. The zero Policy admits
// no variant.
type Policy struct {
	Variants []string
	// Images are the reference values of images, each with its Hash: variant legacy
	// is refused for all others.
	Images []Image
	// ACPI lists admitted ACPI tables per topology, for variants lite and legacy: the
	// host chooses these tables and the guest's kernel runs their code, so that an
	// unlisted set refuses, unless AnyACPI says that the risk is accepted.
	ACPI    []ACPI
	AnyACPI bool
	// Withdrawn images are refused, whatever else admits them.
	Withdrawn []cvm.ImageHash
}

// CheckImage refuses an image that was withdrawn: code denied, reason "image-withdrawn".
func (p Policy) CheckImage(image cvm.ImageHash) error {
	if !slices.Contains(p.Withdrawn, image) {
		return nil
	}
	return cvm.Errorf(cvm.Denied, "image %s was withdrawn", image.String()[:16]).WithReason("image-withdrawn").WithFix("deploy with an image that the reference values admit")
}

// VMConfig is what the verifier reads of vm_config (dstack-core A.7). Only what
// enters the registers is believed.
type VMConfig struct {
	Topology
	OSImageHash cvm.ImageHash
	Variant     string
	// TwoPass overrides what the QEMU version says about MRTD (the field of the wire
	// is called qemu_single_pass_add_pages and means the opposite); nil: it decides.
	TwoPass *bool

	measurement *Measurement
}

// twoPass reports whether MRTD was built in two passes, which QEMU 8 does.
func (c VMConfig) twoPass() (bool, error) {
	major, err := c.qemuMajor()
	if c.TwoPass != nil {
		return *c.TwoPass, err
	}
	return major == 8, err
}

// ParseVMConfig reads vm_config JSON. Keys of other concerns are ignored (they
// are hints that nothing rests on); repeated keys and keys that differ only in
// case from a known one are refused.
func ParseVMConfig(vmConfig string) (VMConfig, error) {
	var c VMConfig
	fields, err := object(vmConfig)
	if err != nil {
		return c, cvm.Errorf(cvm.Invalid, "vm_config: %w", err)
	}
	var pic *bool
	for name, dst := range map[string]any{
		"os_image_hash": &c.OSImageHash, "cpu_count": &c.CPUCount, "memory_size": &c.MemorySize,
		"tdx_attestation_variant": &c.Variant, "qemu_version": &c.QEMUVersion, "tdx_measurement": &c.measurement,
		"qemu_single_pass_add_pages": &c.TwoPass, "pic": &pic, "pci_hole64_size": &c.PCIHole64Size, "hugepages": &c.HugePages,
		"num_gpus": &c.NumGPUs, "num_nvswitches": &c.NumNVSwitches, "num_nics": &c.NumNICs, "num_verity_volumes": &c.NumVerityVolumes,
		"swtpm": &c.SWTPM, "hotplug_off": &c.HotplugOff, "host_share_mode": &c.HostShareMode,
	} {
		raw, ok := fields[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, dst); err != nil {
			return c, cvm.Errorf(cvm.Invalid, "vm_config: %s: %w", name, err)
		}
	}
	if c.OSImageHash == (cvm.ImageHash{}) {
		return c, cvm.Errorf(cvm.Invalid, "vm_config: os_image_hash is missing")
	}
	c.Topology = c.WithDefaults(pic)
	return c, nil
}

// object splits a JSON object into its top-level members.
func object(s string) (map[string]json.RawMessage, error) {
	if len(s) > maxVMConfig {
		return nil, fmt.Errorf("%d bytes, at most %d", len(s), maxVMConfig)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(s)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	out := map[string]json.RawMessage{}
	folded := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		k, _ := t.(string)
		f := strings.ToLower(k)
		if folded[f] {
			return nil, fmt.Errorf("key %q appears twice", k)
		}
		folded[f] = true
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		out[k] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("data after the JSON object")
	}
	return out, nil
}

// Result is what Expected found.
type Result struct {
	Config    VMConfig
	Boot      Boot
	Registers Registers // what Boot replays to
	// ACPIUnchecked says that the ACPI tables came from the log and are on no list.
	ACPIUnchecked bool

	image *Image // nil for variant container
}

// Expected computes the registers that the image named by vm_config must show,
// by the variant it states, if the policy admits that variant. events is the
// evidence's event log, of which only the three ACPI digests are used; they must
// be on the policy's list for this topology. Errors carry code denied with reason
// "image-variant", "image-unknown", "image-withdrawn" or "acpi-tables", invalid or unsupported.
func Expected(p Policy, vmConfig string, events []eventlog.Event) (Result, error) {
	c, err := ParseVMConfig(vmConfig)
	if err != nil {
		return Result{Config: c}, err
	}
	return c.Expected(p, events)
}

// Expected is the function of that name, of a vm_config that was parsed before.
func (c VMConfig) Expected(p Policy, events []eventlog.Event) (Result, error) {
	res := Result{Config: c}
	if err := p.CheckImage(c.OSImageHash); err != nil {
		return res, err
	}
	if !slices.Contains(p.Variants, c.Variant) {
		return res, cvm.Errorf(cvm.Denied, "measurement variant %q is not admitted (policy admits %q)", c.Variant, p.Variants).
			WithReason("image-variant")
	}
	if c.Variant != VariantContainer {
		return p.machine(c, events)
	}
	var err error
	if res.Boot, err = containerBoot(c); err == nil {
		res.Registers = res.Boot.Registers()
	}
	return res, err
}

// machine is Expected for real virtual machines.
func (p Policy) machine(c VMConfig, events []eventlog.Event) (Result, error) {
	m, err := p.image(c)
	if err != nil {
		return Result{Config: c}, err
	}
	acpi, err := eventlog.ACPIDigests(events)
	if err != nil {
		return Result{Config: c}, err
	}
	listed := p.admits(c.Topology, acpi)
	if !listed && !p.AnyACPI {
		return Result{Config: c}, cvm.Errorf(cvm.Denied, "%s", p.whyACPI(c.Topology, acpi)).WithReason("acpi-tables").
			WithFix("list the tables of this topology (phala measure acpi), or start the VM with a listed one")
	}
	res, err := m.Expect(c, acpi)
	res.ACPIUnchecked = !listed
	return res, err
}

// ExpectedWith is Expected with ACPI digests from elsewhere than the evidence, for
// explaining: the digests are not judged.
func ExpectedWith(p Policy, vmConfig string, acpi [3]cvm.Measurement) (Result, error) {
	c, err := ParseVMConfig(vmConfig)
	if err != nil {
		return Result{Config: c}, err
	}
	m, err := p.image(c)
	if err != nil {
		return Result{Config: c}, err
	}
	return m.Expect(c, acpi)
}

// image finds what the image must measure.
func (p Policy) image(c VMConfig) (Image, error) {
	switch c.Variant {
	case VariantLite:
		return c.liteImage()
	case VariantLegacy:
		if i := slices.IndexFunc(p.Images, func(m Image) bool { return m.Hash == c.OSImageHash }); i >= 0 {
			return p.Images[i], nil
		}
		return Image{}, cvm.Errorf(cvm.Denied, "image %s is not among the reference values", c.OSImageHash.String()[:16]).
			WithReason("image-unknown").WithFix("add it to the reference-value feed, or deploy with variant lite")
	}
	return Image{}, cvm.Errorf(cvm.Unsupported, "measurement variant %q cannot be recomputed", c.Variant)
}
