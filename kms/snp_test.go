package kms

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

func amdMachine(t *testing.T, seed byte) *simtee.AMD {
	t.Helper()
	a, err := simtee.NewAMD(simtee.AMDConfig{Seed: bytes.Repeat([]byte{seed}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// snpRelease asks for an allowed app's keys with a SEV-SNP guest's evidence, bound as
// it must be.
func (c *cluster) snpRelease(t *testing.T, hw *simtee.AMD, spoil func(*attest.Evidence)) error {
	t.Helper()
	g := c.guest(composeOf(t, appcompose.Document{Name: "plain"}))
	r := g.request(nil)
	ev, err := hw.Evidence(simtee.Launch{Config: attest.MRConfig{Version: 3, AppID: strings.Repeat("01", 20), ComposeHash: hashHex(g.compose), KeyProvider: "kms"}, VMConfig: "{}"},
		kmsapi.ReportDataRelease(r.Nonce, g.spki, r.Context))
	if err != nil {
		t.Fatal(err)
	}
	if spoil != nil {
		spoil(&ev)
	}
	if r.Attestation, err = ev.Marshal(); err != nil {
		t.Fatal(err)
	}
	_, err = g.client.Release(context.Background(), r)
	return err
}

// (Helper C: docs/design/006-sev-snp.md is how keys are to be released to SNP guests:
// once per REPORT_ID. Read it, change this test accordingly, delete this line.)
//
// SEV-SNP proves no phase of the boot: no key is released to it, and the refusal
// says so, whoever made the evidence. Only a vendor's gets a leaf.
func TestSNPIsRefusedByPhase(t *testing.T) {
	amd, strange := amdMachine(t, 1), amdMachine(t, 2)
	c := newCluster(t, 1)
	restart := func(change func(*Config)) {
		c.halt(0)
		change(&c.nodes[0].cfg)
		c.start(0)
		c.await(0)
	}
	root := amd.RootSPKI()
	restart(func(cfg *Config) {
		cfg.Attestation.SimulatedRoots = append(cfg.Attestation.SimulatedRoots, hex.EncodeToString(root[:]))
	})
	judge := func(t *testing.T) {
		for _, tc := range []struct {
			name, reason string
			hw           *simtee.AMD
			leaf         bool
			spoil        func(*attest.Evidence)
		}{
			{"genuine", kmsapi.ReasonPhase, amd, true, nil},
			{"without certificates", kmsapi.ReasonPhase, amd, false, func(e *attest.Evidence) { e.CertChain = nil }},
			{"forged", kmsapi.ReasonPhase, amd, false, func(e *attest.Evidence) { e.Report[0x90] ^= 1 }},
			{"of another vendor", kmsapi.ReasonRoot, strange, false, nil},
			{"for another request", kmsapi.ReasonBinding, amd, true, func(e *attest.Evidence) { e.ReportData[0] ^= 1 }},
		} {
			before := c.nodes[0].machine.Size()
			err := c.snpRelease(t, tc.hw, tc.spoil)
			if cvm.CodeOf(err) != cvm.Denied || cvm.ReasonOf(err) != tc.reason || !strings.Contains(err.Error(), claim.PhaseCheck) {
				t.Errorf("%s: %v (%s), want %s", tc.name, err, cvm.ReasonOf(err), tc.reason)
			}
			l := c.lastLeaf()
			if got := c.nodes[0].machine.Size() > before && l.Kind == ledger.KindDeny && l.Reason == tc.reason; got != tc.leaf {
				t.Errorf("%s: a leaf: %v, want %v (%+v)", tc.name, got, tc.leaf, l)
			}
		}
	}
	judge(t)
	// With AMD's service the judgement rests on its list, and the reason is the same.
	kds, pcs := httptest.NewServer(amd.Handler()), httptest.NewServer(c.hw.Handler())
	t.Cleanup(kds.Close)
	t.Cleanup(pcs.Close)
	restart(func(cfg *Config) {
		cfg.Collateral, cfg.CollateralURLs, cfg.KDSURLs = nil, []string{pcs.URL}, []string{kds.URL}
		cfg.Fetch.Cache = "none"
	})
	t.Run("KDS", judge)
}
