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
	VariantLegacy    = ""          // needs the image's files: not admitted by any policy yet
	VariantLite      = "lite"      // recomputed from vm_config.tdx_measurement and three ACPI digests of the log
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
	// ACPIDigests lists admitted {loader, RSDP, tables} digests for variant lite:
	// the host chooses these tables and the guest's kernel runs their code, so that
	// an unlisted set refuses, unless AnyACPI says that the risk is accepted.
	ACPIDigests [][3]cvm.Measurement
	AnyACPI     bool
}

// VMConfig is what the verifier reads of vm_config (dstack-core A.7). Only what
// enters the registers is believed.
type VMConfig struct {
	OSImageHash cvm.ImageHash
	CPUCount    uint32
	MemorySize  uint64 // bytes
	Variant     string
	QEMUVersion string

	tdxMeasurement *tdxMeasurement
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
	for name, dst := range map[string]any{
		"os_image_hash": &c.OSImageHash, "cpu_count": &c.CPUCount, "memory_size": &c.MemorySize,
		"tdx_attestation_variant": &c.Variant, "qemu_version": &c.QEMUVersion, "tdx_measurement": &c.tdxMeasurement,
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
	Registers Registers
	// ACPIUnchecked says that the ACPI tables came from the log and are on no list.
	ACPIUnchecked bool
}

// Expected computes the registers that the image named by vm_config must show,
// by the variant it states, if the policy admits that variant. events is the
// evidence's event log; variant lite takes its ACPI digests.
func Expected(p Policy, vmConfig string, events []eventlog.Event) (Result, error) {
	c, err := ParseVMConfig(vmConfig)
	if err != nil {
		return Result{Config: c}, err
	}
	res := Result{Config: c}
	if !slices.Contains(p.Variants, c.Variant) {
		return res, cvm.Errorf(cvm.Denied, "measurement variant %q is not admitted (policy admits %q)", c.Variant, p.Variants).
			WithReason("image-variant")
	}
	switch c.Variant {
	case VariantContainer:
		res.Registers, err = container(c)
	case VariantLite:
		var acpi [3]cvm.Measurement
		if acpi, err = eventlog.ACPIDigests(events); err != nil {
			return res, err
		}
		if !slices.Contains(p.ACPIDigests, acpi) {
			if !p.AnyACPI {
				return res, cvm.Errorf(cvm.Denied, "the host's ACPI tables (%s...) are not on the allow-list", acpi[2].String()[:16]).
					WithReason("acpi-tables")
			}
			res.ACPIUnchecked = true
		}
		res.Registers, err = lite(c, acpi)
	default:
		err = cvm.Errorf(cvm.Unsupported, "measurement variant %q cannot be recomputed", c.Variant)
	}
	return res, err
}
