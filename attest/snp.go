package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// SNPPolicy is what a relying party admits of SEV-SNP on top of Policy's roots,
// statuses, report data and phases (which must name "unproven"). The zero value admits
// nothing.
type SNPPolicy struct {
	Admit    bool     `json:"admit" toml:"admit,omitempty"`       // SEV-SNP is admitted at all
	Products []string `json:"products" toml:"products,omitempty"` // admitted processor lines: "Milan", "Genoa", "Turin"
	// MinTCB is the least TCB of each admitted product. Below it (reported,
	// committed, current or at launch) the status is OutOfDate; a product without one is refused.
	MinTCB map[string]sevsnp.TCB `json:"min_tcb" toml:"min_tcb,omitempty"`
	// CSPs are the cloud providers whose VLEK is admitted (csp id of the certificate). Empty: only the chip's own VCEK.
	CSPs []string `json:"csps" toml:"csps,omitempty"`
	// AnyMaskedChip admits reports whose chip id is masked (zero): nothing then tells one host from another.
	AnyMaskedChip bool `json:"any_masked_chip" toml:"any_masked_chip,omitempty"`
	// AnyProvisional admits firmware that is not committed: the host can go back to the committed one.
	AnyProvisional bool `json:"any_provisional" toml:"any_provisional,omitempty"`
	// Guest is what the VM may have been launched with.
	Guest sevsnp.Guest `json:"guest" toml:"guest,omitempty"`
	// Measure says how the launch digest may be bound to an image.
	Measure measure.SNPPolicy `json:"measure" toml:"measure,omitempty"`
}

// verifySNP is Verify for SEV-SNP evidence; cache may be nil.
func verifySNP(ev Evidence, c collateral.Set, p Policy, at time.Time, cache *sevsnp.Cache) (Verified, []claim.Check, error) {
	rec := &claim.Recorder{Variant: cvm.VariantSNP}
	if p.SNP.Admit {
		rec.Pass(claim.SNPAdmitted, "")
	} else {
		rec.Fail(claim.SNPAdmitted, "", cvm.VariantSNP, "the policy does not admit SEV-SNP")
	}
	res := sevsnp.Verify(ev.Report, c.AMD, p.snpOptions(cache), at, rec)
	out := claim.Claims{Variant: cvm.VariantSNP, CheckedAt: at, Expires: res.Expires, TCB: res.TCB, VMConfig: ev.Config}
	if l := res.Leaf; l != nil {
		out.RootSPKI = hex.EncodeToString(res.RootSPKI[:])
		out.Platform = p.snpPlatform(l.Product, res.RootSPKI)
	}
	p.snpTCB(rec, res)
	if r := res.Report; r != nil {
		fromReport(&out, res)
		sevsnp.CheckGuest(r, p.SNP.Guest, rec)
		p.reportData(rec, ev, r.ReportData)
		snpIdentity(rec, &out, ev.MRConfig, r.HostData)
		p.snpPhase(rec, &out)
		p.snpImage(rec, &out, ev.Config, r.Measurement)
	}
	checks := rec.Checks()
	if !claim.OK(checks) {
		return Verified{}, checks, &claim.Rejection{Checks: checks, Genuine: rec.Passed(sevsnp.Genuine()...), Unverified: out}
	}
	return Verified{ok: true, claims: out}, checks, nil
}

func (p Policy) snpOptions(cache *sevsnp.Cache) sevsnp.Options {
	return sevsnp.Options{
		Admitted: func(product string, spki [32]byte) bool { return p.snpPlatform(product, spki) != "" },
		Products: p.SNP.Products, MinTCB: p.SNP.MinTCB, CSPs: p.SNP.CSPs,
		AnyMaskedChip: p.SNP.AnyMaskedChip, AnyProvisional: p.SNP.AnyProvisional, Cache: cache,
	}
}

// snpPlatform is what an admitted root stands for under a product. AMD's pinned
// keys each stand for one product; another vendor's key for none.
func (p Policy) snpPlatform(product string, spki [32]byte) cvm.Platform {
	platform := p.platform(spki)
	switch platform {
	case cvm.PlatformSEVSNP:
		if !slices.Contains(arks(), ark{product, spki}) {
			return ""
		}
	case cvm.PlatformSimulated, cvm.PlatformCustom:
	default:
		return ""
	}
	return platform
}

func (p Policy) snpTCB(rec *claim.Recorder, res sevsnp.Result) {
	switch {
	case res.TCB.Status == "":
		rec.Skip(claim.TCBStatus, "the platform could not be rated")
	case !slices.Contains(p.TCBStatus, res.TCB.Status):
		rec.Fail(claim.TCBStatus, fmt.Sprintf("one of %q", p.TCBStatus), res.TCB.Status, "the policy does not admit this TCB status")
	default:
		rec.Pass(claim.TCBStatus, res.TCB.Status)
	}
	if res.Marks == nil {
		rec.Skip(claim.CollateralFloor, "the revocation list was not verified")
		return
	}
	rec.Try(claim.CollateralFloor, p.Floor.Check(res.Marks))
}

func fromReport(out *claim.Claims, res sevsnp.Result) {
	r := res.Report
	out.Debug = r.Policy.Debug()
	out.ReportData = bytes.Clone(r.ReportData[:])
	s := &claim.SNP{
		Version: r.Version, ChipID: hex.EncodeToString(r.ChipID[:]), GuestSVN: r.GuestSVN, Policy: uint64(r.Policy), VMPL: r.VMPL, PlatformInfo: r.PlatformInfo,
		Measurement: r.Measurement, HostData: r.HostData, ReportID: r.ReportID, IDKeyDigest: r.IDKeyDigest, AuthorKeyDigest: r.AuthorKeyDigest,
		ReportedTCB: r.ReportedTCB, CommittedTCB: r.CommittedTCB, CurrentTCB: r.CurrentTCB, LaunchTCB: r.LaunchTCB,
	}
	out.SNP = s
	chip := r.ChipID
	if l := res.Leaf; l != nil {
		s.Product, s.Signer = l.Product, map[uint8]string{sevsnp.KeyVCEK: "vcek", sevsnp.KeyVLEK: "vlek"}[l.Kind]
		// A masked report still names its chip through the key that is the chip's own.
		copy(chip[:], l.HWID)
	}
	if chip != [64]byte{} {
		out.DeviceID = sha256.Sum256(chip[:])
	}
}

// snpIdentity reads the app's identity from the document that the launch was
// bound to.
func snpIdentity(rec *claim.Recorder, out *claim.Claims, document string, hostData [32]byte) {
	if want := HostData(document); want != hostData {
		rec.Fail(claim.SNPHostData, hex.EncodeToString(want[:8]), hex.EncodeToString(hostData[:8]), "HOST_DATA is not the hash of the MrConfig document")
		return
	}
	rec.Pass(claim.SNPHostData, "")
	m, err := ParseMRConfig(document)
	if !rec.Try(claim.SNPIdentity, err) {
		return
	}
	out.AppID, out.ComposeHash, out.InstanceID, out.KeyProvider = m.identity()
	if m.GPUPolicyHash != "" {
		out.GPUPolicyHash, _ = hex.DecodeString(m.GPUPolicyHash) // checked by ParseMRConfig
	}
	provider := sha256.Sum256(out.KeyProvider)
	out.MRSystem = hash(out.SNP.Measurement[:], provider[:])
	out.MRAggregated = hash(out.SNP.Measurement[:], out.SNP.HostData[:])
	out.MRBoot = out.MRAggregated
}

// snpPhase: no register says what has run since the launch (docs/design/006-sev-snp.md).
func (p Policy) snpPhase(rec *claim.Recorder, out *claim.Claims) {
	out.Phase = claim.PhaseUnproven
	if !slices.Contains(p.Phases, claim.PhaseUnproven) {
		rec.Fail(claim.PhaseCheck, fmt.Sprintf("one of %q", p.Phases), string(claim.PhaseUnproven), "the policy does not admit evidence that proves no phase of the boot")
		return
	}
	rec.Pass(claim.PhaseCheck, string(claim.PhaseUnproven))
}

func (p Policy) snpImage(rec *claim.Recorder, out *claim.Claims, vmConfig string, digest cvm.Measurement) {
	if !rec.Passed(sevsnp.Genuine()...) {
		rec.Skip(claim.ImageMeasurement, "the report is not genuine")
		return
	}
	image, err := p.snpImageOf(out.Platform, vmConfig, digest)
	if err == nil {
		err = p.Image.CheckImage(image)
	}
	if !rec.Try(claim.ImageMeasurement, err) {
		return
	}
	rec.Pass(claim.ImageMeasurement, "image "+image.String()[:16])
	out.OSImageHash = image
}

// snpImageOf says which image a launch digest stands for. The container driver's, which
// anybody can compute, counts where TDX's does: for the simulated platform, and where
// the policy admits the variant.
func (p Policy) snpImageOf(platform cvm.Platform, vmConfig string, digest cvm.Measurement) (cvm.ImageHash, error) {
	c, err := measure.ParseVMConfig(vmConfig)
	if err != nil || c.Variant != measure.VariantContainer {
		return measure.SNPImage(p.SNP.Measure, vmConfig, digest)
	}
	if platform != cvm.PlatformSimulated {
		return cvm.ImageHash{}, cvm.Errorf(cvm.Denied, "the container variant is for the simulated platform only, this is %s", platform)
	}
	if !slices.Contains(p.Image.Variants, measure.VariantContainer) {
		return cvm.ImageHash{}, cvm.Errorf(cvm.Denied, "the policy does not admit variant %q", measure.VariantContainer).WithReason("image-variant")
	}
	want, image, err := measure.ContainerSNP(vmConfig)
	if err == nil && want != digest {
		err = cvm.Errorf(cvm.Denied, "the launch digest is %.16s..., this image and VM shape give %.16s...", digest, want).WithReason("measurement")
	}
	return image, err
}
