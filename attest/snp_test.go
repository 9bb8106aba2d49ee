package attest_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

var (
	snpAt     = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	snpVendor = sync.OnceValues(func() (*simtee.AMD, error) {
		return simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32), Clock: func() time.Time { return snpAt }})
	})
	snpImage  = cvm.ImageHash{7}
	snpDigest = cvm.Measurement{1, 2, 3}
)

// snpScene is genuine (simulated) SEV-SNP evidence and a policy that admits it.
type snpScene struct {
	cfg    simtee.AMDConfig
	launch simtee.Launch
	policy attest.Policy
	ev     attest.Evidence
	set    collateral.Set
	at     time.Time
}

// newSNPScene builds the scene: config changes what the vendor makes, edit changes
// what the verifier is given.
func newSNPScene(t testing.TB, config func(*simtee.AMDConfig, *simtee.Launch), edit func(*snpScene)) *snpScene {
	t.Helper()
	vendor, err := snpVendor()
	if err != nil {
		t.Fatal(err)
	}
	s := &snpScene{at: snpAt, launch: simtee.Launch{Measurement: snpDigest, Config: attest.MRConfig{
		AppID: fmt.Sprintf("%040x", 0xa1), ComposeHash: fmt.Sprintf("%064x", 0xc0), InstanceID: fmt.Sprintf("%040x", 0x1d), KeyProvider: "kms", KeyProviderID: "3059", Version: 3}}}
	machine, err := vendor.With(func(c *simtee.AMDConfig) {
		if config != nil {
			config(c, &s.launch)
		}
		s.cfg = *c
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.ev, err = machine.Evidence(s.launch, [64]byte{9}); err != nil {
		t.Fatal(err)
	}
	if s.set, err = machine.Collateral(s.at); err != nil {
		t.Fatal(err)
	}
	product := s.cfg.Product
	if product == "" {
		product = sevsnp.Milan
	}
	s.policy = attest.Policy{
		Roots: []attest.Root{attest.SimulatedRoot(machine.RootSPKI())}, TCBStatus: []string{sevsnp.UpToDate}, ReportData: &[64]byte{9},
		Phases: []claim.Phase{claim.PhaseUnproven},
		SNP: attest.SNPPolicy{Admit: true, Products: []string{product}, MinTCB: map[string]sevsnp.TCB{product: simtee.DefaultTCB(product)},
			Measure: measure.SNPPolicy{Digests: map[cvm.Measurement]cvm.ImageHash{snpDigest: snpImage}}},
	}
	if edit != nil {
		edit(s)
	}
	return s
}

func (s *snpScene) verify() (attest.Verified, []claim.Check, error) {
	return attest.Verify(s.ev, s.set, s.policy, s.at)
}

func TestSNPAccepts(t *testing.T) {
	for _, product := range sevsnp.Products() {
		for version := uint32(2); version <= 5; version++ {
			for _, csp := range []string{"", "example-cloud"} {
				t.Run(fmt.Sprintf("%s v%d %s", product, version, csp), func(t *testing.T) {
					s := newSNPScene(t, func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Product, c.Version, c.VLEK = product, version, csp }, func(s *snpScene) {
						if csp != "" {
							s.policy.SNP.CSPs = []string{csp}
						}
					})
					v, checks, err := s.verify()
					if err != nil {
						t.Fatal(err)
					}
					if len(checks) != len(claim.For(cvm.VariantSNP)) {
						t.Errorf("%d checks", len(checks))
					}
					c := v.Claims()
					want := fmt.Sprintf("%s v%d", product, version)
					if got := fmt.Sprintf("%s v%d", c.SNP.Product, c.SNP.Version); got != want || c.Platform != cvm.PlatformSimulated || c.Variant != cvm.VariantSNP {
						t.Errorf("%s on %s: %+v", got, c.Platform, c.SNP)
					}
					if c.Phase != claim.PhaseUnproven || c.OSImageHash != snpImage || c.TCB.Status != sevsnp.UpToDate || c.Debug ||
						c.AppID.String() != s.launch.Config.AppID || c.ComposeHash.String() != s.launch.Config.ComposeHash ||
						string(c.KeyProvider) != `{"name":"kms","id":"3059"}` || c.DeviceID == (cvm.DeviceID{}) || !c.Expires.After(s.at) {
						b, _ := json.Marshal(c)
						t.Errorf("claims: %s", b)
					}
				})
			}
		}
	}
}


