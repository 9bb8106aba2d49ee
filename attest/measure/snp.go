package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// SNPShape is what of a VM's shape enters a SEV-SNP launch digest.
type SNPShape struct {
	VCPUs    uint32 `json:"vcpus"`          // 1 to 512
	VCPUType string `json:"vcpu_type"`      // QEMU's CPU model, for example "EPYC-v4"
	Features uint64 `json:"guest_features"` // SEV_FEATURES of every vCPU; never 0
}

// Limits of a SEV-SNP launch.
const (
	maxVCPUs       = 512
	maxSNPSections = 64
	maxSNPPages    = 64 << 10 // pages that the sections cover together; each costs a hash
	maxSNPCmdline  = 64 << 10 // bytes
)

// Page types of a launch (AMD 56860, SNP_LAUNCH_UPDATE).
const (
	pageNormal  = 1
	pageVMSA    = 2
	pageZero    = 3
	pageSecrets = 5
	pageCPUID   = 6
)

// vmsaGPA is where every vCPU's save area is measured.
const vmsaGPA = 0xFFFFFFFFF000

// gctx is the running launch digest.
type gctx cvm.Measurement

// update extends the digest by one page: contents is SHA-384 of a page that is
// measured by content, else zeros.
func (g *gctx) update(kind byte, gpa uint64, contents cvm.Measurement) {
	const size = 0x70
	b := make([]byte, 0, size)
	b = append(append(b, g[:]...), contents[:]...)
	b = binary.LittleEndian.AppendUint16(b, size)
	b = append(b, kind, 0, 0, 0, 0, 0)
	*g = sha512.Sum384(binary.LittleEndian.AppendUint64(b, gpa))
}

// pages extends the digest by whole pages of content.
func (g *gctx) pages(gpa uint64, b []byte) {
	for ; len(b) >= pageSize; b, gpa = b[pageSize:], gpa+pageSize {
		g.update(pageNormal, gpa, sha512.Sum384(b[:pageSize]))
	}
}

// snpLaunch is everything that a launch digest covers.
type snpLaunch struct {
	firmware                cvm.Measurement // digest after the firmware's pages
	sections                []snpSection
	hashesGPA               uint64 // where the firmware looks for the hashes below
	resetEIP                uint32 // where the other vCPUs start
	kernel, initrd, cmdline [32]byte
}

// snpSection is one range that the firmware asks the VMM to prepare.
type snpSection struct {
	GPA  uint64 `cbor:"gpa"`
	Size uint64 `cbor:"size"` // bytes
	Type uint32 `cbor:"type"`
}

// Types of firmware sections (OVMF's SEV metadata).
const (
	sectionMemory  = 1
	sectionSecrets = 2
	sectionCPUID   = 3
	sectionCAA     = 4
	sectionHashes  = 0x10
)

// digest replays the launch, as QEMU makes it.
func (l snpLaunch) digest(s SNPShape) (cvm.Measurement, error) {
	if err := l.check(); err != nil {
		return cvm.Measurement{}, err
	}
	sig, err := s.signature()
	if err != nil {
		return cvm.Measurement{}, err
	}
	g := gctx(l.firmware)
	for _, x := range l.sections {
		switch x.Type {
		case sectionMemory, sectionCAA:
			for at := uint64(0); at < x.Size; at += pageSize {
				g.update(pageZero, x.GPA+at, cvm.Measurement{})
			}
		case sectionSecrets:
			g.update(pageSecrets, x.GPA, cvm.Measurement{})
		case sectionCPUID:
			g.update(pageCPUID, x.GPA, cvm.Measurement{})
		case sectionHashes:
			g.pages(x.GPA, l.hashes())
		}
	}
	boot, others := sha512.Sum384(vmsa(0xfffffff0, sig, s.Features)), sha512.Sum384(vmsa(l.resetEIP, sig, s.Features))
	for i := range s.VCPUs {
		page := others
		if i == 0 {
			page = boot
		}
		g.update(pageVMSA, vmsaGPA, page)
	}
	return cvm.Measurement(g), nil
}

// check bounds the work and refuses layouts in which the kernel would not be measured.
func (l snpLaunch) check() error {
	if len(l.sections) == 0 || len(l.sections) > maxSNPSections {
		return cvm.Errorf(cvm.Invalid, "SEV metadata: %d sections, want 1 to %d", len(l.sections), maxSNPSections)
	}
	pages, hashes := uint64(0), 0
	for i, x := range l.sections {
		if x.GPA%pageSize != 0 || x.Size%pageSize != 0 || x.Size == 0 || x.GPA > 1<<52 || x.Size > maxSNPPages*pageSize {
			return cvm.Errorf(cvm.Invalid, "SEV metadata: section %d covers no whole pages", i)
		}
		pages += x.Size / pageSize
		switch x.Type {
		case sectionMemory, sectionCAA:
		case sectionSecrets, sectionCPUID, sectionHashes:
			if x.Size != pageSize {
				return cvm.Errorf(cvm.Invalid, "SEV metadata: section %d of %d bytes, want one page", i, x.Size)
			}
		default:
			return cvm.Errorf(cvm.Unsupported, "SEV metadata: section %d of unknown type %#x", i, x.Type)
		}
		if x.Type == sectionHashes {
			hashes++
			if l.hashesGPA&^(pageSize-1) != x.GPA {
				return cvm.Errorf(cvm.Invalid, "SEV metadata: the kernel's hashes are not in their section")
			}
		}
	}
	switch {
	case pages > maxSNPPages:
		return cvm.Errorf(cvm.Invalid, "SEV metadata: %d pages, at most %d", pages, maxSNPPages)
	case hashes != 1:
		return cvm.Errorf(cvm.Invalid, "SEV metadata: %d sections for the kernel's hashes, want 1: the kernel would not be measured", hashes)
	case l.hashesGPA%pageSize+hashTableSize > pageSize:
		return cvm.Errorf(cvm.Invalid, "SEV metadata: the kernel's hashes cross a page")
	}
	return nil
}

// hashTableSize is the size of the table of hashes, in bytes.
const hashTableSize = 18 + 3*50

// hashes is the page with the table of hashes that the firmware compares kernel,
// initrd and command line with.
func (l snpLaunch) hashes() []byte {
	entry := func(b []byte, id [16]byte, size uint16) []byte {
		return binary.LittleEndian.AppendUint16(append(b, id[:]...), size)
	}
	t := entry(nil, guid(0x9438d606, 0x4f22, 0x4cc9, [8]byte{0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21}), hashTableSize)
	t = append(entry(t, guid(0x97d02dd8, 0xbd20, 0x4c94, [8]byte{0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a}), 50), l.cmdline[:]...)
	t = append(entry(t, guid(0x44baf731, 0x3a2f, 0x4bd7, [8]byte{0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d}), 50), l.initrd[:]...)
	t = append(entry(t, guid(0x4de79437, 0xabd2, 0x427f, [8]byte{0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b}), 50), l.kernel[:]...)
	page := make([]byte, pageSize)
	copy(page[l.hashesGPA%pageSize:], t)
	return page
}

// cmdlineHash is the hash that the firmware compares a command line with: QEMU
// passes it with a NUL at its end.
func cmdlineHash(s string) [32]byte { return sha256.Sum256([]byte(strings.TrimSpace(s) + "\x00")) }

// signature is CPUID leaf 1 EAX of a QEMU CPU model: family, model, stepping.
func (s SNPShape) signature() (uint32, error) {
	if s.VCPUs < 1 || s.VCPUs > maxVCPUs {
		return 0, cvm.Errorf(cvm.Invalid, "vcpus %d, want 1 to %d", s.VCPUs, maxVCPUs)
	}
	if s.Features == 0 {
		return 0, cvm.Errorf(cvm.Invalid, "guest_features 0: a SEV-SNP guest has at least bit 0")
	}
	switch strings.ToLower(s.VCPUType) {
	case "epyc", "epyc-v1", "epyc-v2", "epyc-v3", "epyc-v4", "epyc-ibpb":
		return cpuSignature(23, 1, 2), nil
	case "epyc-rome", "epyc-rome-v1", "epyc-rome-v2", "epyc-rome-v3", "epyc-rome-v4":
		return cpuSignature(23, 49, 0), nil
	case "epyc-milan", "epyc-milan-v1", "epyc-milan-v2":
		return cpuSignature(25, 1, 1), nil
	case "epyc-genoa", "epyc-genoa-v1":
		return cpuSignature(25, 17, 0), nil
	}
	return 0, cvm.Errorf(cvm.Unsupported, "vcpu_type %.40q: want a model of EPYC, EPYC-Rome, EPYC-Milan or EPYC-Genoa", s.VCPUType)
}

func cpuSignature(family, model, stepping uint32) uint32 {
	base, extended := family, uint32(0)
	if family > 0xf {
		base, extended = 0xf, family-0xf
	}
	return extended<<20 | model>>4<<16 | base<<8 | model&0xf<<4 | stepping
}
