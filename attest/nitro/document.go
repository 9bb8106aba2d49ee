package nitro

import (
	"slices"
	"time"
)

// Limits of the format (AWS's specification) and ours.
const (
	MaxDocument = 32 << 10 // bytes of the whole COSE_Sign1
	maxText     = 256
	maxCert     = 1024
	maxBundle   = 8
	maxKey      = 1024
	maxData     = 1024 // user_data and nonce; AWS: 512
	numPCRs     = 32
)

// Document is an attestation document. Nothing in it is verified.
type Document struct {
	Tagged      bool // COSE tag 18 stands before it
	TPM         bool // of a NitroTPM: nitrotpm_pcrs instead of pcrs
	ModuleID    string
	Digest      string
	Timestamp   uint64         // milliseconds since 1970
	PCRs        map[int][]byte // 48 bytes each
	PCROrder    []int          // as in the document
	Certificate []byte         // DER: the key that signed
	Bundle      [][]byte       // DER, root first
	PublicKey   []byte         // nil is null or absent
	UserData    []byte
	Nonce       []byte
	Keys        []string // the members, in the document's order
	Signature   []byte   // r || s, 96 bytes

	protected, payload []byte
}

// Time is when the document was made, by the hypervisor's clock.
func (d *Document) Time() time.Time { return time.UnixMilli(int64(d.Timestamp)).UTC() } //nolint:gosec // bounded by ParseDocument

// protectedES384 is the only protected header: {1: -35}, ECDSA with SHA-384.
func protectedES384() []byte { return []byte{0xa1, 0x01, 0x38, 0x22} }

// ParseDocument reads a COSE_Sign1 (RFC 9052) with an attestation document in
// deterministic CBOR. No byte may follow.
func ParseDocument(b []byte) (*Document, error) {
	d := &Document{}
	c := &cursor{b: b}
	if len(b) > MaxDocument {
		c.fail("%d bytes, at most %d", len(b), MaxDocument)
		return nil, c.err
	}
	if len(b) > 0 && b[0] == majorTag<<5|18 {
		d.Tagged, c.b = true, b[1:]
	}
	if n := c.want(majorArray, 4); n != 4 {
		c.fail("not a COSE_Sign1")
	}
	d.protected = c.bytes(16)
	if c.err == nil && !slices.Equal(d.protected, protectedES384()) {
		c.fail("protected header %x, want ES384 alone", d.protected)
	}
	c.want(majorMap, 0) // no unprotected header
	d.payload = c.bytes(MaxDocument)
	d.Signature = c.bytes(96)
	if c.err == nil && len(d.Signature) != 96 {
		c.fail("a signature of %d bytes", len(d.Signature))
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	if err := d.parsePayload(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Document) parsePayload() error {
	c := &cursor{b: d.payload}
	n := c.want(majorMap, 9)
	for range n {
		k := c.text(maxText)
		if c.err == nil && slices.Contains(d.Keys, k) {
			c.fail("%q is repeated", k)
		}
		d.Keys = append(d.Keys, k)
		d.member(c, k)
	}
	if err := c.end(); err != nil {
		return err
	}
	for _, k := range []string{"module_id", "digest", "timestamp", "certificate", "cabundle"} {
		if !slices.Contains(d.Keys, k) {
			c.fail("%q is missing", k)
		}
	}
	switch {
	case d.PCRs == nil:
		c.fail("no PCRs")
	case d.Digest != "SHA384":
		c.fail("digest %q, want SHA384", d.Digest)
	case len(d.Certificate) == 0 || len(d.Bundle) == 0:
		c.fail("no certificate")
	case d.Timestamp == 0 || d.Timestamp > 1<<43: // the year 2248
		c.fail("timestamp %d", d.Timestamp)
	}
	return c.err
}

func (d *Document) member(c *cursor, key string) {
	switch key {
	case "module_id":
		d.ModuleID = c.text(maxText)
	case "digest":
		d.Digest = c.text(maxText)
	case "timestamp":
		d.Timestamp = c.want(majorUint, 1<<63)
	case "pcrs", "nitrotpm_pcrs":
		if d.PCRs != nil {
			c.fail("two maps of PCRs")
		}
		d.TPM = key == "nitrotpm_pcrs"
		d.registers(c)
	case "certificate":
		d.Certificate = c.bytes(maxCert)
	case "cabundle":
		for range c.want(majorArray, maxBundle) {
			d.Bundle = append(d.Bundle, c.bytes(maxCert))
		}
	case "public_key":
		d.PublicKey = c.optional(maxKey)
	case "user_data":
		d.UserData = c.optional(maxData)
	case "nonce":
		d.Nonce = c.optional(maxData)
	default:
		c.fail("unknown member %q", key)
	}
}

func (d *Document) registers(c *cursor) {
	d.PCRs = map[int][]byte{}
	for range c.want(majorMap, numPCRs) {
		i := int(c.want(majorUint, numPCRs-1)) //nolint:gosec // below 32
		v := c.bytes(64)
		if c.err != nil {
			return
		}
		if _, ok := d.PCRs[i]; ok || len(v) != 48 {
			c.fail("PCR%d is repeated, or not of 48 bytes", i)
			return
		}
		d.PCRs[i] = v
		d.PCROrder = append(d.PCROrder, i)
	}
}

// signed is the Sig_structure that the signature is over (RFC 9052, 4.4).
func (d *Document) signed() []byte {
	b := append([]byte{0x84, 0x6a}, "Signature1"...)
	b = appendBytes(b, d.protected)
	b = append(b, 0x40) // no external data
	return appendBytes(b, d.payload)
}

// appendBytes appends a byte string with its shortest head.
func appendBytes(b, v []byte) []byte {
	n := len(v)
	switch {
	case n < 24:
		b = append(b, majorBytes<<5|byte(n))
	case n < 1<<8:
		b = append(b, majorBytes<<5|24, byte(n))
	default: // at most MaxDocument
		b = append(b, majorBytes<<5|25, byte(n>>8), byte(n))
	}
	return append(b, v...)
}
