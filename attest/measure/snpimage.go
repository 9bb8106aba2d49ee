package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/confidential-cloud/phala/cvm"
)

// SNPPolicy says how a SEV-SNP launch digest may be bound to an image. The zero
// value admits none.
type SNPPolicy struct {
	// Document admits what vm_config.sev_snp_measurement gives: the image is then named by os_image_hash.
	Document bool `json:"document" toml:"document,omitempty"`
	// Digests are launch digests computed beforehand (phala measure) and the image each of them names.
	Digests map[cvm.Measurement]cvm.ImageHash `json:"digests" toml:"digests,omitempty"`
}

// snpFile is the name under which the checksum file lists the document.
const snpFile = "measurement.snp.cbor"

// snpMeasurement is vm_config.sev_snp_measurement.
type snpMeasurement struct {
	ChecksumFile []byte `json:"checksum_file"` // base64 in JSON, as the next
	Measurement  []byte `json:"measurement"`
	SNPShape
}

// snpDocument is measurement.snp.cbor, version 3 (dstack-core F.2, F.4).
type snpDocument struct {
	Version   int          `cbor:"version"`
	Cmdline   string       `cbor:"cmdline"`
	OVMF      []byte       `cbor:"ovmf_hash"`   // launch digest after the firmware's pages, 48 bytes
	Kernel    []byte       `cbor:"kernel_hash"` // SHA-256, as the next
	Initrd    []byte       `cbor:"initrd_hash"`
	HashesGPA uint64       `cbor:"hashes_table_gpa"`
	ResetEIP  uint32       `cbor:"reset_eip"`
	Sections  []snpSection `cbor:"ovmf_sections"`
}

// SNPFiles are the files of an image that a SEV-SNP launch measures.
type SNPFiles struct {
	Firmware []byte // OVMF built for SEV
	Kernel   []byte
	Initrd   []byte
	Cmdline  string
}

// Digest computes the launch digest of a VM of a shape.
func (f SNPFiles) Digest(s SNPShape) (cvm.Measurement, error) {
	l, err := f.launch()
	if err != nil {
		return cvm.Measurement{}, err
	}
	return l.digest(s)
}

// Document is measurement.snp.cbor for these files: what a verifier without them
// needs. It is covered by the image's checksum file.
func (f SNPFiles) Document() ([]byte, error) {
	l, err := f.launch()
	if err != nil {
		return nil, err
	}
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, err
	}
	return mode.Marshal(snpDocument{Version: 3, Cmdline: strings.TrimSpace(f.Cmdline), OVMF: l.firmware[:], Kernel: l.kernel[:], Initrd: l.initrd[:],
		HashesGPA: l.hashesGPA, ResetEIP: l.resetEIP, Sections: l.sections})
}

func (f SNPFiles) launch() (snpLaunch, error) {
	l, err := parseSNPFirmware(f.Firmware)
	if err != nil {
		return l, err
	}
	if len(f.Cmdline) > maxSNPCmdline {
		return l, cvm.Errorf(cvm.Invalid, "command line of %d bytes, at most %d", len(f.Cmdline), maxSNPCmdline)
	}
	l.kernel, l.initrd, l.cmdline = sha256.Sum256(f.Kernel), sha256.Sum256(f.Initrd), cmdlineHash(f.Cmdline)
	return l, l.check()
}

// decodeSNP reads the document strictly.
func decodeSNP(b []byte) (snpLaunch, error) {
	var l snpLaunch
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive}.DecMode()
	if err != nil {
		return l, err
	}
	var doc snpDocument
	if err := mode.Unmarshal(b, &doc); err != nil {
		return l, cvm.Errorf(cvm.Invalid, "%s: %w", snpFile, err)
	}
	switch {
	case doc.Version != 3:
		return l, cvm.Errorf(cvm.Unsupported, "%s: version %d, want 3", snpFile, doc.Version)
	case len(doc.OVMF) != len(l.firmware) || len(doc.Kernel) != len(l.kernel) || len(doc.Initrd) != len(l.initrd):
		return l, cvm.Errorf(cvm.Invalid, "%s: digests of %d, %d and %d bytes, want 48, 32 and 32", snpFile, len(doc.OVMF), len(doc.Kernel), len(doc.Initrd))
	case len(doc.Cmdline) > maxSNPCmdline:
		return l, cvm.Errorf(cvm.Invalid, "%s: command line of %d bytes, at most %d", snpFile, len(doc.Cmdline), maxSNPCmdline)
	}
	l = snpLaunch{firmware: cvm.Measurement(doc.OVMF), kernel: [32]byte(doc.Kernel), initrd: [32]byte(doc.Initrd), cmdline: cmdlineHash(doc.Cmdline),
		hashesGPA: doc.HashesGPA, resetEIP: doc.ResetEIP, sections: doc.Sections}
	return l, l.check()
}

// SNPImage says which image a launch digest stands for: one that the policy lists,
// or what the document in vm_config gives for the VM's shape.
func SNPImage(p SNPPolicy, vmConfig string, got cvm.Measurement) (cvm.ImageHash, error) {
	if image, ok := p.Digests[got]; ok && got != (cvm.Measurement{}) && image != (cvm.ImageHash{}) {
		return image, nil
	}
	if !p.Document {
		return cvm.ImageHash{}, cvm.Errorf(cvm.Denied, "the launch digest %.16s... is not on the policy's list", got).WithReason("image-variant")
	}
	want, image, err := SNPDigest(vmConfig)
	if err != nil {
		return cvm.ImageHash{}, err
	}
	if want != got {
		return cvm.ImageHash{}, cvm.Errorf(cvm.Denied, "the launch digest is %.16s..., this image and VM shape give %.16s...", got, want).WithReason("measurement")
	}
	return image, nil
}

// SNPDigest computes the launch digest from vm_config alone: os_image_hash covers
// the checksum file, which covers the document.
func SNPDigest(vmConfig string) (cvm.Measurement, cvm.ImageHash, error) {
	var none cvm.Measurement
	m, image, err := parseSNPConfig(vmConfig)
	if err != nil {
		return none, image, err
	}
	if sha256.Sum256(m.ChecksumFile) != image {
		return none, image, cvm.Errorf(cvm.Invalid, "vm_config: os_image_hash is not the hash of checksum_file")
	}
	want, n := "", 0
	for line := range strings.Lines(string(m.ChecksumFile)) {
		if sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok && name == snpFile {
			want, n = sum, n+1
		}
	}
	if got := sha256.Sum256(m.Measurement); n != 1 || hex.EncodeToString(got[:]) != want {
		return none, image, cvm.Errorf(cvm.Invalid, "vm_config: checksum_file does not list this %s exactly once", snpFile)
	}
	l, err := decodeSNP(m.Measurement)
	if err != nil {
		return none, image, err
	}
	d, err := l.digest(m.SNPShape)
	return d, image, err
}

// parseSNPConfig reads what of vm_config a SEV-SNP launch rests on.
// sev_snp_measurement is a string that holds JSON.
func parseSNPConfig(vmConfig string) (m snpMeasurement, image cvm.ImageHash, err error) {
	bad := func(err error) (snpMeasurement, cvm.ImageHash, error) {
		return m, image, cvm.Errorf(cvm.Invalid, "vm_config: %w", err)
	}
	outer, err := object(vmConfig)
	if err != nil {
		return bad(err)
	}
	if err := json.Unmarshal(outer["os_image_hash"], &image); err != nil || image == (cvm.ImageHash{}) {
		return bad(cvm.Errorf(cvm.Invalid, "os_image_hash is missing"))
	}
	var text string
	if err := json.Unmarshal(outer["sev_snp_measurement"], &text); err != nil {
		return bad(cvm.Errorf(cvm.Invalid, "sev_snp_measurement is missing"))
	}
	inner, err := object(text)
	if err != nil {
		return bad(err)
	}
	known := map[string]any{"checksum_file": &m.ChecksumFile, "measurement": &m.Measurement,
		"vcpus": &m.VCPUs, "vcpu_type": &m.VCPUType, "guest_features": &m.Features}
	for name, raw := range inner {
		dst, ok := known[name]
		if !ok {
			return bad(cvm.Errorf(cvm.Invalid, "sev_snp_measurement: unknown key %.40q", name))
		}
		if err := json.Unmarshal(raw, dst); err != nil {
			return bad(err)
		}
	}
	return m, image, nil
}

// parseSNPFirmware measures the pages of a firmware file and reads its SEV metadata.
func parseSNPFirmware(fd []byte) (snpLaunch, error) {
	var l snpLaunch
	if len(fd) == 0 || len(fd) > maxFirmware || len(fd)%pageSize != 0 {
		return l, cvm.Errorf(cvm.Invalid, "firmware: %d bytes, want whole pages, at most %d", len(fd), maxFirmware)
	}
	le := binary.LittleEndian
	reset := tableEntry(fd, guid(0x00f771de, 0x1a7e, 0x4fcb, [8]byte{0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e}))
	table := tableEntry(fd, guid(0x7255371f, 0x3a3b, 0x4b04, [8]byte{0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54}))
	where := tableEntry(fd, guid(0xdc886566, 0x984a, 0x4798, [8]byte{0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc}))
	if len(reset) != 4 || len(table) != 8 || len(where) != 4 {
		return l, cvm.Errorf(cvm.Invalid, "firmware: no SEV metadata").WithReason("not-sev-firmware").
			WithFix("use an OVMF built for SEV with direct kernel boot (AmdSev)")
	}
	l.resetEIP, l.hashesGPA = le.Uint32(reset), uint64(le.Uint32(table))
	if le.Uint32(table[4:]) < hashTableSize {
		return l, cvm.Errorf(cvm.Invalid, "firmware: room for %d bytes of hashes, want %d", le.Uint32(table[4:]), hashTableSize)
	}
	var err error
	if l.sections, err = sevSections(fd, le.Uint32(where)); err != nil {
		return l, err
	}
	var g gctx
	g.pages(fourGiB-uint64(len(fd)), fd)
	l.firmware = cvm.Measurement(g)
	return l, l.check()
}

// sevSections reads the metadata that begins back bytes before the end of the file.
func sevSections(fd []byte, back uint32) ([]snpSection, error) {
	le := binary.LittleEndian
	if int64(back) > int64(len(fd)) || back < 16 {
		return nil, cvm.Errorf(cvm.Invalid, "firmware: SEV metadata outside the file")
	}
	m := fd[len(fd)-int(back):]
	size, version, count := le.Uint32(m[4:]), le.Uint32(m[8:]), le.Uint32(m[12:])
	switch {
	case string(m[:4]) != "ASEV":
		return nil, cvm.Errorf(cvm.Invalid, "firmware: SEV metadata has a wrong signature")
	case version != 1:
		return nil, cvm.Errorf(cvm.Unsupported, "firmware: SEV metadata of version %d, want 1", version)
	case count > maxSNPSections || int64(size) < int64(16+12*count) || int64(size) > int64(len(m)):
		return nil, cvm.Errorf(cvm.Invalid, "firmware: SEV metadata of %d bytes with %d sections", size, count)
	}
	var out []snpSection
	for b := range slices.Chunk(m[16:16+12*count], 12) {
		out = append(out, snpSection{GPA: uint64(le.Uint32(b)), Size: uint64(le.Uint32(b[4:])), Type: le.Uint32(b[8:])})
	}
	return out, nil
}
