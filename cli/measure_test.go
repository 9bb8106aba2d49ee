package cli_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// TestMeasureScripts runs testdata/measure/*.txtar with the sample image and with
// evidence of simulated VMs that booted it, or something else.
func TestMeasureScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/measure",
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "PHALA_CLOUD_DIR="+filepath.Join(e.WorkDir, "home"), "NO_COLOR=1")
			return writeMeasured(e.WorkDir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

// exits CODE phala ...: the exit codes are part of the interface.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

func writeMeasured(dir string) error {
	hash, err := writeImage(filepath.Join(dir, "sample"))
	if err != nil {
		return err
	}
	m, err := measure.New(measure.Files{Firmware: sample.Firmware(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline})
	if err != nil {
		return err
	}
	other, err := measure.New(measure.Files{Firmware: sample.Firmware(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline + " debug"})
	if err != nil {
		return err
	}
	// What the VMs measured, and what they (or their hosts) state: 2 vCPU, 2 GiB.
	for name, vm := range map[string]struct {
		image  measure.Image
		memory uint64
		acpi   byte
		short  bool
	}{
		"good.json": {m, 2 << 30, 2, false}, "cmdline.json": {other, 2 << 30, 2, false}, "four.json": {m, 2 << 30, 4, false}, "memory.json": {m, 8 << 30, 2, true},
	} {
		c := measure.VMConfig{Topology: measure.Topology{QEMUVersion: "9.2.1", CPUCount: 2, MemorySize: vm.memory}}
		var acpi [3]cvm.Measurement
		for i := range acpi {
			acpi[i] = cvm.Measurement{vm.acpi, byte(i), 1}
		}
		r, err := vm.image.Expect(c, acpi)
		if err != nil {
			return err
		}
		if err := writeBoot(filepath.Join(dir, name), r.Boot, hash, vm.short); err != nil {
			return err
		}
		if !strings.Contains("good.json four.json", name) {
			continue
		}
		ccel, err := eventlog.EncodeCCEL(bootLog(r.Boot))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".ccel"), ccel, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeImage writes the sample as an image is released.
func writeImage(dir string) (hash cvm.ImageHash, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return hash, err
	}
	sums := ""
	for _, f := range []struct {
		name string
		b    []byte
	}{
		{"ovmf.fd", sample.Firmware()}, {"bzImage", sample.Kernel()}, {"initramfs.cpio.gz", sample.Initrd()},
		{"metadata.json", fmt.Appendf(nil, `{"bios":"ovmf.fd","kernel":"bzImage","cmdline":%q,"initrd":"initramfs.cpio.gz","rootfs":"","version":"0.0.1","git_revision":"","shared_ro":true,"is_dev":false}`, sample.Cmdline)},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.b, 0o600); err != nil {
			return hash, err
		}
		sums += fmt.Sprintf("%x  %s\n", sha256.Sum256(f.b), f.name)
	}
	hash = sha256.Sum256([]byte(sums))
	if err := os.WriteFile(filepath.Join(dir, "sha256sum.txt"), []byte(sums), 0o600); err != nil {
		return hash, err
	}
	return hash, os.WriteFile(filepath.Join(dir, "digest.txt"), []byte(hash.String()), 0o600)
}

func bootLog(b measure.Boot) (out []eventlog.Event) {
	for i, steps := range b.Steps {
		for _, s := range steps {
			e := eventlog.Event{IMR: uint32(i), Type: 6, Digest: s.Digest[:]} //nolint:gosec // 0..2
			if strings.HasPrefix(s.Input, "ACPI") {
				e.Type, e.Payload = eventlog.EvPlatformConfigFlags, []byte("ACPI DATA")
			}
			out = append(out, e)
		}
	}
	return out
}

// writeBoot writes the evidence of a simulated TD with this boot; short as in a
// certificate, without the firmware's log.
func writeBoot(path string, b measure.Boot, hash cvm.ImageHash, short bool) error {
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		return err
	}
	r := b.Registers()
	ccel, err := eventlog.EncodeCCEL(bootLog(b))
	if err != nil {
		return err
	}
	td, err := hw.NewTD("vm", simtee.Shape{MRTD: r.MRTD, RTMR: r.RTMR, CCEL: ccel})
	if err != nil {
		return err
	}
	quote, err := td.Quote(context.Background(), [64]byte{})
	if err != nil {
		return err
	}
	ev, err := attest.NewEvidence(quote, ccel, nil, [64]byte{}, fmt.Sprintf(`{"os_image_hash":"%s","cpu_count":2,"memory_size":2147483648,"qemu_version":"9.2.1"}`, hash))
	if err != nil {
		return err
	}
	if short {
		ev = ev.Strip()
	}
	raw, err := ev.Marshal()
	if err != nil {
		return err
	}
	out, err := json.Marshal(map[string]string{"attestation": hex.EncodeToString(raw)})
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o600)
}
