// Package tdx verifies Intel TDX quotes (versions 4 and 5) strictly: canonical
// parse, certificate chain, quoting enclave, collateral, TCB level, attributes.
// Formats: Intel TDX DCAP Quote Generation Library and Quote Verification Library,
// appendix A; the SGX PCK certificate specification.
package tdx

import (
	"bytes"
	"encoding/binary"

	"github.com/confidential-cloud/phala/cvm"
)

// MaxQuote bounds a quote with its padding, in bytes.
const MaxQuote = 16 << 10

// Sizes and offsets, in bytes.
const (
	headerSize   = 48
	bodySize10   = 584
	bodySize15   = 648
	reportSize   = 384
	sigSize      = 64
	teeTypeTDX   = 0x81
	keyTypeP256  = 2
	certTypeQE   = 6
	certTypePCK  = 5
	bodyTypeTD10 = 2
	bodyTypeTD15 = 3
)

// ReportDataOffset is where report data lies in a version 4 quote, in bytes.
const ReportDataOffset = headerSize + 520

// Quote is a parsed quote. Nothing in it is verified.
type Quote struct {
	Version uint16
	Body    Body

	signed    []byte // header and body: what the attestation key signed
	signature []byte // r || s
	key       []byte // attestation key, X || Y
	report    []byte // QE report
	reportSig []byte
	auth      []byte
	chain     []byte // PEM
	vendor    []byte
	size      int // without padding
}

// Body is the TD's report.
type Body struct {
	TEETCBSVN      [16]byte
	MRSeam         cvm.Measurement
	MRSignerSeam   cvm.Measurement
	SeamAttributes uint64
	TDAttributes   uint64
	XFAM           uint64
	MRTD           cvm.Measurement
	MRConfigID     cvm.Measurement
	MROwner        cvm.Measurement
	MROwnerConfig  cvm.Measurement
	RTMR           [4]cvm.Measurement
	ReportData     [64]byte
	TD15           bool            // a TD 1.5 body: the fields below are stated
	TEETCBSVN2     [16]byte        // of the module that runs now; TEETCBSVN is of the one that launched the TD
	MRServiceTD    cvm.Measurement // the service TDs bound to the TD
}

// Size is the quote's length without padding, in bytes.
func (q *Quote) Size() int { return q.size }

// CertificateChain is the PEM text of the PCK chain inside the quote.
func (q *Quote) CertificateChain() []byte { return q.chain }

// cursor is a bounds-checked little-endian reader; after a short read bad stays set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u16() uint16 {
	if v := c.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if v := c.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

// fill copies the next bytes into dst.
func (c *cursor) fill(dst []byte) { copy(dst, c.take(len(dst))) }

func refuse(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "quote: "+format, args...)
}

// ParseQuote reads a quote. After the quote only zero bytes may follow (guests
// hand out whole buffers); every length must agree with its container. The quote
// keeps b, which must not change.
func ParseQuote(b []byte) (*Quote, error) {
	if len(b) > MaxQuote {
		return nil, refuse("%d bytes, at most %d", len(b), MaxQuote)
	}
	c := &cursor{b: b}
	q := &Quote{Version: c.u16()}
	keyType, tee := c.u16(), c.u32()
	reserved := c.u32() // QE and PCE SVN in SGX quotes; zero here
	q.vendor = c.take(16)
	c.take(20) // user data: QE id
	switch {
	case c.bad:
		return nil, refuse("truncated")
	case q.Version != 4 && q.Version != 5:
		return nil, refuse("version %d, want 4 or 5", q.Version)
	case keyType != keyTypeP256:
		return nil, refuse("attestation key type %d, want ECDSA P-256", keyType)
	case tee != teeTypeTDX:
		return nil, refuse("TEE type %#x, want TDX", tee)
	case reserved != 0:
		return nil, refuse("reserved header bytes are set")
	}
	size := bodySize10
	if q.Version == 5 {
		var err error
		if size, err = bodySize(c.u16(), c.u32()); err != nil {
			return nil, err
		}
	}
	body := c.take(size)
	if body == nil {
		return nil, refuse("truncated body")
	}
	q.signed = b[: len(b)-len(c.b) : len(b)-len(c.b)]
	q.Body = parseBody(body)
	data := &cursor{b: c.take(int(c.u32()))}
	if len(data.b) == 0 {
		return nil, refuse("signature data is missing or longer than the quote")
	}
	q.size = len(b) - len(c.b)
	if len(bytes.Trim(c.b, "\x00")) != 0 {
		return nil, refuse("%d bytes after the quote", len(c.b))
	}
	return q, q.signatureData(data)
}

func bodySize(typ uint16, size uint32) (int, error) {
	switch {
	case typ == bodyTypeTD10 && size == bodySize10:
		return bodySize10, nil
	case typ == bodyTypeTD15 && size == bodySize15:
		return bodySize15, nil
	}
	return 0, refuse("body type %d of %d bytes", typ, size)
}

func parseBody(b []byte) Body {
	c := &cursor{b: b}
	var v Body
	c.fill(v.TEETCBSVN[:])
	c.fill(v.MRSeam[:])
	c.fill(v.MRSignerSeam[:])
	v.SeamAttributes = binary.LittleEndian.Uint64(c.take(8))
	v.TDAttributes = binary.LittleEndian.Uint64(c.take(8))
	v.XFAM = binary.LittleEndian.Uint64(c.take(8))
	c.fill(v.MRTD[:])
	c.fill(v.MRConfigID[:])
	c.fill(v.MROwner[:])
	c.fill(v.MROwnerConfig[:])
	for i := range v.RTMR {
		c.fill(v.RTMR[i][:])
	}
	c.fill(v.ReportData[:])
	if v.TD15 = len(c.b) != 0; v.TD15 {
		c.fill(v.TEETCBSVN2[:])
		c.fill(v.MRServiceTD[:])
	}
	return v
}

func (q *Quote) signatureData(c *cursor) error {
	q.signature, q.key = c.take(sigSize), c.take(64)
	outer, outerSize := c.u16(), c.u32()
	switch {
	case c.bad:
		return refuse("truncated signature data")
	case outer != certTypeQE:
		return refuse("certification type %d, want %d", outer, certTypeQE)
	case int64(outerSize) != int64(len(c.b)):
		return refuse("certification data of %d bytes in %d", outerSize, len(c.b))
	}
	q.report, q.reportSig = c.take(reportSize), c.take(sigSize)
	q.auth = c.take(int(c.u16()))
	inner, innerSize := c.u16(), c.u32()
	switch {
	case c.bad:
		return refuse("truncated certification data")
	case inner != certTypePCK:
		return refuse("inner certification type %d, want %d (PCK chain)", inner, certTypePCK)
	case int64(innerSize) != int64(len(c.b)):
		return refuse("PCK chain of %d bytes in %d", innerSize, len(c.b))
	}
	q.chain = c.b
	return nil
}
