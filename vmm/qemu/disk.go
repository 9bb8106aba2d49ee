package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/hostshare"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Formats of data disks.
const (
	FormatRaw   = "raw" // sparse: what a guest never wrote takes no space
	FormatQCOW2 = "qcow2"
)

// ensureDisk makes a machine's data disk, or lets it grow. It never shrinks: what
// would be cut off belongs to the guest.
func (d *Driver) ensureDisk(ctx context.Context, p paths, size machine.Size) error {
	bytes := int64(size.DiskMiB) << 20
	if bytes < 1<<20 {
		return cvm.Errorf(cvm.Invalid, "data disk of %d MiB", size.DiskMiB)
	}
	err := d.sizeDisk(ctx, p, bytes)
	var coded *cvm.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return cvm.Errorf(cvm.Unavailable, "data disk %s: %w", filepath.Base(p.data), err).WithReason("disk").
		WithFix("is there space below the VMM's directory?")
}

func (d *Driver) sizeDisk(ctx context.Context, p paths, bytes int64) error {
	st, err := os.Lstat(p.data)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return d.newDisk(ctx, p, bytes)
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return cvm.Errorf(cvm.Precondition, "data disk %s is not a regular file", p.data).WithReason("disk")
	case d.cfg.DiskFormat == FormatQCOW2:
		have, err := d.virtualSize(ctx, p.data)
		if err != nil {
			return err
		}
		if have >= bytes {
			return nil
		}
		return d.img(ctx, "resize", "-f", FormatQCOW2, p.data, fmt.Sprint(bytes))
	case st.Size() < bytes:
		return os.Truncate(p.data, bytes)
	}
	return nil
}

// newDisk appears under its name only when it is whole.
func (d *Driver) newDisk(ctx context.Context, p paths, bytes int64) error {
	tmp := p.data + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if d.cfg.DiskFormat == FormatRaw {
		err = f.Truncate(bytes)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if d.cfg.DiskFormat == FormatQCOW2 {
		if err := d.img(ctx, "create", "-q", "-f", FormatQCOW2, tmp, fmt.Sprint(bytes)); err != nil {
			return err
		}
	}
	return os.Rename(tmp, p.data)
}

func (d *Driver) img(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, d.cfg.ImgBinary, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %.300s", filepath.Base(d.cfg.ImgBinary), args[0], err, out)
	}
	return nil
}

// qcow2 header: magic, version, backing file offset (byte 8) and size, cluster bits,
// the size of the disk (byte 24), and incompatible features (byte 72).
const (
	qcow2Header  = 80
	qcow2Foreign = 4 // feature: the data is in another file
)

// virtualSize reads the size of a qcow2 disk that this driver made. The guest never
// sees the header, but its hypervisor can write it: one that names another file
// would have qemu-img, as root, work on that.
func (d *Driver) virtualSize(_ context.Context, path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var h [qcow2Header]byte
	if _, err := f.ReadAt(h[:], 0); err != nil || string(h[:4]) != "QFI\xfb" {
		return 0, cvm.Errorf(cvm.Precondition, "data disk %s is not a qcow2 file", path).WithReason("disk").
			WithFix("was disk_format changed? Set it back")
	}
	if binary.BigEndian.Uint64(h[8:]) != 0 || binary.BigEndian.Uint64(h[72:])&qcow2Foreign != 0 {
		return 0, cvm.Errorf(cvm.Denied, "data disk %s names another file of the host, which this driver never does", path).WithReason("disk-foreign").
			WithFix("its hypervisor may have been taken over: keep the file for analysis, and delete the VM")
	}
	return int64(binary.BigEndian.Uint64(h[24:])), nil //nolint:gosec // a size that this driver wrote, or none that is larger than a disk
}

// packShared writes the host-shared files as the disk that the guest reads.
func packShared(p paths, dir string) error {
	f, err := openOwn(p.shared, os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return fmt.Errorf("shared disk: %w", err)
	}
	err = hostshare.Pack(f, dir)
	return errors.Join(err, f.Close())
}
