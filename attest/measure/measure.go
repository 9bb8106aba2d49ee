// Package measure computes the registers a VM must show from what it was started
// with: the OS image and the VM's shape (vm_config).
package measure

import "github.com/confidential-cloud/phala/cvm"

// Variants of vm_config.tdx_attestation_variant.
const (
	VariantLegacy    = ""          // needs the image's files: not admitted by any policy yet
	VariantLite      = "lite"      // recomputed from vm_config.tdx_measurement and three ACPI digests
	VariantContainer = "container" // the container driver's simulated TDs
)

// Registers are the launch measurements of a TD.
type Registers struct {
	MRTD cvm.Measurement    `json:"mrtd"`
	RTMR [3]cvm.Measurement `json:"rtmr"`
}

// Policy says how an image may be bound to the registers. The zero Policy admits
// no variant.
type Policy struct {
	Variants []string
}

// VMConfig is what the verifier reads of vm_config (dstack-core A.7). Only what
// enters the registers is believed.
type VMConfig struct {
	OSImageHash cvm.ImageHash `json:"os_image_hash"`
	CPUCount    uint32        `json:"cpu_count"`
	MemorySize  uint64        `json:"memory_size"` // bytes
	Variant     string        `json:"tdx_attestation_variant"`
}

// ParseVMConfig reads vm_config JSON. Unknown keys are ignored: they are hints
// that nothing rests on.
func ParseVMConfig(vmConfig string) (VMConfig, error) { return VMConfig{}, nil }

// Container computes the registers of a container driver's TD: a pure function of
// os_image_hash, cpu_count and memory_size.
func Container(vmConfig string) (Registers, error) { return Registers{}, nil }

// ContainerCCEL is the boot event log (CCEL table data) that replays to
// Container's RTMR0-2: what simtee.Shape.CCEL is set to.
func ContainerCCEL(vmConfig string) ([]byte, error) { return nil, nil }
