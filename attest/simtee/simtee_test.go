package simtee_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

func at() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }

const vmConfig = `{"os_image_hash":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","cpu_count":2,"memory_size":2147483648,"tdx_attestation_variant":"container"}`

func shape(t *testing.T) simtee.Shape {
	t.Helper()
	r, err := measure.Container(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	ccel, err := measure.ContainerCCEL(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	return simtee.Shape{MRTD: r.MRTD, RTMR: r.RTMR, CCEL: ccel}
}

// Everything the vendor signs is a function of the seed and the time: a machine
// that starts again is the same machine. DO NOT CHANGE.
func TestFrozenMachine(t *testing.T) {
	h, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{0x5a}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	td, err := h.NewTD("a", simtee.Shape{MRTD: cvm.Measurement{1}})
	if err != nil {
		t.Fatal(err)
	}
	q, err := td.Quote(context.Background(), [64]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Collateral(at())
	if err != nil {
		t.Fatal(err)
	}
	seal, err := td.SealKey(context.Background(), []byte("disk"))
	if err != nil {
		t.Fatal(err)
	}
	h5, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{0x5a}, 32), Machine: "two", QuoteVersion: 5})
	if err != nil {
		t.Fatal(err)
	}
	td5, err := h5.NewTD("a", simtee.Shape{MRTD: cvm.Measurement{1}})
	if err != nil {
		t.Fatal(err)
	}
	q5, err := td5.Quote(context.Background(), [64]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	root := h.RootSPKI()
	for _, tc := range []struct{ what, got, want string }{
		{"root key", hex.EncodeToString(root[:]), "beb6916f5d13f907af375292c8f9de45bebc30c0477f95baf14e4514b603b0ef"},
		{"device", h.DeviceID().String(), "8d3956f40092ac8f8012a094690fbb0c20bbf287271b3218283137592bbdff2b"},
		{"quote", sum(q), "e21ffa77aa360cb1d0addfc4cbce76bcf61e82161c66129581f3a6de64eba0c5"},
		{"collateral", sum(slices.Concat(c.TCBInfo, c.QEIdentity, c.RootCRL, c.PCKCRL)), "d747022c3a4d2f2e0986dd29ddef7b94ebb3c1b34468655f1d4b593bc99b8830"},
		{"quote v5 of another machine", sum(q5), "9bbbac2aadd5616a9fbaf3b9e71176ed284e055587e7a531adc05d384f32c513"},
		{"root certificate", sum(h.RootPEM()), "95b5eda82aa5b3b0b03dc3aea360efed363604f6b3f16fd2cfcb832e2565ff95"},
		{"TCB info", sum(c.TCBInfo), "b103194faaff0fa6d0b0c7b797aae7d85537f908fd40d6b600f1ecbe4a15339e"},
		{"QE identity", sum(c.QEIdentity), "a875d2757d3057d77556f9a45acc97f462cb738593fabe96111ad4b03721ca13"},
		{"root CRL", sum(c.RootCRL), "1876853e8d4e05e297b47356ab4ff551e9d8caa403bf317516f97b1851282bcd"},
		{"PCK CRL", sum(c.PCKCRL), "34d1b62adfa3cb56a06d757284a94b84c12c5597d9988e9ed936a864f58cfcf5"},
		{"issuer chains", sum(slices.Concat(c.TCBInfoIssuerChain, c.QEIdentityIssuerChain, c.PCKCRLIssuerChain)), "35b000cc08e59fbcffbfd2862b2e81fde31eb08810e816f1b669a39481ec566f"},
		{"seal key", hex.EncodeToString(seal), "960fdffaa3f90a9a2e082f7dd6d537678848b530edd77ad536f4f00cbc008889"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %s, frozen %s", tc.what, tc.got, tc.want)
		}
	}
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func TestSeedIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "simtee")
	a, err := simtee.New(simtee.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "seed"))
	if err != nil || st.Mode().Perm() != 0o600 || st.Size() != 32 {
		t.Errorf("seed file: %v %v", st, err)
	}
	b, err := simtee.New(simtee.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if a.DeviceID() != b.DeviceID() || a.RootSPKI() != b.RootSPKI() {
		t.Error("another machine after a restart")
	}
	other, err := simtee.New(simtee.Config{Dir: dir, Machine: "two"})
	if err != nil {
		t.Fatal(err)
	}
	if other.RootSPKI() != a.RootSPKI() || other.DeviceID() == a.DeviceID() {
		t.Error("a second machine must share the vendor and nothing else")
	}
	if err := os.WriteFile(filepath.Join(dir, "seed"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := simtee.New(simtee.Config{Dir: dir}); cvm.CodeOf(err) != cvm.Precondition {
		t.Errorf("a damaged seed: %v", err)
	}
	if _, err := simtee.New(simtee.Config{}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("no seed at all: %v", err)
	}
}

func TestRegistersOnlyExtend(t *testing.T) {
	h, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	td, err := h.NewTD("a", shape(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	seal, err := td.SealKey(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := cvm.Measurement{}
	for i := range 3 {
		d := cvm.Measurement{byte(i)}
		if err := td.Extend(ctx, 3, d); err != nil {
			t.Fatal(err)
		}
		want = eventlog.Extend(want, d)
	}
	if got := body(t, td).RTMR[3]; got != want {
		t.Errorf("RTMR3 %s, want %s", got, want)
	}
	app, _ := td.SealKey(ctx, nil)
	if again, _ := td.SealKey(ctx, nil); bytes.Equal(seal, app) || !bytes.Equal(app, again) {
		t.Error("what was launched (RTMR3) does not enter the seal key")
	}
	for _, i := range []int{-1, 0, 1, 4} {
		if err := td.Extend(ctx, i, cvm.Measurement{}); cvm.CodeOf(err) != cvm.Denied {
			t.Errorf("RTMR%d: %v", i, err)
		}
	}
	if err := td.Extend(ctx, 2, cvm.Measurement{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := td.SealKey(ctx, nil); bytes.Equal(app, again) {
		t.Error("other code got the same seal key")
	}
	if err := h.DestroyTD("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := td.Quote(ctx, [64]byte{}); cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("a destroyed TD quotes: %v", err)
	}
}

func body(t *testing.T, d interface {
	Quote(context.Context, [64]byte) ([]byte, error)
}) tdx.Body {
	t.Helper()
	b, err := d.Quote(context.Background(), [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := tdx.ParseQuote(b)
	if err != nil {
		t.Fatal(err)
	}
	return q.Body
}

// start runs a machine on sockets until the test ends.
func start(t *testing.T, cfg simtee.Config) (*simtee.Hardware, func()) {
	t.Helper()
	h, err := simtee.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		done <- nil // for a second stop
	}
	t.Cleanup(stop)
	select {
	case <-h.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return h, stop
}

// The whole way over sockets and HTTP: the VMM makes a TD, the guest measures and
// quotes, a verifier fetches collateral and verifies.
func TestOverSockets(t *testing.T) {
	dir := t.TempDir()
	cfg := simtee.Config{Dir: filepath.Join(dir, "hw"), ControlSock: filepath.Join(dir, "ctl.sock"), CollateralAddr: "127.0.0.1:0"}
	h, stop := start(t, cfg)
	ctx := context.Background()
	ctl, sock := simtee.NewControl(cfg.ControlSock), filepath.Join(dir, "tee.sock")
	s := shape(t)
	s.SockMode = 0o666
	if err := ctl.CreateTD(ctx, "vm1", sock, s); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("device socket: %v %v", st, err)
	}
	info, err := ctl.Info(ctx)
	root := h.RootSPKI()
	if err != nil || info.DeviceID != h.DeviceID() || info.RootSPKI != hex.EncodeToString(root[:]) || info.CollateralURL != h.CollateralURL() {
		t.Errorf("info %+v: %v", info, err)
	}
	if err := ctl.CreateTD(ctx, "vm1", sock, s); cvm.CodeOf(err) != cvm.Conflict || cvm.ReasonOf(err) != "td-exists" {
		t.Errorf("a second TD of the name: %v", err)
	}
	seal, err := simtee.NewDevice(sock).SealKey(ctx, []byte("x"))
	ev := overSockets(t, simtee.NewDevice(sock))
	if err != nil || len(seal) != 32 {
		t.Errorf("seal key: %v", err)
	}
	f, err := fetch.New(fetch.Config{URLs: []string{h.CollateralURL()}})
	if err != nil {
		t.Fatal(err)
	}
	coll, err := f.For(ctx, ev)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := attest.Verify(ev, coll, h.Policy(ev.ReportData, claim.PhaseEarly), time.Now()); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := simtee.NewDevice(sock).Quote(ctx, [64]byte{}); err == nil {
		t.Error("a TD outlived its machine")
	}
	start(t, cfg) // power on again: same machine, no TDs
	if err := ctl.CreateTD(ctx, "vm1", sock, s); err != nil {
		t.Fatal(err)
	}
	if got := body(t, simtee.NewDevice(sock)).RTMR[3]; got != (cvm.Measurement{}) {
		t.Error("a new TD has an old register")
	}
	if again, err := simtee.NewDevice(sock).SealKey(ctx, []byte("x")); err != nil || !bytes.Equal(again, seal) {
		t.Errorf("the seal key changed with a restart: %v", err)
	}
	if err := ctl.DestroyTD(ctx, "vm1"); err != nil {
		t.Error(err)
	}
	if err := ctl.DestroyTD(ctx, "vm1"); cvm.CodeOf(err) != cvm.NotFound {
		t.Errorf("destroyed twice: %v", err)
	}
}

func overSockets(t *testing.T, d *simtee.Device) attest.Evidence {
	t.Helper()
	ctx := context.Background()
	events := []eventlog.Runtime{{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: make([]byte, 20)}}
	for _, e := range events {
		if err := d.Extend(ctx, 3, e.Digest()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Extend(ctx, 0, cvm.Measurement{}); cvm.CodeOf(err) != cvm.Denied {
		t.Errorf("RTMR0 extended: %v", err)
	}
	ccel, err := d.CCEL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rd := [64]byte{4, 5}
	q, err := d.Quote(ctx, rd)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := attest.NewEvidence(q, ccel, events, rd, vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestControlRefusals(t *testing.T) {
	dir := t.TempDir()
	cfg := simtee.Config{Seed: make([]byte, 32), ControlSock: filepath.Join(dir, "ctl.sock")}
	start(t, cfg)
	ctl, ctx := simtee.NewControl(cfg.ControlSock), context.Background()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"name":           ctl.CreateTD(ctx, "a b", filepath.Join(dir, "s"), simtee.Shape{}),
		"no socket":      ctl.CreateTD(ctx, "a", "", simtee.Shape{}),
		"mode":           ctl.CreateTD(ctx, "a", filepath.Join(dir, "s"), simtee.Shape{SockMode: 0o777}),
		"over a file":    ctl.CreateTD(ctx, "a", file, simtee.Shape{}),
		"no such folder": ctl.CreateTD(ctx, "a", filepath.Join(dir, "no", "s"), simtee.Shape{}),
	} {
		if c := cvm.CodeOf(err); err == nil || c == cvm.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("a file was replaced by a socket")
	}
	if err := ctl.CreateTD(ctx, "a", filepath.Join(dir, "s"), simtee.Shape{}); err != nil {
		t.Errorf("a failed creation keeps the name: %v", err)
	}
}
