package attest_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
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

// What a policy may admit on top of the strictest.
func TestSNPPolicyAdmits(t *testing.T) {
	low := simtee.DefaultTCB(sevsnp.Milan)
	low.SNP--
	key := cvm.Measurement{5}
	for _, tc := range []snpRefusal{
		{"masked chip id", report(func(r *sevsnp.Report) { r.ChipID = [64]byte{} }), snpPolicy(func(p *attest.SNPPolicy) { p.AnyMaskedChip = true }), true, nil},
		{"provisional firmware above the minimum", report(func(r *sevsnp.Report) { r.CommittedTCB = low.Value(sevsnp.Milan); r.Committed.Build-- }),
			snpPolicy(func(p *attest.SNPPolicy) { p.AnyProvisional, p.MinTCB = true, map[string]sevsnp.TCB{sevsnp.Milan: low} }), true, nil},
		{"out of date, admitted", report(func(r *sevsnp.Report) { r.LaunchTCB = low.Value(sevsnp.Milan) }), func(s *snpScene) { s.policy.TCBStatus = []string{sevsnp.OutOfDate} }, true, nil},
		{"SMT", func(c *simtee.AMDConfig, l *simtee.Launch) {
			l.Policy = simtee.DefaultGuestPolicy | sevsnp.GuestSMT | sevsnp.GuestSingleSocket
			c.Faults.Report = func(r *sevsnp.Report) { r.PlatformInfo |= sevsnp.PlatformSMT }
		}, guest(func(g *sevsnp.Guest) {
			g.Allow, g.Require, g.PlatformAllow, g.PlatformRequire = []string{"smt"}, []string{"single-socket"}, []string{"smt"}, []string{"tsme", "ecc"}
		}), true, nil},
		{"VMPL 2", report(func(r *sevsnp.Report) { r.VMPL = 2 }), guest(func(g *sevsnp.Guest) { g.VMPL = 2 }), true, nil},
		{"ID block", report(func(r *sevsnp.Report) {
			r.IDKeyDigest, r.AuthorKeyDigest, r.AuthorKey, r.GuestSVN = key, key, true, 3
		}), guest(func(g *sevsnp.Guest) {
			g.IDKeys, g.AuthorKeys, g.MinSVN = []cvm.Measurement{key}, []cvm.Measurement{key}, 3
		}), true, nil},
		{"mitigations", func(c *simtee.AMDConfig, _ *simtee.Launch) {
			c.Version, c.Faults.Report = 5, func(r *sevsnp.Report) { r.LaunchMit, r.CurrentMit = 3, 7 }
		}, guest(func(g *sevsnp.Guest) { g.LaunchMitigations, g.CurrentMitigations = 1, 6 }), true, nil},
		{"list as new as the floor", nil, func(s *snpScene) { s.policy.Floor, _ = crlMark(s.set) }, true, nil},
		{"no app id: the compose hash's", func(_ *simtee.AMDConfig, l *simtee.Launch) { l.Config.AppID = "" }, nil, true, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSNPScene(t, tc.config, tc.edit)
			v, _, err := s.verify()
			if err != nil {
				t.Fatal(err)
			}
			c := v.Claims()
			if want := s.launch.Config.ComposeHash[:40]; s.launch.Config.AppID == "" && c.AppID.String() != want {
				t.Errorf("app %s, want %s", c.AppID, want)
			}
			if vendor, _ := snpVendor(); c.DeviceID != vendor.DeviceID() {
				t.Error("a VCEK names its chip, masked or not")
			}
		})
	}
}

// The JSON form of a policy says the same about SEV-SNP.
func TestSNPPolicyDocument(t *testing.T) {
	s := newSNPScene(t, nil, guest(func(g *sevsnp.Guest) {
		g.IDKeys, g.Require, g.MinFirmware = []cvm.Measurement{{5}}, []string{"single-socket"}, sevsnp.Firmware{Major: 1, Minor: 55}
	}))
	text, err := json.Marshal(s.policy)
	if err != nil {
		t.Fatal(err)
	}
	again, err := attest.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.SNP, s.policy.SNP) {
		t.Errorf("%+v became %+v", s.policy.SNP, again.SNP)
	}
	for _, bad := range []string{`{"snp":{"admitted":true}}`, `{"snp":{"admit":true,"Admit":true}}`, `{"snp":{"guest":{"vmpls":1}}}`, `{"snp":{"min_tcb":{"Milan":{"spl":1}}}}`} {
		if _, err := attest.ParsePolicy([]byte(bad)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// An image that was withdrawn is refused, however the launch digest names it.
func TestSNPWithdrawnImage(t *testing.T) {
	s := newSNPScene(t, nil, func(s *snpScene) { s.policy.Image.Withdrawn = []cvm.ImageHash{snpImage} })
	_, _, err := s.verify()
	rejected(t, err, true, claim.ImageMeasurement)
}

// A masked chip under a VLEK is no device at all: no two hosts are told apart.
func TestSNPMaskedProviderKeyIsNoDevice(t *testing.T) {
	s := newSNPScene(t, func(c *simtee.AMDConfig, _ *simtee.Launch) {
		c.VLEK, c.Faults.Report = "example-cloud", func(r *sevsnp.Report) { r.ChipID = [64]byte{} }
	}, snpPolicy(func(p *attest.SNPPolicy) { p.AnyMaskedChip, p.CSPs = true, []string{"example-cloud"} }))
	v, _, err := s.verify()
	if err != nil {
		t.Fatal(err)
	}
	if v.Claims().DeviceID != (cvm.DeviceID{}) {
		t.Error("a masked chip has a device id")
	}
}

// The evidence survives both encodings.
func TestSNPEvidenceEncodes(t *testing.T) {
	s := newSNPScene(t, nil, nil)
	for _, enc := range []attest.Encoding{attest.EncodingV0, attest.EncodingV1} {
		s.ev.Encoding = enc
		b, err := s.ev.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		ev, err := attest.ParseEvidence(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := attest.Verify(ev, s.set, s.policy, s.at); err != nil {
			t.Error(err)
		}
	}
}

// An image is bound through the document in vm_config as well.
func TestSNPImageFromDocument(t *testing.T) {
	shape := measure.SNPShape{VCPUs: 2, VCPUType: "EPYC-v4", Features: 1}
	config, digest := snpVMConfig(t, shape)
	config2 := func(_ *simtee.AMDConfig, l *simtee.Launch) { l.VMConfig, l.Measurement = config, digest }
	document := snpPolicy(func(p *attest.SNPPolicy) { p.Measure = measure.SNPPolicy{Document: true} })
	s := newSNPScene(t, config2, document)
	v, _, err := s.verify()
	if err != nil {
		t.Fatal(err)
	}
	if c := v.Claims(); c.OSImageHash == (cvm.ImageHash{}) || c.VMConfig != config {
		t.Errorf("image %s", c.OSImageHash)
	}
	shape.VCPUs = 3
	s.ev.Config, _ = snpVMConfig(t, shape)
	if _, _, err = s.verify(); err == nil {
		t.Fatal("accepted")
	}
	rejected(t, err, true, claim.ImageMeasurement)
}

// The container driver's launch digest, which anybody can compute, counts for the
// simulated platform and under a policy that names the variant.
func TestSNPContainerVariant(t *testing.T) {
	const config = `{"os_image_hash":"0700000000000000000000000000000000000000000000000000000000000000","cpu_count":2,"memory_size":1073741824,"tdx_attestation_variant":"container"}`
	digest, image, err := measure.ContainerSNP(config)
	if err != nil {
		t.Fatal(err)
	}
	launch := func(_ *simtee.AMDConfig, l *simtee.Launch) { l.VMConfig, l.Measurement = config, digest }
	admit := func(s *snpScene) { s.policy.Image.Variants = []string{measure.VariantContainer} }
	v, _, err := newSNPScene(t, launch, admit).verify()
	if err != nil || v.Claims().OSImageHash != image {
		t.Fatalf("%v", err)
	}
	for name, edit := range map[string]func(*snpScene){
		"a policy without the variant": func(s *snpScene) { s.policy.Image.Variants = []string{measure.VariantLite} },
		"another platform":             func(s *snpScene) { admit(s); s.policy.Roots[0].Platform = cvm.PlatformCustom },
		"other processors": func(s *snpScene) {
			admit(s)
			s.ev.Config = strings.Replace(config, `"cpu_count":2`, `"cpu_count":4`, 1)
		},
		"another image":     func(s *snpScene) { admit(s); s.ev.Config = strings.Replace(config, `"07`, `"08`, 1) },
		"a withdrawn image": func(s *snpScene) { admit(s); s.policy.Image.Withdrawn = []cvm.ImageHash{image} },
		// The digest is on a list of launch digests: that is not how this variant is admitted.
		"a listed digest": func(s *snpScene) { s.policy.SNP.Measure.Digests = map[cvm.Measurement]cvm.ImageHash{digest: image} },
	} {
		_, _, err := newSNPScene(t, launch, edit).verify()
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		rejected(t, err, true, claim.ImageMeasurement)
	}
}

// snpVMConfig is the vm_config of a made-up image, and the launch digest it gives.
func snpVMConfig(t testing.TB, s measure.SNPShape) (string, cvm.Measurement) {
	t.Helper()
	files := measure.SNPFiles{Firmware: sample.SEVFirmware(), Kernel: []byte("kernel"), Initrd: []byte("initrd"), Cmdline: "console=ttyS0"}
	doc, err := files.Document()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(doc)
	list := fmt.Appendf(nil, "%x  measurement.snp.cbor\n", sum)
	inner, err := json.Marshal(map[string]any{"checksum_file": list, "measurement": doc, "vcpus": s.VCPUs, "vcpu_type": s.VCPUType, "guest_features": s.Features})
	if err != nil {
		t.Fatal(err)
	}
	outer, err := json.Marshal(map[string]any{"os_image_hash": fmt.Sprintf("%x", sha256.Sum256(list)), "sev_snp_measurement": string(inner)})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := files.Digest(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(outer), digest
}

func FuzzMRConfig(f *testing.F) {
	f.Add(`{"compose_hash":"` + fmt.Sprintf("%064x", 1) + `","key_provider":"none","version":3}`)
	s := newSNPScene(f, nil, nil)
	f.Add(s.ev.MRConfig)
	f.Fuzz(func(t *testing.T, doc string) {
		m, err := attest.ParseMRConfig(doc)
		if err != nil {
			return
		}
		if again, err := m.Document(); err != nil || again != doc {
			t.Errorf("%q became %q: %v", doc, again, err)
		}
	})
}
