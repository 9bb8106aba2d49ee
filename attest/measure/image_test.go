package measure_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
	"github.com/confidential-cloud/phala/cvm"
)

func files() measure.Files {
	return measure.Files{Firmware: sample.Firmware(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline}
}

func sampleImage(t testing.TB) measure.Image {
	t.Helper()
	m, err := measure.New(files())
	if err != nil {
		t.Fatal(err)
	}
	m.Hash = cvm.ImageHash{0xaa}
	m.Version = "sample"
	return m
}

func acpiOf(n byte) (d [3]cvm.Measurement) {
	for i := range d {
		d[i] = cvm.Measurement{n, byte(i), 1}
	}
	return d
}

func config(cpus uint32, memory uint64, qemu string) measure.VMConfig {
	return measure.VMConfig{Topology: measure.Topology{QEMUVersion: qemu, CPUCount: cpus, MemorySize: memory}, OSImageHash: cvm.ImageHash{0xaa}}
}

func expect(t testing.TB, m measure.Image, c measure.VMConfig, acpi [3]cvm.Measurement) measure.Result {
	t.Helper()
	r, err := m.Expect(c, acpi)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const gib = uint64(1) << 30

// Frozen: who publishes an image publishes these. DO NOT CHANGE.
func TestSampleVector(t *testing.T) {
	m := sampleImage(t)
	for _, tc := range []struct {
		memory uint64
		qemu   string
		want   [4]string // MRTD, RTMR0, RTMR1, RTMR2
	}{
		{2 * gib, "9.2.1", [4]string{"MRTD9", "RTMR0-2", "RTMR1-2", "RTMR2"}},
		{2 * gib, "8.2.2", [4]string{"MRTD8", "RTMR0-2", "RTMR1-2", "RTMR2"}},
		{1 * gib, "9.2.1", [4]string{"MRTD9", "RTMR0-1", "RTMR1-1", "RTMR2"}},
		{64 * gib, "9.2.1", [4]string{"MRTD9", "RTMR0-64", "RTMR1-2", "RTMR2"}},
	} {
		r := expect(t, m, config(2, tc.memory, tc.qemu), acpiOf(7)).Registers
		for i, got := range []cvm.Measurement{r.MRTD, r.RTMR[0], r.RTMR[1], r.RTMR[2]} {
			if want := sampleVector()[tc.want[i]]; got.String() != want {
				t.Errorf("%d GiB, QEMU %s: %s is %s", tc.memory/gib, tc.qemu, tc.want[i], got)
			}
		}
	}
}

func sampleVector() map[string]string {
	return map[string]string{
		"MRTD8":    "5b2db3b7c2ba5eec063daaf9171dc2c7b74855841d05030e232a9f8a822940c0acdd412d40416d14aef8035162dd1861",
		"MRTD9":    "a82f33d864ac005b93f29640c7982a61656483cfd0db71f777db3002af80b94cc72da6e194de7c530fa4d43ec60c1c88",
		"RTMR0-1":  "4f198ec60142a6a6fef9e4bcc57b574e82f488f911aa9d8e90a651d872d6c734f53cfff9a70b59121e9348440bc4884a",
		"RTMR0-2":  "2c0dc354264a2b6120748391a338f6d467b7842770b8eebc8f752d5967e028d0279317dc4d901da76ff0898b117d4ca0",
		"RTMR0-64": "fe3c7f123d0cec222334abf85f380dd864b396aad6f89102dc4632ed232e2f28571bfc7715fd59947c874d59640e6c57",
		"RTMR1-1":  "a53f663ace641356e1c6cf5b37cb52c59bd18d9c24bc2d03f50738b84d05996b9431c4f1413dea2a8a530224011a69d6",
		"RTMR1-2":  "c3b67810de0169bae1f4647acc7779eacc1a150e909213ad0c1f77c216676cf8bf896be2a98ae028de134d80cb267726",
		"RTMR2":    "19a26c402438ec3163120916a3e0e7e9e328da5aa187ecf28345d74b352bd26e27d98d774c8401c1bf57da16933b7c38",
	}
}

// Every byte of every file that is measured changes a register; the order of the
// parameters is the order in which the inputs are documented.
func TestEveryInputCounts(t *testing.T) {
	base := expect(t, sampleImage(t), config(2, 2*gib, "9.0"), acpiOf(1)).Registers
	f := files()
	flip := func(b []byte, at int) []byte {
		c := bytes.Clone(b)
		c[at] ^= 1
		return c
	}
	for name, change := range map[string]func(*measure.Files){
		"firmware's first byte of code": func(f *measure.Files) { f.Firmware = flip(f.Firmware, 0x4000) },
		"firmware's last byte":          func(f *measure.Files) { f.Firmware = flip(f.Firmware, len(f.Firmware)-1) },
		"firmware's variables":          func(f *measure.Files) { f.Firmware = flip(f.Firmware, 0) },
		"kernel's stub":                 func(f *measure.Files) { f.Kernel = flip(f.Kernel, 2) },
		"kernel's middle":               func(f *measure.Files) { f.Kernel = flip(f.Kernel, 0x1000) },
		"kernel's last byte":            func(f *measure.Files) { f.Kernel = flip(f.Kernel, len(f.Kernel)-1) },
		"kernel appended to":            func(f *measure.Files) { f.Kernel = append(bytes.Clone(f.Kernel), 0) },
		"initrd":                        func(f *measure.Files) { f.Initrd = flip(f.Initrd, 17) },
		"command line":                  func(f *measure.Files) { f.Cmdline += " x" },
	} {
		c := f
		change(&c)
		m, err := measure.New(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if expect(t, m, config(2, 2*gib, "9.0"), acpiOf(1)).Registers == base {
			t.Errorf("%s changes nothing", name)
		}
	}
	// What the loader overwrites, and a PE checksum, are not the image's.
	for _, at := range []int{0x210, 0x228, 0x218, 0x40 + 24 + 64} {
		c := f
		c.Kernel = flip(f.Kernel, at)
		m, err := measure.New(c)
		if err != nil || expect(t, m, config(2, 2*gib, "9.0"), acpiOf(1)).Registers != base {
			t.Errorf("kernel byte %#x counts: %v", at, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	put := func(b []byte, at int, v ...byte) []byte {
		c := bytes.Clone(b)
		copy(c[at:], v)
		return c
	}
	fw, k := sample.Firmware(), sample.Kernel()
	meta, foot := len(fw)-0x1000, len(fw)-32
	sec := func(i int) int { return meta + 16 + 32*i }
	for name, change := range map[string]func(*measure.Files){
		"no firmware":                 func(f *measure.Files) { f.Firmware = nil },
		"firmware code only":          func(f *measure.Files) { f.Firmware = fw[:len(fw)-40] },
		"no GUID at the end":          func(f *measure.Files) { f.Firmware = put(fw, foot-1, 0) },
		"table longer than the file":  func(f *measure.Files) { f.Firmware = put(fw, foot-18, 0xff, 0xff)[0x10000:] },
		"table too short":             func(f *measure.Files) { f.Firmware = put(fw, foot-18, 17, 0) },
		"entry longer than the table": func(f *measure.Files) { f.Firmware = put(fw, foot-18-18, 0xff, 0) },
		"entry too short":             func(f *measure.Files) { f.Firmware = put(fw, foot-18-18, 3, 0) },
		"metadata before the file":    func(f *measure.Files) { f.Firmware = put(fw, foot-18-22, 0xff, 0xff, 0xff, 0xff) },
		"metadata behind the file":    func(f *measure.Files) { f.Firmware = put(fw, foot-18-22, 15, 0, 0, 0) },
		"wrong signature":             func(f *measure.Files) { f.Firmware = put(fw, meta, 'X') },
		"metadata version 2":          func(f *measure.Files) { f.Firmware = put(fw, meta+8, 2) },
		"no sections":                 func(f *measure.Files) { f.Firmware = put(fw, meta+12, 0) },
		"many sections":               func(f *measure.Files) { f.Firmware = put(fw, meta+12, 65) },
		"length disagrees":            func(f *measure.Files) { f.Firmware = put(fw, meta+4, 0) },
		"section off a page":          func(f *measure.Files) { f.Firmware = put(fw, sec(0)+8, 1) },
		"section of half a page":      func(f *measure.Files) { f.Firmware = put(fw, sec(2)+16, 1) },
		"huge section":                func(f *measure.Files) { f.Firmware = put(fw, sec(2)+16, 0, 0, 0, 0, 1) },
		"data behind the file":        func(f *measure.Files) { f.Firmware = put(fw, sec(0), 0, 0x50, 0) },
		"data larger than memory":     func(f *measure.Files) { f.Firmware = put(fw, sec(0)+16, 0, 0x10, 0) },
		"unknown attribute":           func(f *measure.Files) { f.Firmware = put(fw, sec(0)+28, 5) },
		"no variable store":           func(f *measure.Files) { f.Firmware = put(fw, sec(1)+24, 0) },
		"no TD HOB":                   func(f *measure.Files) { f.Firmware = put(fw, sec(4)+24, 3) },
		"two TD HOBs":                 func(f *measure.Files) { f.Firmware = put(fw, sec(3)+24, 2) },
		"memory overlaps":             func(f *measure.Files) { f.Firmware = put(fw, sec(3)+8, 0, 0x90, 0x80) },
		"no kernel":                   func(f *measure.Files) { f.Kernel = nil },
		"not a bzImage":               func(f *measure.Files) { f.Kernel = put(k, 0x202, 'X') },
		"ancient protocol":            func(f *measure.Files) { f.Kernel = put(k, 0x206, 0x02, 0x02) },
		"loaded low":                  func(f *measure.Files) { f.Kernel = put(k, 0x211, 0) },
		"no EFI stub":                 func(f *measure.Files) { f.Kernel = put(k, 0, 0) },
		"PE header outside":           func(f *measure.Files) { f.Kernel = put(k, 0x3c, 0xff, 0xff, 0xff, 0xff) },
		"no PE signature":             func(f *measure.Files) { f.Kernel = put(k, 0x40, 0) },
		"unknown PE":                  func(f *measure.Files) { f.Kernel = put(k, 0x58, 0) },
		"too few directories":         func(f *measure.Files) { f.Kernel = put(k, 0x58+108, 4) },
		"many PE sections":            func(f *measure.Files) { f.Kernel = put(k, 0x46, 0xff, 0xff) },
		"headers outside":             func(f *measure.Files) { f.Kernel = put(k, 0x58+60, 0, 0, 1) },
		"section outside":             func(f *measure.Files) { f.Kernel = put(k, 0x58+240+16, 0, 0, 1) },
		"sections overlap":            func(f *measure.Files) { f.Kernel = put(k, 0x58+240+20, 0, 0x10) },
		"certificates outside":        func(f *measure.Files) { f.Kernel = put(k, 0x58+112+36, 0, 0, 1) },
		"no initrd":                   func(f *measure.Files) { f.Initrd = nil },
		"two lines":                   func(f *measure.Files) { f.Cmdline = "a\nb" },
		"long command line":           func(f *measure.Files) { f.Cmdline = strings.Repeat("x", 3000) },
		"command line of no text":     func(f *measure.Files) { f.Cmdline = "\xff" },
	} {
		f := files()
		change(&f)
		_, err := measure.New(f)
		if c := cvm.CodeOf(err); err == nil || c != cvm.Invalid && c != cvm.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExpectRefuses(t *testing.T) {
	m := sampleImage(t)
	for name, c := range map[string]measure.VMConfig{
		"QEMU 7": config(1, 2*gib, "7.2"), "QEMU of no number": config(1, 2*gib, "new"),
		"no memory": config(1, 0, "9.0"), "less than the firmware needs": config(1, 8<<20, "9.0"), "too little for kernel and initrd": config(1, 0x820000, "9.0"),
	} {
		if strings.HasSuffix(name, "initrd") {
			f := files()
			f.Initrd = make([]byte, 9<<20)
			var err error
			if m, err = measure.New(f); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := m.Expect(c, acpiOf(1)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A document cannot carry another variable store than the one it implies.
func TestDocumentNeedsTheEmptyStore(t *testing.T) {
	if _, err := sampleImage(t).Document(); cvm.CodeOf(err) != cvm.Unsupported {
		t.Errorf("%v", err)
	}
}

// The document of a recorded machine decodes, re-encodes to the same bytes, and
// serves variant legacy as it serves variant lite.
func TestRecordedDocument(t *testing.T) {
	vmConfig, doc := liteVector(t)
	m, err := measure.DecodeImage(doc)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Document()
	if err != nil || !bytes.Equal(again, doc) {
		t.Fatalf("does not re-encode: %v", err)
	}
	lite, err := measure.Expected(measure.Policy{Variants: []string{"lite"}, AnyACPI: true}, vmConfig, acpiEvents(acpiOf(3)))
	if err != nil {
		t.Fatal(err)
	}
	m.Hash = lite.Config.OSImageHash
	p := measure.Policy{Variants: []string{""}, AnyACPI: true, Images: []measure.Image{m}}
	legacy, err := measure.Expected(p, strings.Replace(vmConfig, `"lite"`, `""`, 1), acpiEvents(acpiOf(3)))
	if err != nil || legacy.Registers != lite.Registers {
		t.Errorf("legacy: %+v, lite: %+v: %v", legacy.Registers, lite.Registers, err)
	}
	// Without files, sizes whose kernel digest differs cannot be computed.
	c := lite.Config
	c.MemorySize = 1 * gib
	if _, err := m.Expect(c, acpiOf(1)); cvm.CodeOf(err) != cvm.Unsupported {
		t.Errorf("1 GiB: %v", err)
	}
	// The version as a longer integer says the same in other bytes.
	at := bytes.Index(doc, []byte("version\x03")) + len("version")
	if _, err := measure.DecodeImage(append(append(bytes.Clone(doc[:at]), 0x18), doc[at:]...)); err == nil || !strings.Contains(err.Error(), "canonical") {
		t.Errorf("not canonical: %v", err)
	}
	for i := range doc {
		b := bytes.Clone(doc)
		b[i] ^= 0x20
		if o, err := measure.DecodeImage(b); err == nil && expectSame(o, m) {
			t.Fatalf("byte %d does not count", i)
		}
	}
}

func expectSame(a, b measure.Image) bool {
	x, err := a.Document()
	y, err2 := b.Document()
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// liteVector finds the vm_config in the recorded attestation of variant lite, and
// the measurement document inside it.
func liteVector(t testing.TB) (vmConfig string, doc []byte) {
	t.Helper()
	var wire struct{ Attestation string }
	if err := json.Unmarshal(recorded(t, filepath.Join("vectors", "tdx-lite-attestation.json")), &wire); err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(wire.Attestation)
	if err != nil {
		t.Fatal(err)
	}
	_, b, _ = bytes.Cut(b, []byte(`{"os_image_hash"`))
	var raw json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(append([]byte(`{"os_image_hash"`), b...))).Decode(&raw); err != nil {
		t.Fatal(err)
	}
	var c struct {
		T struct{ Measurement []byte } `json:"tdx_measurement"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return string(raw), c.T.Measurement
}

// recorded reads a file that is not part of the repository: below ../shared beside
// some parent directory, or from $PHALA_VECTORS by its base name.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	paths := []string{}
	if d := os.Getenv("PHALA_VECTORS"); d != "" {
		paths = append(paths, filepath.Join(d, filepath.Base(name)))
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for d := wd; d != filepath.Dir(d); d = filepath.Dir(d) {
		paths = append(paths, filepath.Join(filepath.Dir(d), "shared", name))
	}
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil {
			return b
		}
	}
	t.Skipf("SKIPPED: the recorded vector %s is not here (set PHALA_VECTORS)", name)
	return nil
}

// debian reads a file of a Debian package from $PHALA_BOOT_FILES or from where the
// package puts it, if it is the very file that the frozen digests were made with.
func debian(t *testing.T, path, sha string) []byte {
	t.Helper()
	for _, p := range []string{filepath.Join(os.Getenv("PHALA_BOOT_FILES"), filepath.Base(path)), path} {
		if b, err := os.ReadFile(p); err == nil {
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) == sha {
				return b
			}
			t.Logf("%s is another version", p)
		}
	}
	t.Skipf("SKIPPED: %s (sha256 %s) is not here (set PHALA_BOOT_FILES)", path, sha)
	return nil
}

// MRTD of Debian's OVMF 2022.11-6+deb12u2, which an independent calculator
// (gce-tcb-verifier) computes too. DO NOT CHANGE.
func TestDebianMRTD(t *testing.T) {
	one, two, err := measure.MRTD(debian(t, "/usr/share/ovmf/OVMF.fd", "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773"))
	if err != nil || one.String() != "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47" ||
		two.String() != "acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b33db3b32e6924cba830a724eed443f7e1" {
		t.Errorf("%s %s %v", one, two, err)
	}
}

// What a real OVMF measured of Debian's kernel when a real QEMU (7.2, q35) had
// loaded it with an initrd of this size, from the firmware's own log of a boot
// with a TPM: the patched setup header and the Authenticode digest are right for
// every class of memory size. DO NOT CHANGE.
func TestDebianKernel(t *testing.T) {
	f := files()
	f.Kernel = debian(t, "/boot/vmlinuz-6.1.0-56-cloud-amd64", "51349501a3d1ff83836437d2b365fd2d57f2feb8642d315e5181dec23d4c3275")
	f.Initrd = make([]byte, 747944)
	m, err := measure.New(f)
	if err != nil {
		t.Fatal(err)
	}
	for memory, want := range map[uint64]string{
		1 * gib: "115c75a25950156e4c2253abef7037eb685a6018e20c1586a57a92aadac80c50e0c89ebf195585b0eeb935aef75f3123",
		2 * gib: "d7d9768f6b2336b9adc16e2a982d45a97a336bb2d5c16ccf2ae4acc9121ad38e14cf5d6c15133a5e2fbfd5f9bd42385d",
		3 * gib: "d7d9768f6b2336b9adc16e2a982d45a97a336bb2d5c16ccf2ae4acc9121ad38e14cf5d6c15133a5e2fbfd5f9bd42385d",
	} {
		if got := expect(t, m, config(1, memory, "9.0"), acpiOf(1)).Boot.Steps[1][0].Digest; got.String() != want {
			t.Errorf("%d GiB: %s", memory/gib, got)
		}
	}
}

// Variant lite rests on a chain: os_image_hash covers the checksum file, which lists
// the document once. Each link is looked at.
func TestLiteChain(t *testing.T) {
	m := sampleImage(t)
	if err := m.Volume.UnmarshalText([]byte("344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790")); err != nil {
		t.Fatal(err)
	}
	doc, err := m.Document()
	if err != nil {
		t.Fatal(err)
	}
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	line := sum(doc) + "  " + measure.DocumentFile + "\n"
	state := func(hash, checksums string, doc []byte) string {
		b, err := json.Marshal(map[string]any{"os_image_hash": hash, "cpu_count": 2, "memory_size": 2 * gib, "qemu_version": "9.2.1", "tdx_attestation_variant": "lite",
			"tdx_measurement": map[string][]byte{"checksum_file": []byte(checksums), "measurement": doc}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	p := measure.Policy{Variants: []string{"lite"}, AnyACPI: true}
	files := sum([]byte("x")) + "  bzImage\n" + line
	r, err := measure.Expected(p, state(sum([]byte(files)), files, doc), acpiEvents(acpiOf(2)))
	if err != nil || r.Registers != expect(t, m, config(2, 2*gib, "9.2.1"), acpiOf(2)).Registers {
		t.Fatalf("%v", err)
	}
	other := bytes.Clone(doc)
	other[60] ^= 1
	for name, c := range map[string]string{
		"another image hash": state(sum([]byte("other")), files, doc),
		"another document":   state(sum([]byte(files)), files, other),
		"not listed":         state(sum([]byte("x\n")), "x\n", doc),
		"listed twice":       state(sum([]byte(line+line)), line+line, doc),
		"listed and another": state(sum([]byte(line+sum(other)+"  "+measure.DocumentFile+"\n")), line+sum(other)+"  "+measure.DocumentFile+"\n", doc),
		"no document":        state(sum([]byte(files)), files, nil),
		"no measurement":     `{"os_image_hash":"` + sum([]byte(files)) + `","tdx_attestation_variant":"lite","cpu_count":2,"memory_size":2147483648}`,
		"1 GiB":              strings.Replace(state(sum([]byte(files)), files, doc), "2147483648", "1073741824", 1),
	} {
		if _, err := measure.Expected(p, c, acpiEvents(acpiOf(2))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good := state(sum([]byte(files)), files, doc)
	for name, events := range map[string]int{"no ACPI events": 0, "two": 2, "four": 4} {
		if _, err := measure.Expected(p, good, append(acpiEvents(acpiOf(2)), acpiEvents(acpiOf(3))...)[:events]); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The OVMF.fd of Debian trixie (2025.02), of 4 MiB, is a firmware that variant lite
// can name.
func TestDebianOVMF4M(t *testing.T) {
	f := files()
	f.Firmware = debian(t, "/usr/share/ovmf/OVMF.fd", "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db")
	m, err := measure.New(f)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := m.Document()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := measure.DecodeImage(doc); err != nil || again.MRTD != m.MRTD ||
		m.MRTD.String() != "bdc6fb145880f06f30c8b346b8dce2a99d9351b56892df22f80fcf6574caa9f9c31df8e8576d53b4d0cd1c3f28910e11" {
		t.Errorf("%s %v", m.MRTD, err)
	}
}
