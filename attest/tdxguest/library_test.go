package tdxguest_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-tdx-guest/client"
	"github.com/google/go-tdx-guest/rtmr"

	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/teefs"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/attest/tdxguest"
	"github.com/confidential-cloud/phala/cvm"
)

// Environment of the guest process of TestUnmodifiedLibrary: the device socket.
const envGuest = "TDXGUEST_TEST_DEVICE"

// seen is what the guest process reports.
type seen struct {
	Supported bool
	Library   []byte // a quote by go-tdx-guest
	Ours      []byte // a quote by this package, over the default paths
	Digest    []byte
}

// The files are where Linux has them: in a mount namespace of its own, with the
// tree in the place of /sys, go-tdx-guest's client and its RTMR code run as they
// are, and so does this package with an empty Config. The hardware stays outside,
// behind its socket.
func TestUnmodifiedLibrary(t *testing.T) {
	if os.Getenv(envGuest) != "" {
		t.Skip("this is the guest process")
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: a mount namespace needs root")
	}
	dir := t.TempDir()
	ctl, sock := filepath.Join(dir, "ctl.sock"), filepath.Join(dir, "tee.sock")
	h, err := simtee.New(simtee.Config{Seed: make([]byte, 32), ControlSock: ctl})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(t.Context()) }()
	t.Cleanup(func() { <-ended })
	<-h.Ready()
	if err := simtee.NewControl(ctl).CreateTD(t.Context(), "a", sock, simtee.Shape{CCEL: []byte("log")}); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestGuestProcess$")
	cmd.Env = append(os.Environ(), envGuest+"="+sock)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // Go makes its mounts private
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("guest process: %v\n%s%s", err, out, stderr.Bytes())
	}
	var s seen
	if i := bytes.IndexByte(out, '{'); i < 0 {
		t.Fatalf("guest process: %s", out)
	} else if err := json.NewDecoder(bytes.NewReader(out[i:])).Decode(&s); err != nil {
		t.Fatal(err)
	}
	if !s.Supported {
		t.Error("the library does not take this for a TDX guest")
	}
	want := eventlog.Extend(cvm.Measurement{}, cvm.Measurement(s.Digest))
	for name, raw := range map[string][]byte{"library": s.Library, "ours": s.Ours} {
		q, err := tdx.ParseQuote(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if q.Body.ReportData != [64]byte{9} || q.Body.RTMR[3] != want {
			t.Errorf("%s: quote of %x, RTMR3 %s, want %s", name, q.Body.ReportData[:4], q.Body.RTMR[3], want)
		}
	}
}

// TestGuestProcess is the other half of TestUnmodifiedLibrary.
func TestGuestProcess(t *testing.T) {
	sock := os.Getenv(envGuest)
	if sock == "" {
		t.Skip("half of TestUnmodifiedLibrary")
	}
	dir := t.TempDir()
	f, err := teefs.Mount(dir, simtee.NewDevice(sock))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(filepath.Join(dir, teefs.SysFS), "/sys", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	var s seen
	p, err := client.GetQuoteProvider()
	if err != nil {
		t.Fatal(err)
	}
	s.Supported = p.IsSupported() == nil
	if err := rtmr.ExtendEventLog(3, crypto.SHA384, []byte("an event")); err != nil {
		t.Fatal(err)
	}
	h := crypto.SHA384.New()
	h.Write([]byte("an event"))
	s.Digest = h.Sum(nil)
	if err := rtmr.ExtendDigest(0, s.Digest); err == nil {
		t.Error("the library extended RTMR0")
	}
	if s.Library, err = p.GetRawQuote([64]byte{9}); err != nil {
		t.Fatal(err)
	}
	ours := tdxguest.New(tdxguest.Config{})
	if s.Ours, err = ours.Quote(t.Context(), [64]byte{9}); err != nil {
		t.Fatal(err)
	}
	if b, err := ours.CCEL(t.Context()); err != nil || string(b) != "log" {
		t.Errorf("CCEL %q: %v", b, err)
	}
	if err := syscall.Unmount("/sys", 0); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		return
	}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		t.Fatal(err)
	}
}
