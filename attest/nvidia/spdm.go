package nvidia

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Limits and constants of SPDM 1.1 (DMTF DSP0274) as NVIDIA's GPUs speak it.
const (
	MaxReport = 64 << 10 // bytes of request and response

	spdm11             = 0x11
	getMeasurements    = 0xe0
	measurements       = 0x60
	requestSize        = 37 // header, nonce, slot
	signatureSize      = 96 // ECDSA P-384, r || s
	digestSize         = 48 // SHA-384
	specDMTF           = 1
	requestSignature   = 1
	allMeasurements    = 0xff
	maxMeasurementSize = 1024
)

// Types of the opaque fields that are read here (NVIDIA's attestation SDK).
const (
	opaqueDriver = 3
	opaqueVBIOS  = 6
	opaqueNVDEC0 = 11
	opaqueFWID   = 20
)

// Measurement is one block of the record: Index counts from 1, as SPDM does.
type Measurement struct {
	Index uint8
	Type  uint8 // DMTF's value type; bit 7: raw bits, not a digest
	Value []byte
}

// Opaque is one field of the response's opaque data.
type Opaque struct {
	Type  uint16
	Value []byte
}

// Report is a GET_MEASUREMENTS request and the response to it: what the driver
// hands out as the attestation report. Nothing in it is verified.
type Report struct {
	Nonce        [32]byte // of the request: the verifier's
	Slot         uint8    // of the certificate chain
	Param1       uint8    // of the response
	Param2       uint8
	Measurements []Measurement
	GPUNonce     [32]byte // of the response: the GPU's
	Opaque       []Opaque
	Signature    []byte // r || s over all that stands before it
	signed       []byte
}

// ParseReport reads request || response. No byte may follow.
func ParseReport(b []byte) (*Report, error) {
	if len(b) > MaxReport {
		return nil, refuse("%d bytes, at most %d", len(b), MaxReport)
	}
	r := &reader{b: b}
	out := &Report{}
	if h := r.take(4); h[0] != spdm11 || h[1] != getMeasurements || h[2] != requestSignature || h[3] != allMeasurements {
		return nil, refuse("it does not begin with a request for all measurements, signed")
	}
	copy(out.Nonce[:], r.take(32))
	out.Slot = r.take(1)[0]
	h := r.take(8)
	if r.bad || h[0] != spdm11 || h[1] != measurements {
		return nil, refuse("no measurements follow the request")
	}
	out.Param1, out.Param2 = h[2], h[3]
	record := &reader{b: r.take(int(h[5]) | int(h[6])<<8 | int(h[7])<<16)}
	if r.bad {
		return nil, refuse("it ends early")
	}
	if err := out.blocks(record, int(h[4])); err != nil {
		return nil, err
	}
	copy(out.GPUNonce[:], r.take(32))
	opaque := &reader{b: r.take(int(r.u16()))}
	if r.bad {
		return nil, refuse("it ends early")
	}
	if err := out.fields(opaque); err != nil {
		return nil, err
	}
	out.Signature = r.take(signatureSize)
	if r.bad || len(r.b) != 0 {
		return nil, refuse("it ends early, or bytes follow")
	}
	out.signed = b[:len(b)-signatureSize]
	return out, nil
}

func (p *Report) blocks(r *reader, n int) error {
	var seen [256]bool
	for range n {
		h := r.take(4)
		index, size := h[0], int(binary.LittleEndian.Uint16(h[2:]))
		typ := r.take(1)[0]
		length := int(r.u16())
		if r.bad || h[1] != specDMTF || size != length+3 || length > maxMeasurementSize || index == 0 || seen[index] {
			return refuse("measurement %d is malformed or repeated", index)
		}
		seen[index] = true
		p.Measurements = append(p.Measurements, Measurement{Index: index, Type: typ, Value: r.take(length)})
	}
	if r.bad || len(r.b) != 0 {
		return refuse("the measurement record is not its blocks")
	}
	return nil
}

func (p *Report) fields(r *reader) error {
	seen := map[uint16]bool{}
	for len(r.b) > 0 {
		typ, size := r.u16(), int(r.u16())
		v := r.take(size)
		if r.bad || seen[typ] {
			return refuse("opaque field %d is cut or repeated", typ)
		}
		seen[typ] = true
		p.Opaque = append(p.Opaque, Opaque{Type: typ, Value: v})
	}
	return nil
}

// field is the value of an opaque field; nil without it.
func (p *Report) field(typ uint16) []byte {
	for _, f := range p.Opaque {
		if f.Type == typ {
			return f.Value
		}
	}
	return nil
}

// Driver is the driver version that the GPU reports, for example "550.54.15".
func (p *Report) Driver() (string, error) {
	s := strings.TrimRight(string(p.field(opaqueDriver)), "\x00")
	if s == "" || len(s) > 64 {
		return "", refuse("no driver version")
	}
	for _, c := range []byte(s) {
		if c < 0x21 || c > 0x7e {
			return "", refuse("a driver version that is not text")
		}
	}
	return s, nil
}

// VBIOS is the VBIOS version that the GPU reports, for example "96.00.74.00.01":
// the low 32 bits of a little-endian 64-bit number, then the byte above them.
func (p *Report) VBIOS() (string, error) {
	b := p.field(opaqueVBIOS)
	if len(b) != 8 {
		return "", refuse("no VBIOS version")
	}
	return fmt.Sprintf("%02x.%02x.%02x.%02x.%02x", b[3], b[2], b[1], b[0], b[4]), nil
}

// FWID is the digest of the firmware that reports, which the certificate names too.
func (p *Report) FWID() ([]byte, error) {
	b := p.field(opaqueFWID)
	if len(b) != digestSize {
		return nil, refuse("no firmware id")
	}
	return b, nil
}

// reader takes little-endian fields from foreign bytes; bad stays set once they end.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, min(n, 64))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }

func refuse(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "GPU report: "+format, args...)
}
