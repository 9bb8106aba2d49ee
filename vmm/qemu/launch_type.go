package qemu

import (
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Accel is what executes the guest's instructions, and what protects them.
type Accel string

// The accelerators, best first.
const (
	TDX Accel = "tdx" // KVM with Intel TDX
	SNP Accel = "snp" // KVM with AMD SEV-SNP
	KVM Accel = "kvm" // KVM without protection
	TCG Accel = "tcg" // emulation: no KVM, no protection
)

// hardware reports whether a real TEE protects the guest.
func (a Accel) hardware() bool { return a == TDX || a == SNP }

// Launch is everything that a QEMU command line says. Argv is a pure function of it.
type Launch struct {
	ID    string // uuid; the process's name
	Accel Accel
	// TBSizeMiB bounds the translation cache of TCG.
	TBSizeMiB int

	Firmware, Kernel, Initrd, Rootfs string // absolute paths
	Cmdline                          string // the guest's measured kernel command line

	DataDisk   string
	DataFormat string // raw, qcow2
	SharedDisk string
	Volumes    []string

	VCPU, MemoryMiB int
	NICs            []machine.NIC
	GPUs            []machine.GPU
	NUMA            []machine.NUMANode // empty: one node anywhere
	Hugepages       bool
	Limits          machine.Limits

	SerialLog string // the guest's console, appended to
	PIDFile   string // locked by QEMU: a second one on it does not start
	// QMPFD and LinkFD are listening unix sockets that the process inherits: it needs
	// to write to no directory. LinkFD 0: no virtio-serial port.
	QMPFD, LinkFD int
	// CID is the context id of the vsock device, and VSockFD the host's half of it
	// (/dev/vhost-vsock), which the process inherits; CID 0: no such device.
	CID     uint32
	VSockFD int

	// PCIHole64Bytes is the size of the 64-bit PCI window; 0: QEMU's own choice.
	PCIHole64Bytes uint64

	MRConfigID cvm.Measurement // TDX
	// QGSPort is the vsock port of the host's quote service, for TDX; 0: none.
	QGSPort uint32
	// HostData and SEV are for SEV-SNP.
	HostData [32]byte
	SEV      SEV
}

// SEV is what this processor says about memory encryption (query-sev-capabilities).
type SEV struct {
	CBitPos         int `json:"cbitpos"`
	ReducedPhysBits int `json:"reduced-phys-bits"`
}

// Serial numbers by which the guest finds its disks, and the name of its port.
const (
	serialRootfs = "phala-rootfs"
	serialData   = "phala-data"
	serialShared = "phala-shared"
	serialVolume = "phala-vol"
	linkPort     = "phala.link"
)
