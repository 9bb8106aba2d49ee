package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

// File systems of a data disk: the storage-fs event's payload.
const (
	FSExt4  = "ext4"
	FSBtrfs = "btrfs"
)

// fileSystem is one that this package makes, mounts and grows. Under dm-integrity
// without a wipe it must never read a block that it has not written: ext4 does not
// if it writes its inode tables and its journal when it is made (and never later,
// in the background), btrfs does not at all. Both leave the first 1024 bytes of the
// volume alone, where the inner generation record lies; xfs begins there, so that it
// is not among them.
type fileSystem struct {
	mkfs    func(size int64, p Profile) []string // bytes of the volume
	options string                               // of mount
	isOn    func(head []byte) bool
	grow    func(fd int, bytes uint64) error
}

func fileSystems() map[string]fileSystem {
	return map[string]fileSystem{
		FSExt4: {
			mkfs: func(size int64, p Profile) []string {
				// All of journal and inode tables is written now: 32 MiB of a 2 GiB disk, 112 MiB of 20 GiB.
				inode, journal := "65536", "size=32"
				if size < 8<<30 {
					inode, journal = "32768", "size=16"
				}
				args := []string{"mke2fs", "-F", "-q", "-t", "ext4", "-b", "4096", "-m", "1", "-i", inode, "-J", journal,
					"-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"}
				if p == ProfileIntegrity {
					// Every block has a tag already. With checksums of its own the kernel, when
					// it grows, reads the bitmaps of new groups, which nobody has written.
					args = append(args, "-O", "^metadata_csum,^metadata_csum_seed,uninit_bg")
				}
				return args
			},
			options: "noinit_itable,errors=remount-ro",
			isOn:    func(h []byte) bool { return binary.LittleEndian.Uint16(h[1024+56:]) == 0xef53 },
			grow: func(fd int, bytes uint64) error {
				var st unix.Statfs_t // older disks have blocks of another size
				if err := unix.Fstatfs(fd, &st); err != nil {
					return err
				}
				blocks := bytes / uint64(st.Bsize)                    //nolint:gosec // a block's size
				return ioctl(fd, 0x40086610, unsafe.Pointer(&blocks)) // EXT4_IOC_RESIZE_FS
			},
		},
		FSBtrfs: {
			mkfs: func(int64, Profile) []string { return []string{"mkfs.btrfs", "-q", "-f", "-K"} },
			isOn: func(h []byte) bool { return string(h[0x10040:0x10048]) == "_BHRfS_M" },
			grow: func(fd int, _ uint64) error {
				var args [4096]byte // struct btrfs_ioctl_vol_args: fd, name
				copy(args[8:], "max")
				return ioctl(fd, 0x50009403, unsafe.Pointer(&args)) // BTRFS_IOC_RESIZE
			},
		},
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// CheckFS refuses an app's storage_fs that this image cannot give: code
// unsupported, ReasonUnsupported. "" is ext4.
func CheckFS(name string) error {
	if name == "" {
		name = FSExt4
	}
	fs, ok := fileSystems()[name]
	if !ok {
		return cvm.Errorf(cvm.Unsupported, "storage_fs %.20q is not supported by this guest", name).WithReason(ReasonUnsupported).
			WithFix("set storage_fs to ext4, or leave it out")
	}
	if _, err := exec.LookPath(fs.mkfs(0, "")[0]); err != nil {
		return cvm.Errorf(cvm.Unsupported, "storage_fs %q: this image has no %s", name, fs.mkfs(0, "")[0]).WithReason(ReasonUnsupported).
			WithFix("set storage_fs to ext4, or leave it out")
	}
	return nil
}

// headBytes is how much of a volume tells its file system.
const headBytes = 128 << 10

// fsOn names the file system on a volume; "" when it is none of ours.
func fsOn(vol *device) (string, error) {
	head, err := readHead(vol)
	if err != nil {
		return "", err
	}
	for name, fs := range fileSystems() {
		if fs.isOn(head) {
			return name, nil
		}
	}
	return "", nil
}

// readHead reads the volume's beginning block by block: a block that nobody has
// written yet is an error under dm-integrity, and says as little as zeros.
func readHead(vol *device) ([]byte, error) {
	head := make([]byte, headBytes)
	for at := 0; at < headBytes; at += recordSlot {
		b, err := vol.read(int64(at), recordSlot)
		if err != nil && at == 0 {
			return nil, err // the inner record lies here
		}
		copy(head[at:], b)
	}
	return head, nil
}

// makeFS makes the file system.
func makeFS(ctx context.Context, name, dev string, vol *device, p Profile) error {
	// What the tool writes in parts of a block, for which the kernel reads the rest,
	// must have been written once: the beginning, and ext4's backup superblocks.
	if err := vol.WriteBlock(0, make([]byte, headBytes)); err != nil {
		return err
	}
	for _, at := range backups(vol.size) {
		if err := vol.WriteBlock(at, make([]byte, recordSlot)); err != nil {
			return err
		}
	}
	args := fileSystems()[name].mkfs(vol.size, p)
	return tool(ctx, nil, nil, args[0], append(args[1:len(args):len(args)], dev)...)
}

// backups are where ext4 with blocks of 4096 bytes keeps copies of its superblock:
// at the beginning of groups 1 and all powers of 3, 5 and 7.
func backups(size int64) (at []int64) {
	const group = 32768 * 4096
	for _, base := range []int64{3, 5, 7} {
		for g := int64(1); g*group+recordSlot <= size; g *= base {
			at = append(at, g*group)
		}
	}
	return at
}

// lastBlock writes the last block of a volume that has outgrown its mounted ext4:
// the kernel reads it before it grows, and under dm-integrity what was never written
// cannot be read. The size is read through the page cache, where the journal has been
// replayed: a block that is in use is never touched.
func lastBlock(dev string, vol *device) error {
	f, err := os.Open(dev) //nolint:gosec // our own mapping
	if err != nil {
		return err
	}
	sb := make([]byte, 1024)
	_, err = f.ReadAt(sb, 1024)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	blocks := int64(binary.LittleEndian.Uint32(sb[4:])) | int64(binary.LittleEndian.Uint32(sb[0x150:]))<<32
	if want := vol.size / recordSlot; blocks < want {
		return vol.WriteBlock((want-1)*recordSlot, make([]byte, recordSlot))
	}
	return nil
}

// mountFS mounts it and lets it grow to the volume's size (bytes). There is no
// discard: it would tell the host which sectors are in use, and a discarded sector
// has no valid tag.
func mountFS(name, dev, at string, vol *device) error {
	fs, size := fileSystems()[name], vol.size
	if err := unix.Mount(dev, at, name, unix.MS_NOATIME, fs.options); err != nil {
		return cvm.Errorf(cvm.Precondition, "data disk: mounting %s at %s: %w", name, at, err).WithReason(ReasonFS).
			WithFix("the file system is damaged: restore the disk from a backup")
	}
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		if name == FSExt4 {
			err = lastBlock(dev, vol)
		}
		if err == nil {
			err = fs.grow(fd, uint64(size)) //nolint:gosec // a size
		}
		_ = unix.Close(fd)
	}
	if err != nil {
		_ = unix.Unmount(at, 0)
		return fmt.Errorf("data disk: growing %s to %d bytes: %w", name, size, err)
	}
	return nil
}
