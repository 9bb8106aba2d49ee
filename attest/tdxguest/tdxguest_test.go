package tdxguest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/teefs"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/attest/tdxguest"
	"github.com/confidential-cloud/phala/cvm"
)

const vmConfig = `{"os_image_hash":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","cpu_count":2,"memory_size":2147483648,"tdx_attestation_variant":"container"}`

// machine is a TD of a simulated machine.
func machine(t *testing.T, version int) (*simtee.Hardware, *simtee.TD) {
	t.Helper()
	h, err := simtee.New(simtee.Config{Seed: make([]byte, 32), QuoteVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	r, err := measure.Container(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	ccel, err := measure.ContainerCCEL(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	td, err := h.NewTD("a", simtee.Shape{MRTD: r.MRTD, RTMR: r.RTMR, CCEL: ccel})
	if err != nil {
		t.Fatal(err)
	}
	return h, td
}

// mount shows a TD as the kernel would, and says aloud when this machine cannot.
func mount(t *testing.T, d teefs.Device) string {
	t.Helper()
	dir := t.TempDir()
	f, err := teefs.Mount(dir, d)
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
	return dir
}

func config(root string) tdxguest.Config {
	return tdxguest.Config{
		Reports:   filepath.Join(root, teefs.ConfigFS, "tsm/report"),
		Registers: filepath.Join(root, teefs.SysFS, "class/misc/tdx_guest/measurements"),
		Log:       filepath.Join(root, teefs.SysFS, "firmware/acpi/tables/data/CCEL"),
	}
}

// From the guest's device code over the kernel's files to the production verifier.
func TestQuoteOverFiles(t *testing.T) {
	for name, c := range map[string]struct {
		version int
		entry   string
	}{"v4": {4, ""}, "v5": {5, ""}, "one entry, as the reference": {4, "com.intel.dcap"}} {
		t.Run(name, func(t *testing.T) {
			h, td := machine(t, c.version)
			cfg := config(mount(t, td))
			cfg.Entry = c.entry
			d, ctx := tdxguest.New(cfg), t.Context()
			events := []eventlog.Runtime{{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: make([]byte, 20)}}
			for _, e := range events {
				if err := d.Extend(ctx, 3, e.Digest()); err != nil {
					t.Fatal(err)
				}
			}
			ccel, err := d.CCEL(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for i := range byte(2) { // the second over what the first left
				rd := [64]byte{1, i}
				q, err := d.Quote(ctx, rd)
				if err != nil {
					t.Fatal(err)
				}
				ev, err := attest.NewEvidence(q, ccel, events, rd, vmConfig)
				if err != nil {
					t.Fatal(err)
				}
				now := time.Now()
				set, err := h.Collateral(now)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := attest.Verify(ev, set, h.Policy(rd, claim.PhaseEarly), now); err != nil {
					t.Error(err)
				}
			}
			left, err := os.ReadDir(cfg.Reports)
			if err != nil || c.entry == "" && len(left) != 0 || c.entry != "" && len(left) != 1 {
				t.Errorf("report entries left: %v %v", left, err)
			}
		})
	}
}

// Everybody gets the quote of their own report data, whoever else asks.
func TestConcurrentQuotes(t *testing.T) {
	for _, entry := range []string{"", "shared"} {
		_, td := machine(t, 4)
		cfg := config(mount(t, td))
		cfg.Entry = entry
		one, two := tdxguest.New(cfg), tdxguest.New(cfg) // as two processes
		var wg sync.WaitGroup
		for i := range byte(8) {
			wg.Go(func() {
				d, rd := one, [64]byte{0xee, i}
				if i%2 == 0 {
					d = two
				}
				b, err := d.Quote(t.Context(), rd)
				if err != nil {
					t.Error(err)
					return
				}
				if q, err := tdx.ParseQuote(b); err != nil || q.Body.ReportData != rd {
					t.Errorf("a quote of others' report data: %v", err)
				}
			})
		}
		wg.Wait()
	}
}

func TestOnlyItsOwnRegisters(t *testing.T) {
	_, td := machine(t, 4)
	d := tdxguest.New(config(mount(t, td)))
	for _, i := range []int{-1, 0, 1, 4} {
		if err := d.Extend(t.Context(), i, cvm.Measurement{1}); cvm.CodeOf(err) != cvm.Denied {
			t.Errorf("RTMR%d: %v", i, err)
		}
	}
	if err := d.Extend(t.Context(), 2, cvm.Measurement{1}); err != nil {
		t.Error(err)
	}
	if _, err := d.SealKey(t.Context(), nil); cvm.CodeOf(err) != cvm.Unsupported {
		t.Errorf("seal key: %v", err)
	}
}

// A machine without the kernel's files says what it lacks and makes none.
func TestNoTEE(t *testing.T) {
	dir := t.TempDir()
	d := tdxguest.New(config(dir))
	if _, err := d.Quote(t.Context(), [64]byte{}); cvm.CodeOf(err) != cvm.Precondition || cvm.ReasonOf(err) != "tee-missing" {
		t.Errorf("quote: %v", err)
	}
	if err := d.Extend(t.Context(), 3, cvm.Measurement{}); cvm.ReasonOf(err) != "tee-missing" {
		t.Errorf("extend: %v", err)
	}
	if _, err := d.CCEL(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CCEL: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("made %v %v", left, err)
	}
}

// disturbed is a plain-directory report entry whose answers the test chooses.
func disturbed(t *testing.T, provider string, out []byte) tdxguest.Config {
	t.Helper()
	dir := t.TempDir()
	entry := filepath.Join(dir, "e")
	if err := os.Mkdir(entry, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"inblob": nil, "outblob": out, "generation": []byte("1\n"), "provider": []byte(provider)} {
		if err := os.WriteFile(filepath.Join(entry, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tdxguest.Config{Reports: dir, Entry: "e"}
}

func TestQuoteRefusals(t *testing.T) {
	_, td := machine(t, 4)
	// The generation never moves: somebody else's writes, for ever.
	if _, err := tdxguest.New(disturbed(t, "tdx_guest\n", nil)).Quote(t.Context(), [64]byte{}); cvm.ReasonOf(err) != "tee-busy" {
		t.Errorf("generation: %v", err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tdxguest.New(config(mount(t, td))).Quote(done, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for name, tc := range map[string]struct {
		fake teefs.Device
		want string // reason, or code where there is none
	}{
		"another TEE":          {snp{td}, string(cvm.Unsupported)},
		"other report data":    {fake{td, "other"}, "tee-busy"},
		"garbage for a quote":  {fake{td, "garbage"}, string(cvm.Invalid)},
		"the device is broken": {fake{td, "broken"}, string(cvm.Unavailable)},
	} {
		_, err := tdxguest.New(config(mount(t, tc.fake))).Quote(t.Context(), [64]byte{7})
		if got := cvm.ReasonOf(err); err == nil || got != tc.want && string(cvm.CodeOf(err)) != tc.want {
			t.Errorf("%s: %v (%s %s)", name, err, cvm.CodeOf(err), got)
		}
	}
}

// fake is a device that lies.
type fake struct {
	*simtee.TD
	how string
}

func (f fake) Quote(ctx context.Context, rd [64]byte) ([]byte, error) {
	switch f.how {
	case "other":
		return f.TD.Quote(ctx, [64]byte{})
	case "garbage":
		return []byte("garbage"), nil
	case "broken":
		return nil, syscall.EIO
	}
	return f.TD.Quote(ctx, rd)
}

// snp is another vendor's device behind the same files.
type snp struct{ *simtee.TD }

func (snp) Provider() string { return "sev_guest" }
func (s snp) Report(ctx context.Context, rd [64]byte, _ uint) (out, aux []byte, err error) {
	out, err = s.Quote(ctx, rd)
	return out, nil, err
}

func TestFromEnv(t *testing.T) {
	env := map[string]string{tdxguest.EnvEntry: "/a/b/com.intel.dcap", tdxguest.EnvRTMR3: "/c/rtmr3:sha384", tdxguest.EnvLog: "/d"}
	c, err := tdxguest.FromEnv(func(k string) string { return env[k] })
	if want := (tdxguest.Config{Reports: "/a/b", Entry: "com.intel.dcap", Registers: "/c", Log: "/d"}); err != nil || c != want {
		t.Errorf("%+v %v", c, err)
	}
	if c, err := tdxguest.FromEnv(func(string) string { return "" }); err != nil || c != (tdxguest.Config{}) {
		t.Errorf("empty environment: %+v %v", c, err)
	}
	env[tdxguest.EnvRTMR3] = "/c/rtmr0:sha384"
	if _, err := tdxguest.FromEnv(func(k string) string { return env[k] }); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("another register: %v", err)
	}
}
