package measure

import (
	"bytes"
	"encoding/binary"

	"github.com/confidential-cloud/phala/cvm"
)

// Memory sizes in bytes. QEMU's q35 puts up to lowMemory below 4 GiB; from there
// on it puts 2 GiB there and the rest above.
const (
	lowMemory = 0xB0000000
	twoGiB    = 0x80000000
	fourGiB   = 0x100000000
)

// maxRanges bounds the accepted memory ranges of a firmware.
const maxRanges = 64

// memRange is a range of guest-physical memory in bytes.
type memRange struct{ start, size uint64 }

// hobLayout says where the firmware wants the hand-off blocks (HOB), and which
// memory it finds accepted when it starts, in order of address.
type hobLayout struct {
	base     uint64
	accepted []memRange
}

// check refuses overlaps and what does not lie below 2 GiB, where the layout of
// the memory does not depend on its size.
func (l hobLayout) check() error {
	var last uint64
	for _, r := range l.accepted {
		if r.start < last || r.size > twoGiB || r.start+r.size > twoGiB {
			return cvm.Errorf(cvm.Invalid, "td_hob: accepted memory overlaps, or is above 2 GiB")
		}
		last = r.start + r.size
	}
	if len(l.accepted) > maxRanges || l.base%pageSize != 0 || l.base > fourGiB {
		return cvm.Errorf(cvm.Invalid, "td_hob: malformed")
	}
	return nil
}

// hob builds the hand-off block list that the VMM gives the firmware of a TD with
// this much memory (bytes).
func (l hobLayout) hob(memory uint64) ([]byte, error) {
	var body bytes.Buffer
	var last uint64
	for _, r := range l.accepted {
		if r.start > last {
			resource(&body, hobUnaccepted, last, r.start-last)
		}
		resource(&body, hobAccepted, r.start, r.size)
		last = r.start + r.size
	}
	if last > memory {
		return nil, cvm.Errorf(cvm.Invalid, "memory_size %d: the firmware needs %d bytes", memory, last)
	}
	if memory < lowMemory {
		resource(&body, hobUnaccepted, last, memory-last)
	} else {
		resource(&body, hobUnaccepted, last, twoGiB-last)
		resource(&body, hobUnaccepted, fourGiB, memory-twoGiB)
	}
	return append(phit(l.base, uint64(body.Len())), body.Bytes()...), nil
}

const (
	hobAccepted   = 0
	hobUnaccepted = 7
	phitSize      = 56
	resourceSize  = 48
)

// phit is the first hand-off block: its last field is where the list ends.
func phit(base, body uint64) []byte {
	b := make([]byte, 0, phitSize)
	b = binary.LittleEndian.AppendUint16(b, 1)
	b = binary.LittleEndian.AppendUint16(b, phitSize)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 9) // version
	b = append(b, make([]byte, 4+4*8)...)
	return binary.LittleEndian.AppendUint64(b, base+phitSize+body+8)
}

func resource(w *bytes.Buffer, kind byte, start, length uint64) {
	b := make([]byte, 0, resourceSize)
	b = binary.LittleEndian.AppendUint16(b, 3)
	b = binary.LittleEndian.AppendUint16(b, resourceSize)
	b = append(b, make([]byte, 4+16)...)
	b = append(b, kind, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 7)
	b = binary.LittleEndian.AppendUint64(b, start)
	w.Write(binary.LittleEndian.AppendUint64(b, length))
}

// parseWitness reads the layout as the measurement document carries it: varints
// of the base page, the page of the HOB relative to it, the number of ranges, then
// start (relative to the base) and number of pages of each.
func parseWitness(b []byte) (l hobLayout, err error) {
	whole := b
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<32 {
			b, err = nil, cvm.Errorf(cvm.Invalid, "td_hob: malformed")
			return 0
		}
		b = b[n:]
		return v
	}
	base := next()
	l.base = (base + next()) * pageSize
	count := next()
	if count > maxRanges {
		return l, cvm.Errorf(cvm.Invalid, "td_hob: %d ranges, at most %d", count, maxRanges)
	}
	for range count {
		start := base + next()
		l.accepted = append(l.accepted, memRange{start * pageSize, next() * pageSize})
	}
	if err != nil {
		return l, err
	}
	if err := l.check(); err != nil {
		return l, err
	}
	if len(b) != 0 || !bytes.Equal(l.witness(), whole) {
		return l, cvm.Errorf(cvm.Invalid, "td_hob: not in canonical form")
	}
	return l, nil
}

// witness is the inverse of parseWitness.
func (l hobLayout) witness() []byte {
	base := l.base
	for _, r := range l.accepted {
		base = min(base, r.start)
	}
	b := binary.AppendUvarint(nil, base/pageSize)
	b = binary.AppendUvarint(b, (l.base-base)/pageSize)
	b = binary.AppendUvarint(b, uint64(len(l.accepted)))
	for _, r := range l.accepted {
		b = binary.AppendUvarint(b, (r.start-base)/pageSize)
		b = binary.AppendUvarint(b, r.size/pageSize)
	}
	return b
}
