package refvalue

import (
	"slices"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// Fill returns the policy with these values put in; p itself is not changed.
//
//   - TDX modules: where the policy names none and does not admit any, those admitted
//     here (or any, if the feed says so).
//   - Evaluation number and AMD's least TCB: the higher of both.
//   - Advisories: those of both are denied.
//   - Images, ACPI tables, launch digests: added where the policy has none for the same.
//   - Withdrawn images: refused, in every variant, also where the policy has them.
//
// Whether a variant, a product or SEV-SNP is admitted at all stays the policy's.
func (v Values) Fill(p attest.Policy) attest.Policy {
	if p.TD.MRSeam == nil && !p.TD.AnyMRSeam {
		p.TD.AnyMRSeam = v.AnyTDXModule
		for _, m := range v.TDXModules {
			if m.Status == Admitted && !v.AnyTDXModule {
				p.TD.MRSeam = append(p.TD.MRSeam, m.MRSeam)
			}
		}
	}
	p.MinEvalNumber = max(p.MinEvalNumber, v.MinEvalNumber)
	p.DenyAdvisories = slices.Concat(p.DenyAdvisories, v.DenyAdvisories)
	p.SNP.MinTCB = v.minTCB(p.SNP.MinTCB)
	p.Image.Images, p.Image.ACPI = slices.Clone(p.Image.Images), slices.Clone(p.Image.ACPI)
	p.Image.Withdrawn = slices.Clone(p.Image.Withdrawn)
	digests := map[cvm.Measurement]cvm.ImageHash{}
	for _, m := range v.Images {
		if m.Status != Admitted {
			p.Image.Withdrawn = append(p.Image.Withdrawn, m.OSImageHash)
			continue
		}
		p.Image.ACPI = append(p.Image.ACPI, m.ACPI...)
		m.fill(&p.Image)
		for _, d := range m.SNPDigests {
			digests[d] = m.OSImageHash
		}
	}
	for d, image := range p.SNP.Measure.Digests { // the policy's own win
		digests[d] = image
	}
	if len(digests) > 0 {
		p.SNP.Measure.Digests = digests
	}
	return p
}

// fill adds the image unless the policy has its own values for it.
func (m Image) fill(p *measure.Policy) {
	has := func(o measure.Image) bool { return o.Hash == m.OSImageHash }
	if m.TDX == nil || slices.ContainsFunc(p.Images, has) {
		return
	}
	if img, err := measure.DecodeImage(m.TDX); err == nil { // Validate decoded it before
		img.Hash, img.Version = m.OSImageHash, m.Version
		p.Images = append(p.Images, img)
	}
}

func (v Values) minTCB(own map[string]sevsnp.TCB) map[string]sevsnp.TCB {
	if len(v.SNP) == 0 {
		return own
	}
	out := map[string]sevsnp.TCB{}
	for product, t := range own {
		out[product] = t
	}
	for _, s := range v.SNP {
		t := out[s.Product]
		out[s.Product] = sevsnp.TCB{FMC: max(t.FMC, s.MinTCB.FMC), BootLoader: max(t.BootLoader, s.MinTCB.BootLoader),
			TEE: max(t.TEE, s.MinTCB.TEE), SNP: max(t.SNP, s.MinTCB.SNP), Microcode: max(t.Microcode, s.MinTCB.Microcode)}
	}
	return out
}
