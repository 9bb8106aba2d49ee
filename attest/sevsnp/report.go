// Package sevsnp verifies AMD SEV-SNP attestation reports (versions 2 to 5; Milan,
// Genoa and Turin) strictly: canonical parse, VCEK or VLEK certificate and its chain to
// a root, revocation, chip id, TCB relations and rating, guest policy.
//
// Verify makes the vendor's checks, CheckGuest those on what the VM was launched
// with. Neither decides alone whether evidence is to be believed: attest.Verify does.
//
// Formats: AMD 56860 (SEV-SNP firmware ABI, ATTESTATION_REPORT) and AMD 57230 (VCEK
// certificate and KDS interface).
package sevsnp

import (
	"encoding/binary"

	"github.com/confidential-cloud/phala/cvm"
)

// Sizes and offsets of a report, in bytes.
const (
	ReportSize       = 1184
	ReportDataOffset = 0x50
	SignedSize       = 0x2a0 // what the chip's key signs
	scalarSize       = 72    // r and s, little endian
	p384Size         = 48
)

// algoP384 is SIGNATURE_ALGO: ECDSA P-384 with SHA-384.
const algoP384 = 1

// Kinds of the key that signed a report (SIGNING_KEY).
const (
	KeyVCEK = 0 // the chip's own
	KeyVLEK = 1 // of a cloud provider
	KeyNone = 7 // unsigned
)

// Report is a parsed report. Nothing in it is verified.
type Report struct {
	Version         uint32 // 2 to 5
	GuestSVN        uint32
	Policy          GuestPolicy
	FamilyID        [16]byte
	ImageID         [16]byte
	VMPL            uint32
	CurrentTCB      uint64 // layout: see TCB
	PlatformInfo    uint64
	AuthorKey       bool // AUTHOR_KEY_EN
	MaskChipKey     bool // the chip's key is withheld from guests
	SigningKey      uint8
	ReportData      [64]byte
	Measurement     cvm.Measurement // launch digest
	HostData        [32]byte
	IDKeyDigest     cvm.Measurement
	AuthorKeyDigest cvm.Measurement
	ReportID        [32]byte
	ReportIDMA      [32]byte
	ReportedTCB     uint64
	Family          uint8 // CPUID, combined with the extended values; from version 3 on
	Model           uint8 // the same
	Stepping        uint8 // the same
	ChipID          [64]byte
	CommittedTCB    uint64
	Current         Firmware
	Committed       Firmware
	LaunchTCB       uint64
	LaunchMit       uint64 // mitigation vectors, from version 5 on
	CurrentMit      uint64
	R, S            [p384Size]byte // the signature, big endian
}

// Firmware is a version of the SEV firmware.
type Firmware struct {
	Major uint8 `json:"major" toml:"major,omitempty"`
	Minor uint8 `json:"minor" toml:"minor,omitempty"`
	Build uint8 `json:"build" toml:"build,omitempty"`
}

// AtLeast reports whether f is no older than other.
func (f Firmware) AtLeast(other Firmware) bool { return f.number() >= other.number() }

func (f Firmware) number() int { return int(f.Major)<<16 | int(f.Minor)<<8 | int(f.Build) }

func refuse(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "report: "+format, args...)
}

// ParseReport reads a report of exactly ReportSize bytes. Reserved bytes must be
// zero as the report's version says, so that an accepted report re-encodes to the
// same bytes.
func ParseReport(b []byte) (*Report, error) {
	if len(b) != ReportSize {
		return nil, refuse("%d bytes, want %d", len(b), ReportSize)
	}
	r := &Report{}
	c := cursor{b: b}
	if r.Version = c.u32(); r.Version < 2 || r.Version > 5 {
		return nil, refuse("version %d, want 2 to 5", r.Version)
	}
	algo, err := r.head(&c)
	if err != nil {
		return nil, err
	}
	if algo != algoP384 {
		return nil, refuse("signature algorithm %d, want ECDSA P-384", algo)
	}
	r.identity(&c)
	r.platform(&c)
	scalar(&c, &r.R)
	scalar(&c, &r.S)
	c.zero(len(c.b))
	if c.dirty || r.Stepping > 0xf { // CPUID has four bits for it
		return nil, refuse("reserved bytes are set")
	}
	return r, nil
}

// head reads the fields before REPORT_DATA.
func (r *Report) head(c *cursor) (algo uint32, err error) {
	r.GuestSVN = c.u32()
	r.Policy = GuestPolicy(c.u64())
	c.fill(r.FamilyID[:])
	c.fill(r.ImageID[:])
	r.VMPL = c.u32()
	algo = c.u32()
	r.CurrentTCB = c.u64()
	r.PlatformInfo = c.u64()
	flags := c.u32()
	c.zero(4)
	r.AuthorKey, r.MaskChipKey, r.SigningKey = flags&1 != 0, flags&2 != 0, uint8(flags>>2&7)
	switch {
	case flags>>5 != 0:
		return algo, refuse("reserved key flags %#x are set", flags)
	case r.SigningKey != KeyVCEK && r.SigningKey != KeyVLEK && r.SigningKey != KeyNone:
		return algo, refuse("signing key of unknown kind %d", r.SigningKey)
	}
	return algo, nil
}

func (r *Report) identity(c *cursor) {
	c.fill(r.ReportData[:])
	c.fill(r.Measurement[:])
	c.fill(r.HostData[:])
	c.fill(r.IDKeyDigest[:])
	c.fill(r.AuthorKeyDigest[:])
	c.fill(r.ReportID[:])
	c.fill(r.ReportIDMA[:])
}

func (r *Report) platform(c *cursor) {
	r.ReportedTCB = c.u64()
	if r.Version >= 3 {
		r.Family, r.Model, r.Stepping = c.u8(), c.u8(), c.u8()
	} else {
		c.zero(3)
	}
	c.zero(21)
	c.fill(r.ChipID[:])
	r.CommittedTCB = c.u64()
	for _, f := range []*Firmware{&r.Current, &r.Committed} {
		f.Build, f.Minor, f.Major = c.u8(), c.u8(), c.u8()
		c.zero(1)
	}
	r.LaunchTCB = c.u64()
	if r.Version >= 5 {
		r.LaunchMit, r.CurrentMit = c.u64(), c.u64()
	} else {
		c.zero(16)
	}
	c.zero(SignedSize - 0x208)
}

// Encode is the report's binary form. Fields that its version does not have are
// left out.
func (r *Report) Encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, ReportSize)
	b = le.AppendUint32(b, r.Version)
	b = le.AppendUint32(b, r.GuestSVN)
	b = le.AppendUint64(b, uint64(r.Policy))
	b = append(append(b, r.FamilyID[:]...), r.ImageID[:]...)
	b = le.AppendUint32(b, r.VMPL)
	b = le.AppendUint32(b, algoP384)
	b = le.AppendUint64(b, r.CurrentTCB)
	b = le.AppendUint64(b, r.PlatformInfo)
	b = le.AppendUint32(b, bit(r.AuthorKey)|bit(r.MaskChipKey)<<1|uint32(r.SigningKey&7)<<2)
	b = append(b, 0, 0, 0, 0)
	for _, f := range [][]byte{r.ReportData[:], r.Measurement[:], r.HostData[:], r.IDKeyDigest[:], r.AuthorKeyDigest[:], r.ReportID[:], r.ReportIDMA[:]} {
		b = append(b, f...)
	}
	b = le.AppendUint64(b, r.ReportedTCB)
	if r.Version >= 3 {
		b = append(b, r.Family, r.Model, r.Stepping)
	} else {
		b = append(b, 0, 0, 0)
	}
	b = append(b, make([]byte, 21)...)
	b = append(b, r.ChipID[:]...)
	b = le.AppendUint64(b, r.CommittedTCB)
	for _, f := range []Firmware{r.Current, r.Committed} {
		b = append(b, f.Build, f.Minor, f.Major, 0)
	}
	b = le.AppendUint64(b, r.LaunchTCB)
	if r.Version >= 5 {
		b = le.AppendUint64(b, r.LaunchMit)
		b = le.AppendUint64(b, r.CurrentMit)
	}
	b = append(b, make([]byte, SignedSize-len(b))...)
	for _, v := range []*[p384Size]byte{&r.R, &r.S} {
		for i := range v {
			b = append(b, v[p384Size-1-i])
		}
		b = append(b, make([]byte, scalarSize-p384Size)...)
	}
	return append(b, make([]byte, ReportSize-len(b))...)
}

func bit(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}

// cursor reads little-endian fields of a buffer whose size was checked.
type cursor struct {
	b     []byte
	dirty bool // a reserved byte was set
}

func (c *cursor) take(n int) []byte {
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() uint8       { return c.take(1)[0] }
func (c *cursor) u32() uint32     { return binary.LittleEndian.Uint32(c.take(4)) }
func (c *cursor) u64() uint64     { return binary.LittleEndian.Uint64(c.take(8)) }
func (c *cursor) fill(dst []byte) { copy(dst, c.take(len(dst))) }

func (c *cursor) zero(n int) {
	for _, x := range c.take(n) {
		c.dirty = c.dirty || x != 0
	}
}

// scalar reads a 72-byte little-endian number that fits P-384.
func scalar(c *cursor, dst *[p384Size]byte) {
	for i, x := range c.take(p384Size) {
		dst[p384Size-1-i] = x
	}
	c.zero(scalarSize - p384Size)
}
