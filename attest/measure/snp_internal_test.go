package measure

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/confidential-cloud/phala/attest/measure/sample"
	"github.com/confidential-cloud/phala/cvm"
)

// One update of the launch digest: the reference's own test (dstack-core F.5) has this
// input, and a digest that begins and ends so. DO NOT CHANGE.
func TestGCTXVector(t *testing.T) {
	var g gctx
	g.update(pageNormal, 0x1000, sha512.Sum384([]byte("page")))
	const want = "3ebc1a70acc0bae5ae2788fae29a0371f983b19a68faf9843064f36040f58571ce5bb6bcdc9c361087073f8cffd92635"
	if got := cvm.Measurement(g).String(); got != want {
		t.Errorf("%s", got)
	}
}

func TestCPUSignatures(t *testing.T) {
	for model, want := range map[string]uint32{
		"EPYC": 0x800f12, "epyc-v4": 0x800f12, "EPYC-IBPB": 0x800f12, "EPYC-Rome": 0x830f10, "EPYC-Milan-v2": 0xa00f11, "EPYC-Genoa": 0xa10f10,
		"": 0, "EPYC-v5": 0, "EPYC-Turin": 0, "host": 0,
	} {
		got, err := SNPShape{VCPUs: 1, VCPUType: model, Features: 1}.signature()
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%s: %#x %v", model, got, err)
		}
	}
}

func snpFiles() SNPFiles {
	return SNPFiles{Firmware: sample.SEVFirmware(), Kernel: []byte("kernel"), Initrd: []byte("initrd"), Cmdline: "console=ttyS0 quiet"}
}

func snpShape() SNPShape { return SNPShape{VCPUs: 2, VCPUType: "EPYC-v4", Features: 1} }

// Launch digests of the sample firmware, computed by this code and frozen, so that
// no change moves them unseen. DO NOT CHANGE.
func TestSNPDigestFrozen(t *testing.T) {
	for _, tc := range []struct {
		s    SNPShape
		want string
	}{
		{SNPShape{1, "EPYC-v4", 1}, "8840243c67582fa2a0dfc4cc9316d9d491995c315451fc4c025862c178e702cc2fc5afab3a03896ba768ca1161197866"},
		{SNPShape{2, "EPYC-v4", 1}, "36214d4a3cac5740269b4e0bedfca2c6be18194aee514e41de983fe4d4995a17a44815bf2feff0d6f3d99a5c59cbe207"},
		{SNPShape{4, "EPYC-Genoa", 0x21}, "b945f7ee90a42736e9d51106d2e5db6129f762e3871728ead4add9945a259ce52c72e68481334a1f1b8d6fc09dcaea15"},
	} {
		got, err := snpFiles().Digest(tc.s)
		if err != nil || got.String() != tc.want {
			t.Errorf("%+v: %s %v", tc.s, got, err)
		}
	}
}

// The digest computed a second way: the launch written out page by page.
func TestSNPDigestByHand(t *testing.T) {
	fd := sample.SEVFirmware()
	var ld [48]byte
	step := func(kind byte, gpa uint64, contents [48]byte) {
		info := bytes.Join([][]byte{ld[:], contents[:], {0x70, 0, kind, 0, 0, 0, 0, 0}, binary.LittleEndian.AppendUint64(nil, gpa)}, nil)
		ld = sha512.Sum384(info)
	}
	for at := 0; at < len(fd); at += 4096 {
		step(1, 1<<32-uint64(len(fd))+uint64(at), sha512.Sum384(fd[at:at+4096]))
	}
	for gpa := uint64(0x800000); gpa < 0x809000; gpa += 4096 {
		step(3, gpa, [48]byte{})
	}
	step(5, 0x80d000, [48]byte{})
	step(6, 0x80e000, [48]byte{})
	step(3, 0x80f000, [48]byte{})
	page := make([]byte, 4096)
	table := mustHex("06d63894224fc94cb479a793d411fd21a800")
	for _, e := range []struct{ id, data string }{
		{"d82dd09720bd944caa78e7714d36ab2a", "console=ttyS0 quiet\x00"}, {"31f7ba442f3ad74b9af141e29169781d", "initrd"}, {"3794e74dd2ab7f42b835d5b172d2045b", "kernel"},
	} {
		sum := sha256.Sum256([]byte(e.data))
		table = append(append(append(table, mustHex(e.id)...), 50, 0), sum[:]...)
	}
	copy(page[0x400:], table)
	step(1, 0x810000, sha512.Sum384(page))
	for _, eip := range []uint32{0xfffffff0, 0x80b004} {
		step(2, 0xFFFFFFFFF000, sha512.Sum384(vmsa(eip, 0x800f12, 1)))
	}
	got, err := snpFiles().Digest(snpShape())
	if err != nil || got != ld {
		t.Errorf("%s, want %x: %v", got, ld, err)
	}
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// Every input moves the digest.
func TestSNPDigestCoversInputs(t *testing.T) {
	base, err := snpFiles().Digest(snpShape())
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*SNPFiles, *SNPShape){
		"firmware": func(f *SNPFiles, _ *SNPShape) { f.Firmware[0]++ }, "kernel": func(f *SNPFiles, _ *SNPShape) { f.Kernel = []byte("x") },
		"initrd": func(f *SNPFiles, _ *SNPShape) { f.Initrd = nil }, "cmdline": func(f *SNPFiles, _ *SNPShape) { f.Cmdline += " init=/bin/sh" },
		"vcpus": func(_ *SNPFiles, s *SNPShape) { s.VCPUs++ }, "type": func(_ *SNPFiles, s *SNPShape) { s.VCPUType = "EPYC-Milan" },
		"features": func(_ *SNPFiles, s *SNPShape) { s.Features |= 1 << 5 },
	} {
		f, s := snpFiles(), snpShape()
		edit(&f, &s)
		if got, err := f.Digest(s); err != nil || got == base {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The document gives what the files give.
func TestSNPDocument(t *testing.T) {
	doc, err := snpFiles().Document()
	if err != nil {
		t.Fatal(err)
	}
	l, err := decodeSNP(doc)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.digest(snpShape())
	want, _ := snpFiles().Digest(snpShape())
	if err != nil || got != want {
		t.Errorf("%s, want %s: %v", got, want, err)
	}
}

func TestSNPRefusals(t *testing.T) {
	launch := func(edit func(*snpLaunch)) error {
		l, err := snpFiles().launch()
		if err != nil {
			t.Fatal(err)
		}
		edit(&l)
		_, err = l.digest(snpShape())
		return err
	}
	shape := func(s SNPShape) error { _, err := snpFiles().Digest(s); return err }
	firmware := func(edit func(fd []byte) []byte) error {
		f := snpFiles()
		f.Firmware = edit(f.Firmware)
		_, err := f.Digest(snpShape())
		return err
	}
	meta := len(sample.SEVFirmware()) - 0x1000
	poke := func(at int, v byte) func([]byte) []byte {
		return func(fd []byte) []byte { fd[at] = v; return fd }
	}
	for name, err := range map[string]error{
		"no vCPU": shape(SNPShape{0, "EPYC", 1}), "513 vCPUs": shape(SNPShape{513, "EPYC", 1}), "no features": shape(SNPShape{1, "EPYC", 0}),
		"unknown CPU":     shape(SNPShape{1, "qemu64", 1}),
		"no sections":     launch(func(l *snpLaunch) { l.sections = nil }),
		"65 sections":     launch(func(l *snpLaunch) { l.sections = make([]snpSection, 65) }),
		"half a page":     launch(func(l *snpLaunch) { l.sections[0].Size = 100 }),
		"no kernel hash":  launch(func(l *snpLaunch) { l.sections = l.sections[:4] }),
		"two":             launch(func(l *snpLaunch) { l.sections = append(l.sections, l.sections[4]) }),
		"elsewhere":       launch(func(l *snpLaunch) { l.hashesGPA += 0x1000 }),
		"across a page":   launch(func(l *snpLaunch) { l.hashesGPA += 0xb80 }),
		"unknown type":    launch(func(l *snpLaunch) { l.sections[0].Type = 9 }),
		"two CPUID pages": launch(func(l *snpLaunch) { l.sections[2].Size = 0x2000 }),
		"endless":         launch(func(l *snpLaunch) { l.sections[0].Size = maxSNPPages * pageSize }),
		"empty firmware":  firmware(func([]byte) []byte { return nil }),
		"odd firmware":    firmware(func(fd []byte) []byte { return fd[1:] }),
		"TDX firmware":    firmware(func([]byte) []byte { return sample.Firmware() }),
		"metadata magic":  firmware(poke(meta, 'B')), "metadata version": firmware(poke(meta+8, 2)), "metadata count": firmware(poke(meta+12, 65)),
		"metadata size": firmware(poke(meta+4, 16)),
	} {
		if code := cvm.CodeOf(err); code != cvm.Invalid && code != cvm.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// vm_config binds the document to os_image_hash, and nothing else counts.
func TestSNPConfigRefusals(t *testing.T) {
	doc, err := snpFiles().Document()
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("%x  %s\n", sha256.Sum256(doc), snpFile)
	config := func(list string, doc []byte, inner, outer string) string {
		b := base64.StdEncoding.EncodeToString
		in := fmt.Sprintf(`{"checksum_file":"%s","measurement":"%s","vcpus":2,"vcpu_type":"EPYC-v4","guest_features":1%s}`, b([]byte(list)), b(doc), inner)
		quoted, _ := json.Marshal(in)
		return fmt.Sprintf(`{"os_image_hash":"%x","sev_snp_measurement":%s%s}`, sha256.Sum256([]byte(list)), quoted, outer)
	}
	want, _ := snpFiles().Digest(snpShape())
	good := config(line, doc, "", `,"num_gpus":0`)
	got, image, err := SNPDigest(good)
	if err != nil || got != want || image != sha256.Sum256([]byte(line)) {
		t.Fatalf("%s of %s: %v", got, image, err)
	}
	if _, err := SNPImage(SNPPolicy{Document: true}, good, want); err != nil {
		t.Error(err)
	}
	other := want
	other[0]++
	if _, err := SNPImage(SNPPolicy{Document: true}, good, other); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("another digest: %v", err)
	}
	if _, err := SNPImage(SNPPolicy{}, good, want); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("the zero policy: %v", err)
	}
	spoil := func(edit func(*snpDocument)) []byte {
		var d snpDocument
		if err := cbor.Unmarshal(doc, &d); err != nil {
			t.Fatal(err)
		}
		edit(&d)
		b, err := cbor.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	listed := func(doc []byte) string {
		return config(fmt.Sprintf("%x  %s\n", sha256.Sum256(doc), snpFile), doc, "", "")
	}
	for name, c := range map[string]string{
		"empty": "", "no image hash": strings.Replace(good, "os_image_hash", "os_image_hush", 1), "another image hash": strings.Replace(good, image.String()[:4], "0000", 1),
		"no measurement": strings.Replace(good, "sev_snp_measurement", "sev_snp_mismeasurement", 1), "unknown key": config(line, doc, `,"x":1`, ""),
		"key twice": config(line, doc, `,"vcpus":2`, ""), "outer key twice": config(line, doc, "", `,"OS_image_hash":""`),
		"unlisted": config("x\n", doc, "", ""), "listed twice": config(line+line, doc, "", ""), "another document": config(line, append(doc, 0), "", ""),
		"trailing CBOR": listed(append(bytes.Clone(doc), 0)), "version 2": listed(spoil(func(d *snpDocument) { d.Version = 2 })),
		"short digest": listed(spoil(func(d *snpDocument) { d.Kernel = d.Kernel[1:] })), "no kernel hashes": listed(spoil(func(d *snpDocument) { d.Sections = d.Sections[:4] })),
		"endless": listed(spoil(func(d *snpDocument) { d.Sections[0].Size = 1 << 40 })),
	} {
		if _, _, err := SNPDigest(c); cvm.CodeOf(err) != cvm.Invalid && cvm.CodeOf(err) != cvm.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSNPDocument: no panic, bounded work, and what is accepted gives the same
// digest again after it was written down.
func FuzzSNPDocument(f *testing.F) {
	doc, err := snpFiles().Document()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeSNP(b)
		if err != nil {
			return
		}
		if err := l.check(); err != nil {
			t.Errorf("accepted without its check: %v", err)
		}
	})
}

func FuzzSNPFirmware(f *testing.F) {
	f.Add(sample.SEVFirmware())
	f.Fuzz(func(t *testing.T, fd []byte) {
		if l, err := parseSNPFirmware(fd); err == nil && l.check() != nil {
			t.Error("accepted without its check")
		}
	})
}

func FuzzSNPConfig(f *testing.F) {
	f.Add(`{"os_image_hash":"` + strings.Repeat("ab", 32) + `","sev_snp_measurement":"{\"checksum_file\":\"YQ==\",\"measurement\":\"YQ==\",\"vcpus\":1,\"vcpu_type\":\"EPYC\",\"guest_features\":1}"}`)
	f.Fuzz(func(t *testing.T, s string) {
		if _, image, err := SNPDigest(s); err == nil && image == (cvm.ImageHash{}) {
			t.Error("a digest without an image")
		}
	})
}
