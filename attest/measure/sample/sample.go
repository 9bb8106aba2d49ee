// Package sample builds the smallest firmware and kernel that have the real
// formats, so that tests need no files: an OVMF-shaped image with TDVF metadata,
// and an EFI bzImage. They boot nothing.
package sample

import (
	"bytes"
	"encoding/binary"
)

// Sizes in bytes.
const (
	firmwareSize = 0x20000
	volumeSize   = 0x4000
	kernelSize   = 0x3000
)

func text(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+i>>8) + seed
	}
	return b
}

// Firmware is an image with six sections, laid out as OVMF lays them out: boot
// volume (extended), variable store, and four ranges of memory.
func Firmware() []byte {
	fd := text(firmwareSize, 1)
	meta := append([]byte("TDVF"), le32(16+6*32, 1, 6)...)
	for _, s := range [6][6]uint64{ // data offset, raw size, address, memory size, type, attributes
		{volumeSize, firmwareSize - volumeSize, 0xfffe4000, firmwareSize - volumeSize, 0, 1},
		{0, volumeSize, 0xfffe0000, volumeSize, 1, 0},
		{0, 0, 0x810000, 0x10000, 3, 0},
		{0, 0, 0x80b000, 0x2000, 3, 0},
		{0, 0, 0x809000, 0x2000, 2, 0},
		{0, 0, 0x800000, 0x6000, 3, 0},
	} {
		meta = append(meta, le32(uint32(s[0]), uint32(s[1]))...) //nolint:gosec // the table above
		meta = binary.LittleEndian.AppendUint64(meta, s[2])
		meta = binary.LittleEndian.AppendUint64(meta, s[3])
		meta = append(meta, le32(uint32(s[4]), uint32(s[5]))...) //nolint:gosec // the table above
	}
	const metaBack = 0x1000 // from the end of the file
	copy(fd[firmwareSize-metaBack:], meta)

	// The GUIDed table, read backwards from 32 bytes before the end.
	entry := append(le32(metaBack), 22, 0)
	entry = append(entry, 0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2)
	foot := append([]byte{byte(len(entry) + 18), 0}, 0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d)
	copy(fd[firmwareSize-32-len(foot)-len(entry):], append(entry, foot...))
	return fd
}

// Kernel is a bzImage of boot protocol 2.15 that is also a PE32+ image with two
// sections, the second of which comes first in the file.
func Kernel() []byte {
	k := text(kernelSize, 3)
	copy(k, "MZ")
	const pe, headers = 0x40, 0x400
	copy(k[0x3c:], le32(pe))
	h := append([]byte("PE\x00\x00"), 0x64, 0x86, 2, 0)
	h = append(h, make([]byte, 12)...)
	const optional = 112 + 16*8
	h = append(h, optional, 0, 0x0e, 0x02)
	opt := text(optional, 9)
	copy(opt, []byte{0x0b, 0x02})
	copy(opt[60:], le32(headers))
	copy(opt[108:], le32(16))
	copy(opt[144:], make([]byte, 8)) // no certificates
	h = append(h, opt...)
	for _, s := range [2][2]uint32{{0x2000, 0x800}, {headers, 0x1c00}} { // file offset, size
		head := make([]byte, 40)
		copy(head, ".text")
		copy(head[16:], le32(s[1], s[0]))
		h = append(h, head...)
	}
	copy(k[pe:], h)

	copy(k[0x1f1:], []byte{1})
	copy(k[0x202:], "HdrS")
	copy(k[0x206:], []byte{0x0f, 0x02})
	k[0x211] = 1
	copy(k[0x218:], make([]byte, 8))
	copy(k[0x22c:], le32(0x7fffffff))
	copy(k[0x236:], []byte{0x3f, 0})
	return k
}

// Initrd is some bytes.
func Initrd() []byte { return text(5000, 11) }

// Cmdline is the command line of the sample image.
const Cmdline = "console=ttyS0 dstack.rootfs_hash=00"

func le32(vs ...uint32) []byte {
	var b bytes.Buffer
	for _, v := range vs {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	return b.Bytes()
}
