package measure

import (
	"crypto/sha512"
	"strings"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/cvm"
)

// Files are the parts of an OS image that a TD boots from.
type Files struct {
	Firmware []byte // code and variables in one file (ovmf.fd)
	Kernel   []byte // bzImage
	Initrd   []byte
	Cmdline  string // as metadata.json has it, without what QEMU adds
}

// Image is what of an OS image enters the registers: made from its files by New,
// or read from its measurement document by DecodeImage.
type Image struct {
	Hash    cvm.ImageHash // os_image_hash; set by who knows it, zero otherwise
	Version string        // for people

	Kernel  cvm.Measurement // Authenticode digest for 2 GiB of memory, or 2.75 GiB and more
	Cmdline cvm.Measurement
	Initrd  cvm.Measurement
	Volume  cvm.Measurement // the firmware's configuration volume

	MRTD        cvm.Measurement // QEMU 9 and newer
	MRTDTwoPass cvm.Measurement // QEMU 8

	layout hobLayout
	files  *Files // nil when the image came from a document
}

// name is for people.
func (m Image) name() string {
	return strings.TrimSpace(m.Version + " " + m.Hash.String()[:16])
}

// maxCmdline bounds the command line, in bytes (what the kernel itself accepts).
const maxCmdline = 2048

// initrdArg is what QEMU appends for the kernel's EFI stub.
const initrdArg = " initrd=initrd"

// New measures the files of an image. It keeps them for memory sizes whose kernel
// digest differs. Errors carry code invalid or unsupported and name the file.
func New(f Files) (Image, error) {
	m := Image{files: &f}
	switch {
	case len(f.Initrd) == 0 || len(f.Initrd) > maxInitrd:
		return m, cvm.Errorf(cvm.Invalid, "initrd: %d bytes, want 1 to %d", len(f.Initrd), maxInitrd)
	case len(f.Cmdline) > maxCmdline || strings.ContainsAny(f.Cmdline, "\x00\n") || !utf8.ValidString(f.Cmdline):
		return m, cvm.Errorf(cvm.Invalid, "command line: want one line of at most %d bytes", maxCmdline)
	}
	fw, err := parseFirmware(f.Firmware)
	if err != nil {
		return m, err
	}
	m.layout = fw.layout
	m.Volume = sha512.Sum384(fw.volume)
	m.MRTD, m.MRTDTwoPass = fw.mrtd(false), fw.mrtd(true)
	m.Cmdline = cmdlineDigest(f.Cmdline)
	m.Initrd = sha512.Sum384(f.Initrd)
	m.Kernel, err = f.kernel(twoGiB)
	return m, err
}

func cmdlineDigest(s string) cvm.Measurement { return sha512.Sum384(utf16le(s + initrdArg)) }

func (f Files) kernel(memory uint64) (m cvm.Measurement, err error) {
	k, err := patched(f.Kernel, memory, uint64(len(f.Initrd)))
	if err != nil {
		return m, err
	}
	h := sha512.New384()
	if err := authenticode(h, k); err != nil {
		return m, err
	}
	return cvm.Measurement(h.Sum(nil)), nil
}

// kernelFor is the kernel's digest in a TD with this much memory (bytes).
func (m Image) kernelFor(memory uint64) (cvm.Measurement, error) {
	switch {
	case memoryClass(memory) == twoGiB:
		return m.Kernel, nil
	case m.files != nil:
		return m.files.kernel(memory)
	}
	return cvm.Measurement{}, cvm.Errorf(cvm.Unsupported,
		"memory_size %d: without the image's files it must be 2 GiB, or 2.75 GiB and more", memory)
}

// MRTD of a firmware file alone: for QEMU 9 and newer, and for QEMU 8.
func MRTD(firmware []byte) (singlePass, twoPass cvm.Measurement, err error) {
	f, err := parseFirmware(firmware)
	if err != nil {
		return singlePass, twoPass, err
	}
	return f.mrtd(false), f.mrtd(true), nil
}
