package measure

import (
	"crypto/sha512"
	"fmt"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// The container driver has no firmware. Its registers are still a pure function
// of what a real launch would measure: MRTD names the image, RTMR0 the VM's shape,
// RTMR1 and RTMR2 the image again (kernel, then root filesystem). The tags below
// are a format: changing one changes every measurement.
const (
	tagMRTD  = "phala-container-mrtd:v1:"
	tagShape = "phala-container-shape:v1:"
	tagRoot  = "phala-container-rootfs:v1:"
	tagInit  = "phala-container-init:v1:"
	tagSNP   = "phala-container-snp:v1:"
)

const evContainer = eventlog.EvPlatformConfigFlags

// Limits of a container VM's shape.
const (
	maxCPU    = 1024
	maxMemory = 16 << 40 // bytes
)

// Container computes the registers of a container driver's TD: a pure function of
// os_image_hash, cpu_count and memory_size. vm_config must state variant
// "container".
func Container(vmConfig string) (Registers, error) {
	c, err := ParseVMConfig(vmConfig)
	if err != nil {
		return Registers{}, err
	}
	b, err := containerBoot(c)
	if err != nil {
		return Registers{}, err
	}
	return b.Registers(), nil
}

// ContainerCCEL is the boot event log (CCEL table data) that replays to
// Container's RTMR0-2: what simtee.Shape.CCEL is set to.
func ContainerCCEL(vmConfig string) ([]byte, error) {
	c, err := ParseVMConfig(vmConfig)
	if err != nil {
		return nil, err
	}
	if err := checkContainer(c); err != nil {
		return nil, err
	}
	return eventlog.EncodeCCEL(containerEvents(c))
}

// ContainerSNP is the launch digest of a container that runs as a simulated SEV-SNP
// guest: like a real one it names the image and the number of processors, and nothing of
// the memory.
func ContainerSNP(vmConfig string) (cvm.Measurement, cvm.ImageHash, error) {
	c, err := ParseVMConfig(vmConfig)
	if err == nil {
		err = checkContainer(c)
	}
	if err != nil {
		return cvm.Measurement{}, cvm.ImageHash{}, err
	}
	return sha512.Sum384(fmt.Appendf(nil, "%scpu_count=%d;%s", tagSNP, c.CPUCount, c.OSImageHash)), c.OSImageHash, nil
}

func containerBoot(c VMConfig) (Boot, error) {
	var b Boot
	if err := checkContainer(c); err != nil {
		return b, err
	}
	b.MRTD = sha512.Sum384(append([]byte(tagMRTD), c.OSImageHash[:]...))
	for _, e := range containerEvents(c) {
		input := [...]string{InputShape, InputInit, InputRoot}[e.IMR]
		b.Steps[e.IMR] = append(b.Steps[e.IMR], Step{input, cvm.Measurement(e.Digest)})
	}
	return b, nil
}

func checkContainer(c VMConfig) error {
	switch {
	case c.Variant != VariantContainer:
		return cvm.Errorf(cvm.Invalid, "vm_config: tdx_attestation_variant is %q, want %q", c.Variant, VariantContainer)
	case c.CPUCount < 1 || c.CPUCount > maxCPU:
		return cvm.Errorf(cvm.Invalid, "vm_config: cpu_count %d, want 1 to %d", c.CPUCount, maxCPU)
	case c.MemorySize < 1 || c.MemorySize > maxMemory:
		return cvm.Errorf(cvm.Invalid, "vm_config: memory_size %d bytes, want 1 to %d", c.MemorySize, uint64(maxMemory))
	}
	return nil
}

// containerEvents are the boot events; each digest is SHA-384 of its payload.
func containerEvents(c VMConfig) []eventlog.Event {
	payloads := []string{
		fmt.Sprintf("%scpu_count=%d;memory_size=%d", tagShape, c.CPUCount, c.MemorySize),
		tagInit + c.OSImageHash.String(),
		tagRoot + c.OSImageHash.String(),
	}
	var out []eventlog.Event
	for i, p := range payloads {
		d := sha512.Sum384([]byte(p))
		out = append(out, eventlog.Event{IMR: uint32(i), Type: evContainer, Digest: d[:], Payload: []byte(p)}) //nolint:gosec // 0..2
	}
	return out
}
