// Package teefs is a FUSE tree that shows a simulated TEE where Linux shows a real
// one: configfs-tsm for reports, sysfs for measurement registers, ACPI for the
// firmware's event log. A guest's device code (attest/tdxguest, or anybody's) runs
// on it unchanged. Semantics are the kernel's (drivers/virt/coco: tsm, tsm-mr,
// tdx-guest; fs/configfs), including what it refuses and with which errno.
//
// The tree holds no state of the TEE but the report entries: registers and keys
// stay with the device, which is another process's.
package teefs

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// Device is the TD behind the files; simtee.Device and simtee.TD are ones.
type Device interface {
	Quote(ctx context.Context, reportData [64]byte) ([]byte, error)
	Extend(ctx context.Context, index int, digest cvm.Measurement) error
	CCEL(ctx context.Context) ([]byte, error)
	Registers(ctx context.Context) (simtee.Registers, error)
}

// Leveled is a device whose reports have privilege levels and auxiliary data, as
// SEV-SNP's have; it takes the place of Quote.
type Leveled interface {
	Provider() string // what Linux calls it: "sev_guest"
	Report(ctx context.Context, reportData [64]byte, level uint) (out, aux []byte, err error)
}

// Paths below the mount point, as they are below "/" in a guest.
const (
	ConfigFS     = "sys/kernel/config"
	SysFS        = "sys"
	reports      = "sys/kernel/config/tsm/report"
	measurements = "sys/devices/virtual/misc/tdx_guest/measurements"
	acpi         = "sys/firmware/acpi/tables"
)

// FS is a mounted tree.
type FS struct {
	server *fuse.Server
	once   sync.Once
	err    error
}

// Mount shows the device's files below dir, which must exist, until Close. It needs
// /dev/fuse and the right to mount.
func Mount(dir string, d Device) (*FS, error) {
	return mount(dir, func(ctx context.Context, root *folder) {
		root.reports(ctx, providerOf(d))
		build(ctx, root, d)
	})
}

// MountReports is Mount for a guest that has reports only: SEV-SNP has neither
// runtime registers nor an event log.
func MountReports(dir string, l Leveled) (*FS, error) {
	return mount(dir, func(ctx context.Context, root *folder) { root.reports(ctx, leveled(l)) })
}

func mount(dir string, fill func(context.Context, *folder)) (*FS, error) {
	root := &folder{}
	s, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "simulated-tee", Name: "teefs"},
		OnAdd:        func(ctx context.Context) { fill(ctx, root) },
	})
	if err != nil {
		return nil, cvm.Errorf(cvm.Precondition, "mounting the simulated TEE's files at %s: %w", dir, err).
			WithFix("run where /dev/fuse exists and mounting is allowed, or use the device socket")
	}
	return &FS{server: s}, nil
}

// Close unmounts the tree. It fails while files in it are open.
func (f *FS) Close() error {
	f.once.Do(func() {
		if f.err = f.server.Unmount(); f.err != nil {
			f.err = fmt.Errorf("unmounting the simulated TEE's files: %w", f.err)
		}
	})
	return f.err
}

func (f *folder) reports(ctx context.Context, p provider) {
	parent, name := f.walk(ctx, reports)
	parent.AddChild(name, parent.NewPersistentInode(ctx, &subsystem{provider: p}, dirAttr()), false)
}

// build shows registers and event log.
func build(ctx context.Context, root *folder, d Device) {
	at := func(path string, a *attribute) {
		parent, name := root.walk(ctx, path)
		parent.AddChild(name, parent.NewPersistentInode(ctx, a, fileAttr()), false)
	}
	reg := func(name string, pick func(simtee.Registers) cvm.Measurement) *attribute {
		a := &attribute{mode: 0o444, read: func(ctx context.Context) ([]byte, error) {
			r, err := d.Registers(ctx)
			m := pick(r)
			return m[:], err
		}}
		at(measurements+"/"+name, a)
		return a
	}
	reg("mrtd:sha384", func(r simtee.Registers) cvm.Measurement { return r.MRTD })
	reg("mrconfigid", func(r simtee.Registers) cvm.Measurement { return r.MRConfigID })
	for _, n := range []string{"mrowner", "mrownerconfig"} { // a TD here has no owner
		reg(n, func(simtee.Registers) cvm.Measurement { return cvm.Measurement{} })
	}
	for i := range 4 {
		a := reg(fmt.Sprintf("rtmr%d:sha384", i), func(r simtee.Registers) cvm.Measurement { return r.RTMR[i] })
		if i >= 2 { // RTMR0 and 1 are the firmware's
			a.mode |= 0o200
			a.write = extend(d, i)
		}
	}
	parent, name := root.walk(ctx, "sys/class/misc/tdx_guest")
	link := &fs.MemSymlink{Data: []byte("../../devices/virtual/misc/tdx_guest")}
	parent.AddChild(name, parent.NewPersistentInode(ctx, link, fs.StableAttr{Mode: fuse.S_IFLNK}), false)

	log := &attribute{mode: 0o400, read: d.CCEL}
	at(acpi+"/data/CCEL", log)
	at(acpi+"/CCEL", &attribute{mode: 0o400, read: func(ctx context.Context) ([]byte, error) {
		b, err := d.CCEL(ctx)
		return ccelTable(len(b)), err
	}})
}

// ccelTable is the ACPI table that points to an event log of the size (ACPI 6.5,
// "CC Event Log"): header of 36 bytes, CC type (2: TDX) and subtype, length, address.
func ccelTable(size int) []byte {
	const length = 56
	b := make([]byte, length)
	copy(b, "CCEL")
	binary.LittleEndian.PutUint32(b[4:], length)
	b[8] = 1 // revision
	copy(b[10:], "SIMTEESIMULATE")
	b[36] = 2
	binary.LittleEndian.PutUint64(b[40:], uint64(size)) //nolint:gosec // a length
	var sum byte
	for _, v := range b {
		sum += v
	}
	b[9] = -sum // the bytes add up to zero
	return b
}
