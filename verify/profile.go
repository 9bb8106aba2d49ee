package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ledger"
)

// ProfileVersion is the only version of trust profiles there is.
const ProfileVersion = 1

// Profile is a trust profile: everything a verifier believes before it looks. It
// holds no secrets, and whoever can change it can make any cloud look verified:
// get it from someone you trust, not from the cloud that is to be checked.
type Profile struct {
	Version int    `toml:"version" json:"version"` // 1
	Name    string `toml:"name" json:"name"`       // for people
	APIURL  string `toml:"api_url,omitempty" json:"api_url,omitempty"`

	Chain      Chains      `toml:"chain" json:"chain"`
	KMS        KMSPins     `toml:"kms" json:"kms"`
	TEE        TEEPins     `toml:"tee" json:"tee"`
	Gateway    GatewayPin  `toml:"gateway" json:"gateway"`
	LedgerKeys ledger.Keys `toml:"ledger" json:"ledger"`
}

// Chains says where governance is.
type Chains struct {
	ID           uint64   `toml:"id" json:"id"`
	RPCURLs      []string `toml:"rpc_urls" json:"rpc_urls"`
	KMSContract  string   `toml:"kms_contract" json:"kms_contract"`                       // 0x-address of DstackKms
	Final        string   `toml:"final,omitempty" json:"final,omitempty"`                 // finalized (default), safe, head-N
	MaxStaleness string   `toml:"max_staleness,omitempty" json:"max_staleness,omitempty"` // "60s" (default)
}

// KMSPins identify the KMS.
type KMSPins struct {
	RootSPKI   string   `toml:"root_spki" json:"root_spki"`     // hex DER SubjectPublicKeyInfo of the root CA: the key_provider_id
	K256PubKey string   `toml:"k256_pubkey" json:"k256_pubkey"` // hex, compressed, 33 bytes: signs env keys
	URLs       []string `toml:"urls" json:"urls"`               // https base URLs of members, for the ledger
}

// TEEPins say which hardware is admitted, and how images are bound to it.
type TEEPins struct {
	Roots          []RootPin `toml:"roots" json:"roots"`
	CollateralURLs []string  `toml:"collateral_urls" json:"collateral_urls"` // PCS-shaped
	// KDSURLs are AMD key distribution services, for SEV-SNP roots.
	KDSURLs []string `toml:"kds_urls,omitempty" json:"kds_urls,omitempty"`
	// CollateralMaxAge ("24h") refuses cached collateral older than that, though its vendor
	// would allow it (Intel: 30 days). Empty: only the vendor's end counts.
	CollateralMaxAge string `toml:"collateral_max_age,omitempty" json:"collateral_max_age,omitempty"`

	TCBStatus []string `toml:"tcb_status" json:"tcb_status"` // for example ["UpToDate"]
	// DenyAdvisories, MinEvalNumber and MRSeam narrow what the vendor's rating and the
	// reference values admit: advisories that refuse, the lowest evaluation data number
	// of collateral, and the only admitted TDX modules (96 hex digits each). Absent:
	// those of the reference values; a report shows "any" where no module is listed.
	DenyAdvisories []string          `toml:"deny_advisories,omitempty" json:"deny_advisories,omitempty"`
	MinEvalNumber  int               `toml:"min_eval_number,omitempty" json:"min_eval_number,omitempty"`
	MRSeam         []cvm.Measurement `toml:"mr_seam,omitempty" json:"mr_seam,omitempty"`

	ImageVariants []string `toml:"image_variants" json:"image_variants"` // "lite", "container" (simulated platform only)
	AnyACPI       bool     `toml:"any_acpi,omitempty" json:"any_acpi,omitempty"`
	// SNP says what of SEV-SNP is admitted, whose evidence shows no phase of the boot.
	// Absent: none.
	SNP *attest.SNPPolicy `toml:"snp,omitempty" json:"snp,omitempty"`
	// ReferenceValues names a signed feed of admitted TDX modules, images and ACPI
	// tables. Absent: the compiled-in set, which lists none of them and leaves TDX
	// modules to Intel's rating.
	ReferenceValues *ValuesPin `toml:"reference_values,omitempty" json:"reference_values,omitempty"`
}

// ValuesPin says where reference values come from and who signs them.
type ValuesPin struct {
	Sources []string `toml:"sources" json:"sources"` // URLs or paths of files; the newest feed counts
	Keys    []string `toml:"keys" json:"keys"`       // verifier keys (name+hash+base64), one of which must have signed
}

// RootPin is one admitted trust root.
type RootPin struct {
	SPKI     string       `toml:"spki" json:"spki"`         // hex sha256 of the root's SubjectPublicKeyInfo
	Platform cvm.Platform `toml:"platform" json:"platform"` // tdx, simulated, custom
}

// GatewayPin identifies the gateway and says how to reach it.
type GatewayPin struct {
	AppID   string `toml:"app_id" json:"app_id"`
	Domain  string `toml:"domain" json:"domain"`                       // base domain
	Port    int    `toml:"port" json:"port"`                           // external HTTPS port
	Address string `toml:"address,omitempty" json:"address,omitempty"` // host:port to dial instead of resolving names
	CAPEM   string `toml:"ca_pem,omitempty" json:"ca_pem,omitempty"`   // extra root for its certificates (local CA)
	CAFile  string `toml:"ca_file,omitempty" json:"ca_file,omitempty"` // the same by path, relative to the profile
}

// ParseProfile reads a profile strictly: an unknown key is an error. ca_file is
// not followed; LoadProfile does that.
func ParseProfile(b []byte) (Profile, error) {
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var p Profile
	if err := d.Decode(&p); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return p, cvm.Errorf(cvm.Invalid, "trust profile: unknown keys:\n%s", strict.String())
		}
		return p, cvm.Errorf(cvm.Invalid, "trust profile: %w", err)
	}
	return p, p.Validate()
}

// LoadProfile reads a profile file and takes in its ca_file.
func LoadProfile(path string) (Profile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Profile{}, cvm.Errorf(cvm.NotFound, "trust profile: %w", err).
			WithFix("give the file with --trust; on the machine that runs the cloud, `make up` prints where it is")
	}
	p, err := ParseProfile(b)
	if err != nil || p.Gateway.CAFile == "" {
		return p, err
	}
	ca := p.Gateway.CAFile
	if !filepath.IsAbs(ca) {
		ca = filepath.Join(filepath.Dir(path), ca)
	}
	pemBytes, err := os.ReadFile(ca)
	if err != nil {
		return p, cvm.Errorf(cvm.NotFound, "trust profile: gateway.ca_file: %w", err)
	}
	p.Gateway.CAPEM, p.Gateway.CAFile = string(pemBytes), ""
	return p, p.Validate()
}

// Marshal writes the profile as TOML.
func (p Profile) Marshal() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return toml.Marshal(p)
}

// Validate reports all problems at once. What is missing is refused: it would
// otherwise not be checked.
func (p Profile) Validate() error {
	var bad []string
	need := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	need(p.Version == ProfileVersion, "version: want 1")
	need(p.Chain.ID != 0, "chain.id is missing")
	need(len(p.Chain.RPCURLs) > 0, "chain.rpc_urls is empty")
	need(len(p.Chain.KMSContract) == 42, "chain.kms_contract: want a 0x-address")
	_, err := p.MaxStaleness()
	need(err == nil, "chain.max_staleness: want a duration like 60s")
	_, err = x509.ParsePKIXPublicKey(unhex(p.KMS.RootSPKI))
	need(err == nil, "kms.root_spki: want the hex DER public key of the KMS root")
	need(len(unhex(p.KMS.K256PubKey)) == 33, "kms.k256_pubkey: want 33 bytes in hex")
	need(len(p.KMS.URLs) > 0, "kms.urls is empty")
	need(len(p.TEE.Roots) > 0, "tee.roots is empty: nothing would be admitted")
	for _, r := range p.TEE.Roots {
		need(len(unhex(r.SPKI)) == 32, "tee.roots: spki: want 32 bytes in hex")
		need(r.Platform != "", "tee.roots: platform is missing")
	}
	need(len(p.TEE.CollateralURLs) > 0, "tee.collateral_urls is empty")
	age, err := p.MaxCollateralAge()
	need(err == nil && age >= 0, "tee.collateral_max_age: want a duration like 24h")
	need(p.TEE.MRSeam == nil || len(p.TEE.MRSeam) > 0, "tee.mr_seam is an empty list")
	need(p.TEE.MinEvalNumber >= 0, "tee.min_eval_number is negative")
	need(len(p.TEE.TCBStatus) > 0, "tee.tcb_status is empty: nothing would be admitted")
	need(len(p.TEE.ImageVariants) > 0, "tee.image_variants is empty: nothing would be admitted")
	if v := p.TEE.ReferenceValues; v != nil {
		need(len(v.Sources) > 0 && len(v.Keys) > 0, "tee.reference_values: name both sources and keys")
	}
	_, err = cvm.ParseAppID(p.Gateway.AppID)
	need(err == nil, "gateway.app_id: want 40 hex digits")
	need(p.Gateway.Domain != "", "gateway.domain is missing")
	need(p.Gateway.Port > 0 && p.Gateway.Port < 65536, "gateway.port: want 1..65535")
	if p.Gateway.CAPEM != "" {
		block, _ := pem.Decode([]byte(p.Gateway.CAPEM))
		need(block != nil, "gateway.ca_pem holds no certificate")
	}
	if err := p.LedgerKeys.Validate(); err != nil {
		bad = append(bad, "ledger: "+err.Error())
	}
	if bad != nil {
		return cvm.Errorf(cvm.Invalid, "trust profile: %s", strings.Join(bad, "; "))
	}
	return nil
}

// MaxStaleness is chain.max_staleness or its default.
func (p Profile) MaxStaleness() (time.Duration, error) {
	if p.Chain.MaxStaleness == "" {
		return time.Minute, nil
	}
	return time.ParseDuration(p.Chain.MaxStaleness)
}

// AdmittedRoots are tee.roots.
func (p Profile) AdmittedRoots() (out []attest.Root) {
	for _, r := range p.TEE.Roots {
		if b := unhex(r.SPKI); len(b) == 32 {
			out = append(out, attest.Root{SPKI: [32]byte(b), Platform: r.Platform})
		}
	}
	return out
}

// MaxCollateralAge is tee.collateral_max_age, or 0.
func (p Profile) MaxCollateralAge() (time.Duration, error) {
	if p.TEE.CollateralMaxAge == "" {
		return 0, nil
	}
	return time.ParseDuration(p.TEE.CollateralMaxAge)
}

// policy is what evidence of a kind of TEE must pass: bound to reportData, and in phase
// running. SEV-SNP has no phases; which launch the keys were released to is compared
// with the ledger instead. Which TDX modules, images and ACPI tables are admitted is left
// to the reference values.
func (p Profile) policy(variant string, reportData [64]byte, v refvalue.Values) attest.Policy {
	phase, snp := claim.PhaseRunning, attest.SNPPolicy{}
	if p.TEE.SNP != nil {
		snp = *p.TEE.SNP
	}
	if variant == cvm.VariantSNP && snp.Admit {
		phase = claim.PhaseUnproven
	}
	td := attest.StrictTD()
	td.AnyMRSeam, td.MRSeam = false, p.TEE.MRSeam
	return v.Fill(attest.Policy{
		TCBStatus: p.TEE.TCBStatus, DenyAdvisories: p.TEE.DenyAdvisories, MinEvalNumber: p.TEE.MinEvalNumber, ReportData: &reportData, Phases: []claim.Phase{phase}, TD: td, SNP: snp,
		Image: measure.Policy{Variants: p.TEE.ImageVariants, AnyACPI: p.TEE.AnyACPI}, Roots: p.AdmittedRoots(),
	})
}

// unhex gives nil for what is not hex.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return nil
	}
	return b
}
