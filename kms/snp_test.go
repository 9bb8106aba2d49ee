package kms

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
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

// SEV-SNP proves no phase of the boot: without a policy that names it no key is released
// to it, and the refusal says so, whoever made the evidence. Only a vendor's gets a leaf.
func TestSNPIsRefusedWithoutAPolicy(t *testing.T) {
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
			if tc.leaf && l.AppID != strings.Repeat("01", 20) {
				t.Errorf("%s: the leaf is of app %s", tc.name, l.AppID)
			}
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

// snpCluster is a cluster that admits SEV-SNP guests of a simulated machine.
func snpCluster(t *testing.T, hw *simtee.AMD) *cluster {
	t.Helper()
	c := newCluster(t, 1)
	kds, pcs := httptest.NewServer(hw.Handler()), httptest.NewServer(c.hw.Handler())
	t.Cleanup(kds.Close)
	t.Cleanup(pcs.Close)
	c.halt(0)
	cfg, root := &c.nodes[0].cfg, hw.RootSPKI()
	cfg.Attestation.SimulatedRoots = append(cfg.Attestation.SimulatedRoots, hex.EncodeToString(root[:]))
	cfg.Attestation.SNP = &attest.SNPPolicy{Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: {SNP: 1}}}
	cfg.Collateral, cfg.CollateralURLs, cfg.KDSURLs = nil, []string{pcs.URL}, []string{kds.URL}
	cfg.Fetch.Cache = "none"
	c.start(0)
	c.await(0)
	return c
}

// snpMachine is a launch on a simulated SEV-SNP machine and what runs in it.
type snpMachine struct {
	t      *testing.T
	device *sevguest.Device
	doc    string
	who    *guest
}

// launched starts a machine for an allowed app.
func (c *cluster) launched(t *testing.T, hw *simtee.AMD, compose []byte, provider string) *snpMachine {
	t.Helper()
	m := &snpMachine{t: t, who: c.guest(compose)}
	var err error
	m.doc, err = attest.MRConfig{Version: 3, AppID: strings.Repeat("01", 20), ComposeHash: hashHex(compose), InstanceID: strings.Repeat("02", 20), KeyProvider: provider}.Document()
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := measure.ContainerSNP(testVMConfig)
	if err != nil {
		t.Fatal(err)
	}
	m.device = sevguest.New(hw.Launch(simtee.SNPShape{Measurement: digest, HostData: attest.HostData(m.doc)}))
	return m
}

// proves is evidence of this launch over report data, which anything in it may ask for.
func (m *snpMachine) proves(rd [64]byte) []byte {
	m.t.Helper()
	report, certs, err := m.device.Report(m.t.Context(), rd)
	if err != nil {
		m.t.Fatal(err)
	}
	raw, err := attest.Evidence{Variant: cvm.VariantSNP, Report: report, CertChain: certs, MRConfig: m.doc, ReportData: rd, Config: testVMConfig}.Marshal()
	if err != nil {
		m.t.Fatal(err)
	}
	return raw
}

// release asks for keys with the TLS key of who.
func (m *snpMachine) release(who *guest) (kmsapi.Release, error) {
	r := who.request(nil)
	r.Attestation = m.proves(kmsapi.ReportDataRelease(r.Nonce, who.spki, r.Context))
	return who.client.Release(m.t.Context(), r)
}

func (m *snpMachine) renew(who *guest, lease string) error {
	m.t.Helper()
	n, err := who.client.Nonce(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = who.client.Renew(m.t.Context(), kmsapi.RenewRequest{LeaseID: lease, Nonce: n.Nonce, Attestation: m.proves(kmsapi.ReportDataRenew(n.Nonce, who.spki, lease))})
	return err
}

// Under a policy that names SEV-SNP keys are released once per launch: to the boot, which
// asks first, and to nothing that runs afterwards.
func TestSNPOncePerLaunch(t *testing.T) {
	hw := amdMachine(t, 1)
	c := snpCluster(t, hw)
	compose := composeOf(t, appcompose.Document{Name: "plain"})
	m := c.launched(t, hw, compose, appcompose.ProviderKMS)
	first, err := m.release(m.who)
	if err != nil {
		t.Fatal(err)
	}
	l := c.lastLeaf()
	if l.Kind != ledger.KindAllow || l.Platform != string(cvm.PlatformSimulated) || !strings.Contains(string(l.Note), string(claim.PhaseUnproven)) || l.InstanceID != strings.Repeat("02", 20) {
		t.Errorf("leaf %+v", l)
	}
	if err := m.renew(m.who, first.Lease.ID); err != nil {
		t.Errorf("renewal: %v", err)
	}
	again, err := m.release(m.who) // its answer was lost
	if err != nil || again.AppID != first.AppID {
		t.Errorf("the same key again: %v", err)
	}
	thief := c.guest(compose)
	if _, err := m.release(thief); cvm.ReasonOf(err) != kmsapi.ReasonLaunchRedeemed {
		t.Errorf("another key in the same launch: %v", err)
	}
	if l := c.lastLeaf(); l.Kind != ledger.KindDeny || l.Reason != kmsapi.ReasonLaunchRedeemed {
		t.Errorf("leaf %+v", l)
	}
	next := c.launched(t, hw, compose, appcompose.ProviderKMS)
	if err := next.renew(m.who, again.Lease.ID); cvm.ReasonOf(err) != kmsapi.ReasonLeaseUnknown {
		t.Errorf("a renewal from another launch: %v", err)
	}
	if _, err := next.release(next.who); err != nil {
		t.Errorf("the next launch: %v", err)
	}
	for _, provider := range []string{"none", "local"} {
		bare := c.launched(t, hw, compose, provider)
		if _, err := bare.release(bare.who); cvm.ReasonOf(err) != kmsapi.ReasonPhase {
			t.Errorf("a launch with key provider %s: %v", provider, err)
		}
	}
	if _, err := c.launched(t, amdMachine(t, 2), compose, appcompose.ProviderKMS).release(c.guest(compose)); cvm.ReasonOf(err) != kmsapi.ReasonRoot {
		t.Errorf("another vendor: %v", err)
	}
}

// A SEV-SNP guest is no member of the KMS, whatever the policy for guests says.
func TestSNPIsNoMember(t *testing.T) {
	hw := amdMachine(t, 1)
	c := snpCluster(t, hw)
	m := c.launched(t, hw, composeOf(t, appcompose.Document{Name: "plain"}), appcompose.ProviderKMS)
	rd := [64]byte{1}
	ev, err := attest.ParseEvidence(m.proves(rd))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes[0].judge(t.Context(), ev, rd, claim.PhaseRunning); err != nil {
		t.Fatalf("as a guest: %v", err)
	}
	if _, err := c.nodes[0].believePeer(t.Context(), ev, rd); cvm.ReasonOf(err) != kmsapi.ReasonPhase {
		t.Errorf("as a member: %v", err)
	}
}

// A configuration that admits SEV-SNP by halves is refused.
func TestSNPConfig(t *testing.T) {
	c := newCluster(t, 1)
	good := c.nodes[0].cfg
	good.Attestation.SNP, good.KDSURLs, good.Collateral = &attest.SNPPolicy{
		Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: {SNP: 8, Microcode: 9}}, Guest: sevsnp.Guest{Allow: []string{"smt"}},
		Measure: measure.SNPPolicy{Document: true, Digests: map[cvm.Measurement]cvm.ImageHash{{1}: {2}}},
	}, []string{"http://127.0.0.1:1"}, nil
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"products": func(c *Config) { c.Attestation.SNP = &attest.SNPPolicy{Admit: true} },
		"kds_urls": func(c *Config) { c.KDSURLs = nil },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := &File{KMS: good}
	b, err := toml.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var again File
	if err := toml.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(again.KMS.Attestation.SNP, good.Attestation.SNP) {
		t.Errorf("the file %s: %+v %v", b, again.KMS.Attestation.SNP, err)
	}
}
