package boot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/teefs"
	"github.com/confidential-cloud/phala/attest/tdxguest"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// A whole boot with the device code of a real TDX guest, over files as the kernel
// shows them, ends in evidence that the production verifier accepts; an event that
// reached the register but not the log is noticed.
func TestBootOverKernelFiles(t *testing.T) {
	for name, version := range map[string]int{"v4": 4, "v5": 5} {
		t.Run(name, func(t *testing.T) {
			var device *tdxguest.Device
			f := newFixtureOn(t, simtee.Config{QuoteVersion: version}, func(td *simtee.TD) TEE {
				device = tdxguest.New(mountFiles(t, td))
				return device
			}, kmsApp, guestapi.InstanceInfo{})
			s, err := Run(t.Context(), f.deps)
			if err != nil {
				t.Fatal(err)
			}
			verify := func(rd [64]byte) (attest.Verified, error) {
				ev, err := f.rec.Evidence(t.Context(), rd)
				if err != nil {
					t.Fatal(err)
				}
				now := time.Now()
				set, err := f.hw.Collateral(now)
				if err != nil {
					t.Fatal(err)
				}
				v, _, err := attest.Verify(ev, set, f.hw.Policy(rd, claim.PhaseRunning), now)
				return v, err
			}
			v, err := verify([64]byte{1})
			if err != nil {
				t.Fatal(err)
			}
			if c := v.Claims(); c.AppID != s.AppID || c.InstanceID != s.InstanceID || c.ComposeHash != s.App.Hash() {
				t.Errorf("claims %+v", c)
			}
			if err := device.Extend(t.Context(), 3, eventlog.Runtime{Name: "hidden"}.Digest()); err != nil {
				t.Fatal(err)
			}
			if _, err := verify([64]byte{2}); err == nil {
				t.Error("an extension without its event was accepted")
			}
		})
	}
}

// mountFiles shows a TD as Linux does, and says aloud when this machine cannot.
func mountFiles(t *testing.T, td *simtee.TD) tdxguest.Config {
	t.Helper()
	dir := t.TempDir()
	f, err := teefs.Mount(dir, td)
	if err != nil {
		if _, serr := os.Stat("/dev/fuse"); serr != nil || os.Geteuid() != 0 {
			t.Skipf("SKIPPED: no FUSE here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return tdxguest.Config{
		Reports:   filepath.Join(dir, "sys/kernel/config/tsm/report"),
		Registers: filepath.Join(dir, "sys/devices/virtual/misc/tdx_guest/measurements"),
		Log:       filepath.Join(dir, "sys/firmware/acpi/tables/data/CCEL"),
	}
}
