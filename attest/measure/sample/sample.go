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
	firmwareBytes = 0x20000
	volumeBytes   = 0x4000
	kernelSize    = 0x3000
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
func Firmware() []byte { return firmware(text(volumeBytes, 1)) }

// OVMF is Firmware with the empty variable store of OVMF's 4 MiB build, the one
// that a measurement document implies.
func OVMF() []byte {
	store := bytes.Repeat([]byte{0xff}, 0x84000)
	// Firmware volume header, then the header of the empty variable store.
	copy(store, make([]byte, 100))
	copy(store[16:], []byte{0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50, 0, 0x40, 8})
	copy(store[40:], "_FVH\xff\xfe\x04\x00\x48\x00\xaf\xb8\x00\x00\x00\x02\x84\x00\x00\x00\x00\x10")
	copy(store[72:], []byte{0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92, 0xb8, 0xff, 3, 0, 0x5a, 0xfe})
	// Header of the empty write queue.
	copy(store[0x41000:], []byte{0x2b, 0x29, 0x58, 0x9e, 0x68, 0x7c, 0x7d, 0x49, 0xa0, 0xce, 0x65, 0, 0xfd, 0x9f, 0x1b, 0x95, 0x2c, 0xaf, 0x2c, 0x64,
		0xfe, 0xff, 0xff, 0xff, 0xe0, 0x0f, 0, 0, 0, 0, 0, 0})
	return firmware(store)
}

func firmware(volume []byte) []byte {
	volumeSize := len(volume)
	firmwareSize := volumeSize - volumeBytes + firmwareBytes
	fd := text(firmwareSize, 1)
	copy(fd, volume)
	base, store, size := uint64(1<<32-firmwareSize), uint64(volumeSize), uint64(firmwareSize) //nolint:gosec // small
	meta := append([]byte("TDVF"), le32(16+6*32, 1, 6)...)
	for _, s := range [6][6]uint64{ // data offset, raw size, address, memory size, type, attributes
		{store, size - store, base + store, size - store, 0, 1},
		{0, store, base, store, 1, 0},
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
