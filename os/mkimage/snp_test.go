package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
)

func TestSNPFirmware(t *testing.T) {
	f := measure.Files{Firmware: sample.OVMF(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: "console=ttyS0"}
	try := func(firmware []byte) (config, metadata, []string, error) {
		c := config{out: t.TempDir()}
		if firmware != nil {
			c.snpFirmware = filepath.Join(c.out, "given")
			if err := os.WriteFile(c.snpFirmware, firmware, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var m metadata
		listed, err := c.forSNP(f, &m)
		return c, m, listed, err
	}
	c, m, listed, err := try(sample.SEVFirmware())
	if err != nil || m.BIOSSEV != sevFile || len(listed) != 2 {
		t.Fatalf("%+v %q %v", m, listed, err)
	}
	want := f
	want.Firmware = sample.SEVFirmware()
	doc, err := measure.SNPFiles(want).Document()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{sevFile: sample.SEVFirmware(), snpFile: doc} {
		if got, err := os.ReadFile(filepath.Join(c.out, name)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, m, listed, err := try(nil); err != nil || m.BIOSSEV != "" || len(listed) != 0 {
		t.Errorf("without firmware: %+v %q %v", m, listed, err)
	}
	// The kernel would not be measured: never silently an image without.
	if _, m, _, err := try(sample.OVMF()); err == nil || m.BIOSSEV != "" {
		t.Errorf("firmware without a page for hashes: %+v %v", m, err)
	}
}
