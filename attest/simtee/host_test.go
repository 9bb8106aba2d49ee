package simtee_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Environment of the hardware's process: its directory, and the quoting enclave's fault.
const (
	envHardware = "SIMTEE_TEST_HARDWARE"
	envFault    = "SIMTEE_TEST_FAULT"
	envMachine  = "SIMTEE_TEST_MACHINE"
)

// TestHardwareProcess is the machine of the tests below, in a process of its own: it
// holds the seed and every key, and the tests, who are the host, have its sockets.
func TestHardwareProcess(t *testing.T) {
	dir := os.Getenv(envHardware)
	if dir == "" {
		t.Skip("run by the tests of the hostile host")
	}
	m := os.Getenv(envMachine)
	h, err := simtee.New(simtee.Config{Dir: filepath.Join(dir, "secret"), Machine: m, ControlSock: filepath.Join(dir, m+"ctl.sock"), CollateralAddr: "127.0.0.1:0",
		Faults: simtee.Faults{QE: simtee.QEFault(os.Getenv(envFault))}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(t.Context()) }()
	<-h.Ready()
	_, _ = os.Stdout.WriteString("\nready\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the host's process ends or closes it
}

// box is a machine in another process.
type box struct {
	*simtee.Control
	dir  string
	root [32]byte
	coll *fetch.Client
}

func newBox(t *testing.T, dir, machine string, fault simtee.QEFault) *box {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestHardwareProcess$")
	cmd.Env = append(os.Environ(), envHardware+"="+dir, envMachine+"="+machine, envFault+"="+string(fault))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	for in := bufio.NewScanner(stdout); ; {
		if !in.Scan() {
			t.Fatal("the hardware's process ended")
		}
		if in.Text() == "ready" {
			break
		}
	}
	b := &box{Control: simtee.NewControl(filepath.Join(dir, machine+"ctl.sock")), dir: dir}
	info, err := b.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root, err := hex.DecodeString(info.RootSPKI)
	if err != nil {
		t.Fatal(err)
	}
	b.root = [32]byte(root)
	if b.coll, err = fetch.New(fetch.Config{URLs: []string{info.CollateralURL}}); err != nil {
		t.Fatal(err)
	}
	return b
}

// vm is a guest behind a device socket.
type vm struct {
	t      *testing.T
	dev    *simtee.Device
	sock   string
	events []eventlog.Runtime
}

func (b *box) start(t *testing.T, name string) *vm {
	t.Helper()
	sock := filepath.Join(b.dir, name+".sock")
	if err := b.CreateTD(t.Context(), name, sock, shape(t)); err != nil {
		t.Fatal(err)
	}
	return &vm{t: t, dev: simtee.NewDevice(sock), sock: sock}
}

func launch(app byte) []eventlog.Runtime {
	return []eventlog.Runtime{{Name: eventlog.SystemPreparing}, {Name: eventlog.AppID, Payload: bytes.Repeat([]byte{app}, 20)},
		{Name: eventlog.ComposeHash, Payload: make([]byte, 32)}, {Name: eventlog.InstanceID}, {Name: eventlog.BootMRDone}}
}

func (v *vm) boot(events ...eventlog.Runtime) *vm {
	v.t.Helper()
	for _, e := range events {
		if err := v.dev.Extend(v.t.Context(), 3, e.Digest()); err != nil {
			v.t.Fatal(err)
		}
		v.events = append(v.events, e)
	}
	return v
}

func (v *vm) quote(rd [64]byte) []byte {
	v.t.Helper()
	q, err := v.dev.Quote(v.t.Context(), rd)
	if err != nil {
		v.t.Fatal(err)
	}
	return q
}

// present is what the host shows a verifier who asked with rd.
func (b *box) present(t *testing.T, quote []byte, events []eventlog.Runtime, rd [64]byte, phases ...claim.Phase) error {
	t.Helper()
	ev, err := attest.NewEvidence(quote, shape(t).CCEL, events, rd, vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	set, err := b.coll.For(t.Context(), ev)
	if err != nil {
		set = collateral.Set{} // of a quote that does not parse
	}
	anyVendor, err := simtee.New(simtee.Config{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	p := anyVendor.Policy(rd, phases...)
	p.Roots = []attest.Root{attest.SimulatedRoot(b.root)}
	_, _, err = attest.Verify(ev, set, p, time.Now())
	return err
}

// failed names the checks that a rejection failed.
func failed(t *testing.T, err error) (names []string) {
	t.Helper()
	var r *claim.Rejection
	if err != nil && !errors.As(err, &r) {
		t.Fatalf("no rejection: %v", err)
	}
	if r != nil {
		for _, c := range r.Checks {
			if c.Verdict == claim.Failed {
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// Parts of a version 4 quote, in bytes.
const (
	quoteSizeAt = 48 + 584
	quoteKeyAt  = quoteSizeAt + 4 + 64
	quoteCertAt = quoteKeyAt + 64
)

// splice puts parts of quotes together, with the size that the whole has.
func splice(parts ...[]byte) []byte {
	q := slices.Concat(parts...)
	binary.LittleEndian.PutUint32(q[quoteSizeAt:], uint32(len(q)-quoteSizeAt-4)) // #nosec G115 -- a quote's length
	return q
}

// The host owns everything but the hardware: it records quotes, starts and ends
// TDs, cuts quotes apart, and lies about logs. Each lie is refused by its name.
func TestHostileHost(t *testing.T) {
	dir := t.TempDir()
	hw := newBox(t, dir, "", "")
	neighbour := newBox(t, dir, "two", "")
	victim := hw.start(t, "victim").boot(launch(1)...)
	ask, before := [64]byte{1, 2, 3}, [64]byte{9}
	honest := victim.quote(ask)
	if got := failed(t, hw.present(t, honest, victim.events, ask, claim.PhaseRelease)); len(got) != 0 {
		t.Fatalf("honest: %q", got)
	}
	evil := hw.start(t, "evil").boot(launch(6)...)
	released := slices.Clone(victim.events)
	recorded := victim.quote(before)
	later := victim.boot(eventlog.Runtime{Name: eventlog.KeyProvider, Payload: []byte("{}")})
	other := neighbour.start(t, "n").boot(launch(1)...).quote(ask)

	for _, tc := range []struct {
		lie    string
		quote  []byte
		events []eventlog.Runtime
		want   []string
	}{
		{"an old quote for a new question", recorded, released, []string{claim.ReportData}},
		{"another TD's quote under the victim's log", evil.quote(ask), released, []string{claim.EventlogReplay}},
		{"a quote of before the last event, with the whole log", honest, later.events, []string{claim.EventlogReplay}},
		{"a TD that has gone on, with the log of its release", later.quote(ask), released, []string{claim.EventlogReplay}},
		{"another machine's attestation key", splice(honest[:quoteKeyAt], other[quoteKeyAt:quoteCertAt], honest[quoteCertAt:]), released, []string{claim.QuoteKey, claim.QuoteSignature}},
		{"another machine's QE report and certificates", splice(honest[:quoteCertAt], other[quoteCertAt:]), released, []string{claim.QuoteKey}},
		{"another machine's signature over this TD", splice(honest[:quoteSizeAt], other[quoteSizeAt:]), released, []string{claim.QuoteSignature}},
		{"this TD's signature under another body", splice(other[:quoteSizeAt], honest[quoteSizeAt:]), released, []string{claim.QuoteSignature}},
	} {
		if got := failed(t, hw.present(t, tc.quote, tc.events, ask, claim.PhaseRelease)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: refused for %q, want %q", tc.lie, got, tc.want)
		}
	}

	// Rolled back: the TD is ended and begun again, and only part of its boot is
	// played; registers begin at zero, so the log that is claimed does not replay.
	if err := hw.DestroyTD(t.Context(), "victim"); err != nil {
		t.Fatal(err)
	}
	again := hw.start(t, "victim").boot(released[:2]...)
	if got := failed(t, hw.present(t, again.quote(ask), released, ask, claim.PhaseRelease)); !slices.Equal(got, []string{claim.EventlogReplay}) {
		t.Errorf("a register that was rolled back: %q", got)
	}
}

// A quoting enclave that the vendor does not rate any more signed an attestation
// key long ago; the host keeps its report and puts it under today's quotes.
func TestOldQEReport(t *testing.T) {
	dir := t.TempDir()
	hw, old := newBox(t, dir, "", ""), t.TempDir() // the test, not the host, plays the past: one seed, another time
	if err := os.MkdirAll(filepath.Join(old, "secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(filepath.Join(dir, "secret/seed"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "secret/seed"), seed, 0o600); err != nil {
		t.Fatal(err)
	}
	past := newBox(t, old, "", simtee.QETooOld)
	v := hw.start(t, "v").boot(launch(1)...)
	ask := [64]byte{5}
	q, stale := v.quote(ask), past.start(t, "v").quote([64]byte{})
	spliced := splice(q[:quoteCertAt], stale[quoteCertAt:])
	if got := failed(t, hw.present(t, spliced, v.events, ask, claim.PhaseRelease)); !slices.Equal(got, []string{claim.QEIdentity}) {
		t.Errorf("an old QE report: %q", got)
	}
}

// A guest reaches its own TD and nothing else of the machine.
func TestDeviceOffersNoMore(t *testing.T) {
	hw := newBox(t, t.TempDir(), "", "")
	v := hw.start(t, "v")
	c := rpc.Client{Base: "http://unix", HTTP: rpc.UnixClient(v.sock)}
	for _, call := range []string{"POST /td", "DELETE /td/v", "GET /info", "GET /seed", "GET /key", "GET /td/v/quote"} {
		method, path, _ := bytes.Cut([]byte(call), []byte(" "))
		if err := c.Call(t.Context(), string(method), string(path), nil, nil); err == nil {
			t.Errorf("the device answers %s", call)
		}
	}
	r, err := v.dev.Registers(t.Context())
	if err != nil || r.MRTD != shape(t).MRTD || r.RTMR[3] != (cvm.Measurement{}) {
		t.Errorf("%+v %v", r, err)
	}
	if err := c.Call(t.Context(), http.MethodGet, "/registers", nil, nil); err != nil {
		t.Error(err)
	}
}
