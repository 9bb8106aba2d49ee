package guestagent

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// Where the host offers no certificates, those of AMD's service make the evidence whole.
func TestChipChain(t *testing.T) {
	hw, err := simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	kds := httptest.NewServer(hw.Handler())
	t.Cleanup(kds.Close)
	ev, err := hw.Evidence(simtee.Launch{Config: attest.MRConfig{Version: 3, ComposeHash: cvm.ComposeHash{1}.String(), KeyProvider: "kms"}}, [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	want := ev.CertChain
	ev.CertChain = nil
	chain, err := chipChain(guestapi.SysConfig{CollateralURLs: map[string]any{"amd_kds": kds.URL}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := chain(t.Context(), ev)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d certificates: %v", len(got), err)
	}
	for i := range want {
		if string(got[i]) != string(want[i]) {
			t.Errorf("certificate %d differs from the host's", i)
		}
	}
	set, err := hw.Collateral(time.Now())
	if err != nil || string(set.AMD.Leaf) != string(got[0]) {
		t.Errorf("the leaf is not the chip's: %v", err)
	}
	kds.Close()
	other, err := chipChain(guestapi.SysConfig{CollateralURLs: map[string]any{"amd_kds": kds.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other(t.Context(), ev); cvm.CodeOf(err) != cvm.Unavailable {
		t.Errorf("a service that does not answer: %v", err)
	}
	if none, err := chipChain(guestapi.SysConfig{}); none != nil || err != nil {
		t.Errorf("no service: %v", err)
	}
	if _, err := chipChain(guestapi.SysConfig{CollateralURLs: map[string]any{"amd_kds": "ftp://x"}}); err == nil {
		t.Error("a URL that is none")
	}
}
