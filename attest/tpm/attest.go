package tpm

import (
	"crypto"
	"encoding/binary"
	"math/bits"

	"github.com/confidential-cloud/phala/cvm"
)

// Constants of the TPM 2.0 Library Specification, part 2: structures.
const (
	generatedValue uint32 = 0xff544347 // TPM_GENERATED_VALUE: only a TPM begins a structure with it
	tagQuote       uint16 = 0x8018     // TPM_ST_ATTEST_QUOTE

	algRSASSA uint16 = 0x0014
	algECDSA  uint16 = 0x0018
)

// Alg is a TPM_ALG_ID of a hash.
type Alg uint16

// Hash algorithms of PCR banks.
const (
	SHA1   Alg = 0x0004 // parsed, never admitted
	SHA256 Alg = 0x000b
	SHA384 Alg = 0x000c
	SHA512 Alg = 0x000d
)

// hash is the algorithm in Go's words; 0 for one that nothing may rest on.
func (a Alg) hash() crypto.Hash {
	switch a {
	case SHA256:
		return crypto.SHA256
	case SHA384:
		return crypto.SHA384
	case SHA512:
		return crypto.SHA512
	}
	return 0
}

const (
	numPCRs   = 24
	maxName   = 2 + 64 // TPM2B_NAME: algorithm and digest
	maxDigest = 64
)

// Quote is a TPMS_ATTEST of type quote.
type Quote struct {
	Signer    []byte // qualified name of the signing key
	ExtraData []byte // the caller's qualifying data
	Clock     uint64 // milliseconds of power-on time
	Resets    uint32
	Restarts  uint32
	Safe      bool   // Clock never went back
	Firmware  uint64 // the vendor's version
	Bank      Alg
	PCRs      uint32 // bit i: PCR i is quoted
	Digest    []byte // over the quoted PCRs' values
}

// ParseQuote reads a TPMS_ATTEST that quotes one bank. Nothing is verified.
func ParseQuote(b []byte) (*Quote, error) {
	r := &reader{b: b}
	if magic, tag := r.u32(), r.u16(); r.bad || magic != generatedValue || tag != tagQuote {
		return nil, refuse("magic %#x, type %#x: not a quote that a TPM made", magic, tag)
	}
	q := &Quote{Signer: r.sized(maxName), ExtraData: r.sized(maxDigest)}
	q.Clock, q.Resets, q.Restarts = r.u64(), r.u32(), r.u32()
	safe := r.u8()
	q.Safe = safe == 1
	q.Firmware = r.u64()
	banks, bank, size := r.u32(), r.u16(), r.u8()
	mask := r.take(3)
	if r.bad || safe > 1 || banks != 1 || size != 3 {
		return nil, refuse("want one bank with a selection of three bytes")
	}
	q.Bank = Alg(bank)
	q.PCRs = uint32(mask[0]) | uint32(mask[1])<<8 | uint32(mask[2])<<16
	q.Digest = r.sized(maxDigest)
	switch {
	case r.bad || len(r.b) != 0:
		return nil, refuse("%d bytes are left over or missing", len(r.b))
	case q.PCRs == 0:
		return nil, refuse("no PCR is quoted")
	}
	return q, nil
}

// Has reports whether PCR i is quoted.
func (q *Quote) Has(i int) bool { return i >= 0 && i < numPCRs && q.PCRs>>i&1 == 1 }

// Count is how many PCRs are quoted.
func (q *Quote) Count() int { return bits.OnesCount32(q.PCRs) }

// signature is a TPMT_SIGNATURE: RSASSA, or ECDSA as r and s.
type signature struct {
	scheme uint16
	hash   Alg
	rsa    []byte
	r, s   []byte
}

func parseSignature(b []byte) (*signature, error) {
	rd := &reader{b: b}
	s := &signature{scheme: rd.u16(), hash: Alg(rd.u16())}
	switch s.scheme {
	case algRSASSA:
		s.rsa = rd.sized(1024)
	case algECDSA:
		s.r, s.s = rd.sized(66), rd.sized(66)
	default:
		return nil, refuse("signature scheme %#x", s.scheme)
	}
	if rd.bad || len(rd.b) != 0 {
		return nil, refuse("the signature is cut, or something follows it")
	}
	if s.hash.hash() == 0 {
		return nil, refuse("signature with hash %#x", uint16(s.hash))
	}
	return s, nil
}

// reader takes big-endian fields from foreign bytes; bad stays set once they end.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, min(n, 8))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// sized takes a TPM2B of at most limit bytes.
func (r *reader) sized(limit int) []byte {
	n := int(r.u16())
	if n > limit {
		r.bad = true
		return nil
	}
	return r.take(n)
}

func refuse(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "TPM quote: "+format, args...)
}
