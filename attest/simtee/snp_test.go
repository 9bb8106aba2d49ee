package simtee_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

func amdClock() time.Time { return time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC) }

func newAMD(t *testing.T, cfg simtee.AMDConfig) *simtee.AMD {
	t.Helper()
	cfg.Seed, cfg.Clock = bytes.Repeat([]byte{0xa5}, 32), amdClock
	a, err := simtee.NewAMD(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The whole vendor is a function of the seed and the clock. DO NOT CHANGE.
func TestAMDVectors(t *testing.T) {
	a := newAMD(t, simtee.AMDConfig{})
	report, err := a.Report(cvm.Measurement{1}, [32]byte{2}, 0, [64]byte{3})
	if err != nil {
		t.Fatal(err)
	}
	set, err := a.Collateral(amdClock())
	if err != nil {
		t.Fatal(err)
	}
	root, chip := a.RootSPKI(), a.ChipID()
	for _, v := range []struct {
		name string
		b    []byte
		want string
	}{
		{"root", root[:], "53adbd2dff05a190b2b33f6103b5f3c1efb71e6d11441695e6313b79dd48b6a3"}, {"chip", chip[:], "efce60405a0b7afc043c48f1cdec8d4a2abe636e0942555c380c619a5802eec3"}, {"report", report, "8cf9bc08e0d6bf9bd474ca1f0e9db17107922e7187e5aa90bd632b55b74c9cbe"},
		{"leaf", set.AMD.Leaf, "d83b0ddced77e9af81b26205d1d66486c66fa99dd108297b38926e3ab2ffe16a"}, {"chain", set.AMD.Chain, "4c8f61094f1030be4b331c5c38495be40b2ad1ba88a1867a7b0184a3f4d2cc20"}, {"list", set.AMD.CRL, "20a0f7c7460d0614e1ac785fda95d46046d17cd0c4e50bc58d8aa39a36f1ded1"},
	} {
		if got := fmt.Sprintf("%x", sha256.Sum256(v.b)); got != v.want {
			t.Errorf("%s: %s", v.name, got)
		}
	}
}

// What the key distribution service hands out is what Collateral gives.
func TestAMDKeyDistribution(t *testing.T) {
	first := newAMD(t, simtee.AMDConfig{})
	for _, cfg := range []simtee.AMDConfig{{}, {VLEK: "example-cloud"}, {Machine: "second"}} {
		a, err := first.With(func(c *simtee.AMDConfig) { c.VLEK, c.Machine = cfg.VLEK, cfg.Machine })
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(a.Handler())
		set, err := a.Collateral(amdClock())
		if err != nil {
			t.Fatal(err)
		}
		chip, tcb := a.ChipID(), simtee.DefaultTCB(sevsnp.Milan)
		base, leaf := "/vcek/v1/Milan/", hex.EncodeToString(chip[:])
		if cfg.VLEK != "" {
			base, leaf = "/vlek/v1/Milan/", "cert"
		}
		levels := fmt.Sprintf("?blSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d", tcb.BootLoader, tcb.TEE, tcb.SNP, tcb.Microcode)
		got := collateral.AMD{Leaf: get(t, srv.URL+base+leaf+levels, 200), Chain: get(t, srv.URL+base+"cert_chain", 200), CRL: get(t, srv.URL+base+"crl", 200)}
		if !bytes.Equal(got.Leaf, set.AMD.Leaf) || !bytes.Equal(got.Chain, set.AMD.Chain) || !bytes.Equal(got.CRL, set.AMD.CRL) {
			t.Errorf("%+v: the service says other things than Collateral", cfg)
		}
		l, err := sevsnp.ParseLeaf(get(t, srv.URL+base+leaf+"?blSPL=1&teeSPL=2&snpSPL=3&ucodeSPL=4", 200))
		if want := (sevsnp.TCB{BootLoader: 1, TEE: 2, SNP: 3, Microcode: 4}); err != nil || l.TCB != want {
			t.Errorf("a certificate for another TCB: %v", err)
		}
		get(t, srv.URL+base+leaf, 400)
		get(t, srv.URL+base+leaf+"?blSPL=1&teeSPL=2&snpSPL=3&ucodeSPL=256", 400)
		get(t, srv.URL+"/vcek/v1/Milan/"+fmt.Sprintf("%0128x", 1)+levels, 404)
		get(t, srv.URL+"/vcek/v1/Genoa/cert_chain", 404)
		srv.Close()
	}
}

func get(t *testing.T, url string, status int) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		t.Errorf("%s: status %d, want %d: %v", url, res.StatusCode, status, err)
	}
	return b
}

func TestAMDConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]simtee.AMDConfig{
		"no seed": {}, "short seed": {Seed: make([]byte, 31)}, "product": {Seed: make([]byte, 32), Product: "Naples"}, "version": {Seed: make([]byte, 32), Version: 6},
	} {
		if _, err := simtee.NewAMD(cfg); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := newAMD(t, simtee.AMDConfig{}).Sign(nil); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("an empty report is signed: %v", err)
	}
}

// A machine with SEV-SNP starts guests through its control socket; a guest's device
// answers as the hardware would, and each launch has a report id of its own.
func TestSNPOverSockets(t *testing.T) {
	dir := t.TempDir()
	cfg := simtee.Config{Seed: make([]byte, 32), ControlSock: dir + "/c", CollateralAddr: "127.0.0.1:0", SNP: true}
	hw, err := simtee.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- hw.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	<-hw.Ready()
	ctl, shape := simtee.NewControl(cfg.ControlSock), simtee.SNPShape{Measurement: cvm.Measurement{1}, HostData: [32]byte{2}}
	info, err := ctl.Info(ctx)
	if err != nil || info.SNP == nil || info.SNP.DeviceID != hw.AMD().DeviceID() || info.SNP.Product != sevsnp.Milan {
		t.Fatalf("%+v %v", info, err)
	}
	if err := ctl.CreateTD(ctx, "taken", dir+"/t", simtee.Shape{}); err != nil {
		t.Fatal(err)
	}
	if err := ctl.CreateSNP(ctx, "taken", dir+"/s", shape); cvm.CodeOf(err) != cvm.Conflict {
		t.Errorf("a name twice: %v", err)
	}
	ids := map[[32]byte]bool{}
	for range 2 {
		if err := ctl.CreateSNP(ctx, "g", dir+"/s", shape); err != nil {
			t.Fatal(err)
		}
		if kind, err := simtee.Provider(ctx, dir+"/s"); err != nil || kind != simtee.ProviderSNP {
			t.Errorf("provider %q: %v", kind, err)
		}
		raw, table, err := simtee.NewSNPDevice(dir+"/s").Report(ctx, [64]byte{3}, 0)
		if err != nil || len(table) == 0 {
			t.Fatal(err)
		}
		r, err := sevsnp.ParseReport(raw)
		if err != nil || r.Measurement != shape.Measurement || r.HostData != shape.HostData || r.ReportData != [64]byte{3} {
			t.Fatalf("%+v %v", r, err)
		}
		ids[r.ReportID] = true
		if err := ctl.DestroyTD(ctx, "g"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := simtee.NewSNPDevice(dir+"/s").Report(ctx, [64]byte{}, 0); err == nil {
			t.Error("a guest that was destroyed answers")
		}
	}
	if len(ids) != 2 {
		t.Error("two launches have one report id")
	}
	if kind, err := simtee.Provider(ctx, dir+"/t"); err != nil || kind != simtee.ProviderTDX {
		t.Errorf("provider of a TD %q: %v", kind, err)
	}
	get(t, hw.CollateralURL()+"/vcek/v1/Milan/cert_chain", 200)
}

// A machine that was not told to have SEV-SNP starts no such guest.
func TestNoSNPUnlessAsked(t *testing.T) {
	dir := t.TempDir()
	hw, err := simtee.New(simtee.Config{Seed: make([]byte, 32), ControlSock: dir + "/c"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- hw.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	<-hw.Ready()
	if err := simtee.NewControl(dir+"/c").CreateSNP(ctx, "g", dir+"/s", simtee.SNPShape{}); cvm.ReasonOf(err) != "no-sev-snp" {
		t.Error(err)
	}
}
