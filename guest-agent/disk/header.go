package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/confidential-cloud/phala/cvm"
)

// Where the parts of a data disk lie, in bytes.
const (
	// HeaderSize is what a disk keeps before its data: both LUKS2 headers, the
	// keyslot area and the generation record. The header is judged on a copy of it.
	HeaderSize = 16 << 20

	binarySize = 4096      // of a LUKS2 binary header
	minHeader  = 4096      // of one copy: binary header and JSON area
	maxText    = 256 << 10 // bytes of JSON; what cryptsetup writes has 1 KiB
)

// Offsets in a LUKS2 binary header (LUKS2 On-Disk Format Specification 1.1.1, 2.1).
// Numbers are big-endian.
const (
	atVersion   = 6
	atHdrSize   = 8
	atSeqID     = 16
	atLabel     = 24
	atCsumAlg   = 72
	atUUID      = 168
	atSubsystem = 208
	atHdrOffset = 256
	atPadding   = 264
	atCsum      = 448
	atPadding2  = 512
)

// Header is a LUKS2 header that one of the profiles admits.
type Header struct {
	Profile Profile
	UUID    string
	// Digest is the sha256 of the primary copy, JSON area included.
	Digest [32]byte
}

func refuse(format string, args ...any) error {
	return cvm.Errorf(cvm.Denied, "data disk: LUKS2 header: "+format, args...).WithReason(ReasonHeader).
		WithFix("the disk's header is not one that this guest wrote: restore the disk from a backup, or start with a new disk")
}

// ParseHeader judges the first HeaderSize bytes of a disk. Both copies of the
// header must pass and say the same; there is no recovery from the other copy, since
// a guest writes its header once. What cryptsetup would read beyond what is known
// here is refused, not ignored. Errors carry code denied and ReasonHeader.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) != HeaderSize {
		return h, refuse("%d bytes, want %d", len(b), HeaderSize)
	}
	first, err := readCopy(b, 0)
	if err != nil {
		return h, err
	}
	second, err := readCopy(b[first.size:], 1)
	if err != nil {
		return h, err
	}
	switch {
	case first.size != second.size:
		return h, refuse("the copies have different sizes, %d and %d", first.size, second.size)
	case first.seqID != second.seqID || first.uuid != second.uuid:
		return h, refuse("the copies are of different ages or disks")
	case !bytes.Equal(first.text, second.text):
		return h, refuse("the copies have different JSON areas")
	}
	h.UUID, h.Digest = first.uuid, first.digest
	h.Profile, err = checkJSON(first.text, first.size)
	return h, err
}

// headerCopy is one of the two copies.
type headerCopy struct {
	size   uint64 // binary header and JSON area
	seqID  uint64
	uuid   string
	text   []byte // JSON, without its padding
	digest [32]byte
}

// readCopy reads the copy that b begins with; index is 0 or 1.
func readCopy(b []byte, index uint64) (c headerCopy, err error) {
	magic := [2]string{"LUKS\xba\xbe", "SKUL\xba\xbe"}[index]
	name := [2]string{"first copy", "second copy"}[index]
	if len(b) < binarySize || string(b[:6]) != magic {
		return c, refuse("%s: no LUKS magic", name)
	}
	if v := binary.BigEndian.Uint16(b[atVersion:]); v != 2 {
		return c, refuse("%s: version %d, want 2", name, v)
	}
	c.size = binary.BigEndian.Uint64(b[atHdrSize:])
	// Both copies and something of a keyslot area must fit.
	if c.size < minHeader+512 || c.size > HeaderSize/2 || c.size%512 != 0 || c.size > uint64(len(b)) {
		return c, refuse("%s: hdr_size %d", name, c.size)
	}
	if off := binary.BigEndian.Uint64(b[atHdrOffset:]); off != index*c.size {
		return c, refuse("%s: hdr_offset %d, want %d", name, off, index*c.size)
	}
	if err := checkFields(b, name); err != nil {
		return c, err
	}
	if err := checksum(b[:c.size], name); err != nil {
		return c, err
	}
	c.seqID = binary.BigEndian.Uint64(b[atSeqID:])
	c.uuid = cString(b[atUUID:atSubsystem])
	c.digest = sha256.Sum256(b[:c.size])
	area := b[binarySize:c.size]
	n := bytes.IndexByte(area, 0)
	if n < 0 || n > maxText {
		return c, refuse("%s: JSON text of more than %d bytes", name, min(len(area)-1, maxText))
	}
	if c.text = area[:n]; !zero(area[n:]) {
		return c, refuse("%s: bytes behind the JSON text", name)
	}
	return c, nil
}

func checkFields(b []byte, name string) error {
	switch {
	case !zero(b[atLabel:atCsumAlg]):
		return refuse("%s: it has a label", name)
	case !zero(b[atSubsystem:atHdrOffset]):
		return refuse("%s: it has a subsystem", name)
	case cString(b[atCsumAlg:atCsumAlg+32]) != "sha256":
		return refuse("%s: checksum algorithm is not sha256", name)
	case !uuidOK(cString(b[atUUID:atSubsystem])):
		return refuse("%s: malformed UUID", name)
	case !zero(b[atPadding:atCsum]) || !zero(b[atPadding2:binarySize]):
		return refuse("%s: bytes in the padding", name)
	}
	return nil
}

// checksum verifies the copy's own checksum: it is not a proof (whoever edits a
// header can fix it), it says that the copy is whole.
func checksum(b []byte, name string) error {
	h := sha256.New()
	h.Write(b[:atCsum])
	h.Write(make([]byte, 64))
	h.Write(b[atPadding2:])
	if !bytes.Equal(h.Sum(nil), b[atCsum:atCsum+32]) || !zero(b[atCsum+32:atPadding2]) {
		return refuse("%s: wrong checksum", name)
	}
	return nil
}

// cString is a text field up to its first NUL; what follows the NUL must be zero,
// else it is no text that compares equal to anything.
func cString(b []byte) string {
	n := bytes.IndexByte(b, 0)
	if n < 0 || !zero(b[n:]) {
		return "\xff"
	}
	return string(b[:n])
}

func uuidOK(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if dash != (c == '-') || !dash && !hex {
			return false
		}
	}
	return true
}

func zero(b []byte) bool {
	var none [4096]byte
	for ; len(b) > len(none); b = b[len(none):] {
		if !bytes.Equal(b[:len(none)], none[:]) {
			return false
		}
	}
	return bytes.Equal(b, none[:len(b)])
}
