package disk

import (
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

// device is a block device (or, in tests, a file) that is read and written past the
// page cache, so that what was read is what is on it now.
type device struct {
	f    *os.File
	size int64 // bytes
}

// openDevice opens the disk. A missing one is refused with ReasonMissing.
func openDevice(path string) (*device, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, cvm.Errorf(cvm.Precondition, "data disk: %w", err).WithReason(ReasonMissing).
			WithFix("the machine has no disk with serial number phala-data: start it with one")
	}
	flags := os.O_RDWR | unix.O_DSYNC
	if st.Mode()&os.ModeDevice != 0 {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0) //nolint:gosec // the guest's own configuration
	if err != nil {
		return nil, cvm.Errorf(cvm.Precondition, "data disk: %w", err).WithReason(ReasonNotWritable)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data disk: size: %w", err)
	}
	return &device{f, size}, nil
}

func (d *device) Close() error { return d.f.Close() }

// aligned is a buffer that O_DIRECT accepts.
func aligned(n int) []byte {
	b := make([]byte, n+recordSlot)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % recordSlot) //nolint:gosec // the address is only looked at
	return b[skip:][:n:n]
}

// read copies n bytes from at; both are multiples of recordSlot.
func (d *device) read(at int64, n int) ([]byte, error) {
	b := aligned(n)
	if _, err := io.ReadFull(io.NewSectionReader(d.f, at, int64(n)), b); err != nil {
		return nil, fmt.Errorf("data disk: reading %d bytes at %d: %w", n, at, err)
	}
	return b, nil
}

// ReadBlock fills b from at.
func (d *device) ReadBlock(at int64, b []byte) error {
	c, err := d.read(at, len(b))
	copy(b, c)
	return err
}

// WriteBlock writes b at at and waits until it is on the device.
func (d *device) WriteBlock(at int64, b []byte) error {
	c := aligned(len(b))
	copy(c, b)
	if _, err := d.f.WriteAt(c, at); err != nil {
		return cvm.Errorf(cvm.Precondition, "data disk: writing %d bytes at %d: %w", len(b), at, err).WithReason(ReasonNotWritable)
	}
	return nil
}

// sealedFile keeps b in memory under a descriptor that nobody can write to: what
// was judged is what cryptsetup reads.
func sealedFile(name string, b []byte) (*os.File, error) {
	f, err := memFile(name)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(b); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data disk: header in memory: %w", err)
	}
	return f, nil
}

func memFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("data disk: memfd: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
