package measure

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// tdxMeasurement is vm_config.tdx_measurement: the image's checksum file and one
// of the files it lists. JSON carries both in base64.
type tdxMeasurement struct {
	ChecksumFile []byte `json:"checksum_file"`
	Measurement  []byte `json:"measurement"`
}

// measurementFile is the name under which the checksum file lists the document.
const measurementFile = "measurement.tdx.cbor"

// document is measurement.tdx.cbor, version 3 (dstack-core F.2).
type document struct {
	Version int `cbor:"version"`
	Image   struct {
		Cmdline []byte `cbor:"cmdline_sha384"`
		Kernel  []byte `cbor:"kernel_authenticode"`
		Initrd  []byte `cbor:"initrd_sha384"`
	} `cbor:"image"`
	TDVF struct {
		OVMF string `cbor:"ovmf"`
		MRTD struct {
			SinglePass []byte `cbor:"single_pass"`
			TwoPass    []byte `cbor:"two_pass"`
		} `cbor:"mrtd"`
		TDHOB []byte `cbor:"td_hob"`
	} `cbor:"tdvf"`
}

// Memory sizes in bytes. The kernel's measured setup header holds the initrd's
// address, which depends on the size below lowMemory unless it is twoGiB.
const (
	lowMemory = 0xB0000000
	twoGiB    = 0x80000000
	fourGiB   = 0x100000000
)

// lite recomputes the registers of an image whose files the verifier has not got.
// os_image_hash covers the checksum file, which covers the measurement document.
func lite(c VMConfig, acpi [3]cvm.Measurement) (Registers, error) {
	var r Registers
	doc, err := c.document()
	if err != nil {
		return r, err
	}
	if c.MemorySize != twoGiB && c.MemorySize < lowMemory {
		return r, cvm.Errorf(cvm.Unsupported, "memory_size %d: variant lite needs 2 GiB, or 2.75 GiB and more", c.MemorySize)
	}
	mrtd := doc.TDVF.MRTD.SinglePass
	major, _, _ := strings.Cut(c.QEMUVersion, ".")
	switch n, err := strconv.Atoi(major); {
	case c.QEMUVersion == "": // the reference's default is 9.1.0
	case err != nil || n < 8:
		return r, cvm.Errorf(cvm.Unsupported, "qemu_version %q: want 8 or newer", c.QEMUVersion)
	case n == 8:
		mrtd = doc.TDVF.MRTD.TwoPass
	}
	hob, err := tdHOB(doc.TDVF.TDHOB, c.MemorySize)
	if err != nil {
		return r, err
	}
	r.MRTD = cvm.Measurement(mrtd)
	r.RTMR[0] = eventlog.Replay(rtmr0(hob, acpi)...)
	r.RTMR[1] = eventlog.Replay(cvm.Measurement(doc.Image.Kernel),
		text("Calling EFI Application from Boot Option"), text("\x00\x00\x00\x00"),
		text("Exit Boot Services Invocation"), text("Exit Boot Services Returned with Success"))
	r.RTMR[2] = eventlog.Replay(cvm.Measurement(doc.Image.Cmdline), cvm.Measurement(doc.Image.Initrd))
	return r, nil
}

// document checks the chain from os_image_hash to the document and decodes it.
func (c VMConfig) document() (document, error) {
	var doc document
	m := c.tdxMeasurement
	if m == nil {
		return doc, cvm.Errorf(cvm.Invalid, "vm_config: tdx_measurement is missing")
	}
	if sha256.Sum256(m.ChecksumFile) != c.OSImageHash {
		return doc, cvm.Errorf(cvm.Invalid, "vm_config: os_image_hash is not the hash of checksum_file")
	}
	want, n := "", 0
	for line := range strings.Lines(string(m.ChecksumFile)) {
		if sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok && name == measurementFile {
			want, n = sum, n+1
		}
	}
	if got := sha256.Sum256(m.Measurement); n != 1 || hex.EncodeToString(got[:]) != want {
		return doc, cvm.Errorf(cvm.Invalid, "vm_config: checksum_file does not list this %s exactly once", measurementFile)
	}
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive}.DecMode()
	if err != nil {
		return doc, err
	}
	if err := mode.Unmarshal(m.Measurement, &doc); err != nil {
		return doc, cvm.Errorf(cvm.Invalid, "%s: %w", measurementFile, err)
	}
	if doc.Version != 3 || doc.TDVF.OVMF != "pre202505" {
		return doc, cvm.Errorf(cvm.Unsupported, "%s: version %d for firmware %q", measurementFile, doc.Version, doc.TDVF.OVMF)
	}
	for _, d := range [][]byte{doc.Image.Cmdline, doc.Image.Kernel, doc.Image.Initrd, doc.TDVF.MRTD.SinglePass, doc.TDVF.MRTD.TwoPass} {
		if len(d) != 48 {
			return doc, cvm.Errorf(cvm.Invalid, "%s: digest of %d bytes, want 48", measurementFile, len(d))
		}
	}
	return doc, nil
}

// rtmr0 lists the digests of the "pre202505" firmware layout (dstack-core A.3).
func rtmr0(hob []byte, acpi [3]cvm.Measurement) []cvm.Measurement {
	global := [16]byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	image := [16]byte{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	variable := func(guid [16]byte, name string) cvm.Measurement {
		return sha512.Sum384(eventlog.EFIVariable(guid, name, nil))
	}
	return []cvm.Measurement{
		sha512.Sum384(hob),
		constant("344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790"), // firmware volume
		variable(global, "SecureBoot"), variable(global, "PK"), variable(global, "KEK"),
		variable(image, "db"), variable(image, "dbx"),
		text("\x00\x00\x00\x00"),
		acpi[0], acpi[1], acpi[2],
		text("\x00\x00"), // BootOrder
		constant("23ada07f5261f12f34a0bd8e46760962d6b4d576a416f1fea1c64bc656b1d28eacf7047ae6e967c58fd2a98bfa74c298"), // Boot0000
	}
}

func text(s string) cvm.Measurement { return sha512.Sum384([]byte(s)) }

func constant(s string) (m cvm.Measurement) {
	if _, err := hex.Decode(m[:], []byte(s)); err != nil {
		panic(err) // a literal of this file
	}
	return m
}

// maxRanges bounds the accepted memory ranges of a firmware.
const maxRanges = 64

// tdHOB builds the hand-off block list the VMM gives the firmware, from the
// witness in the measurement document (varints: base page, HOB page delta, range
// count, then start delta relative to the base and page count of each) and the
// memory size.
func tdHOB(witness []byte, memory uint64) ([]byte, error) {
	next := func() uint64 {
		v, n := binary.Uvarint(witness)
		if n <= 0 || v > 1<<32 {
			witness = nil
			return 1 << 40 // refused below
		}
		witness = witness[n:]
		return v
	}
	base := next()
	hobBase := (base + next()) << 12
	count := next()
	if count > maxRanges {
		return nil, cvm.Errorf(cvm.Invalid, "%s: malformed td_hob", measurementFile)
	}
	var body bytes.Buffer
	var last uint64
	for range count {
		start, pages := (base+next())<<12, next()
		if start < last || pages > 1<<20 {
			return nil, cvm.Errorf(cvm.Invalid, "%s: malformed td_hob", measurementFile)
		}
		if start > last {
			resource(&body, hobUnaccepted, last, start-last)
		}
		last = start + pages<<12
		resource(&body, hobAccepted, start, pages<<12)
	}
	if len(witness) != 0 || last > memory || last > twoGiB {
		return nil, cvm.Errorf(cvm.Invalid, "%s: malformed td_hob", measurementFile)
	}
	if memory < lowMemory {
		resource(&body, hobUnaccepted, last, memory-last)
	} else {
		resource(&body, hobUnaccepted, last, twoGiB-last)
		resource(&body, hobUnaccepted, fourGiB, memory-twoGiB)
	}
	return append(phit(hobBase, uint64(body.Len())), body.Bytes()...), nil
}

const (
	hobAccepted   = 0
	hobUnaccepted = 7
	phitSize      = 56
	resourceSize  = 48
)

// phit is the first hand-off block: its last field is where the list ends.
func phit(base, body uint64) []byte {
	b := make([]byte, 0, phitSize)
	b = binary.LittleEndian.AppendUint16(b, 1)
	b = binary.LittleEndian.AppendUint16(b, phitSize)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 9) // version
	b = append(b, make([]byte, 4+4*8)...)
	return binary.LittleEndian.AppendUint64(b, base+phitSize+body+8)
}

func resource(w *bytes.Buffer, kind byte, start, length uint64) {
	b := make([]byte, 0, resourceSize)
	b = binary.LittleEndian.AppendUint16(b, 3)
	b = binary.LittleEndian.AppendUint16(b, resourceSize)
	b = append(b, make([]byte, 4+16)...)
	b = append(b, kind, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 7)
	b = binary.LittleEndian.AppendUint64(b, start)
	w.Write(binary.LittleEndian.AppendUint64(b, length))
}
