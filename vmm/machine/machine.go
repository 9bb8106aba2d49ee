// Package machine is the driver line: what the VMM asks of whatever runs
// confidential VMs. Everything above it (records, admission, host API, restart
// policy) is the same for QEMU, for the container driver and for the dry one.
//
// A driver knows nothing about apps: it gets two host directories (files for the
// guest, sockets shared with the guest), a size, an image, and registers. It must
// not keep state of its own beyond what its engine keeps, so that Adopt finds a
// machine again after the VMM was killed.
package machine

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Driver runs machines of one kind.
type Driver interface {
	// Describe says what the driver and its hardware are. Called at start and for GET /v1/node.
	Describe(ctx context.Context) (Description, error)
	// Launch starts a machine that is not running. The state volume of m.ID is made
	// when missing and kept otherwise. When it fails nothing runs.
	Launch(ctx context.Context, m Machine) (Instance, error)
	// Adopt finds the last run of a machine after the VMM was away: alive, or ended and
	// not launched again (then its Wait returns at once). Code not_found otherwise.
	Adopt(ctx context.Context, id string) (inst Instance, alive bool, err error)
	// Remove deletes what is left of a stopped machine, and its state volume unless
	// keepState. Removing what does not exist succeeds.
	Remove(ctx context.Context, id string, keepState bool) error
}

// Instance is one run of a machine, from Launch to its exit.
type Instance interface {
	// Wait blocks until the run ends.
	Wait(ctx context.Context) (Exit, error)
	// Stop ends the run: the engine's own polite signal first, by force after grace.
	// The guest agent was already asked over its socket by the caller.
	Stop(ctx context.Context, grace time.Duration) error
	// Console streams what the guest wrote to its console, oldest first.
	Console(ctx context.Context, o ConsoleOptions) (io.ReadCloser, error)
	// DialGuest connects to the guest agent's guest API.
	DialGuest(ctx context.Context) (net.Conn, error)
}

// Description of a driver.
type Description struct {
	Name      string // qemu, container, dry
	Variant   string // vm_config.tdx_attestation_variant of its machines
	Simulated bool   // the TEE is simulated: proves nothing about hardware
	DeviceID  cvm.DeviceID
	Warnings  []string

	// What of the driver is in vm_config (qemu only): how host-shared files reach the
	// guest, QEMU's version where hardware measures what it builds, ACPI hot-plug.
	Accel         string // tdx, snp, kvm, tcg
	QEMUVersion   string
	HostShareMode string
	HotplugOff    bool
}

// Machine is what to run.
type Machine struct {
	ID    string // uuid; also names the state volume
	Name  string // for people, in labels
	Boot  int    // counts launches; a new boot means new registers
	Image Image
	Size  Size
	// Shared holds the host-shared files (read-only for the guest), Run the sockets
	// (guestapi.RunDir in the guest).
	Shared, Run string
	// VMConfig is the JSON that describes the machine to a verifier; the driver's
	// registers follow from it.
	VMConfig   string
	MRConfigID cvm.Measurement
	// MRConfig is the document that MRConfigID is the hash of, where it has one (SEV-SNP).
	MRConfig string

	// What follows is for drivers of real machines; the others ignore it.
	NICs    []NIC    // in order; the first has the default route
	Volumes []Volume // read-only verity volumes, in the order of the app-compose
	GPUs    []GPU    // leased to this machine alone
	// NUMA places memory and CPUs; empty: wherever the kernel likes.
	NUMA      []NUMANode
	Hugepages bool
	Limits    Limits
	// UID owns the hypervisor process and its files; 0: the VMM's own user.
	UID int
	// CID is the machine's context id, for a host link over vsock; 0: it has none.
	CID uint32
	// NoTEE asks for a machine without hardware protection on a host that has it.
	NoTEE bool
}

// Modes of a NIC.
const (
	NICUser = "user" // user-mode NAT inside the hypervisor
	NICTap  = "tap"  // an interface that the host's network plane made
)

// NIC is one virtio network card.
type NIC struct {
	Mode string
	MAC  net.HardwareAddr
	Tap  string // NICTap: name of the interface
	// NICUser: the guest's network, where its addresses begin, whether it may reach
	// anything but forwarded ports, and those ports.
	Net       netip.Prefix
	DHCPStart netip.Addr
	Restrict  bool
	Forwards  []Forward
}

// Forward is one port of the host that leads to a guest port.
type Forward struct {
	Protocol  string // tcp, udp
	Host      netip.AddrPort
	GuestPort uint16
}

// Volume is a file of the host that the guest checks by its verity root.
type Volume struct{ Path string }

// GPU is a PCI device passed through: a GPU or an NVSwitch.
type GPU struct {
	Slot   string // domain:bus:device.function, lower case
	Switch bool   // NVSwitch
	Node   int    // NUMA node; -1: unknown
}

// NUMANode is a share of the machine on one node of the host.
type NUMANode struct {
	Node      int   // of the host
	VCPUs     int   // of the guest
	MemoryMiB int   // of the guest
	HostCPUs  []int // the machine's threads run on these
}

// Limits of a running machine; 0 is no limit.
type Limits struct {
	DiskBytesPerSec int64 // reads and writes together
	DiskIOPS        int64
	NetBytesPerSec  int64 // each direction
}

// Image is a verified guest image.
type Image struct {
	Name string
	Dir  string
	Hash cvm.ImageHash
}

// Size of a machine.
type Size struct {
	VCPU      int
	MemoryMiB int
	DiskMiB   int
}

// Exit is how a run ended.
type Exit struct {
	Code      int    // of the first process, or of the hypervisor
	OOMKilled bool   // the machine ran out of its own memory
	Requested bool   // Stop was called on this instance
	Detail    string // the engine's own words, if any
	Reason    string // the guest's own, when it refused to start and said why on its console; not to be trusted
}

// ConsoleOptions select console output.
type ConsoleOptions struct {
	Tail   int // lines; 0 is all that is kept
	Follow bool
}
