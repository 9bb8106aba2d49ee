package initramfs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/verity"
)

const (
	mapperName  = "phala-rootfs"
	dmControl   = "/dev/mapper/control"
	dmReadOnly  = 1 << 0 // DM_READONLY_FLAG
	sectorSize  = 512
	panicOption = "panic_on_corruption"
)

// verityDevice is a dm-verity mapping.
type verityDevice struct {
	control     *os.File
	name, disk  string
	root        verity.Root
	superblock  verity.Superblock
	minorNumber uint32
}

func (v verityDevice) path() string { return fmt.Sprintf("/dev/dm-%d", v.minorNumber) }

// openVerity maps the disk read-only. The device answers a damaged block with an
// error until panicOnCorruption.
func openVerity(disk string, root verity.Root) (v verityDevice, err error) {
	v = verityDevice{name: mapperName, disk: "/dev/" + disk, root: root}
	f, err := os.Open(v.disk)
	if err != nil {
		return v, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return v, err
	}
	if v.superblock, err = verity.ReadSuperblock(f, size, root); err != nil {
		return v, err
	}
	if err := checkTop(f, root, v.superblock); err != nil {
		return v, err
	}
	if v.control, err = os.OpenFile(dmControl, os.O_RDWR, 0); err != nil {
		return v, err
	}
	d, err := v.ioctl(unix.DM_DEV_CREATE, 0, nil)
	if err != nil {
		return v, fmt.Errorf("creating the device-mapper device: %w", err)
	}
	v.minorNumber = unix.Minor(d.Dev)
	return v, v.load()
}

// checkTop compares the tree's first block with the root hash. dm-verity does so too,
// but can only say "corrupt": this says that it is another image's disk.
func checkTop(r io.ReaderAt, root verity.Root, s verity.Superblock) error {
	at := root.Size + verity.BlockSize
	if s.DataBlocks == 1 {
		at = 0
	}
	block := make([]byte, verity.BlockSize)
	if _, err := r.ReadAt(block, at); err != nil {
		return cvm.Errorf(cvm.Invalid, "reading the top of the hash tree at byte %d: %w", at, err).WithReason(ReasonCorrupt)
	}
	if got := sha256.Sum256(append(s.Salt[:len(s.Salt):len(s.Salt)], block...)); got != root.Hash {
		return cvm.Errorf(cvm.Invalid, "the disk has root hash %x, the command line wants %x", got, root.Hash).WithReason("rootfs-hash-mismatch")
	}
	return nil
}

// panicOnCorruption replaces the table by one that stops the machine at a damaged block.
func (v verityDevice) panicOnCorruption() error { return v.load(panicOption) }

// load puts a table in force.
func (v verityDevice) load(options ...string) error {
	table := verityTable(v.disk, v.root, v.superblock, options...)
	if _, err := v.ioctl(unix.DM_TABLE_LOAD, dmReadOnly, target("verity", uint64(v.root.Size)/sectorSize, table)); err != nil { //nolint:gosec // bounded by ParseCmdline
		return fmt.Errorf("loading the dm-verity table: %w", err)
	}
	// DM_DEV_SUSPEND without the suspend flag resumes, with the new table.
	if _, err := v.ioctl(unix.DM_DEV_SUSPEND, dmReadOnly, nil); err != nil {
		return cvm.Errorf(cvm.Invalid, "starting dm-verity: %w", err).WithReason(ReasonCorrupt)
	}
	return nil
}

// verityTable is the parameter line of the kernel's verity target.
func verityTable(disk string, root verity.Root, s verity.Superblock, options ...string) string {
	salt := hex.EncodeToString(s.Salt)
	if salt == "" {
		salt = "-"
	}
	// The tree begins in the block after the superblock.
	line := fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s", disk, disk, verity.BlockSize, verity.BlockSize,
		s.DataBlocks, root.Size/verity.BlockSize+1, root.Hash, salt)
	if len(options) > 0 {
		line += fmt.Sprintf(" %d", len(options))
		for _, o := range options {
			line += " " + o
		}
	}
	return line
}

// target is one dm_target_spec with its parameters, padded to 8 bytes.
func target(kind string, sectors uint64, params string) []byte {
	b := make([]byte, unix.SizeofDmTargetSpec, unix.SizeofDmTargetSpec+len(params)+8)
	binary.NativeEndian.PutUint64(b[8:], sectors)
	copy(b[24:40], kind)
	b = append(append(b, params...), 0)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint32(b[20:], uint32(len(b))) //nolint:gosec // some hundred bytes
	return b
}

// ioctl sends one device-mapper command for the device.
func (v verityDevice) ioctl(cmd uintptr, flags uint32, payload []byte) (unix.DmIoctl, error) {
	var d unix.DmIoctl
	d.Version = [3]uint32{4, 0, 0}
	d.Flags = flags
	d.Data_start = unix.SizeofDmIoctl
	buf := make([]byte, unix.SizeofDmIoctl+len(payload)+512) // room for what the kernel answers
	d.Data_size = uint32(len(buf))                           //nolint:gosec // some hundred bytes
	if len(payload) > 0 {
		d.Target_count = 1
	}
	copy(d.Name[:], v.name)
	*(*unix.DmIoctl)(unsafe.Pointer(&buf[0])) = d
	copy(buf[unix.SizeofDmIoctl:], payload)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, v.control.Fd(), cmd, uintptr(unsafe.Pointer(&buf[0])))
	if errno != 0 {
		return d, errno
	}
	return *(*unix.DmIoctl)(unsafe.Pointer(&buf[0])), nil
}
