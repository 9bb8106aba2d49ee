package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevguest"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

const (
	snpSeed = "0123456789012345678901234567890123456789"
	snpApp  = "abababababababababababababababababababab"
)

// launchOf is the document that an honest host binds a launch to.
func launchOf(t *testing.T, compose string) attest.MRConfig {
	t.Helper()
	d, err := appcompose.Parse([]byte(compose))
	if err != nil {
		t.Fatal(err)
	}
	app, err := cvm.ParseAppID(snpApp)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := hex.DecodeString(snpSeed)
	if err != nil {
		t.Fatal(err)
	}
	m := attest.MRConfig{Version: 3, AppID: snpApp, ComposeHash: d.Hash().String(), KeyProvider: d.Provider(), KeyProviderID: d.KeyProviderID,
		InstanceID: cvm.NewInstanceID(seed, app).String()}
	for _, s := range d.InitScript {
		m.InitScriptHashes = append(m.InitScriptHashes, fmt.Sprintf("%x", sha256.Sum256([]byte(s))))
	}
	return m
}

// newSNPFixture boots on a simulated SEV-SNP machine that was launched for one document
// and hands another one over.
func newSNPFixture(t *testing.T, hw *simtee.AMD, compose string, launched attest.MRConfig, handed string) *fixture {
	t.Helper()
	f := newFixture(t, compose, guestapi.InstanceInfo{AppID: snpApp, Seed: snpSeed})
	digest, _, err := measure.ContainerSNP(vmConfig)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := launched.Document()
	if err != nil {
		t.Fatal(err)
	}
	if handed == "" {
		handed = doc
	}
	guest := hw.Launch(simtee.SNPShape{Measurement: digest, HostData: attest.HostData(doc)})
	if f.rec, err = NewSNPRecorder(sevguest.New(guest), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	f.deps.Events = f.rec
	read := f.deps.Read
	f.deps.Read = func() (*Shared, error) {
		s, err := read()
		if err == nil {
			s.Sys.MRConfig = handed
		}
		return s, err
	}
	return f
}

func amdMachine(t *testing.T) *simtee.AMD {
	t.Helper()
	hw, err := simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return hw
}

// A boot on SEV-SNP ends in evidence that the production verifier accepts under a policy
// that names SEV-SNP; what it claims is the document's, and no phase.
func TestBootOnSNP(t *testing.T) {
	hw := amdMachine(t)
	f := newSNPFixture(t, hw, kmsApp, launchOf(t, kmsApp), "")
	s, err := Run(t.Context(), f.deps)
	if err != nil {
		t.Fatal(err)
	}
	if s.InstanceID.String() != launchOf(t, kmsApp).InstanceID {
		t.Errorf("instance %s", s.InstanceID)
	}
	rd, now := [64]byte{1}, time.Now()
	ev, err := f.rec.Evidence(t.Context(), rd)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ev.Marshal()
	if err != nil || b[0] != 0 || b[1] != 3 {
		t.Fatalf("not SCALE V0 of AmdSevSnp: % x, %v", b[:2], err)
	}
	set, err := hw.Collateral(now)
	if err != nil {
		t.Fatal(err)
	}
	policy := attest.Policy{
		Roots: []attest.Root{attest.SimulatedRoot(hw.RootSPKI())}, TCBStatus: []string{sevsnp.UpToDate}, ReportData: &rd, Phases: []claim.Phase{claim.PhaseUnproven},
		Image: measure.Policy{Variants: []string{measure.VariantContainer}},
		SNP:   attest.SNPPolicy{Admit: true, Products: []string{sevsnp.Milan}, MinTCB: map[string]sevsnp.TCB{sevsnp.Milan: {SNP: 1}}},
	}
	v, _, err := attest.Verify(ev, set, policy, now)
	if err != nil {
		t.Fatal(err)
	}
	c := v.Claims()
	if c.AppID != s.AppID || c.InstanceID != s.InstanceID || c.ComposeHash != s.App.Hash() || c.Phase != claim.PhaseUnproven || c.Platform != cvm.PlatformSimulated || string(c.KeyProvider) != string(s.KeyProvider) {
		t.Errorf("claims %+v", c)
	}
	if want, err := measure.ParseVMConfig(vmConfig); err != nil || c.OSImageHash != want.OSImageHash {
		t.Errorf("image %s", c.OSImageHash)
	}
	log, err := os.ReadFile(filepath.Join(f.rec.dir, runtimeLog))
	if err != nil || len(f.rec.Events()) == 0 || strings.Count(string(log), `"unbound":true`) != len(f.rec.Events()) {
		t.Errorf("the log does not say that nothing binds it: %s %v", log, err)
	}
	policy.Image.Variants = nil
	if _, _, err := attest.Verify(ev, set, policy, now); err == nil {
		t.Error("the container variant was admitted without a policy that names it")
	}
}

// A host that hands over anything else than what it launched the machine for gets no boot:
// no event, no key request, no container.
func TestSNPRefusesAnotherLaunch(t *testing.T) {
	hw, good := amdMachine(t), launchOf(t, kmsApp)
	other := strings.Replace(kmsApp, `"services: {}"`, `"services: {evil: {image: x}}"`, 1)
	with := func(edit func(*attest.MRConfig)) attest.MRConfig {
		m := good
		edit(&m)
		return m
	}
	doc, err := good.Document()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		compose  string
		launched attest.MRConfig
		handed   string
		words    string
	}{
		"another app-compose":        {other, good, "", "compose hash"},
		"another document":           {other, good, document(t, launchOf(t, other)), "HOST_DATA"},
		"no document":                {kmsApp, good, "none", "handed over"},
		"launched for another app":   {kmsApp, with(func(m *attest.MRConfig) { m.AppID = strings.Repeat("cd", 20) }), "", "app id"},
		"launched for compose's app": {kmsApp, with(func(m *attest.MRConfig) { m.AppID = "" }), "", "app id"},
		"another instance":           {kmsApp, with(func(m *attest.MRConfig) { m.InstanceID = strings.Repeat("cd", 20) }), "", "instance id"},
		"no instance":                {kmsApp, with(func(m *attest.MRConfig) { m.InstanceID = "" }), "", "instance id"},
		"another key provider":       {kmsApp, with(func(m *attest.MRConfig) { m.KeyProvider = "none" }), "", "key provider"},
		"another KMS":                {kmsApp, with(func(m *attest.MRConfig) { m.KeyProviderID = "3060" }), "", "key provider id"},
		"any KMS":                    {kmsApp, with(func(m *attest.MRConfig) { m.KeyProviderID = "" }), "", "key provider id"},
		"other init scripts":         {kmsApp, with(func(m *attest.MRConfig) { m.InitScriptHashes = []string{strings.Repeat("cd", 32)} }), "", "init scripts"},
		"another GPU policy":         {kmsApp, with(func(m *attest.MRConfig) { m.GPUPolicyHash = strings.Repeat("cd", 32) }), "", "GPU policy"},
		"launched for nothing":       {kmsApp, attest.MRConfig{Version: 3, ComposeHash: strings.Repeat("00", 32), KeyProvider: "none"}, doc, "HOST_DATA"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newSNPFixture(t, hw, tc.compose, tc.launched, tc.handed)
			if tc.handed == "none" {
				read := f.deps.Read
				f.deps.Read = func() (*Shared, error) { s, err := read(); s.Sys.MRConfig = nil; return s, err }
			}
			_, err := Run(t.Context(), f.deps)
			if cvm.ReasonOf(err) != ReasonLaunch || !strings.Contains(err.Error(), tc.words) {
				t.Fatalf("%v (%s), want %s and %q", err, cvm.ReasonOf(err), ReasonLaunch, tc.words)
			}
			if len(f.calls) != 0 || len(f.rec.Events()) != 0 || f.host.last("instance.info") != "" {
				t.Errorf("it went on: %q, events %v", f.calls, f.rec.Events())
			}
			if _, err := f.rec.Evidence(t.Context(), [64]byte{}); cvm.ReasonOf(err) != ReasonLaunch {
				t.Errorf("evidence of a launch that was refused: %v", err)
			}
		})
	}
}

func document(t *testing.T, m attest.MRConfig) string {
	t.Helper()
	doc, err := m.Document()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// bareHost offers no certificates with reports, as most hosts do.
type bareHost struct{ SNP }

func (b bareHost) Report(ctx context.Context, rd [64]byte) ([]byte, [][]byte, error) {
	report, _, err := b.SNP.Report(ctx, rd)
	return report, nil, err
}

// Certificates that the host does not offer are asked for where somebody gives them; when
// they do not come, there is no evidence that would only be refused.
func TestSNPCertificates(t *testing.T) {
	f := newSNPFixture(t, amdMachine(t), kmsApp, launchOf(t, kmsApp), "")
	f.rec.snp = bareHost{f.rec.snp}
	if _, err := Run(t.Context(), f.deps); err != nil {
		t.Fatal(err)
	}
	if ev, err := f.rec.Evidence(t.Context(), [64]byte{}); err != nil || ev.CertChain != nil {
		t.Errorf("nobody to ask: %v", err)
	}
	f.rec.Chain(func(_ context.Context, ev attest.Evidence) ([][]byte, error) { return [][]byte{ev.Report[:1]}, nil })
	if ev, err := f.rec.Evidence(t.Context(), [64]byte{}); err != nil || len(ev.CertChain) != 1 {
		t.Errorf("%d certificates: %v", len(ev.CertChain), err)
	}
	f.rec.Chain(func(context.Context, attest.Evidence) ([][]byte, error) { return nil, errors.New("nobody answers") })
	if _, err := f.rec.Evidence(t.Context(), [64]byte{}); cvm.ReasonOf(err) != "collateral-unavailable" {
		t.Errorf("a service that does not answer: %v", err)
	}
}
