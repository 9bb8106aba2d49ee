package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"slices"

	"github.com/confidential-cloud/phala/cvm"
)

// Limits of a firmware file.
const (
	maxFirmware = 64 << 20  // bytes of the file
	maxSections = 64        // entries of its TDVF metadata
	maxInitial  = 256 << 20 // bytes of memory that the sections cover together
)

// Section types and attributes of the TDVF metadata (Intel TDX Virtual Firmware
// Design Guide, "TDVF descriptor").
const (
	sectionCFV     = 1 // configuration firmware volume: the variable store
	sectionTDHOB   = 2
	sectionTempMem = 3

	attrExtend = 1 << 0 // the contents enter MRTD
	attrAug    = 1 << 1 // the page is added after the launch, so not measured at all
)

const (
	pageSize  = 4096
	chunkSize = 256
)

// section is one range of memory that the firmware asks the VMM to prepare.
type section struct {
	data       []byte // its raw contents in the file; the rest of size is zero
	addr, size uint64 // guest-physical bytes
	kind, attr uint32
}

// firmware is what of a firmware file enters the measurement.
type firmware struct {
	sections []section
	volume   []byte // the configuration volume
	layout   hobLayout
}

// footer is where the GUIDed table of OVMF ends, counted from the end of the file.
const footer = 32

// guid is a GUID in its stored (mixed-endian) form.
func guid(a uint32, b, c uint16, rest [8]byte) (g [16]byte) {
	binary.LittleEndian.PutUint32(g[:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	copy(g[8:], rest[:])
	return g
}

func guidTable() [16]byte {
	return guid(0x96b582de, 0x1fb2, 0x45f7, [8]byte{0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d})
}

func guidTDVF() [16]byte {
	return guid(0xe47a6535, 0x984a, 0x4798, [8]byte{0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2})
}

// parseFirmware finds the TDVF metadata of a firmware image (code and variables
// in one file) and reads its sections.
func parseFirmware(fd []byte) (firmware, error) {
	var f firmware
	if len(fd) > maxFirmware {
		return f, cvm.Errorf(cvm.Invalid, "firmware: %d bytes, at most %d", len(fd), maxFirmware)
	}
	meta, err := tdvfMetadata(fd)
	if err != nil {
		return f, err
	}
	var total uint64
	for i := range binary.LittleEndian.Uint32(meta[12:]) {
		s, err := readSection(fd, meta[16+32*i:], i)
		if err != nil {
			return f, err
		}
		if total += s.size; total > maxInitial {
			return f, cvm.Errorf(cvm.Invalid, "firmware: its sections cover more than %d bytes", maxInitial)
		}
		if s.kind == sectionCFV && f.volume == nil {
			f.volume = s.data
		}
		f.sections = append(f.sections, s)
	}
	if len(f.volume) == 0 {
		return f, cvm.Errorf(cvm.Unsupported, "firmware: no configuration volume").
			WithFix("use the firmware with code and variables in one file (ovmf.fd)")
	}
	f.layout, err = layoutOf(f.sections)
	return f, err
}

// tdvfMetadata finds the entry of the GUIDed table that says where the metadata
// is, and checks its header. What it returns holds all its sections.
func tdvfMetadata(fd []byte) ([]byte, error) {
	if data := tableEntry(fd, guidTDVF()); len(data) >= 4 {
		return metadataAt(fd, binary.LittleEndian.Uint32(data[len(data)-4:]))
	}
	return nil, cvm.Errorf(cvm.Invalid, "firmware: no TDVF metadata").
		WithReason("not-tdx-firmware").WithFix("use an OVMF built for TDX, with code and variables in one file")
}

// tableEntry walks the GUIDed table backwards to an entry's data; nil when the
// table is damaged or has no such entry.
func tableEntry(fd []byte, id [16]byte) []byte {
	table := guidTable()
	end := len(fd) - footer
	if end < 18 || !bytes.Equal(fd[end-16:end], table[:]) {
		return nil
	}
	size := int(binary.LittleEndian.Uint16(fd[end-18:]))
	if size < 18 || size > end {
		return nil
	}
	entries := fd[end-size : end-18]
	for len(entries) >= 18 {
		n := len(entries)
		length := int(binary.LittleEndian.Uint16(entries[n-18:]))
		if length < 18 || length > n {
			return nil
		}
		if bytes.Equal(entries[n-16:], id[:]) {
			return entries[n-length : n-18]
		}
		entries = entries[:n-length]
	}
	return nil
}

// metadataAt reads the metadata that begins back bytes before the end of the file.
func metadataAt(fd []byte, back uint32) ([]byte, error) {
	if int64(back) > int64(len(fd)) || back < 16 {
		return nil, cvm.Errorf(cvm.Invalid, "firmware: TDVF metadata outside the file")
	}
	m := fd[len(fd)-int(back):]
	length, version, count := binary.LittleEndian.Uint32(m[4:]), binary.LittleEndian.Uint32(m[8:]), binary.LittleEndian.Uint32(m[12:])
	switch {
	case string(m[:4]) != "TDVF":
		return nil, cvm.Errorf(cvm.Invalid, "firmware: TDVF metadata has a wrong signature")
	case version != 1:
		return nil, cvm.Errorf(cvm.Unsupported, "firmware: TDVF metadata of version %d, want 1", version)
	case count == 0 || count > maxSections:
		return nil, cvm.Errorf(cvm.Invalid, "firmware: %d TDVF sections, want 1 to %d", count, maxSections)
	case int64(length) != int64(16+32*count) || int64(length) > int64(len(m)):
		return nil, cvm.Errorf(cvm.Invalid, "firmware: TDVF metadata of %d bytes does not hold %d sections", length, count)
	}
	return m[:length], nil
}

func readSection(fd, b []byte, i uint32) (section, error) {
	off, raw := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
	s := section{addr: binary.LittleEndian.Uint64(b[8:]), size: binary.LittleEndian.Uint64(b[16:]),
		kind: binary.LittleEndian.Uint32(b[24:]), attr: binary.LittleEndian.Uint32(b[28:])}
	switch {
	case s.addr%pageSize != 0 || s.size%pageSize != 0 || s.size > maxInitial || s.addr > 1<<52:
		return s, cvm.Errorf(cvm.Invalid, "firmware: TDVF section %d covers no whole pages", i)
	case raw > s.size || off+raw > uint64(len(fd)):
		return s, cvm.Errorf(cvm.Invalid, "firmware: TDVF section %d lies outside the file", i)
	case s.attr&^(attrExtend|attrAug) != 0:
		return s, cvm.Errorf(cvm.Unsupported, "firmware: TDVF section %d has unknown attributes %#x", i, s.attr)
	}
	s.data = fd[off : off+raw]
	return s, nil
}

// mrtd is what the TDX module computes while the VMM builds the TD: pages are
// added and their contents extended, page by page (single pass: QEMU 9 and newer)
// or, per section, all pages first (two passes: the QEMU 8 of Intel's fork).
func (f firmware) mrtd(twoPass bool) cvm.Measurement {
	h := sha512.New384()
	for _, s := range f.sections {
		if s.attr&attrAug != 0 {
			continue
		}
		for at := uint64(0); at < s.size; at += pageSize {
			block(h, "MEM.PAGE.ADD", s.addr+at)
			if !twoPass {
				s.extend(h, at)
			}
		}
		for at := uint64(0); twoPass && at < s.size; at += pageSize {
			s.extend(h, at)
		}
	}
	return cvm.Measurement(h.Sum(nil))
}

func (s section) extend(h hash.Hash, page uint64) {
	if s.attr&attrExtend == 0 {
		return
	}
	var chunk [chunkSize]byte
	for at := page; at < page+pageSize; at += chunkSize {
		clear(chunk[:])
		if at < uint64(len(s.data)) {
			copy(chunk[:], s.data[at:])
		}
		block(h, "MR.EXTEND", s.addr+at)
		h.Write(chunk[:])
	}
}

// block is the record that the TDX module hashes before an operation on an address.
func block(h hash.Hash, op string, gpa uint64) {
	var b [128]byte
	copy(b[:], op)
	binary.LittleEndian.PutUint64(b[16:], gpa)
	h.Write(b[:])
}

// layoutOf takes the ranges that the firmware finds accepted at its start.
func layoutOf(sections []section) (l hobLayout, err error) {
	for _, s := range sections {
		if s.kind != sectionTDHOB && s.kind != sectionTempMem {
			continue
		}
		if s.kind == sectionTDHOB {
			if l.base != 0 {
				return l, cvm.Errorf(cvm.Invalid, "firmware: two TD HOB sections")
			}
			l.base = s.addr
		}
		l.accepted = append(l.accepted, memRange{s.addr, s.size})
	}
	if l.base == 0 {
		return l, cvm.Errorf(cvm.Invalid, "firmware: no TD HOB section")
	}
	slices.SortFunc(l.accepted, func(a, b memRange) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	return l, l.check()
}
