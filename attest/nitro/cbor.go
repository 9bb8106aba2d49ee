package nitro

import (
	"unicode/utf8"

	"github.com/confidential-cloud/phala/cvm"
)

// Major types of CBOR (RFC 8949, 3.1).
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6

	simpleNull = 0xf6
)

// cursor reads deterministic CBOR heads: definite lengths in their shortest form.
// What it accepts has one encoding only, which a general decoder does not promise.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = cvm.Errorf(cvm.Invalid, "attestation document: "+format, args...)
	}
	c.b = nil
}

// head takes one initial byte and its argument.
func (c *cursor) head() (major byte, arg uint64) {
	if c.err != nil || len(c.b) == 0 {
		c.fail("it ends early")
		return 0, 0
	}
	major, info := c.b[0]>>5, c.b[0]&0x1f
	c.b = c.b[1:]
	if info < 24 {
		return major, uint64(info)
	}
	if info > 27 {
		c.fail("an indefinite or reserved length")
		return 0, 0
	}
	n := 1 << (info - 24)
	if len(c.b) < n {
		c.fail("it ends early")
		return 0, 0
	}
	for _, x := range c.b[:n] {
		arg = arg<<8 | uint64(x)
	}
	c.b = c.b[n:]
	least := []uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]
	if arg < least {
		c.fail("a number not in its shortest form")
	}
	return major, arg
}

// want takes a head of one major type and returns its argument, at most limit.
func (c *cursor) want(major byte, limit uint64) uint64 {
	m, n := c.head()
	if c.err == nil && (m != major || n > limit) {
		c.fail("type %d with %d where type %d of at most %d is due", m, n, major, limit)
	}
	if c.err != nil {
		return 0
	}
	return n
}

func (c *cursor) take(n uint64) []byte {
	if c.err != nil || n > uint64(len(c.b)) {
		c.fail("it ends early")
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

// bytes takes a byte string of at most limit bytes.
func (c *cursor) bytes(limit uint64) []byte { return c.take(c.want(majorBytes, limit)) }

func (c *cursor) text(limit uint64) string {
	b := c.take(c.want(majorText, limit))
	if c.err == nil && !utf8.Valid(b) {
		c.fail("text that is not UTF-8")
	}
	return string(b)
}

// optional takes null or a byte string of at most limit bytes; null is nil, an
// empty string is not.
func (c *cursor) optional(limit uint64) []byte {
	if len(c.b) > 0 && c.b[0] == simpleNull {
		c.b = c.b[1:]
		return nil
	}
	return c.bytes(limit)
}

// end refuses what follows.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) != 0 {
		c.fail("%d bytes follow", len(c.b))
	}
	return c.err
}
