// Package verity reads and checks dm-verity images (format 1, sha256, blocks of
// 4096 bytes) without a device mapper: data, then at the hash offset a superblock,
// then the hash tree, top level first.
//
// Parse reads a superblock strictly; the salt and the sizes in it are not trusted
// by themselves: only the root hash, which comes from a measured command line, is.
// Verify recomputes the whole tree from the data and compares every block of it.
package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

const (
	// BlockSize of data and hashes, in bytes.
	BlockSize = 4096
	// SuperblockSize in bytes; the block it stands in is padded with zeros.
	SuperblockSize = 512
	// MaxSalt in bytes.
	MaxSalt = 256
	// MaxData bounds the data, in bytes.
	MaxData = 1 << 40

	perBlock = BlockSize / sha256.Size
	magic    = "verity\x00\x00"
)

// Superblock describes a tree.
type Superblock struct {
	UUID       [16]byte
	DataBlocks uint64 // of BlockSize bytes
	Salt       []byte // before each block when it is hashed
}

// Parse reads a superblock of SuperblockSize bytes. Only what we write is accepted:
// version 1, hash type 1, sha256, blocks of 4096 bytes, unused bytes zero.
func Parse(b []byte) (s Superblock, err error) {
	bad := func(format string, args ...any) (Superblock, error) {
		return Superblock{}, cvm.Errorf(cvm.Invalid, "verity superblock: "+format, args...).WithReason("rootfs-superblock").
			WithFix("the file is not the root filesystem of this image: build or pull the image again")
	}
	if len(b) != SuperblockSize {
		return bad("%d bytes, want %d", len(b), SuperblockSize)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	salt := int(binary.LittleEndian.Uint16(b[80:]))
	switch {
	case string(b[:8]) != magic:
		return bad("no magic")
	case u32(8) != 1 || u32(12) != 1:
		return bad("version %d, hash type %d, want 1 and 1", u32(8), u32(12))
	case !bytes.Equal(b[32:64], append([]byte("sha256"), make([]byte, 26)...)):
		return bad("the hash is %q, want sha256", bytes.TrimRight(b[32:64], "\x00"))
	case u32(64) != BlockSize || u32(68) != BlockSize:
		return bad("blocks of %d and %d bytes, want %d", u32(64), u32(68), BlockSize)
	case salt > MaxSalt:
		return bad("a salt of %d bytes, at most %d", salt, MaxSalt)
	case !zero(b[82:88]) || !zero(b[88+salt:]):
		return bad("bytes that must be zero are not")
	}
	s.DataBlocks = binary.LittleEndian.Uint64(b[72:])
	if s.DataBlocks == 0 || s.DataBlocks > MaxData/BlockSize {
		return bad("%d data blocks, want 1 to %d", s.DataBlocks, MaxData/BlockSize)
	}
	copy(s.UUID[:], b[16:32])
	s.Salt = bytes.Clone(b[88 : 88+salt])
	return s, nil
}

// Bytes is the superblock as it is written: the reverse of Parse.
func (s Superblock) Bytes() []byte {
	b := make([]byte, SuperblockSize)
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], 1)
	copy(b[16:], s.UUID[:])
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], BlockSize)
	le.PutUint32(b[68:], BlockSize)
	le.PutUint64(b[72:], s.DataBlocks)
	le.PutUint16(b[80:], uint16(len(s.Salt))) //nolint:gosec // at most MaxSalt
	copy(b[88:88+MaxSalt], s.Salt)
	return b
}

// levels is the number of blocks per level of the tree, the lowest first.
func (s Superblock) levels() (out []uint64) {
	for n := s.DataBlocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		out = append(out, n)
	}
	return out
}

// Size of superblock and tree together, in bytes: what follows the data.
func (s Superblock) Size() int64 {
	n := uint64(1)
	for _, l := range s.levels() {
		n += l
	}
	return int64(n) * BlockSize //nolint:gosec // DataBlocks is bounded
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// Root is what a measured command line says about the root filesystem.
type Root struct {
	Hash [32]byte
	Size int64 // of the data, in bytes; the superblock stands there
}

// Keys of the command line.
const (
	HashKey = "dstack.rootfs_hash"
	SizeKey = "dstack.rootfs_size"
)

// ParseCmdline reads HashKey and SizeKey; each must be there exactly once.
func ParseCmdline(cmdline string) (r Root, err error) {
	bad := func(format string, args ...any) (Root, error) {
		return Root{}, cvm.Errorf(cvm.Invalid, "kernel command line: "+format, args...).WithReason("cmdline")
	}
	seen := map[string]string{}
	for _, w := range strings.Fields(cmdline) {
		k, v, _ := strings.Cut(w, "=")
		if k != HashKey && k != SizeKey {
			continue
		}
		if _, twice := seen[k]; twice {
			return bad("%s is there twice", k)
		}
		seen[k] = v
	}
	hash, size := seen[HashKey], seen[SizeKey]
	if n, err := hex.Decode(r.Hash[:], []byte(hash[:min(len(hash), 64)])); len(hash) != 64 || n != 32 || err != nil || hash != strings.ToLower(hash) {
		return bad("%s=%q, want 64 lowercase hex digits", HashKey, hash)
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n <= 0 || n > MaxData || n%BlockSize != 0 || strconv.FormatInt(n, 10) != size {
		return bad("%s=%q, want a multiple of %d up to %d", SizeKey, size, BlockSize, int64(MaxData))
	}
	r.Size = n
	return r, nil
}

// ReadSuperblock reads the superblock that follows the data and checks it against
// the command line and the size of the file (size < 0: unknown, a device).
func ReadSuperblock(r io.ReaderAt, size int64, root Root) (Superblock, error) {
	b := make([]byte, SuperblockSize)
	if _, err := r.ReadAt(b, root.Size); err != nil {
		return Superblock{}, cvm.Errorf(cvm.Invalid, "reading the verity superblock at byte %d: %w", root.Size, err).WithReason("rootfs-superblock")
	}
	s, err := Parse(b)
	if err != nil {
		return s, err
	}
	if got := int64(s.DataBlocks) * BlockSize; got != root.Size { //nolint:gosec // bounded by Parse
		return Superblock{}, cvm.Errorf(cvm.Invalid, "the verity superblock is of %d bytes of data, the command line says %d", got, root.Size).WithReason("rootfs-superblock")
	}
	if end := root.Size + s.Size(); size >= 0 && size < end {
		return Superblock{}, cvm.Errorf(cvm.Invalid, "the root filesystem has %d bytes; with its hash tree it needs %d", size, end).WithReason("rootfs-superblock")
	}
	return s, nil
}
