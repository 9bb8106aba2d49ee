package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/confidential-cloud/phala/cvm"
)

// DocumentFile is the name under which an image's checksum file lists its
// measurement document.
const DocumentFile = "measurement.tdx.cbor"

// maxDocument bounds a measurement document, in bytes.
const maxDocument = 4 << 10

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

const (
	documentVersion = 3
	documentOVMF    = "pre202505"
	// documentVolume is the empty variable store of OVMF's 4 MiB build, which the
	// document does not carry.
	documentVolume = "344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790"
)

// DecodeImage reads a measurement document. It must re-encode to the same bytes.
func DecodeImage(b []byte) (Image, error) {
	var m Image
	if len(b) > maxDocument {
		return m, cvm.Errorf(cvm.Invalid, "%s: %d bytes, at most %d", DocumentFile, len(b), maxDocument)
	}
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive}.DecMode()
	if err != nil {
		return m, err
	}
	var doc document
	if err := mode.Unmarshal(b, &doc); err != nil {
		return m, cvm.Errorf(cvm.Invalid, "%s: %w", DocumentFile, err)
	}
	if doc.Version != documentVersion || doc.TDVF.OVMF != documentOVMF {
		return m, cvm.Errorf(cvm.Unsupported, "%s: version %d for firmware %q", DocumentFile, doc.Version, doc.TDVF.OVMF)
	}
	for dst, src := range map[*cvm.Measurement][]byte{&m.Cmdline: doc.Image.Cmdline, &m.Kernel: doc.Image.Kernel,
		&m.Initrd: doc.Image.Initrd, &m.MRTD: doc.TDVF.MRTD.SinglePass, &m.MRTDTwoPass: doc.TDVF.MRTD.TwoPass} {
		if len(src) != len(dst) {
			return Image{}, cvm.Errorf(cvm.Invalid, "%s: digest of %d bytes, want %d", DocumentFile, len(src), len(dst))
		}
		copy(dst[:], src)
	}
	if m.layout, err = parseWitness(doc.TDVF.TDHOB); err != nil {
		return Image{}, cvm.Errorf(cvm.Invalid, "%s: %w", DocumentFile, err)
	}
	if err := m.Volume.UnmarshalText([]byte(documentVolume)); err != nil {
		return Image{}, err
	}
	again, err := m.Document()
	if err != nil {
		return Image{}, err
	}
	if !bytes.Equal(again, b) {
		return Image{}, cvm.Errorf(cvm.Invalid, "%s: not in canonical form", DocumentFile)
	}
	return m, nil
}

// Document is the image's measurement document, whose bytes the image's checksum
// file covers, so that a verifier of variant lite needs none of the image's files.
// Code unsupported: the firmware has another variable store than the document implies.
func (m Image) Document() ([]byte, error) {
	if m.Volume.String() != documentVolume {
		return nil, cvm.Errorf(cvm.Unsupported, "the firmware's variable store is not the empty one of OVMF's 4 MiB build").
			WithFix("use a firmware with an empty variable store, or measure the image with its files (variant legacy)")
	}
	var doc document
	doc.Version, doc.TDVF.OVMF = documentVersion, documentOVMF
	doc.Image.Cmdline, doc.Image.Kernel, doc.Image.Initrd = m.Cmdline[:], m.Kernel[:], m.Initrd[:]
	doc.TDVF.MRTD.SinglePass, doc.TDVF.MRTD.TwoPass = m.MRTD[:], m.MRTDTwoPass[:]
	doc.TDVF.TDHOB = m.layout.witness()
	return cbor.Marshal(doc)
}

// ChecksumFile is the name of an image's checksum file; its sha256 is os_image_hash.
const ChecksumFile = "sha256sum.txt"

// maxChecksums bounds a checksum file, in bytes.
const maxChecksums = 64 << 10

// Measurement is vm_config.tdx_measurement: the image's checksum file and one of
// the files it lists. JSON carries both in base64.
type Measurement struct {
	ChecksumFile []byte `json:"checksum_file"`
	Document     []byte `json:"measurement"`
}

// ReadMeasurement takes the tdx_measurement member of vm_config from an image
// directory (os.DirFS), with the image's os_image_hash. What a verifier would
// refuse is refused here, with code invalid or unsupported.
func ReadMeasurement(dir fs.FS) (m Measurement, image cvm.ImageHash, err error) {
	if m.ChecksumFile, err = readFile(dir, ChecksumFile, maxChecksums); err != nil {
		return m, image, err
	}
	if m.Document, err = readFile(dir, DocumentFile, maxDocument); err != nil {
		return m, image, err
	}
	image = sha256.Sum256(m.ChecksumFile)
	_, err = m.image()
	return m, image, err
}

// readFile reads a file of at most limit bytes.
func readFile(dir fs.FS, name string, limit int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "image: %w", err).WithFix("use an image that has a " + name + " (variant lite needs it)")
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, cvm.Errorf(cvm.Invalid, "image: %s has more than %d bytes", name, limit)
	}
	return b, nil
}

// image finds the document in the checksum file and decodes it.
func (m Measurement) image() (Image, error) {
	want, n := "", 0
	for line := range strings.Lines(string(m.ChecksumFile)) {
		if sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok && name == DocumentFile {
			want, n = sum, n+1
		}
	}
	if got := sha256.Sum256(m.Document); n != 1 || hex.EncodeToString(got[:]) != want {
		return Image{}, cvm.Errorf(cvm.Invalid, "checksum_file does not list this %s exactly once", DocumentFile)
	}
	return DecodeImage(m.Document)
}

// liteImage checks the chain from os_image_hash to the document and decodes it:
// os_image_hash covers the checksum file, which covers the document.
func (c VMConfig) liteImage() (Image, error) {
	t := c.measurement
	if t == nil {
		return Image{}, cvm.Errorf(cvm.Invalid, "vm_config: tdx_measurement is missing")
	}
	if sha256.Sum256(t.ChecksumFile) != c.OSImageHash {
		return Image{}, cvm.Errorf(cvm.Invalid, "vm_config: os_image_hash is not the hash of checksum_file")
	}
	m, err := t.image()
	if err != nil {
		return m, fmt.Errorf("vm_config: %w", err)
	}
	return m, nil
}
