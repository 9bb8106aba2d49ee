package eventlog

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"

	"github.com/confidential-cloud/phala/cvm"
)

// TCG event types that are named here (TCG PC Client Platform Firmware Profile;
// the 0x8000.... block is UEFI's).
const (
	evNoAction            uint32 = 0x00000003
	evPlatformConfigFlags uint32 = 0x0000000A
)

// EvPlatformConfigFlags is the type of firmware configuration blobs.
const EvPlatformConfigFlags = evPlatformConfigFlags

const (
	algSHA384 = 0x000C
	maxCCEL   = 16 << 20 // bytes of table data
	specSig   = "Spec ID Event03\x00"
)

// ParseCCEL reads the data of the ACPI CCEL table: a TCG2 crypto-agile log whose
// only digest algorithm is SHA-384, followed by padding of one byte value (0x00
// or 0xff). Index 0 entries are skipped; register = index - 1, as TDX maps them.
func ParseCCEL(b []byte) ([]Event, error) {
	if len(b) > maxCCEL {
		return nil, cvm.Errorf(cvm.Invalid, "CCEL: %d bytes, at most %d", len(b), maxCCEL)
	}
	r := &reader{b: b}
	if err := readSpecID(r); err != nil {
		return nil, err
	}
	var out []Event
	acpi := 0
	for !r.padding() {
		e, index, err := readEvent2(r)
		if err != nil {
			return nil, err
		}
		if len(out) == MaxEvents {
			return nil, cvm.Errorf(cvm.Invalid, "CCEL: more than %d events", MaxEvents)
		}
		if index == 0 {
			continue
		}
		e.IMR = index - 1
		if isACPI(e) && acpi < 3 {
			e.Name = acpiNames()[acpi]
			acpi++
		}
		out = append(out, e)
	}
	return out, nil
}

// readSpecID reads the legacy first entry that names the digest algorithms.
func readSpecID(r *reader) error {
	index, typ := r.u32(), r.u32()
	r.take(20)
	spec := &reader{b: r.take(int(r.u32()))}
	// What is cut short has no signature.
	if typ != evNoAction || index > 4 || string(spec.take(16)) != specSig {
		return cvm.Errorf(cvm.Invalid, "CCEL: does not begin with a Spec ID event")
	}
	spec.take(8) // platform class, versions, uintn size
	if n := spec.u32(); n != 1 {
		return cvm.Errorf(cvm.Invalid, "CCEL: %d digest algorithms, want SHA-384 alone", n)
	}
	if alg, size := spec.u16(), spec.u16(); alg != algSHA384 || size != 48 {
		return cvm.Errorf(cvm.Invalid, "CCEL: digest algorithm %#x, want SHA-384", alg)
	}
	spec.take(int(spec.u8()))
	if spec.bad || len(spec.b) != 0 {
		return cvm.Errorf(cvm.Invalid, "CCEL: malformed Spec ID event")
	}
	return nil
}

func readEvent2(r *reader) (Event, uint32, error) {
	index, typ, n := r.u32(), r.u32(), r.u32()
	alg := r.u16()
	digest := r.take(48)
	size := r.u32()
	payload := r.take(int(size))
	if r.bad {
		return Event{}, 0, cvm.Errorf(cvm.Invalid, "CCEL: truncated event")
	}
	if n != 1 || alg != algSHA384 || index > 4 {
		return Event{}, 0, cvm.Errorf(cvm.Invalid, "CCEL: event with register index %d, %d digests, algorithm %#x", index, n, alg)
	}
	return Event{Type: typ, Digest: bytes.Clone(digest), Payload: bytes.Clone(payload)}, index, nil
}

// EncodeCCEL writes boot events (registers 0 to 2) as CCEL table data without
// padding. ParseCCEL reads it back.
func EncodeCCEL(events []Event) ([]byte, error) {
	spec := append([]byte(specSig), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = binary.LittleEndian.AppendUint32(spec, 1)
	spec = binary.LittleEndian.AppendUint16(spec, algSHA384)
	spec = binary.LittleEndian.AppendUint16(spec, 48)
	spec = append(spec, 0)
	b := binary.LittleEndian.AppendUint32(nil, 1)
	b = binary.LittleEndian.AppendUint32(b, evNoAction)
	b = append(b, make([]byte, 20)...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(spec))) //nolint:gosec // constant size
	b = append(b, spec...)
	for i, e := range events {
		if e.IMR > 3 || len(e.Digest) != 48 || len(e.Payload) > MaxPayload {
			return nil, cvm.Errorf(cvm.Invalid, "CCEL: event %d cannot be encoded", i)
		}
		b = binary.LittleEndian.AppendUint32(b, e.IMR+1)
		b = binary.LittleEndian.AppendUint32(b, e.Type)
		b = binary.LittleEndian.AppendUint32(b, 1)
		b = binary.LittleEndian.AppendUint16(b, algSHA384)
		b = append(b, e.Digest...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Payload))) //nolint:gosec // bounded above
		b = append(b, e.Payload...)
	}
	return b, nil
}

// EFIVariable is the measured form of an EFI variable: GUID, lengths, UTF-16 name, data.
func EFIVariable(guid [16]byte, name string, data []byte) []byte {
	u := utf16.Encode([]rune(name))
	b := append([]byte{}, guid[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(u)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	for _, c := range u {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return append(b, data...)
}

// reader is a bounds-checked little-endian cursor: after a short read bad stays set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

// padding reports whether only 0x00 or only 0xff is left.
func (r *reader) padding() bool {
	if len(r.b) == 0 {
		return true
	}
	c := r.b[0]
	if c != 0 && c != 0xff {
		return false
	}
	for _, x := range r.b {
		if x != c {
			return false
		}
	}
	return true
}
