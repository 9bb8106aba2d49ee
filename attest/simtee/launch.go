package simtee

import (
	"crypto/sha512"
	"fmt"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

// TDLaunch is what a VMM starts a machine with: the bytes it gives to QEMU.
type TDLaunch struct {
	Firmware []byte // code and variables in one file (ovmf.fd)
	Kernel   []byte // bzImage
	Initrd   []byte
	Cmdline  string // -append, without what QEMU adds for the initrd
	VMConfig string // the machine's shape; nothing else is read of it
}

// MeasureLaunch plays the TDX module and TDVF for a machine that has neither: it
// measures the launch as they would and returns what a TD then starts with. It
// knows nothing of what the image should measure, so that a VMM that starts
// something else gets other registers. Errors carry code invalid or unsupported.
func MeasureLaunch(l TDLaunch) (Shape, error) {
	acpi, err := ACPI(l.VMConfig)
	if err != nil {
		return Shape{}, err
	}
	f := measure.Files{Firmware: l.Firmware, Kernel: l.Kernel, Initrd: l.Initrd, Cmdline: l.Cmdline}
	b, err := measure.Launch(f, l.VMConfig, acpi.Digests())
	if err != nil {
		return Shape{}, err
	}
	ccel, err := b.CCEL()
	if err != nil {
		return Shape{}, err
	}
	r := b.Registers()
	return Shape{MRTD: r.MRTD, RTMR: r.RTMR, CCEL: ccel}, nil
}

// tagACPI is a format: another tag is another measurement.
const tagACPI = "phala-simulated-acpi:v1:"

// ACPI is the allow-list entry of the ACPI tables that a simulated machine of this
// shape measures. The digests name the devices that vm_config states; a simulated
// guest's real tables are those of its QEMU, which nothing measures.
func ACPI(vmConfig string) (measure.ACPI, error) {
	c, err := measure.ParseVMConfig(vmConfig)
	if err != nil {
		return measure.ACPI{}, err
	}
	t := c.Topology
	text := fmt.Sprintf("cpu_count=%d;num_nics=%d;num_verity_volumes=%d;num_gpus=%d;num_nvswitches=%d;pic=%t;pci_hole64_size=%d;hugepages=%t;swtpm=%t;hotplug_off=%t;host_share_mode=%q;qemu_version=%q",
		t.CPUCount, max(t.NumNICs, 1), t.NumVerityVolumes, t.NumGPUs, t.NumNVSwitches, t.PIC, t.PCIHole64Size, t.HugePages, t.SWTPM, t.HotplugOff, t.HostShareMode, t.QEMUVersion)
	digest := func(blob string) cvm.Measurement { return sha512.Sum384([]byte(tagACPI + blob + ":" + text)) }
	return measure.ACPI{Topology: t, Loader: digest("loader"), RSDP: digest("rsdp"), Tables: digest("tables")}, nil
}
