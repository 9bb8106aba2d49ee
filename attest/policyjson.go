package attest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

// maxPolicy bounds a policy document, in bytes.
const maxPolicy = 1 << 20

const wordAny = "any"

// policyJSON is the wire form of a Policy. What is left out is not admitted.
type policyJSON struct {
	Roots          []rootJSON       `json:"roots,omitempty"` // "intel", "amd", "aws", or {"spki": hex, "platform": "simulated"}
	TCBStatus      []string         `json:"tcb_status,omitempty"`
	DenyAdvisories []string         `json:"deny_advisories,omitempty"`
	MinEvalNumber  int              `json:"min_eval_number,omitempty"`
	Floor          collateral.Floor `json:"floor,omitempty"`
	ReportData     *string          `json:"report_data,omitempty"` // 128 hex digits, or "any"
	Phases         []claim.Phase    `json:"phases,omitempty"`
	TD             *tdJSON          `json:"td,omitempty"`
	Image          imageJSON        `json:"image,omitzero"`
	SNP            *SNPPolicy       `json:"snp,omitempty"`
	Nitro          NitroPolicy      `json:"nitro,omitzero"`
}

type tdJSON struct {
	MRSeam        valuesJSON `json:"mr_seam,omitzero"` // "any" or a list of hex
	MRConfigID    valuesJSON `json:"mr_config_id,omitzero"`
	MROwner       valuesJSON `json:"mr_owner,omitzero"`
	MROwnerConfig valuesJSON `json:"mr_owner_config,omitzero"`
	MRServiceTD   valuesJSON `json:"mr_service_td,omitzero"`
	Attributes    bitsJSON   `json:"attributes,omitempty"` // "0x50000000"
	XFAM          bitsJSON   `json:"xfam,omitempty"`
}

// imageJSON has no reference values of images: those come from the signed feed
// (attest/refvalue).
type imageJSON struct {
	Variants []string       `json:"variants,omitempty"`
	ACPI     []measure.ACPI `json:"acpi,omitempty"`
	AnyACPI  bool           `json:"any_acpi,omitempty"`

	Withdrawn []cvm.ImageHash `json:"withdrawn,omitempty"`
}

// ParsePolicy reads the JSON form of a policy strictly: an unknown, repeated or
// case-variant key is an error, and so is an expected value that is empty. What is
// left out admits nothing. docs/spec/policy.md describes the form. Errors carry code
// invalid.
func ParsePolicy(b []byte) (Policy, error) {
	if len(b) > maxPolicy {
		return Policy{}, cvm.Errorf(cvm.Invalid, "policy: %d bytes, at most %d", len(b), maxPolicy)
	}
	if err := collateral.StrictKeys(b); err != nil {
		return Policy{}, cvm.Errorf(cvm.Invalid, "policy: %w", err)
	}
	if err := exactKeys(b); err != nil {
		return Policy{}, err
	}
	var j policyJSON
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return Policy{}, cvm.Errorf(cvm.Invalid, "policy: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Policy{}, cvm.Errorf(cvm.Invalid, "policy: text after the JSON object")
	}
	p, err := j.policy()
	if err != nil {
		return Policy{}, cvm.Errorf(cvm.Invalid, "policy: %w", err)
	}
	return p, p.Validate()
}

// exactKeys refuses keys that encoding/json would take for a known one in another
// case. Every known key is in lower case, but for the products that snp.min_tcb lists.
func exactKeys(b []byte) error {
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		return cvm.Errorf(cvm.Invalid, "policy: %w", err)
	}
	for todo := []any{doc}; len(todo) > 0; {
		last := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		switch v := last.(type) {
		case []any:
			todo = append(todo, v...)
		case map[string]any:
			for k, x := range v {
				if k != strings.ToLower(k) && !slices.Contains(sevsnp.Products(), k) {
					return cvm.Errorf(cvm.Invalid, "policy: unknown key %.80q: keys are in lower case", k)
				}
				todo = append(todo, x)
			}
		}
	}
	return nil
}

func (j policyJSON) policy() (Policy, error) {
	p := Policy{TCBStatus: j.TCBStatus, DenyAdvisories: j.DenyAdvisories, MinEvalNumber: j.MinEvalNumber, Floor: j.Floor, Phases: j.Phases, Nitro: j.Nitro}
	for _, r := range j.Roots {
		p.Roots = append(p.Roots, r...)
	}
	switch {
	case j.ReportData == nil:
	case *j.ReportData == wordAny:
		p.AnyReportData = true
	default:
		rd, err := hex.DecodeString(*j.ReportData)
		if err != nil || len(rd) != 64 {
			return p, cvm.Errorf(cvm.Invalid, "report_data: want 128 hex digits, or %q", wordAny)
		}
		p.ReportData = (*[64]byte)(rd)
	}
	if t := j.TD; t != nil {
		if t.MRSeam.App {
			return p, cvm.Errorf(cvm.Invalid, "td.mr_seam: a TDX module is not the app's")
		}
		p.TD = TDPolicy{
			MRSeam: t.MRSeam.Of, AnyMRSeam: t.MRSeam.Any, Attributes: uint64(t.Attributes), XFAM: uint64(t.XFAM),
			MRConfigID: Values(t.MRConfigID), MROwner: Values(t.MROwner), MROwnerConfig: Values(t.MROwnerConfig), MRServiceTD: Values(t.MRServiceTD),
		}
	}
	p.Image = measure.Policy{Variants: j.Image.Variants, ACPI: j.Image.ACPI, AnyACPI: j.Image.AnyACPI, Withdrawn: j.Image.Withdrawn}
	if j.SNP != nil {
		p.SNP = *j.SNP
	}
	return p, nil
}

// MarshalJSON writes the form that ParsePolicy reads. A policy that holds reference
// values of images, or is not valid, is an error.
func (p Policy) MarshalJSON() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if len(p.Image.Images) != 0 {
		return nil, cvm.Errorf(cvm.Unsupported, "policy: reference values of images have no JSON form here: they come from the signed feed")
	}
	t := p.TD
	j := policyJSON{
		TCBStatus: p.TCBStatus, DenyAdvisories: p.DenyAdvisories, MinEvalNumber: p.MinEvalNumber, Floor: p.Floor, Phases: p.Phases,
		TD: &tdJSON{
			MRSeam: valuesJSON{Any: t.AnyMRSeam, Of: t.MRSeam}, Attributes: bitsJSON(t.Attributes), XFAM: bitsJSON(t.XFAM),
			MRConfigID: valuesJSON(t.MRConfigID), MROwner: valuesJSON(t.MROwner), MROwnerConfig: valuesJSON(t.MROwnerConfig), MRServiceTD: valuesJSON(t.MRServiceTD),
		},
		Image: imageJSON{p.Image.Variants, p.Image.ACPI, p.Image.AnyACPI, p.Image.Withdrawn}, SNP: &p.SNP, Nitro: p.Nitro,
	}
	for _, r := range p.Roots {
		j.Roots = append(j.Roots, rootJSON{r})
	}
	rd := wordAny
	if p.ReportData != nil {
		rd = hex.EncodeToString(p.ReportData[:])
	}
	if p.ReportData != nil || p.AnyReportData {
		j.ReportData = &rd
	}
	return json.Marshal(j)
}

// rootJSON is one entry of roots: a vendor's name stands for all its pinned keys.
type rootJSON []Root

type rootPin struct {
	SPKI     string       `json:"spki"`
	Platform cvm.Platform `json:"platform"`
}

// UnmarshalJSON reads a vendor's name or a pin.
func (r *rootJSON) UnmarshalJSON(b []byte) error {
	var vendor string
	if json.Unmarshal(b, &vendor) == nil {
		switch vendor {
		case "intel":
			*r = IntelRoots()
		case "amd":
			*r = AMDRoots()
		case "aws":
			*r = AWSRoots()
		default:
			return cvm.Errorf(cvm.Invalid, "roots: vendor %.40q, want intel, amd or aws", vendor)
		}
		return nil
	}
	var pin rootPin
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&pin); err != nil {
		return cvm.Errorf(cvm.Invalid, "roots: %w", err)
	}
	spki, err := hex.DecodeString(pin.SPKI)
	if err != nil || len(spki) != 32 {
		return cvm.Errorf(cvm.Invalid, "roots: spki: want 64 hex digits")
	}
	*r = rootJSON{{SPKI: [32]byte(spki), Platform: pin.Platform}}
	return nil
}

// MarshalJSON writes a pin.
func (r rootJSON) MarshalJSON() ([]byte, error) {
	return json.Marshal(rootPin{SPKI: hex.EncodeToString(r[0].SPKI[:]), Platform: r[0].Platform})
}

// valuesJSON is "any", or a list of measurements in hex, among which "app" may stand.
type valuesJSON Values

// IsZero tells encoding/json that nothing is admitted but zero.
func (v valuesJSON) IsZero() bool { return !v.Any && !v.App && v.Of == nil }

// UnmarshalJSON reads "any" or a list; an empty list stays one, for Validate.
func (v *valuesJSON) UnmarshalJSON(b []byte) error {
	var word string
	if json.Unmarshal(b, &word) == nil {
		if word != wordAny {
			return cvm.Errorf(cvm.Invalid, "%.40q: want %q or a list", word, wordAny)
		}
		*v = valuesJSON{Any: true}
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil || list == nil {
		return cvm.Errorf(cvm.Invalid, "want %q or a list of measurements", wordAny)
	}
	out := valuesJSON{}
	for _, s := range list {
		if s == "app" {
			out.App = true
			continue
		}
		var m cvm.Measurement
		if err := m.UnmarshalText([]byte(s)); err != nil {
			return err
		}
		out.Of = append(out.Of, m)
	}
	if out.Of == nil && !out.App {
		out.Of = []cvm.Measurement{}
	}
	*v = out
	return nil
}

// MarshalJSON writes the form that UnmarshalJSON reads.
func (v valuesJSON) MarshalJSON() ([]byte, error) {
	if v.Any {
		return json.Marshal(wordAny)
	}
	list := []string{}
	if v.App {
		list = append(list, "app")
	}
	for _, m := range v.Of {
		list = append(list, m.String())
	}
	return json.Marshal(list)
}

// bitsJSON is a set of bits as "0x..." in JSON: 64-bit numbers do not survive every
// JSON reader.
type bitsJSON uint64

// UnmarshalJSON reads "0x" and hex digits.
func (v *bitsJSON) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	digits, ok := strings.CutPrefix(s, "0x")
	n, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil {
		return cvm.Errorf(cvm.Invalid, "%.40q: want bits like 0x10000000", s)
	}
	*v = bitsJSON(n)
	return nil
}

// MarshalJSON writes "0x" and hex digits.
func (v bitsJSON) MarshalJSON() ([]byte, error) {
	return json.Marshal("0x" + strconv.FormatUint(uint64(v), 16))
}
