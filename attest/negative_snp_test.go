package attest_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
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

// snpRefusal is a case of items 53 to 59 of the negative list; exactly the named
// checks fail.
type snpRefusal struct {
	name    string
	config  func(*simtee.AMDConfig, *simtee.Launch)
	edit    func(*snpScene)
	genuine bool
	checks  []string
}

func report(edit func(*sevsnp.Report)) func(*simtee.AMDConfig, *simtee.Launch) {
	return func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Faults.Report = edit }
}

func amdFaults(f simtee.AMDFaults) func(*simtee.AMDConfig, *simtee.Launch) {
	return func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Faults = f }
}

func snpPolicy(edit func(*attest.SNPPolicy)) func(*snpScene) {
	return func(s *snpScene) { edit(&s.policy.SNP) }
}

func guest(edit func(*sevsnp.Guest)) func(*snpScene) {
	return func(s *snpScene) { edit(&s.policy.SNP.Guest) }
}

func TestNegativeSNP(t *testing.T) {
	for _, group := range [][]snpRefusal{snpGuestRefusals(), snpChipRefusals(), snpVendorRefusals(), snpChainRefusals(), snpBindingRefusals(), snpPolicyRefusals()} {
		for _, tc := range group {
			t.Run(tc.name, func(t *testing.T) {
				v, _, err := newSNPScene(t, tc.config, tc.edit).verify()
				if v.Valid() {
					t.Fatal("accepted")
				}
				rejected(t, err, tc.genuine, tc.checks...)
			})
		}
	}
}

// 53, 58, 59: what the VM was launched with.
func snpGuestRefusals() []snpRefusal {
	bit := func(p sevsnp.GuestPolicy) func(*simtee.AMDConfig, *simtee.Launch) {
		return func(_ *simtee.AMDConfig, l *simtee.Launch) { l.Policy = simtee.DefaultGuestPolicy ^ p }
	}
	key := cvm.Measurement{5}
	block := report(func(r *sevsnp.Report) { r.IDKeyDigest = key })
	author := report(func(r *sevsnp.Report) { r.IDKeyDigest, r.AuthorKeyDigest, r.AuthorKey = key, key, true })
	return []snpRefusal{
		{"53 debug", bit(sevsnp.GuestDebug), nil, true, []string{claim.SNPDebug}},
		{"53 migration agent", bit(sevsnp.GuestMigrationAgent), nil, true, []string{claim.SNPGuest}},
		{"53 SMT that the policy does not allow", bit(sevsnp.GuestSMT), nil, true, []string{claim.SNPGuest}},
		{"53 CXL that the policy does not allow", bit(sevsnp.GuestCXL), nil, true, []string{claim.SNPGuest}},
		{"53 reserved bit 17 clear", bit(1 << 17), nil, true, []string{claim.SNPGuest}},
		{"53 unknown policy bit", bit(1 << 26), nil, true, []string{claim.SNPGuest}},
		{"53 not bound to one socket", nil, guest(func(g *sevsnp.Guest) { g.Require = []string{"single-socket"} }), true, []string{claim.SNPGuest}},
		{"53 ABI minor too old", nil, guest(func(g *sevsnp.Guest) { g.MinABIMajor, g.MinABIMinor = 1, 52 }), true, []string{claim.SNPGuest}},
		{"53 ABI major too old", nil, guest(func(g *sevsnp.Guest) { g.MinABIMajor = 2 }), true, []string{claim.SNPGuest}},
		{"53 the policy allows a bit that nobody knows", nil, guest(func(g *sevsnp.Guest) { g.Allow = []string{"everything"} }), true, []string{claim.SNPGuest}},
		{"53 the policy requires what it can only allow", nil, guest(func(g *sevsnp.Guest) { g.Require = []string{"smt"} }), true, []string{claim.SNPGuest}},
		{"53 VMPL above 0", report(func(r *sevsnp.Report) { r.VMPL = 1 }), nil, true, []string{claim.SNPVMPL}},
		{"53 VMPL of the host", report(func(r *sevsnp.Report) { r.VMPL = 0xffffffff }), guest(func(g *sevsnp.Guest) { g.VMPL = 0xffffffff }), true, []string{claim.SNPVMPL}},
		{"53 VMPL 0 where another is named", nil, guest(func(g *sevsnp.Guest) { g.VMPL = 2 }), true, []string{claim.SNPVMPL}},
		{"53 platform with SMT", report(func(r *sevsnp.Report) { r.PlatformInfo |= sevsnp.PlatformSMT }), nil, true, []string{claim.SNPPlatform}},
		{"53 platform with TIO", report(func(r *sevsnp.Report) { r.PlatformInfo |= sevsnp.PlatformTIO }), nil, true, []string{claim.SNPPlatform}},
		{"53 platform with a reserved bit", report(func(r *sevsnp.Report) { r.PlatformInfo |= 1 << 6 }), nil, true, []string{claim.SNPPlatform}},
		{"53 platform without ciphertext hiding", nil, guest(func(g *sevsnp.Guest) { g.PlatformRequire = []string{"ciphertext-hiding"} }), true, []string{claim.SNPPlatform}},
		{"53 firmware too old", nil, guest(func(g *sevsnp.Guest) { g.MinFirmware = sevsnp.Firmware{Major: 1, Minor: 55, Build: 30} }), true, []string{claim.SNPFirmware}},
		{"53 launch mitigations missing", nil, guest(func(g *sevsnp.Guest) { g.LaunchMitigations = 1 }), true, []string{claim.SNPMitigation}},
		{"53 current mitigations missing", func(c *simtee.AMDConfig, _ *simtee.Launch) {
			c.Version, c.Faults.Report = 5, func(r *sevsnp.Report) { r.LaunchMit, r.CurrentMit = 3, 2 }
		}, guest(func(g *sevsnp.Guest) { g.LaunchMitigations, g.CurrentMitigations = 3, 3 }), true, []string{claim.SNPMitigation}},
		{"58 ID block nobody expects", block, nil, true, []string{claim.SNPIDBlock}},
		{"58 another ID key", block, guest(func(g *sevsnp.Guest) { g.IDKeys = []cvm.Measurement{{6}} }), true, []string{claim.SNPIDBlock}},
		{"58 no ID block where one is expected", nil, guest(func(g *sevsnp.Guest) { g.IDKeys = []cvm.Measurement{{6}} }), true, []string{claim.SNPIDBlock}},
		{"58 author key nobody expects", author, guest(func(g *sevsnp.Guest) { g.IDKeys = []cvm.Measurement{key} }), true, []string{claim.SNPIDBlock}},
		{"58 author key flag without a digest", report(func(r *sevsnp.Report) { r.AuthorKey = true }), nil, true, []string{claim.SNPIDBlock}},
		{"58 the policy names an empty key", nil, guest(func(g *sevsnp.Guest) { g.IDKeys = []cvm.Measurement{{}} }), true, []string{claim.SNPIDBlock}},
		{"58 guest SVN too low", nil, guest(func(g *sevsnp.Guest) { g.MinSVN = 1 }), true, []string{claim.SNPIDBlock}},
	}
}

// 54, 55: which chip, at which TCB.
func snpChipRefusals() []snpRefusal {
	tcb := func(edit func(r *sevsnp.Report, lower uint64)) func(*simtee.AMDConfig, *simtee.Launch) {
		low := simtee.DefaultTCB(sevsnp.Milan)
		low.SNP--
		return report(func(r *sevsnp.Report) { edit(r, low.Value(sevsnp.Milan)) })
	}
	stale := func(s *snpScene) { s.policy.TCBStatus = []string{sevsnp.OutOfDate} }
	least := func(edit func(*sevsnp.TCB)) func(*snpScene) {
		return snpPolicy(func(p *attest.SNPPolicy) {
			min := simtee.DefaultTCB(sevsnp.Milan)
			edit(&min)
			p.MinTCB = map[string]sevsnp.TCB{sevsnp.Milan: min}
		})
	}
	return []snpRefusal{
		{"54 certificate of another chip", amdFaults(simtee.AMDFaults{OtherChip: true}), nil, true, []string{claim.SNPChip}},
		{"54 masked chip id", report(func(r *sevsnp.Report) { r.ChipID = [64]byte{} }), nil, true, []string{claim.SNPChip}},
		{"54 Turin chip id with a tail", func(c *simtee.AMDConfig, _ *simtee.Launch) {
			c.Product, c.Faults.Report = sevsnp.Turin, func(r *sevsnp.Report) { r.ChipID[8] = 1 }
		}, nil, true, []string{claim.SNPChip}},
		{"55 certificate for another TCB", amdFaults(simtee.AMDFaults{OtherTCB: true}), nil, true, []string{claim.SNPTCB}},
		{"55 reserved TCB bytes", report(func(r *sevsnp.Report) { r.LaunchTCB |= 1 << 16 }), nil, true, []string{claim.SNPTCB}},
		{"55 reported above current", tcb(func(r *sevsnp.Report, low uint64) { r.CurrentTCB, r.CommittedTCB = low, low }), nil, true, []string{claim.SNPTCB}},
		{"55 committed above current", report(func(r *sevsnp.Report) { r.CommittedTCB += 1 << 56 }),
			snpPolicy(func(p *attest.SNPPolicy) { p.AnyProvisional = true }), true, []string{claim.SNPTCB}},
		{"55 committed firmware above current", report(func(r *sevsnp.Report) { r.Committed.Build++ }),
			snpPolicy(func(p *attest.SNPPolicy) { p.AnyProvisional = true }), true, []string{claim.SNPTCB}},
		{"55 provisional TCB", tcb(func(r *sevsnp.Report, low uint64) { r.CommittedTCB = low }), nil, true, []string{claim.SNPTCB}},
		{"55 provisional firmware", report(func(r *sevsnp.Report) { r.Committed.Build-- }), nil, true, []string{claim.SNPTCB}},
		{"55 provisional TCB below the minimum", tcb(func(r *sevsnp.Report, low uint64) { r.CommittedTCB = low }),
			snpPolicy(func(p *attest.SNPPolicy) { p.AnyProvisional = true }), true, []string{claim.TCBStatus}},
		{"55 launched below the minimum", tcb(func(r *sevsnp.Report, low uint64) { r.LaunchTCB = low }), nil, true, []string{claim.TCBStatus}},
		{"55 microcode below the minimum", nil, least(func(t *sevsnp.TCB) { t.Microcode++ }), true, []string{claim.TCBStatus}},
		{"55 SNP firmware below the minimum", nil, least(func(t *sevsnp.TCB) { t.SNP++ }), true, []string{claim.TCBStatus}},
		{"55 TEE below the minimum", nil, least(func(t *sevsnp.TCB) { t.TEE++ }), true, []string{claim.TCBStatus}},
		{"55 bootloader below the minimum", nil, least(func(t *sevsnp.TCB) { t.BootLoader++ }), true, []string{claim.TCBStatus}},
		{"55 FMC below the minimum", func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Product = sevsnp.Turin }, snpPolicy(func(p *attest.SNPPolicy) {
			min := simtee.DefaultTCB(sevsnp.Turin)
			min.FMC++
			p.MinTCB = map[string]sevsnp.TCB{sevsnp.Turin: min}
		}), true, []string{claim.TCBStatus}},
		{"55 a status that the policy does not list", nil, stale, true, []string{claim.TCBStatus}},
		{"55 no minimum for this product", nil, snpPolicy(func(p *attest.SNPPolicy) {
			p.MinTCB = map[string]sevsnp.TCB{sevsnp.Genoa: simtee.DefaultTCB(sevsnp.Genoa)}
		}), true, []string{claim.TCBMatch}},
		{"55 an empty minimum", nil, snpPolicy(func(p *attest.SNPPolicy) { p.MinTCB = map[string]sevsnp.TCB{sevsnp.Milan: {}} }), true, []string{claim.TCBMatch}},
	}
}

// 56, 57, 59: revocation, kinds of keys, products.
func snpVendorRefusals() []snpRefusal {
	vlek := func(c *simtee.AMDConfig, _ *simtee.Launch) { c.VLEK = "example-cloud" }
	return []snpRefusal{
		{"56 revoked VCEK", amdFaults(simtee.AMDFaults{RevokeLeaf: true}), nil, true, []string{claim.CRLRevoked}},
		{"56 revoked ASK", amdFaults(simtee.AMDFaults{RevokeASK: true}), nil, true, []string{claim.CRLRevoked}},
		{"56 expired list", amdFaults(simtee.AMDFaults{Expired: true}), nil, true, []string{claim.CRLFresh}},
		{"56 list of the future", amdFaults(simtee.AMDFaults{Future: true}), nil, true, []string{claim.CRLFresh}},
		{"56 list signed by another", amdFaults(simtee.AMDFaults{OtherList: true}), nil, true, []string{claim.CRLFresh}},
		{"56 no list", nil, func(s *snpScene) { s.set.AMD.CRL = nil }, true, []string{claim.CRLFresh}},
		{"56 damaged list", nil, func(s *snpScene) { s.set.AMD.CRL[1]++ }, true, []string{claim.CRLFresh}},
		{"56 no collateral", nil, func(s *snpScene) { s.set.AMD = nil }, false, []string{claim.CollateralParse}},
		{"56 list older than one seen before", nil, func(s *snpScene) {
			marks, err := crlMark(s.set)
			if err != nil {
				panic(err)
			}
			for k, n := range marks {
				marks[k] = new(big.Int).Add(n, big.NewInt(1))
			}
			s.policy.Floor = marks
		}, true, []string{claim.CollateralFloor}},
		{"57 VLEK where a VCEK is required", vlek, nil, true, []string{claim.SNPSigner}},
		{"57 VLEK of another provider", vlek, snpPolicy(func(p *attest.SNPPolicy) { p.CSPs = []string{"another-cloud"} }), true, []string{claim.SNPSigner}},
		{"57 report names a VLEK, certificate of a VCEK", report(func(r *sevsnp.Report) { r.SigningKey = sevsnp.KeyVLEK }), nil, true, []string{claim.SNPSigner}},
		{"57 product that the policy does not name", nil, snpPolicy(func(p *attest.SNPPolicy) { p.Products = []string{sevsnp.Genoa} }), true, []string{claim.SNPProduct}},
		{"57 report of another product", report(func(r *sevsnp.Report) { r.Model = 0x11 }), nil, true, []string{claim.SNPProduct}},
		{"57 report of an unknown product", report(func(r *sevsnp.Report) { r.Family = 0x1b }), nil, true, []string{claim.SNPProduct}},
		{"57 version 2 of a product that the policy does not name", func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Version = 2 },
			snpPolicy(func(p *attest.SNPPolicy) { p.Products = nil }), true, []string{claim.SNPProduct}},
		{"59 signed by key kind NONE", report(func(r *sevsnp.Report) { r.SigningKey = sevsnp.KeyNone }), nil, true, []string{claim.SNPSigner}},
	}
}

func crlMark(s collateral.Set) (collateral.Floor, error) {
	chain, err := collateral.ParseChain(s.AMD.Chain, 2)
	if err != nil {
		return nil, err
	}
	l, err := collateral.ParseCRL(s.AMD.CRL)
	if err != nil {
		return nil, err
	}
	return collateral.MarksOf(chain[1], nil, nil, l), nil
}

// 19, 57 and the certificates.
func snpChainRefusals() []snpRefusal {
	leaf := func(edit func(*x509.Certificate)) func(*simtee.AMDConfig, *simtee.Launch) {
		return amdFaults(simtee.AMDFaults{Leaf: edit})
	}
	ext := func(edit func(e []pkix.Extension) []pkix.Extension) func(*simtee.AMDConfig, *simtee.Launch) {
		return leaf(func(c *x509.Certificate) { c.ExtraExtensions = edit(c.ExtraExtensions) })
	}
	value := func(oid string, v []byte) func(*simtee.AMDConfig, *simtee.Launch) {
		return ext(func(e []pkix.Extension) []pkix.Extension {
			for i := range e {
				if strings.HasSuffix(e[i].Id.String(), "3704.1."+oid) {
					e[i].Value = v
				}
			}
			return e
		})
	}
	amd := func(n ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, n...)
	}
	chain, parse := []string{claim.SNPChain}, []string{claim.CollateralParse}
	return []snpRefusal{
		{"19 root that the policy does not name", nil, func(s *snpScene) { s.policy.Roots[0].SPKI[0] ^= 1 }, false, []string{claim.RootAdmitted}},
		{"19 simulated root called genuine", nil, func(s *snpScene) { s.policy.Roots[0].Platform = cvm.PlatformSEVSNP }, false, []string{claim.RootAdmitted}},
		{"57 leaf expired", leaf(func(c *x509.Certificate) { c.NotAfter = snpAt.Add(-time.Second) }), nil, false, chain},
		{"57 leaf of the future", leaf(func(c *x509.Certificate) { c.NotBefore = snpAt.Add(time.Second) }), nil, false, chain},
		{"57 leaf of another kind", leaf(func(c *x509.Certificate) { c.Subject.CommonName = "SEV-ASK" }), nil, false, parse},
		{"57 leaf of another organization", leaf(func(c *x509.Certificate) { c.Subject.Organization = []string{"Others"} }), nil, false, chain},
		{"57 leaf without product", ext(func(e []pkix.Extension) []pkix.Extension { return e[:len(e)-2] }), nil, false, parse},
		{"57 leaf of another product than its issuer", value("2", []byte("\x16\x08Genoa-B1")), nil, false, chain},
		{"57 leaf of an unknown product", value("2", []byte("\x16\x08Milan-BB")), nil, false, parse},
		{"57 leaf with a product that is no IA5String", value("2", []byte("\x0c\x08Milan-B1")), nil, false, parse},
		{"57 leaf with a reserved level", value("3.5", []byte{2, 1, 1}), nil, false, parse},
		{"57 leaf with a level out of range", value("3.1", []byte{2, 2, 0, 200}), nil, false, parse},
		{"57 leaf with a short chip id", value("4", make([]byte, 63)), nil, false, parse},
		{"57 leaf with an extension twice", ext(func(e []pkix.Extension) []pkix.Extension { return append(e, e[0]) }), nil, false, parse},
		{"57 leaf with a cloud provider", ext(func(e []pkix.Extension) []pkix.Extension {
			return append(e, pkix.Extension{Id: amd(5), Value: []byte("\x16\x01x")})
		}), nil, false, parse},
		{"57 leaf with Turin's level", ext(func(e []pkix.Extension) []pkix.Extension {
			return append(e, pkix.Extension{Id: amd(3, 9), Value: []byte{2, 1, 0}})
		}), nil, false, parse},
		{"57 leaf with a foreign extension", ext(func(e []pkix.Extension) []pkix.Extension {
			return append(e, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}})
		}), nil, false, parse},
		{"57 issuer that is no authority", amdFaults(simtee.AMDFaults{Issuer: func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }}), nil, false, chain},
		{"57 issuer that may issue authorities", amdFaults(simtee.AMDFaults{Issuer: func(c *x509.Certificate) { c.MaxPathLenZero = false }}), nil, false, chain},
		{"57 issuer of another name", amdFaults(simtee.AMDFaults{Issuer: func(c *x509.Certificate) { c.Subject.CommonName = "SEV-Genoa" }}), nil, false, chain},
		{"57 root of another product", amdFaults(simtee.AMDFaults{Root: func(c *x509.Certificate) { c.Subject.CommonName = "ARK-Genoa" }}), nil, false, chain},
		{"57 root of no product", amdFaults(simtee.AMDFaults{Root: func(c *x509.Certificate) { c.Subject.CommonName = "ARK-" }}), nil, false, chain},
		{"57 issuer expired", amdFaults(simtee.AMDFaults{Issuer: func(c *x509.Certificate) { c.NotAfter = snpAt.Add(-time.Second) }}), nil, false, chain},
		{"57 root expired", amdFaults(simtee.AMDFaults{Root: func(c *x509.Certificate) { c.NotAfter = snpAt.Add(-time.Second) }}), nil, false, chain},
		{"57 leaf altered", nil, func(s *snpScene) { s.set.AMD.Leaf[len(s.set.AMD.Leaf)-1] ^= 1 }, false, chain},
		{"57 leaf of another issuer", nil, func(s *snpScene) { s.set.AMD.Chain = otherChain(s) }, false, chain},
		{"10 junk before the chain", nil, func(s *snpScene) { s.set.AMD.Chain = append([]byte("junk\n"), s.set.AMD.Chain...) }, false, parse},
		{"10 a third certificate in the chain", nil, func(s *snpScene) { s.set.AMD.Chain = bytes.Repeat(s.set.AMD.Chain, 2) }, false, parse},
	}
}

// otherChain is that of the cloud providers' keys: same root, another issuer.
func otherChain(s *snpScene) []byte {
	vendor, err := snpVendor()
	if err != nil {
		panic(err)
	}
	other, err := vendor.With(func(c *simtee.AMDConfig) { c.VLEK = "x" })
	if err != nil {
		panic(err)
	}
	set, err := other.Collateral(s.at)
	if err != nil {
		panic(err)
	}
	return set.AMD.Chain
}

// 1, 2, 13, 37, 58: the report's bytes and what it is bound to.
func snpBindingRefusals() []snpRefusal {
	doc := func(edit func(string) string) func(*snpScene) {
		return func(s *snpScene) {
			// A launch that really was bound to this text.
			s.ev.MRConfig = edit(s.ev.MRConfig)
			vendor, _ := snpVendor()
			r, err := vendor.Report(snpDigest, attest.HostData(s.ev.MRConfig), 0, [64]byte{9})
			if err != nil {
				panic(err)
			}
			s.ev.Report = r
		}
	}
	replace := func(from, to string) func(*snpScene) {
		return doc(func(d string) string { return strings.Replace(d, from, to, 1) })
	}
	identity, parse := []string{claim.SNPIdentity}, []string{claim.QuoteParse}
	return []snpRefusal{
		{"1 trailing byte", nil, func(s *snpScene) { s.ev.Report = append(s.ev.Report, 0) }, false, parse},
		{"2 truncated", nil, func(s *snpScene) { s.ev.Report = s.ev.Report[:len(s.ev.Report)-1] }, false, parse},
		{"5 version 1", nil, func(s *snpScene) { s.ev.Report[0] = 1 }, false, parse},
		{"5 version 6", nil, func(s *snpScene) { s.ev.Report[0] = 6 }, false, parse},
		{"7 another signature algorithm", nil, func(s *snpScene) { s.ev.Report[0x34] = 2 }, false, parse},
		{"12 a reserved byte", nil, func(s *snpScene) { s.ev.Report[0x4c] = 1 }, false, parse},
		{"12 a stepping of more than four bits", nil, func(s *snpScene) { s.ev.Report[0x18a] |= 0x10 }, false, parse},
		{"12 mitigation vectors in version 3", nil, func(s *snpScene) { s.ev.Report[0x1f8] = 1 }, false, parse},
		{"12 a byte after the signature", nil, func(s *snpScene) { s.ev.Report[sevsnp.ReportSize-1] = 1 }, false, parse},
		{"59 unknown key kind", nil, func(s *snpScene) { s.ev.Report[0x48] = 3 << 2 }, false, parse},
		{"13 all-zero signature", nil, func(s *snpScene) { clear(s.ev.Report[sevsnp.SignedSize:]) }, false, []string{claim.QuoteSignature}},
		{"37 report data of another request", nil, func(s *snpScene) { s.policy.ReportData = &[64]byte{8} }, true, []string{claim.ReportData}},
		{"38 evidence states other report data", nil, func(s *snpScene) { s.ev.ReportData[0]++ }, true, []string{claim.ReportData}},
		{"58 MrConfig of another app", nil, func(s *snpScene) { s.ev.MRConfig = strings.Replace(s.ev.MRConfig, "a1", "a2", 1) }, true, []string{claim.SNPHostData}},
		{"58 no MrConfig", nil, func(s *snpScene) { s.ev.MRConfig = "" }, true, []string{claim.SNPHostData}},
		{"58 MrConfig of another version", nil, replace(`"version":3`, `"version":2`), true, identity},
		{"58 MrConfig with an unknown member", nil, replace(`"version":3`, `"version":3,"z":1`), true, identity},
		{"58 MrConfig with a member twice", nil, replace(`"version":3`, `"version":3,"version":3`), true, identity},
		{"58 MrConfig with a member in another case", nil, replace(`"app_id"`, `"App_id"`), true, identity},
		{"58 MrConfig not canonical", nil, replace(`{`, `{ `), true, identity},
		{"58 MrConfig in upper-case hex", nil, replace("a1", "A1"), true, identity},
		{"58 MrConfig with a short app id", nil, replace("a1", ""), true, identity},
		{"58 MrConfig without compose hash", nil, replace(`"compose_hash":"`+strings.Repeat("0", 62)+`c0",`, ""), true, identity},
		{"58 MrConfig with another key provider", nil, replace("kms", "kns"), true, identity},
		{"58 MrConfig with text after it", nil, doc(func(d string) string { return d + " " }), true, identity},
		{"52 launch digest that nobody lists", func(_ *simtee.AMDConfig, l *simtee.Launch) { l.Measurement[0]++ }, nil, true, []string{claim.ImageMeasurement}},
		{"52 launch digest of another image", nil, snpPolicy(func(p *attest.SNPPolicy) { p.Measure = measure.SNPPolicy{Document: true} }), true, []string{claim.ImageMeasurement}},
	}
}

// 36: what the policy does not say is refused.
func snpPolicyRefusals() []snpRefusal {
	return []snpRefusal{
		{"36 SEV-SNP not admitted", nil, snpPolicy(func(p *attest.SNPPolicy) { p.Admit = false }), true, []string{claim.SNPAdmitted}},
		{"36 no report data", nil, func(s *snpScene) { s.policy.ReportData = nil }, true, []string{claim.ReportData}},
		{"36 no status", nil, func(s *snpScene) { s.policy.TCBStatus = nil }, true, []string{claim.TCBStatus}},
		{"36 no phase", nil, func(s *snpScene) { s.policy.Phases = nil }, true, []string{claim.PhaseCheck}},
		{"36 a phase that SEV-SNP cannot prove", nil, func(s *snpScene) { s.policy.Phases = []claim.Phase{claim.PhaseRelease, claim.PhaseRunning} }, true, []string{claim.PhaseCheck}},
		{"36 no measurement", nil, snpPolicy(func(p *attest.SNPPolicy) { p.Measure = measure.SNPPolicy{} }), true, []string{claim.ImageMeasurement}},
		{"36 a digest that names no image", nil, snpPolicy(func(p *attest.SNPPolicy) {
			p.Measure = measure.SNPPolicy{Digests: map[cvm.Measurement]cvm.ImageHash{snpDigest: {}}}
		}), true, []string{claim.ImageMeasurement}},
		{"36 an empty list of ID keys", nil, guest(func(g *sevsnp.Guest) { g.IDKeys = []cvm.Measurement{} }), true, []string{claim.SNPIDBlock}},
		{"36 an empty list of author keys", nil, guest(func(g *sevsnp.Guest) { g.AuthorKeys = []cvm.Measurement{} }), true, []string{claim.SNPIDBlock}},
		{"36 the zero policy", nil, func(s *snpScene) { s.policy = attest.Policy{} }, false, []string{claim.SNPAdmitted, claim.RootAdmitted, claim.SNPProduct, claim.TCBMatch,
			claim.ReportData, claim.PhaseCheck}},
		{"36 TDX policy", nil, func(s *snpScene) {
			p := attest.Strict(claim.PhaseRelease)
			p.ReportData = s.policy.ReportData
			s.policy = p
		}, false, []string{claim.SNPAdmitted, claim.RootAdmitted, claim.SNPProduct, claim.TCBMatch, claim.PhaseCheck}},
	}
}
