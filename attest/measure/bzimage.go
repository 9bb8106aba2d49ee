package measure

import (
	"cmp"
	"encoding/binary"
	"hash"
	"slices"

	"github.com/confidential-cloud/phala/cvm"
)

// maxKernel and maxInitrd bound the files, in bytes.
const (
	maxKernel = 512 << 20
	maxInitrd = 2 << 30
)

// Where QEMU puts a modern kernel's parts, and what it keeps free for ACPI tables
// below the end of low memory.
const (
	realModeAddr = 0x10000
	cmdlineAddr  = 0x20000
	acpiReserve  = 0x28000
)

// Fields of the setup header (Linux Documentation/arch/x86/boot.rst).
const (
	setupType     = 0x210
	setupFlags    = 0x211
	setupInitrd   = 0x218
	setupInitrdSz = 0x21c
	setupHeapEnd  = 0x224
	setupCmdline  = 0x228
	setupInitMax  = 0x22c
	setupXFlags   = 0x236
	setupEnd      = 0x240
)

// patched returns the kernel as QEMU hands it to the firmware: its setup header
// then holds where the loader put command line and initrd. memory and initrd are
// sizes in bytes.
func patched(kernel []byte, memory, initrd uint64) ([]byte, error) {
	switch {
	case len(kernel) > maxKernel:
		return nil, cvm.Errorf(cvm.Invalid, "kernel: %d bytes, at most %d", len(kernel), maxKernel)
	case len(kernel) < setupEnd || string(kernel[0x202:0x206]) != "HdrS":
		return nil, cvm.Errorf(cvm.Invalid, "kernel: not a bzImage").WithFix("give the bzImage (vmlinuz), not an ELF file")
	}
	protocol := binary.LittleEndian.Uint16(kernel[0x206:])
	if protocol < 0x203 || kernel[setupFlags]&1 == 0 {
		return nil, cvm.Errorf(cvm.Unsupported, "kernel: boot protocol %#x: want 0x203 or newer, loaded high", protocol)
	}
	top := uint64(binary.LittleEndian.Uint32(kernel[setupInitMax:]))
	if protocol >= 0x20c && kernel[setupXFlags]&2 != 0 { // may be loaded above 4 GiB
		top = 1<<32 - 1
	}
	low := memory
	if memory >= lowMemory {
		low = twoGiB
	}
	if low <= acpiReserve {
		return nil, cvm.Errorf(cvm.Invalid, "memory_size %d is too small for a kernel", memory)
	}
	top = min(top, low-acpiReserve-1)
	if initrd >= top {
		return nil, cvm.Errorf(cvm.Invalid, "initrd: %d bytes do not fit into %d bytes of memory", initrd, memory)
	}
	k := slices.Clone(kernel)
	k[setupType] = 0xb0
	k[setupFlags] |= 0x80
	binary.LittleEndian.PutUint16(k[setupHeapEnd:], cmdlineAddr-realModeAddr-0x200)
	binary.LittleEndian.PutUint32(k[setupCmdline:], cmdlineAddr)
	if initrd > 0 {
		binary.LittleEndian.PutUint32(k[setupInitrd:], uint32((top-initrd)&^(pageSize-1))) //nolint:gosec // top fits
		binary.LittleEndian.PutUint32(k[setupInitrdSz:], uint32(initrd))                   //nolint:gosec // below top
	}
	return k, nil
}

// memoryClass says that the patched kernel is the same for all these memory sizes.
func memoryClass(memory uint64) uint64 {
	if memory >= lowMemory {
		return twoGiB
	}
	return memory
}

// authenticode hashes a PE image as UEFI measures it (Microsoft, Windows
// Authenticode Portable Executable Signature Format): everything but the checksum,
// the certificate table and its directory entry; sections in the order in which
// they lie in the file.
func authenticode(h hash.Hash, pe []byte) error {
	p, err := parsePE(pe)
	if err != nil {
		return err
	}
	h.Write(pe[:p.checksum])
	h.Write(pe[p.checksum+4 : p.certEntry])
	h.Write(pe[p.certEntry+8 : p.headers])
	hashed := uint64(p.headers)
	for _, s := range p.sections {
		h.Write(pe[s.start : s.start+s.size])
		hashed += s.size
	}
	// What follows the sections, without the signatures at the end.
	if end := uint64(len(pe)) - p.certSize; hashed < end {
		h.Write(pe[hashed:end])
	}
	return nil
}

type peImage struct {
	checksum, certEntry, headers int // offsets in the file
	certSize                     uint64
	sections                     []memRange // file ranges in order
}

func parsePE(pe []byte) (peImage, error) {
	var p peImage
	bad := func(what string) (peImage, error) {
		return p, cvm.Errorf(cvm.Invalid, "kernel: not a PE image: %s", what).
			WithFix("use a kernel built with CONFIG_EFI_STUB")
	}
	if len(pe) < 64 || pe[0] != 'M' || pe[1] != 'Z' {
		return bad("no MZ header")
	}
	at := int64(binary.LittleEndian.Uint32(pe[60:]))
	if at < 64 || at+24 > int64(len(pe)) || string(pe[at:at+4]) != "PE\x00\x00" {
		return bad("no PE header")
	}
	count := int(binary.LittleEndian.Uint16(pe[at+6:]))
	optional := int(at) + 24
	table := optional + int(binary.LittleEndian.Uint16(pe[at+20:]))
	if table+40*count > len(pe) || optional+2 > len(pe) {
		return bad("truncated headers")
	}
	directories := optional + 112 // PE32+
	switch binary.LittleEndian.Uint16(pe[optional:]) {
	case 0x20b:
	case 0x10b:
		directories = optional + 96
	default:
		return bad("unknown optional header")
	}
	p.checksum, p.certEntry = optional+64, directories+4*8
	if p.certEntry+8 > table || binary.LittleEndian.Uint32(pe[directories-4:]) < 5 {
		return bad("no certificate directory")
	}
	p.headers = int(binary.LittleEndian.Uint32(pe[optional+60:]))
	if p.headers < table+40*count || p.headers > len(pe) {
		return bad("SizeOfHeaders")
	}
	p.certSize = uint64(binary.LittleEndian.Uint32(pe[p.certEntry+4:]))
	if p.certSize > uint64(len(pe)-p.headers) {
		return bad("certificate table outside the file")
	}
	for i := range count {
		s := pe[table+40*i:]
		r := memRange{uint64(binary.LittleEndian.Uint32(s[20:])), uint64(binary.LittleEndian.Uint32(s[16:]))}
		if r.size == 0 {
			continue
		}
		if r.start+r.size > uint64(len(pe)) {
			return bad("section outside the file")
		}
		p.sections = append(p.sections, r)
	}
	slices.SortStableFunc(p.sections, func(a, b memRange) int { return cmp.Compare(a.start, b.start) })
	for i := 1; i < len(p.sections); i++ { // also bounds the work
		if p.sections[i].start < p.sections[i-1].start+p.sections[i-1].size {
			return bad("sections overlap")
		}
	}
	return p, nil
}
