// Package refvalue holds reference values: what the world outside says is good at
// the moment. Which TDX modules, which least firmware of AMD processors, which OS
// images and which ACPI tables. They come as a feed: a JSON document with a version
// that only grows, signed as a C2SP signed note (docs/spec/reference-values.md).
//
// Open reads a feed, Fill puts its values into an attest.Policy. A feed fills what a
// policy leaves open, and tightens; it never loosens what a policy states. Nothing
// is admitted because a feed does not mention it.
package refvalue

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// Format is the first member of every feed.
const Format = "phala reference values 1"

// Limits of a feed.
const (
	MaxFeed     = 8 << 20 // bytes, signatures included
	MaxModules  = 256
	MaxImages   = 1024
	MaxValidity = 400 * 24 * time.Hour
)

// Values is one version of the reference values.
type Values struct {
	Format  string    `json:"format"`
	Version uint64    `json:"version"` // from 1; grows with every change
	Issued  time.Time `json:"issued"`  // UTC, whole seconds
	Expires time.Time `json:"expires"`

	// MinEvalNumber is the least TCB evaluation data number of Intel's TCB info and
	// QE identity; with it, the vendor's own rating of QE and platform is recent.
	MinEvalNumber  int      `json:"min_eval_number"`
	DenyAdvisories []string `json:"deny_advisories"`
	// AnyTDXModule leaves TDX modules to the vendor's rating; otherwise only those
	// listed as admitted are.
	AnyTDXModule bool        `json:"any_tdx_module"`
	TDXModules   []TDXModule `json:"tdx_modules"`
	SNP          []SNP       `json:"snp"`
	Images       []Image     `json:"images"`
}

// Status of a module or image. A withdrawn image is refused wherever a policy would
// admit it; a withdrawn module is just not admitted.
type Status string

const (
	Admitted  Status = "admitted"
	Withdrawn Status = "withdrawn"
)

// TDXModule is one build of the TDX module.
type TDXModule struct {
	MRSeam  cvm.Measurement `json:"mr_seam"`
	Version string          `json:"version"` // for people
	Status  Status          `json:"status"`
}

// SNP is the least TCB of one line of AMD processors.
type SNP struct {
	Product string     `json:"product"` // Milan, Genoa, Turin
	MinTCB  sevsnp.TCB `json:"min_tcb"`
}

// Image is one OS image.
type Image struct {
	OSImageHash cvm.ImageHash `json:"os_image_hash"`
	Version     string        `json:"version"` // for people
	Flavour     string        `json:"flavour,omitempty"`
	Status      Status        `json:"status"`
	// TDX is the measurement document (measurement.tdx.cbor): what the image's files
	// measure. With it, VMs of variant legacy can be judged without the files.
	TDX []byte `json:"tdx_measurement,omitempty"`
	// ACPI lists the tables of the VM shapes that the image was released for.
	ACPI []measure.ACPI `json:"acpi,omitempty"`
	// SNPDigests are the image's SEV-SNP launch digests, one per VM shape.
	SNPDigests []cvm.Measurement `json:"snp_digests,omitempty"`
}

// Builtin is the set that is compiled in: the floor under every feed. It says
// nothing but that Intel's own rating decides about TDX modules; images and ACPI
// tables are not listed, and AMD processors have no least TCB, so that policies that
// need those refuse until a feed or a file of their own states them.
func Builtin() Values {
	return Values{Format: Format, AnyTDXModule: true, DenyAdvisories: []string{}, TDXModules: []TDXModule{}, SNP: []SNP{}, Images: []Image{}}
}

// Marshal writes the canonical form, which is what is signed: JSON indented by two
// spaces, members in the order of the types, a newline at the end.
func (v Values) Marshal() ([]byte, error) {
	if err := v.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// Parse reads the document without its signature. It must be in canonical form: a
// repeated, unknown or case-variant member is refused, and what is absent too.
func Parse(b []byte) (Values, error) {
	v, err := ParseDraft(b)
	if err != nil {
		return Values{}, err
	}
	again, err := v.Marshal()
	if err != nil {
		return Values{}, err
	}
	if !bytes.Equal(again, b) {
		return Values{}, cvm.Errorf(cvm.Invalid, "reference values: not in canonical form").
			WithFix("write it with `phala measure feed sign`, which puts a draft into this form")
	}
	return v, nil
}

// ParseDraft reads a document that a person wrote, to be signed: in any layout, but
// valid, and without repeated or unknown members. Lists that are left out are empty.
func ParseDraft(b []byte) (Values, error) {
	var v Values
	if len(b) > MaxFeed {
		return v, invalid("%d bytes, at most %d", len(b), MaxFeed)
	}
	if err := collateral.StrictKeys(b); err != nil {
		return v, invalid("%w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return Values{}, invalid("%w", err)
	}
	fill(&v.DenyAdvisories)
	fill(&v.TDXModules)
	fill(&v.SNP)
	fill(&v.Images)
	return v, v.Validate()
}

func fill[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}

func invalid(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "reference values: "+format, args...)
}

// Validate refuses what could not be meant: wrong form, an entry that is there
// twice, or one that says nothing.
func (v Values) Validate() error {
	utc := func(t time.Time) bool { return t.Location() == time.UTC && t.Nanosecond() == 0 && t.Year() < 10000 }
	switch {
	case v.Format != Format:
		return cvm.Errorf(cvm.Unsupported, "reference values: format %q, want %q", v.Format, Format)
	case v.Version == 0:
		return invalid("version is missing")
	case !utc(v.Issued) || !utc(v.Expires) || v.Issued.IsZero():
		return invalid("issued and expires: want UTC times of whole seconds")
	case !v.Expires.After(v.Issued) || v.Expires.Sub(v.Issued) > MaxValidity:
		return invalid("expires: want at most %d days after issued", MaxValidity/(24*time.Hour))
	case v.MinEvalNumber < 0:
		return invalid("min_eval_number: %d", v.MinEvalNumber)
	case len(v.TDXModules) > MaxModules || len(v.Images) > MaxImages || len(v.DenyAdvisories) > MaxModules:
		return invalid("more than %d modules or advisories, or %d images", MaxModules, MaxImages)
	case slices.Contains(v.DenyAdvisories, ""):
		return invalid("deny_advisories: an empty name")
	}
	if err := v.validateHardware(); err != nil {
		return err
	}
	return v.validateImages()
}

func (v Values) validateHardware() error {
	modules := map[cvm.Measurement]bool{}
	for i, m := range v.TDXModules {
		if m.MRSeam == (cvm.Measurement{}) || modules[m.MRSeam] || !m.Status.known() {
			return invalid("tdx_modules[%d]: empty, there twice, or of status %q", i, m.Status)
		}
		if v.AnyTDXModule && m.Status == Withdrawn {
			return invalid("tdx_modules[%d] is withdrawn, which any_tdx_module overrules", i)
		}
		modules[m.MRSeam] = true
	}
	products := map[string]bool{}
	for i, s := range v.SNP {
		if !slices.Contains([]string{sevsnp.Milan, sevsnp.Genoa, sevsnp.Turin}, s.Product) || products[s.Product] || s.MinTCB == (sevsnp.TCB{}) {
			return invalid("snp[%d]: product %q is unknown or there twice, or has no min_tcb", i, s.Product)
		}
		products[s.Product] = true
	}
	return nil
}

func (v Values) validateImages() error {
	images := map[cvm.ImageHash]bool{}
	digests := map[cvm.Measurement]bool{}
	for i, m := range v.Images {
		if m.OSImageHash == (cvm.ImageHash{}) || images[m.OSImageHash] || !m.Status.known() {
			return invalid("images[%d]: empty, there twice, or of status %q", i, m.Status)
		}
		images[m.OSImageHash] = true
		if m.TDX != nil {
			if _, err := measure.DecodeImage(m.TDX); err != nil {
				return invalid("images[%d]: tdx_measurement: %w", i, err)
			}
		}
		if err := measure.CheckACPI(m.ACPI); err != nil {
			return invalid("images[%d]: %w", i, err)
		}
		for _, d := range m.SNPDigests {
			if d == (cvm.Measurement{}) || digests[d] {
				return invalid("images[%d]: a launch digest is empty or there twice", i)
			}
			digests[d] = true
		}
	}
	return nil
}

func (s Status) known() bool { return s == Admitted || s == Withdrawn }
