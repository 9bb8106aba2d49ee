package simtee

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// AMDConfig describes a simulated SEV-SNP machine and its vendor.
type AMDConfig struct {
	Dir     string           // as Config.Dir: both vendors share the seed
	Seed    []byte           // as Config.Seed
	Machine string           // names another machine of the same vendor
	Product string           // sevsnp.Milan (also when ""), Genoa or Turin
	Version uint32           // of reports: 2 to 5; 0: 3
	VLEK    string           // reports are signed by the VLEK of this cloud provider; "": by the chip's VCEK
	TCB     sevsnp.TCB       // of the platform; zero: DefaultTCB
	Clock   func() time.Time // nil: time.Now
	Faults  AMDFaults        // bad evidence on purpose, for tests
}

// AMDFaults makes the vendor or the platform misbehave. The zero value is healthy.
type AMDFaults struct {
	RevokeASK  bool // the ASK (ASVK) is on the root's list
	RevokeLeaf bool // the VCEK (VLEK) is on the root's list
	Expired    bool // the list ended a day ago
	Future     bool // the list begins in a day
	OtherChip  bool // the certificate names another chip
	OtherTCB   bool // the certificate is for an older TCB
	OtherList  bool // the list is signed by the ASK
	// Report edits a report before it is signed; Leaf, Issuer and Root edit a certificate
	// before it is issued.
	Report func(*sevsnp.Report)
	Leaf   func(*x509.Certificate)
	Issuer func(*x509.Certificate)
	Root   func(*x509.Certificate)
}

// DefaultTCB is the TCB of a simulated platform.
func DefaultTCB(product string) sevsnp.TCB {
	t := sevsnp.TCB{BootLoader: 4, TEE: 1, SNP: 23, Microcode: 213}
	if product == sevsnp.Turin {
		t.FMC = 1
	}
	return t
}

// AMD is a simulated SEV-SNP machine and its vendor. It proves nothing: only a
// policy that names its root admits it. It is safe for concurrent use.
type AMD struct {
	cfg      AMDConfig
	seed     []byte
	chip     [64]byte
	ring     *rsaRing
	ark, ask *authorityKey
	asvk     func() (*authorityKey, error) // made when asked for
}

// NewAMD makes the vendor's and the machine's keys from the seed; it takes about
// half a second.
func NewAMD(cfg AMDConfig) (*AMD, error) {
	seed, err := loadSeed(Config{Dir: cfg.Dir, Seed: cfg.Seed})
	if err != nil {
		return nil, err
	}
	return newAMD(cfg, seed, newRing())
}

// With is the same vendor in another configuration (seed and directory stay). It
// makes no key twice.
func (a *AMD) With(edit func(*AMDConfig)) (*AMD, error) {
	cfg := a.cfg
	edit(&cfg)
	return newAMD(cfg, a.seed, a.ring)
}

func newAMD(cfg AMDConfig, seed []byte, ring *rsaRing) (*AMD, error) {
	if cfg.Product == "" {
		cfg.Product = sevsnp.Milan
	}
	if cfg.Version == 0 {
		cfg.Version = 3
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if !slices.Contains(sevsnp.Products(), cfg.Product) || cfg.Version < 2 || cfg.Version > 5 {
		return nil, cvm.Errorf(cvm.Invalid, "simulated TEE: product %q with reports of version %d", cfg.Product, cfg.Version)
	}
	a := &AMD{cfg: cfg, seed: seed, ring: ring}
	id, err := a.derive("chip", sevsnp.HWIDSize(cfg.Product))
	if err != nil {
		return nil, err
	}
	copy(a.chip[:], id)
	if a.ark, err = a.authority("ARK-"+cfg.Product, nil); err != nil {
		return nil, fmt.Errorf("simulated TEE: %w", err)
	}
	a.asvk = sync.OnceValues(func() (*authorityKey, error) { return a.authority("SEV-VLEK-"+cfg.Product, a.ark) })
	if a.ask, err = a.authority("SEV-"+cfg.Product, a.ark); err != nil {
		return nil, fmt.Errorf("simulated TEE: %w", err)
	}
	return a, nil
}

// derive makes n bytes of the machine's own for a label.
func (a *AMD) derive(label string, n int) ([]byte, error) {
	return hkdf.Key(sha256.New, a.seed, []byte("phala-simtee:v1"), "amd:"+label+"\x00"+a.cfg.Product+"\x00"+a.cfg.Machine, n)
}

func (a *AMD) tcb() sevsnp.TCB {
	if a.cfg.TCB == (sevsnp.TCB{}) {
		return DefaultTCB(a.cfg.Product)
	}
	return a.cfg.TCB
}

// RootSPKI is the sha256 of the root key's SubjectPublicKeyInfo: what a policy
// names to admit this vendor.
func (a *AMD) RootSPKI() [32]byte { return collateral.SPKIHash(a.ark.cert) }

// ChipID is the machine's chip id, zero-padded to 64 bytes.
func (a *AMD) ChipID() [64]byte { return a.chip }

// DeviceID is sha256 of the chip id.
func (a *AMD) DeviceID() cvm.DeviceID { return sha256.Sum256(a.chip[:]) }

// Launch is what a simulated SEV-SNP VM starts with.
type Launch struct {
	Measurement cvm.Measurement // launch digest; measure.SNPDigest computes it
	Config      attest.MRConfig // bound through HOST_DATA
	VMConfig    string          // vm_config JSON
	Policy      sevsnp.GuestPolicy
}

// DefaultGuestPolicy is that of a sound VM: ABI 1.51, no debug, no migration, no SMT.
const DefaultGuestPolicy sevsnp.GuestPolicy = 1<<17 | 1<<8 | 51

// Evidence is what a VM of this launch hands out about itself.
func (a *AMD) Evidence(l Launch, reportData [64]byte) (attest.Evidence, error) {
	doc, err := l.Config.Document()
	if err != nil {
		return attest.Evidence{}, err
	}
	report, err := a.Report(l.Measurement, attest.HostData(doc), l.Policy, reportData)
	if err != nil {
		return attest.Evidence{}, err
	}
	leaf, chain, err := a.certificates()
	if err != nil {
		return attest.Evidence{}, err
	}
	return attest.Evidence{Variant: cvm.VariantSNP, Report: report, CertChain: [][]byte{leaf, chain.cert.Raw, a.ark.cert.Raw}, MRConfig: doc,
		ReportData: reportData, Config: l.VMConfig}, nil
}

// Report signs a report. A zero policy is DefaultGuestPolicy.
func (a *AMD) Report(digest cvm.Measurement, hostData [32]byte, policy sevsnp.GuestPolicy, reportData [64]byte) ([]byte, error) {
	return a.signed(a.bare(0, digest, hostData, policy, reportData))
}

// bare is a report before it is signed.
func (a *AMD) bare(vmpl uint32, digest cvm.Measurement, hostData [32]byte, policy sevsnp.GuestPolicy, reportData [64]byte) *sevsnp.Report {
	if policy == 0 {
		policy = DefaultGuestPolicy
	}
	tcb := a.tcb().Value(a.cfg.Product)
	r := &sevsnp.Report{
		Version: a.cfg.Version, VMPL: vmpl, Policy: policy, CurrentTCB: tcb, ReportedTCB: tcb, CommittedTCB: tcb, LaunchTCB: tcb,
		PlatformInfo: sevsnp.PlatformTSME | sevsnp.PlatformECC, ReportData: reportData, Measurement: digest, HostData: hostData, ChipID: a.chip,
		Current: sevsnp.Firmware{Major: 1, Minor: 55, Build: 29}, Committed: sevsnp.Firmware{Major: 1, Minor: 55, Build: 29},
	}
	for i := range r.ReportIDMA {
		r.ReportIDMA[i] = 0xff
	}
	r.ReportID = sha256.Sum256(append(hostData[:], digest[:]...))
	if a.cfg.VLEK != "" {
		r.SigningKey = sevsnp.KeyVLEK
	}
	if r.Version >= 3 {
		cpu := map[string][2]uint8{sevsnp.Milan: {0x19, 0x01}, sevsnp.Genoa: {0x19, 0x11}, sevsnp.Turin: {0x1a, 0x02}}[a.cfg.Product]
		r.Family, r.Model, r.Stepping = cpu[0], cpu[1], 1
	}
	return r
}

func (a *AMD) signed(r *sevsnp.Report) ([]byte, error) {
	if a.cfg.Faults.Report != nil {
		a.cfg.Faults.Report(r)
	}
	key, err := a.leafKey(a.tcb())
	if err != nil {
		return nil, err
	}
	return signReport(r, key)
}

// Sign signs any bytes that have a report's size, also such as no firmware makes.
func (a *AMD) Sign(report []byte) ([]byte, error) {
	key, err := a.leafKey(a.tcb())
	if err != nil {
		return nil, err
	}
	if len(report) != sevsnp.ReportSize {
		return nil, cvm.Errorf(cvm.Invalid, "report of %d bytes, want %d", len(report), sevsnp.ReportSize)
	}
	signed := &sevsnp.Report{}
	if err := signature(signed, report, key); err != nil {
		return nil, err
	}
	return append(report[:sevsnp.SignedSize:sevsnp.SignedSize], signed.Encode()[sevsnp.SignedSize:]...), nil
}

// signReport signs r as the chip does.
func signReport(r *sevsnp.Report, key *ecdsa.PrivateKey) ([]byte, error) {
	if err := signature(r, r.Encode(), key); err != nil {
		return nil, err
	}
	return r.Encode(), nil
}

// signature signs the bytes of a report into r.
func signature(r *sevsnp.Report, b []byte, key *ecdsa.PrivateKey) error {
	digest := sha512.Sum384(b[:sevsnp.SignedSize])
	der, err := deterministic{key}.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		return err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return err
	}
	rs.R.FillBytes(r.R[:])
	rs.S.FillBytes(r.S[:])
	return nil
}

// Collateral is what the key distribution service hands out at a time.
func (a *AMD) Collateral(at time.Time) (collateral.Set, error) {
	leaf, issuer, err := a.certificates()
	if err != nil {
		return collateral.Set{}, err
	}
	crl, err := a.revocationList(at, issuer)
	if err != nil {
		return collateral.Set{}, err
	}
	return collateral.Set{AMD: &collateral.AMD{Leaf: leaf, Chain: a.chain(issuer), CRL: crl}}, nil
}
