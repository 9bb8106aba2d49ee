package cli

import (
	"encoding/json"
	"fmt"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// explained is the answer of --explain.
type explained struct {
	Matches     bool                 `json:"matches"`
	Image       cvm.ImageHash        `json:"os_image_hash"`
	Differences []measure.Difference `json:"differences"`
	ACPI        string               `json:"acpi"` // listed; unchecked: the evidence's own were taken; none
	Want        measure.Registers    `json:"want"`
	Got         measure.Registers    `json:"got"`
	Shape       measure.Topology     `json:"shape"` // as the evidence states it
}

func (a *app) measureExplain(src source, f measureFlags) error {
	raw, err := a.readInput(f.explain)
	if err != nil {
		return err
	}
	in, err := check.Parse(raw)
	if err != nil {
		return err
	}
	ev := in.Evidence
	if ev.Variant == cvm.VariantSNP {
		return cvm.Errorf(cvm.Unsupported, "--explain is for TDX: a SEV-SNP launch has one digest and no log").
			WithFix("compute it with phala measure --snp, and change one input after the other")
	}
	q, err := tdx.ParseQuote(ev.Quote)
	if err != nil {
		return err
	}
	config := vmConfigOf(ev)
	if config == "" {
		return cvm.Errorf(cvm.Invalid, "the evidence does not say which VM it is of: vm_config is missing").
			WithFix(`give JSON with "quote", "event_log" and "vm_config", or an attestation`)
	}
	out := explained{Got: measure.Registers{MRTD: q.Body.MRTD, RTMR: [3]cvm.Measurement(q.Body.RTMR[:3])}}
	p := measure.Policy{Variants: []string{measure.VariantLite, measure.VariantContainer, measure.VariantLegacy}, AnyACPI: true, ACPI: src.acpi}
	want, err := a.expected(src, &p, config, ev.EventLog, &out)
	if err != nil {
		return err
	}
	out.Want, out.Image, out.Shape = want.Registers, want.Config.OSImageHash, want.Config.Topology
	out.Differences = measure.Explain(p, want, ev.EventLog, out.Got)
	out.Matches = len(out.Differences) == 0
	return a.printExplained(out)
}

// expected is what the named image, or else the one that the evidence describes,
// measures in the VM that the evidence describes.
func (a *app) expected(src source, p *measure.Policy, config string, events []eventlog.Event, out *explained) (measure.Result, error) {
	c, err := measure.ParseVMConfig(config)
	if err != nil {
		return measure.Result{}, err
	}
	out.ACPI = "none"
	acpi, err := eventlog.ACPIDigests(events)
	if err == nil {
		out.ACPI = "unchecked"
	}
	if e, ok := measure.ACPIFor(src.acpi, c.Topology); ok {
		acpi, out.ACPI = e.Digests(), "listed"
	}
	if !src.given || c.Variant == measure.VariantContainer {
		if c.Variant == measure.VariantLegacy {
			return measure.Result{}, usage("the evidence is of variant legacy, which needs the image: phala measure IMAGE_DIR --explain ...")
		}
		if src.image != nil && src.image.Hash != c.OSImageHash {
			a.say("%s", a.warn("the evidence states image "+c.OSImageHash.String()+", this one is "+src.image.Hash.String()))
		}
		if c.Variant == measure.VariantContainer {
			return measure.Expected(*p, config, nil)
		}
		return measure.ExpectedWith(*p, config, acpi)
	}
	img, err := measure.New(src.files)
	if err != nil {
		return measure.Result{}, err
	}
	img.Hash = c.OSImageHash
	if src.image != nil {
		img.Hash, img.Version = src.image.Hash, src.image.Meta.Version
		if src.image.Hash != c.OSImageHash {
			a.say("%s", a.warn("the evidence states image "+c.OSImageHash.String()+", this one is "+src.image.Hash.String()))
		}
	}
	return img.Expect(c, acpi)
}

// vmConfigOf is the evidence's vm_config; old captures have it inside a sys-config.
func vmConfigOf(ev attest.Evidence) string {
	var sys struct {
		VMConfig string `json:"vm_config"`
	}
	if json.Unmarshal([]byte(ev.Config), &sys) == nil && sys.VMConfig != "" {
		return sys.VMConfig
	}
	return ev.Config
}

func (a *app) printExplained(out explained) error {
	if out.Differences == nil {
		out.Differences = []measure.Difference{}
	}
	if a.json {
		b, err := json.Marshal(out)
		if err != nil {
			return err
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(b, &fields); err != nil {
			return err
		}
		fields["success"] = fields["matches"]
		if err := writeJSON(a.Stdout, fields); err != nil {
			return err
		}
	} else {
		for _, d := range out.Differences {
			a.printf("%s\n", a.onOut().bad(d.String()))
			a.printf("  want %s\n  got  %s\n", d.Want, d.Got)
		}
		if out.Matches {
			a.printf("%s\n", a.onOut().good("MRTD and RTMR0 to RTMR2 are what image "+out.Image.String()[:16]+" measures in this VM"))
		}
		if out.ACPI == "unchecked" {
			a.say("%s", a.warn("the ACPI tables are the evidence's own: no list names those of this VM shape"))
		}
		a.say("%s", a.warn("signatures were not checked here: phala evidence check does that"))
	}
	if out.Matches {
		return nil
	}
	a.reported = true
	return fmt.Errorf("%d inputs differ", len(out.Differences))
}
