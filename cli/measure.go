package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/cvm"
)

const measureLong = `Compute what a machine must show in its evidence when it boots an image: MRTD and
RTMR0 to RTMR2 of a TDX VM, or with --snp the launch digest of a SEV-SNP VM.

IMAGE_DIR is an image as it is released (metadata.json, sha256sum.txt, digest.txt and
the files they name); its files are hashed first. Without it, name the files. RTMR0
rests on ACPI tables, which are listed per VM shape: acpi.json beside the image, or --acpi.

With --explain FILE the registers of that evidence (any form that evidence check reads)
are compared, and the answer names the input that differs. The VM's shape is then the
one that the evidence states. Its signatures are not checked: phala evidence check does.

Exit codes: 0 computed, or nothing differs; 1 something differs; 2 wrong input.`

// measureFlags name the image's files and the VM's shape.
type measureFlags struct {
	firmware, kernel, initrd, cmdline, acpi, explain, document string
	shape                                                      shapeFlags
	entry, steps, snp                                          bool
	vcpuType, features                                         string
}

func (a *app) measureCmd() *cobra.Command {
	var f measureFlags
	c := a.group("measure [IMAGE_DIR]", "What an image must measure, and why evidence shows something else", a.measureACPICmd(), a.feedCmd())
	c.Long, c.Args = measureLong, args(cobra.MaximumNArgs(1))
	c.Example = "  phala measure build/images/phala-container --cpus 2 --memory 2G\n  phala measure dstack-0.6.0 --cpus 4 --memory 8G --qemu-version 9.2.1\n  phala measure dstack-0.6.0 --explain evidence.json"
	c.RunE = func(c *cobra.Command, as []string) error { return a.measure(c, as, f) }
	s := c.Flags()
	s.StringVar(&f.firmware, "firmware", "", "firmware file with code and variables (ovmf.fd)")
	s.StringVar(&f.kernel, "kernel", "", "kernel file (bzImage)")
	s.StringVar(&f.initrd, "initrd", "", "initrd file")
	s.StringVar(&f.cmdline, "cmdline", "", "kernel command line, without what QEMU adds")
	s.StringVar(&f.acpi, "acpi", "", "list of ACPI tables (default: acpi.json of the image)")
	f.shape.add(s)
	s.StringVar(&f.explain, "explain", "", "file of evidence (- for stdin): say which input of its registers differs")
	s.BoolVar(&f.steps, "steps", false, "show every measurement, not only the registers")
	s.BoolVar(&f.entry, "entry", false, "print the image's entry for a feed of reference values")
	s.StringVar(&f.document, "document", "", "write the image's measurement document (measurement.tdx.cbor; with --snp measurement.snp.cbor) to this file")
	s.BoolVar(&f.snp, "snp", false, "the launch digest of a SEV-SNP VM")
	s.StringVar(&f.vcpuType, "vcpu-type", "EPYC-v4", "with --snp: QEMU's CPU model")
	s.StringVar(&f.features, "guest-features", "0x1", "with --snp: SEV features of the vCPUs")
	return c
}

func (a *app) measure(c *cobra.Command, as []string, f measureFlags) error {
	if len(as) == 0 && f.firmware == "" && f.kernel == "" && f.explain == "" {
		return c.Help()
	}
	src, err := a.measureSource(as, f)
	if err != nil {
		return err
	}
	switch {
	case f.explain != "":
		return a.measureExplain(src, f)
	case src.container:
		return a.measureContainer(src, f)
	case f.snp:
		return a.measureSNP(src, f)
	}
	return a.measureTDX(src, f)
}

// measured is the answer.
type measured struct {
	Image    cvm.ImageHash      `json:"os_image_hash,omitzero"`
	Version  string             `json:"version,omitempty"`
	Variant  string             `json:"variant"` // legacy, container, sev-snp
	MRTD     *cvm.Measurement   `json:"mrtd,omitempty"`
	RTMR     []*cvm.Measurement `json:"rtmr,omitempty"`  // null: not computed, see note
	Steps    [][]measure.Step   `json:"steps,omitempty"` // of RTMR0, 1 and 2
	Digest   *cvm.Measurement   `json:"measurement,omitempty"`
	ACPI     string             `json:"acpi,omitempty"` // listed, missing
	Notes    []string           `json:"notes,omitempty"`
	Shape    *measure.SNPShape  `json:"snp_shape,omitempty"`
	Topology *measure.Topology  `json:"shape,omitempty"`
}

func (a *app) measureContainer(src source, f measureFlags) error {
	c, err := f.shape.config(src.image.Hash)
	if err != nil {
		return err
	}
	r, err := measure.Expected(measure.Policy{Variants: []string{measure.VariantContainer}}, fmt.Sprintf(
		`{"os_image_hash":"%s","cpu_count":%d,"memory_size":%d,"tdx_attestation_variant":"container"}`, c.OSImageHash, c.CPUCount, c.MemorySize), nil)
	if err != nil {
		return err
	}
	m := src.answer("container")
	m.Notes = []string{"registers of the container driver: only the simulated platform shows them"}
	m.registers(r, f.steps)
	return a.printMeasured(m)
}

func (a *app) measureTDX(src source, f measureFlags) error {
	img, err := measure.New(src.files)
	if err != nil {
		return err
	}
	if src.image != nil {
		img.Hash, img.Version = src.image.Hash, src.image.Meta.Version
	}
	if f.document != "" {
		doc, err := img.Document()
		if err != nil {
			return err
		}
		if err := a.writeOut(f.document, doc); err != nil {
			return err
		}
	}
	if f.entry {
		return a.printEntry(src, img)
	}
	c, err := f.shape.config(img.Hash)
	if err != nil {
		return err
	}
	e, listed := measure.ACPIFor(src.acpi, c.Topology)
	r, err := img.Expect(c, e.Digests())
	if err != nil {
		return err
	}
	m := src.answer("legacy")
	m.ACPI, m.Topology = "listed", &c.Topology
	m.registers(r, f.steps)
	if !listed {
		m.ACPI, m.RTMR[0] = "missing", nil
		m.Notes = append(m.Notes, "RTMR0 is not computed: no ACPI tables are listed for this VM shape (phala measure acpi)")
		if f.steps {
			m.Steps[0] = append(m.Steps[0][:8:8], m.Steps[0][11:]...)
		}
	}
	return a.printMeasured(m)
}

func (a *app) measureSNP(src source, f measureFlags) error {
	features, err := strconv.ParseUint(f.features, 0, 64)
	if err != nil {
		return usage("--guest-features %q: want a number, for example 0x1", f.features)
	}
	if f.shape.cpus == 0 {
		return usage("how many vCPUs? --cpus 2")
	}
	files := measure.SNPFiles(src.files)
	if f.document != "" {
		doc, err := files.Document()
		if err != nil {
			return err
		}
		if err := a.writeOut(f.document, doc); err != nil {
			return err
		}
	}
	shape := measure.SNPShape{VCPUs: f.shape.cpus, VCPUType: f.vcpuType, Features: features}
	d, err := files.Digest(shape)
	if err != nil {
		return err
	}
	m := src.answer("sev-snp")
	m.Digest, m.Shape = &d, &shape
	return a.printMeasured(m)
}

func (m *measured) registers(r measure.Result, steps bool) {
	m.MRTD = &r.Registers.MRTD
	for i := range r.Registers.RTMR {
		m.RTMR = append(m.RTMR, &r.Registers.RTMR[i])
		if steps {
			m.Steps = append(m.Steps, r.Boot.Steps[i])
		}
	}
}

func (a *app) printMeasured(m measured) error {
	if a.json {
		return a.printJSON(m)
	}
	fields := []field{{"Image", strings.TrimSpace(m.Version + " " + hashText(m.Image))}, {"Variant", m.Variant}}
	if m.MRTD != nil {
		fields = append(fields, field{"MRTD", m.MRTD.String()})
	}
	for i, r := range m.RTMR {
		if r == nil {
			continue
		}
		fields = append(fields, field{fmt.Sprintf("RTMR%d", i), r.String()})
	}
	if m.Digest != nil {
		fields = append(fields, field{"MEASUREMENT", m.Digest.String()})
	}
	a.printFields(fields)
	for i, steps := range m.Steps {
		a.printf("\nRTMR%d\n", i)
		var rows []field
		for _, s := range steps {
			rows = append(rows, field{"  " + s.Input, s.Digest.String()})
		}
		a.printFields(rows)
	}
	for _, n := range m.Notes {
		a.say("%s", a.warn(n))
	}
	return nil
}

func hashText(h cvm.ImageHash) string {
	if h == (cvm.ImageHash{}) {
		return "(files; no os_image_hash)"
	}
	return h.String()
}
