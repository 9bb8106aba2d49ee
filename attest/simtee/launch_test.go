package simtee_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// imageDir makes an image directory of the sample's files, as os/ does: with a
// measurement document, and a checksum file that lists it.
func imageDir(t *testing.T) fstest.MapFS {
	t.Helper()
	m, err := measure.New(measure.Files{Firmware: sample.OVMF(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := m.Document()
	if err != nil {
		t.Fatal(err)
	}
	return withSums(fstest.MapFS{"ovmf.fd": {Data: sample.OVMF()}, "bzImage": {Data: sample.Kernel()},
		"initramfs.cpio.gz": {Data: sample.Initrd()}, measure.DocumentFile: {Data: doc}})
}

func withSums(dir fstest.MapFS) fstest.MapFS {
	var sums strings.Builder
	for _, name := range []string{"bzImage", "initramfs.cpio.gz", measure.DocumentFile, "ovmf.fd"} {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(dir[name].Data), name)
	}
	dir[measure.ChecksumFile] = &fstest.MapFile{Data: []byte(sums.String())}
	return dir
}

// liteConfig is the vm_config that a VMM composes for the image of dir.
func liteConfig(t *testing.T, dir fstest.MapFS, memory uint64) string {
	t.Helper()
	m, image, err := measure.ReadMeasurement(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{"os_image_hash": image, "cpu_count": 2, "memory_size": memory, "qemu_version": "11.1.3",
		"num_nics": 2, "tdx_attestation_variant": measure.VariantLite, "tdx_measurement": m, "host_share_mode": "tar"})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func tdLaunch(config string) simtee.TDLaunch {
	return simtee.TDLaunch{Firmware: sample.OVMF(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline, VMConfig: config}
}

// judge starts a TD with the shape and verifies its quote over vmConfig.
func judge(t *testing.T, s simtee.Shape, vmConfig string, acpi []measure.ACPI) error {
	t.Helper()
	ctx := context.Background()
	h, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{3}, 32), Clock: at})
	if err != nil {
		t.Fatal(err)
	}
	td, err := h.NewTD("vm", s)
	if err != nil {
		t.Fatal(err)
	}
	g := &simtee.Guest{TD: td, VMConfig: vmConfig}
	for _, e := range []eventlog.Runtime{{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: make([]byte, 20)}, {Name: eventlog.ComposeHash, Payload: make([]byte, 32)},
		{Name: eventlog.GPUPolicyHash, Payload: make([]byte, 32)}, {Name: eventlog.InstanceID}, {Name: eventlog.BootMRDone}} {
		if err := g.Extend(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	ev, err := g.Evidence(ctx, [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	set, err := h.Collateral(at())
	if err != nil {
		t.Fatal(err)
	}
	p := h.Policy([64]byte{1}, claim.PhaseRelease)
	p.Image = measure.Policy{Variants: []string{measure.VariantLite}, ACPI: acpi}
	_, _, err = attest.Verify(ev, set, p, at())
	return err
}

// The registers of a simulated launch are those that the image's own document
// makes a verifier expect; whatever else the host starts is refused, by register.
func TestLaunchMatchesTheDocument(t *testing.T) {
	dir := imageDir(t)
	config := liteConfig(t, dir, 2<<30)
	acpi, err := simtee.ACPI(config)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
	for _, tc := range []struct {
		name   string
		change func(*simtee.TDLaunch)
		want   string // register in the refusal; "" is accepted
	}{
		{"as it is", func(*simtee.TDLaunch) {}, ""},
		{"another command line", func(l *simtee.TDLaunch) { l.Cmdline += " init=/bin/sh" }, "RTMR2"},
		{"another initrd", func(l *simtee.TDLaunch) { l.Initrd = flip(l.Initrd, 9) }, "RTMR2"},
		{"another kernel", func(l *simtee.TDLaunch) { l.Kernel = flip(l.Kernel, 0x1000) }, "RTMR1"},
		{"another firmware", func(l *simtee.TDLaunch) { l.Firmware = flip(l.Firmware, 0x90000) }, "MRTD"},
		{"another variable store", func(l *simtee.TDLaunch) { l.Firmware = flip(l.Firmware, 0x1000) }, "RTMR0"},
		{"more memory than stated", func(l *simtee.TDLaunch) { l.VMConfig = liteConfig(t, dir, 4<<30) }, "RTMR0"},
		{"pages added in two passes", func(l *simtee.TDLaunch) {
			l.VMConfig = strings.Replace(l.VMConfig, `"num_nics":2`, `"num_nics":2,"qemu_single_pass_add_pages":true`, 1)
		}, "MRTD"},
	} {
		l := tdLaunch(config)
		tc.change(&l)
		s, err := simtee.MeasureLaunch(l)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		replays(t, tc.name, s)
		err = judge(t, s, config, []measure.ACPI{acpi})
		var r *claim.Rejection
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.want == "":
		case !errors.As(err, &r) || !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s: want a refusal that names %s, got %v", tc.name, tc.want, err)
		}
	}
}

// replays checks that the log of a launch replays to its registers.
func replays(t *testing.T, name string, s simtee.Shape) {
	t.Helper()
	events, err := eventlog.ParseCCEL(s.CCEL)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for i := range uint32(3) {
		if mr, ok := eventlog.ReplayBoot(events, i); !ok || mr != s.RTMR[i] {
			t.Errorf("%s: the log does not replay to RTMR%d", name, i)
		}
	}
}

// The ACPI digests of a shape are listed for that shape alone, and each part of the
// shape counts.
func TestLaunchACPI(t *testing.T) {
	config := liteConfig(t, imageDir(t), 2<<30)
	base, err := simtee.ACPI(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := measure.CheckACPI([]measure.ACPI{base}); err != nil {
		t.Error(err)
	}
	s, err := simtee.MeasureLaunch(tdLaunch(config))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{{`"cpu_count":2`, `"cpu_count":3`}, {`"num_nics":2`, `"num_nics":1`}, {`"num_nics":2`, `"num_nics":2,"num_gpus":1`},
		{`"num_nics":2`, `"num_nics":2,"num_verity_volumes":1`}, {`"tar"`, `"9p"`}, {"11.1.3", "9.2.1"}} {
		other := strings.Replace(config, change[0], change[1], 1)
		a, err := simtee.ACPI(other)
		if err != nil || a.Loader == base.Loader || a.RSDP == base.RSDP || a.Tables == base.Tables {
			t.Errorf("%s: changes nothing (%v)", change[1], err)
		}
		// A host that starts one shape and states another.
		if err := judge(t, s, other, []measure.ACPI{a}); err == nil {
			t.Errorf("%s: stated but not started: accepted", change[1])
		}
	}
	if err := judge(t, s, config, nil); err == nil || !strings.Contains(err.Error(), "ACPI") {
		t.Errorf("unlisted tables: %v", err)
	}
}

func TestLaunchRefuses(t *testing.T) {
	config := liteConfig(t, imageDir(t), 2<<30)
	for name, change := range map[string]func(*simtee.TDLaunch){
		"no firmware": func(l *simtee.TDLaunch) { l.Firmware = nil }, "no kernel": func(l *simtee.TDLaunch) { l.Kernel = nil }, "no initrd": func(l *simtee.TDLaunch) { l.Initrd = nil },
		"two lines": func(l *simtee.TDLaunch) { l.Cmdline = "a\nb" }, "no config": func(l *simtee.TDLaunch) { l.VMConfig = "" },
		"container": func(l *simtee.TDLaunch) { l.VMConfig = vmConfig }, "no memory": func(l *simtee.TDLaunch) { l.VMConfig = strings.Replace(config, "2147483648", "0", 1) },
	} {
		l := tdLaunch(config)
		change(&l)
		if _, err := simtee.MeasureLaunch(l); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a launch measures rests on the files alone: with another document in
// vm_config, or with none, it is the same.
func TestLaunchDoesNotReadTheDocument(t *testing.T) {
	config := liteConfig(t, imageDir(t), 2<<30)
	want, err := simtee.MeasureLaunch(tdLaunch(config))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(config), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "tdx_measurement")
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := simtee.MeasureLaunch(tdLaunch(string(b)))
	if err != nil || got.MRTD != want.MRTD || got.RTMR != want.RTMR {
		t.Errorf("another measurement without a document: %v", err)
	}
}

func TestReadMeasurementRefuses(t *testing.T) {
	for name, change := range map[string]func(fstest.MapFS){
		"no checksum file":      func(d fstest.MapFS) { delete(d, measure.ChecksumFile) },
		"no document":           func(d fstest.MapFS) { delete(d, measure.DocumentFile) },
		"document not listed":   func(d fstest.MapFS) { d[measure.ChecksumFile].Data = []byte("00  x\n") },
		"another document":      func(d fstest.MapFS) { d[measure.DocumentFile].Data[70] ^= 1 },
		"listed, but no CBOR":   func(d fstest.MapFS) { d[measure.DocumentFile].Data = []byte("x"); withSums(d) },
		"endless checksum file": func(d fstest.MapFS) { d[measure.ChecksumFile].Data = make([]byte, 1<<20) },
	} {
		d := imageDir(t)
		change(d)
		if _, _, err := measure.ReadMeasurement(d); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
