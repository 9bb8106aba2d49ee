package qemu

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/hostlink"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// HostLink is the channel between a machine and its host.
type HostLink string

// The channels. LinkAuto gives a machine both, of which its guest takes vsock, where the
// host has vhost-vsock, and a virtio-serial port elsewhere.
const (
	LinkAuto   HostLink = "auto"
	LinkVSock  HostLink = "vsock"
	LinkSerial HostLink = "virtio-serial"
)

// validateLink checks host_link and the context ids.
func (o *Options) validateLink() error {
	switch o.HostLink {
	case LinkSerial:
		return nil
	case LinkAuto, LinkVSock:
	default:
		return cvm.Errorf(cvm.Invalid, "qemu.host_link %q: want auto, vsock or virtio-serial", o.HostLink)
	}
	if last := uint64(o.CIDStart) + uint64(max(o.CIDPoolSize, 0)); o.CIDStart < hostlink.FirstCID || o.CIDPoolSize < 1 || last-1 > hostlink.LastCID { //nolint:gosec // not negative
		return cvm.Errorf(cvm.Invalid, "qemu.cid_start %d, cid_pool_size %d: want context ids from %d to %d", o.CIDStart, o.CIDPoolSize, hostlink.FirstCID, uint32(hostlink.LastCID))
	}
	return nil
}

// CIDs is how many context ids machines may have, from CIDStart on; none where no
// machine has vsock.
func (o *Options) CIDs() int {
	if o.HostLink == LinkSerial {
		return 0
	}
	return o.CIDPoolSize
}

// CIDInUse asks the kernel whether a machine of somebody else has a context id. A host
// without vhost-vsock has no such machines.
func CIDInUse(cid uint32) bool {
	f, err := openVSock(cid)
	if err == nil {
		_ = f.Close() // which gives it back
	}
	return errors.Is(err, unix.EADDRINUSE)
}

const (
	vhostVSock = "/dev/vhost-vsock"
	// vhostSetGuestCID is VHOST_VSOCK_SET_GUEST_CID: _IOW(0xaf, 0x60, __u64).
	vhostSetGuestCID = 0x4008af60
)

// openVSock opens the host's vhost-vsock for a machine with a context id, which the
// kernel gives to one at a time: nobody else can have it until the file is closed here
// and in the process that inherits it.
func openVSock(cid uint32) (*os.File, error) {
	f, err := os.OpenFile(vhostVSock, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	id := uint64(cid)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), vhostSetGuestCID, uintptr(unsafe.Pointer(&id))); errno != 0 { //nolint:gosec // the kernel reads eight bytes
		return nil, errors.Join(fmt.Errorf("%s: context id %d: %w", vhostVSock, cid, errno), f.Close())
	}
	return f, nil
}

// vsockFor opens the machine's vsock device. Without one, and nil, the machine has its
// virtio-serial port alone: only a node that wants vsock and nothing else refuses.
func (d *Driver) vsockFor(m machine.Machine) (*os.File, error) {
	if d.cfg.HostLink == LinkSerial {
		return nil, nil //nolint:nilnil // documented
	}
	err := error(cvm.Errorf(cvm.Precondition, "the machine has no context id: it is of a VMM that gave none"))
	if m.CID != 0 {
		var f *os.File
		if f, err = d.vsock(m.CID); err == nil {
			return f, nil
		}
	}
	if d.cfg.HostLink == LinkAuto {
		d.log.Info("the host link is a virtio-serial port", "vm", m.ID, "no_vsock", err)
		return nil, nil //nolint:nilnil // documented
	}
	code, fix := cvm.Precondition, "load vhost_vsock and let the VMM open "+vhostVSock+", or set qemu.host_link to auto"
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		code, fix = cvm.Conflict, "another program of this host has that context id: stop the VM and start it again, or set qemu.cid_start to a range of its own"
	case m.CID == 0:
		fix = "stop the VM and start it again"
	}
	return nil, cvm.Errorf(code, "vsock, which qemu.host_link wants: %w", err).WithReason("vsock").WithFix(fix)
}

// dislikesVSock tells a QEMU that did not start because of its vsock device.
func dislikesVSock(err error) bool {
	return strings.Contains(err.Error(), "vhost-vsock")
}
