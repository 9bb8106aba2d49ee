package attest

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// V0 is SCALE: 00, enum variant, body, runtime events, report data, config.
// The variant's number chooses the body: 0 is TDX (quote, event log), 2 a Nitro
// Enclave and 4 a NitroTPM (document), 3 SEV-SNP (report, cert_chain, mr_config).
const (
	v0Version         = 0
	v0VariantTDX      = 0
	v0VariantEnclave  = 2
	v0VariantSNP      = 3
	v0VariantNitroTPM = 4
)

// v0Names are the reference's variants in the order of their numbers.
func v0Names() []string {
	return []string{kindTDX, "gcp-tdx", kindEnclave, kindSNP, kindNitroTPM}
}

func parseV0(b []byte) (Evidence, error) {
	r := &scaleReader{reader{b: b}}
	ev := Evidence{Encoding: EncodingV0}
	version, variant := r.u8(), int(r.u8())
	switch {
	case r.bad || version != v0Version: // reported below
		r.bad = true
	case variant == v0VariantTDX:
		ev.Variant = cvm.VariantTDX
		r.tdx(&ev)
	case variant == v0VariantSNP:
		ev.Variant = cvm.VariantSNP
		r.snp(&ev)
	case variant == v0VariantEnclave:
		ev.Variant, ev.Document = claim.VariantNitroEnclave, r.bytes()
	case variant == v0VariantNitroTPM:
		ev.Variant, ev.Document = claim.VariantNitroTPM, r.bytes()
	case variant < len(v0Names()):
		return ev, notHere(v0Names()[variant])
	default:
		return ev, cvm.Errorf(cvm.Unsupported, "attestation: unknown TEE variant %d", variant)
	}
	for range r.count(eventlog.MaxEvents) {
		e := eventlog.Runtime{Name: r.str(), Payload: r.bytes()}
		if r.bad {
			break
		}
		ev.RuntimeEvents = append(ev.RuntimeEvents, e)
	}
	copy(ev.ReportData[:], r.take(64))
	ev.Config = r.str()
	if r.bad || len(r.b) != 0 {
		return ev, cvm.Errorf(cvm.Invalid, "attestation: malformed or truncated SCALE, or bytes after it")
	}
	return ev, nil
}

func (r *scaleReader) tdx(ev *Evidence) {
	ev.Quote = r.bytes()
	for range r.count(eventlog.MaxEvents) {
		e := eventlog.Event{IMR: r.u32(), Type: r.u32(), Digest: r.bytes(), Name: r.str(), Payload: r.bytes()}
		if r.bad {
			break
		}
		ev.EventLog = append(ev.EventLog, e)
	}
}

func (r *scaleReader) snp(ev *Evidence) {
	ev.Report = r.bytes()
	for range r.count(maxCerts) {
		c := r.bytes()
		if r.bad {
			break
		}
		ev.CertChain = append(ev.CertChain, c)
	}
	ev.MRConfig = r.str()
}

func (e Evidence) marshalV0() ([]byte, error) {
	if e.hasV2() {
		return nil, cvm.Errorf(cvm.Invalid, "attestation: V2 events cannot be encoded as V0")
	}
	if e.PodPayload != nil {
		return nil, cvm.Errorf(cvm.Invalid, "attestation: stack %s cannot be encoded as V0", stackPod)
	}
	b := e.bodyV0()
	b = compact(b, len(e.RuntimeEvents))
	for _, r := range e.RuntimeEvents {
		b = scaleBytes(b, []byte(r.Name))
		b = scaleBytes(b, r.Payload)
	}
	b = append(b, e.ReportData[:]...)
	return scaleBytes(b, []byte(e.Config)), nil
}

func (e Evidence) bodyV0() []byte {
	switch e.Variant {
	case cvm.VariantSNP:
		return e.snpV0()
	case claim.VariantNitroEnclave:
		return scaleBytes([]byte{v0Version, v0VariantEnclave}, e.Document)
	case claim.VariantNitroTPM:
		return scaleBytes([]byte{v0Version, v0VariantNitroTPM}, e.Document)
	}
	return e.tdxV0()
}

func (e Evidence) tdxV0() []byte {
	b := scaleBytes([]byte{v0Version, v0VariantTDX}, e.Quote)
	b = compact(b, len(e.EventLog))
	for _, x := range e.EventLog {
		b = binary.LittleEndian.AppendUint32(b, x.IMR)
		b = binary.LittleEndian.AppendUint32(b, x.Type)
		b = scaleBytes(b, x.Digest)
		b = scaleBytes(b, []byte(x.Name))
		b = scaleBytes(b, x.Payload)
	}
	return b
}

func (e Evidence) snpV0() []byte {
	b := scaleBytes([]byte{v0Version, v0VariantSNP}, e.Report)
	b = compact(b, len(e.CertChain))
	for _, c := range e.CertChain {
		b = scaleBytes(b, c)
	}
	return scaleBytes(b, []byte(e.MRConfig))
}

func scaleBytes(b, v []byte) []byte { return append(compact(b, len(v)), v...) }

// compact writes a SCALE compact length: the low two bits say how many bytes.
func compact(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n)<<2)
	case n < 1<<14:
		return binary.LittleEndian.AppendUint16(b, uint16(n)<<2|1) //nolint:gosec // below 1<<14
	default: // lengths are bounded by MaxEvidence
		return binary.LittleEndian.AppendUint32(b, uint32(n)<<2|2) //nolint:gosec // below 1<<30
	}
}

// reader takes bytes from the front of b; after a short read bad stays set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

// scaleReader reads SCALE; after anything unexpected bad stays set.
type scaleReader struct{ reader }

func (r *scaleReader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

// compact reads a length; longer forms than needed fail the canonical check later.
func (r *scaleReader) compact() int {
	first := r.u8()
	switch first & 3 {
	case 0:
		return int(first >> 2)
	case 1:
		return int(uint16(first)|uint16(r.u8())<<8) >> 2
	case 2:
		if v := r.take(3); v != nil {
			return int(uint32(first)|uint32(v[0])<<8|uint32(v[1])<<16|uint32(v[2])<<24) >> 2
		}
	}
	r.bad = true
	return 0
}

func (r *scaleReader) count(limit int) int {
	n := r.compact()
	if n > limit {
		r.bad = true
	}
	if r.bad {
		return 0
	}
	return n
}

func (r *scaleReader) bytes() []byte { return r.take(r.compact()) }

func (r *scaleReader) str() string {
	v := r.bytes()
	if !utf8.Valid(v) {
		r.bad = true
	}
	return string(v)
}
