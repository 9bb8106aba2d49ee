package attest

import (
	"encoding/binary"
	"unicode/utf8"
)

// mpWriter writes msgpack in the shortest forms.
type mpWriter struct{ b []byte }

// header writes a length: fix form up to fix entries, then 16 and 32 bits.
func (w *mpWriter) header(n int, fixTag byte, fix int, tag16, tag32 byte) {
	switch {
	case n < fix:
		w.b = append(w.b, fixTag|byte(n))
	case n < 1<<16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, tag16), uint16(n)) //nolint:gosec // below 1<<16
	default:
		w.b = binary.BigEndian.AppendUint32(append(w.b, tag32), uint32(n)) //nolint:gosec // bounded by MaxEvidence
	}
}

func (w *mpWriter) mapHeader(n int)   { w.header(n, 0x80, 16, 0xde, 0xdf) }
func (w *mpWriter) arrayHeader(n int) { w.header(n, 0x90, 16, 0xdc, 0xdd) }

func (w *mpWriter) str(s string) {
	if n := len(s); n >= 32 && n < 256 {
		w.b = append(w.b, 0xd9, byte(n))
	} else {
		w.header(n, 0xa0, 32, 0xda, 0xdb)
	}
	w.b = append(w.b, s...)
}

func (w *mpWriter) bin(v []byte) {
	w.header256(len(v), 0xc4, 0xc5, 0xc6)
	w.b = append(w.b, v...)
}

func (w *mpWriter) header256(n int, tag8, tag16, tag32 byte) {
	if n < 256 {
		w.b = append(w.b, tag8, byte(n))
		return
	}
	w.header(n, 0, 0, tag16, tag32)
}

func (w *mpWriter) uint(v uint64) {
	switch {
	case v < 0x80:
		w.b = append(w.b, byte(v))
	case v < 1<<8:
		w.b = append(w.b, 0xcc, byte(v))
	case v < 1<<16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, 0xcd), uint16(v))
	case v < 1<<32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, 0xce), uint32(v))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, 0xcf), v)
	}
}

func (w *mpWriter) intArray(v []byte) {
	w.arrayHeader(len(v))
	for _, x := range v {
		w.uint(uint64(x))
	}
}

// mpReader reads msgpack; after anything unexpected bad stays set.
type mpReader struct{ reader }

// be reads an n-byte big-endian number.
func (r *mpReader) be(n int) (v uint64) {
	for _, x := range r.take(n) {
		v = v<<8 | uint64(x)
	}
	return v
}

func (r *mpReader) length(v uint64) int {
	if v > uint64(len(r.b)) { // every element takes a byte at least
		r.bad = true
		return 0
	}
	return int(v) //nolint:gosec // bounded above
}

func (r *mpReader) mapHeader() int {
	switch t := r.u8(); {
	case t&0xf0 == 0x80:
		return int(t & 0xf)
	case t == 0xde:
		return r.length(r.be(2))
	case t == 0xdf:
		return r.length(r.be(4))
	}
	r.bad = true
	return 0
}

func (r *mpReader) mapOf(n int) {
	if r.mapHeader() != n {
		r.bad = true
	}
}

func (r *mpReader) array(limit int) int {
	n := 0
	switch t := r.u8(); {
	case t&0xf0 == 0x90:
		n = int(t & 0xf)
	case t == 0xdc:
		n = r.length(r.be(2))
	case t == 0xdd:
		n = r.length(r.be(4))
	default:
		r.bad = true
	}
	if n > limit {
		r.bad = true
	}
	if r.bad {
		return 0
	}
	return n
}

func (r *mpReader) str() string {
	n := 0
	switch t := r.u8(); {
	case t&0xe0 == 0xa0:
		n = int(t & 0x1f)
	case t == 0xd9:
		n = r.length(r.be(1))
	case t == 0xda:
		n = r.length(r.be(2))
	case t == 0xdb:
		n = r.length(r.be(4))
	default:
		r.bad = true
	}
	v := r.take(n)
	if !utf8.Valid(v) {
		r.bad = true
	}
	return string(v)
}

func (r *mpReader) key(name string) {
	if r.str() != name {
		r.bad = true
	}
}

func (r *mpReader) bin() []byte {
	switch r.u8() {
	case 0xc4:
		return r.take(r.length(r.be(1)))
	case 0xc5:
		return r.take(r.length(r.be(2)))
	case 0xc6:
		return r.take(r.length(r.be(4)))
	}
	r.bad = true
	return nil
}

func (r *mpReader) uint() uint64 {
	switch t := r.u8(); {
	case t < 0x80:
		return uint64(t)
	case t == 0xcc:
		return r.be(1)
	case t == 0xcd:
		return r.be(2)
	case t == 0xce:
		return r.be(4)
	case t == 0xcf:
		return r.be(8)
	}
	r.bad = true
	return 0
}

func (r *mpReader) u32() uint32 {
	v := r.uint()
	if v > 1<<32-1 {
		r.bad = true
	}
	return uint32(v) //nolint:gosec // checked above
}

func (r *mpReader) intArray(limit int) []byte {
	n := r.array(limit)
	out := make([]byte, 0, n)
	for range n {
		v := r.uint()
		if v > 255 {
			r.bad = true
		}
		out = append(out, byte(v))
	}
	return out
}
