package composite

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/nvidia"
	"github.com/confidential-cloud/phala/attest/tpm"
	"github.com/confidential-cloud/phala/cvm"
)

// Limits of the JSON forms, in bytes.
const (
	maxJSON   = 32 << 20 // of parts
	maxPolicy = 1 << 20
)

// hexBytes is bytes in hex.
type hexBytes []byte

// UnmarshalText reads hex.
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func plain(list []hexBytes) (out [][]byte) {
	for _, b := range list {
		out = append(out, b)
	}
	return out
}

type partJSON struct {
	Name string `json:"name"`
	GPU  *struct {
		Report       hexBytes   `json:"report"`       // SPDM request and response
		Certificates []hexBytes `json:"certificates"` // DER, the key that signs reports first
		DriverRIM    string     `json:"driver_rim"`   // signed XML
		VBIOSRIM     string     `json:"vbios_rim"`
		RIMIssuers   []hexBytes `json:"rim_issuers"` // DER
		OCSP         []hexBytes `json:"ocsp"`        // DER
	} `json:"gpu"`
	Token *struct {
		EAT string `json:"eat"` // the service's answer, exactly
	} `json:"token"`
	TPM *struct {
		Quote        hexBytes            `json:"quote"`        // TPMS_ATTEST
		Signature    hexBytes            `json:"signature"`    // TPMT_SIGNATURE
		PCRs         map[string]hexBytes `json:"pcrs"`         // by number
		Certificates []hexBytes          `json:"certificates"` // DER, the attestation key's first
		BootLog      hexBytes            `json:"boot_log"`
		EventLog     string              `json:"event_log"` // JSON, as of a CPU's quote
		Issuers      []hexBytes          `json:"issuers"`   // DER: what follows certificates
		CRLs         []hexBytes          `json:"crls"`      // DER
	} `json:"tpm"`
}

// ParseParts reads the parts of composite evidence: a JSON list, strictly. Nothing
// is verified. docs/spec/other-evidence.md describes the form. Errors carry code invalid.
func ParseParts(b []byte) ([]Part, error) {
	var list []partJSON
	if err := strict(b, maxJSON, &list); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "parts: %w", err)
	}
	if len(list) > MaxParts {
		return nil, cvm.Errorf(cvm.Invalid, "parts: %d, at most %d", len(list), MaxParts)
	}
	var out []Part
	for _, j := range list {
		p, err := j.part()
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "part %.40q: %w", j.Name, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func (j partJSON) part() (Part, error) {
	p, kinds := Part{Name: j.Name}, 0
	if g := j.GPU; g != nil {
		kinds++
		p.GPU = &GPU{Evidence: nvidia.Evidence{Report: g.Report, Chain: plain(g.Certificates)},
			Endorsements: nvidia.Endorsements{DriverRIM: []byte(g.DriverRIM), VBIOSRIM: []byte(g.VBIOSRIM), RIMIssuers: plain(g.RIMIssuers), OCSP: plain(g.OCSP)}}
	}
	if t := j.Token; t != nil {
		kinds++
		p.Token = &Token{EAT: []byte(t.EAT)}
	}
	if t := j.TPM; t != nil {
		kinds++
		pcrs, err := registers(t.PCRs)
		if err != nil {
			return p, err
		}
		p.TPM = &TPM{Evidence: tpm.Evidence{Quote: t.Quote, Signature: t.Signature, PCRs: pcrs, Chain: plain(t.Certificates), BootLog: t.BootLog},
			Endorsements: tpm.Endorsements{Chain: plain(t.Issuers), CRLs: plain(t.CRLs)}}
		if t.EventLog != "" {
			events, err := eventlog.ParseJSON([]byte(t.EventLog))
			if err != nil {
				return p, err
			}
			p.TPM.Evidence.Events = eventlog.Runtimes(events)
		}
	}
	if p.Name == "" || kinds != 1 {
		return p, cvm.Errorf(cvm.Invalid, "want a name and exactly one of gpu, token and tpm")
	}
	return p, nil
}

// registers reads PCRs by their numbers in decimal.
func registers(m map[string]hexBytes) (map[int][]byte, error) {
	out := map[int][]byte{}
	for k, v := range m {
		i, err := strconv.Atoi(k)
		if err != nil || strconv.Itoa(i) != k || i < 0 || i > 23 {
			return nil, cvm.Errorf(cvm.Invalid, "no PCR has the number %.8q", k)
		}
		out[i] = v
	}
	return out, nil
}

type ruleJSON struct {
	Name    string  `json:"name"`
	Binding Binding `json:"binding"`
	GPU     *struct {
		Roots             []root   `json:"roots"`     // 64 hex digits each
		RIMRoots          []root   `json:"rim_roots"` // likewise
		WithoutRevocation bool     `json:"without_revocation"`
		Drivers           []string `json:"drivers"`
		VBIOSes           []string `json:"vbioses"`
		AnyVersion        bool     `json:"any_version"`
	} `json:"gpu"`
	Token *struct {
		Issuer string   `json:"issuer"`
		JWKS   string   `json:"jwks"`    // the service's key set, exactly
		MaxAge int      `json:"max_age"` // seconds
		Models []string `json:"models"`
		GPUs   int      `json:"gpus"`
	} `json:"token"`
	TPM *struct {
		Roots             []root              `json:"roots"`
		WithoutRevocation bool                `json:"without_revocation"`
		Bank              string              `json:"bank"` // sha256, sha384 or sha512
		PCRs              map[string]hexBytes `json:"pcrs"`
		Projects          []string            `json:"projects"`
		AnyMachine        bool                `json:"any_machine"`
		Kernels           []hexBytes          `json:"kernels"`
		Phases            []claim.Phase       `json:"phases"`
	} `json:"tpm"`
}

// root is the sha256 of a root's SubjectPublicKeyInfo.
type root [32]byte

// UnmarshalText reads 64 hex digits.
func (r *root) UnmarshalText(b []byte) error {
	v, err := hex.DecodeString(string(b))
	if err != nil || len(v) != len(r) {
		return cvm.Errorf(cvm.Invalid, "%.80q: want 64 hex digits", b)
	}
	*r = root(v)
	return nil
}

func spkis(list []root) (out [][32]byte) {
	for _, r := range list {
		out = append(out, r)
	}
	return out
}

// ParsePolicy reads the JSON form of a policy strictly: attest.ParsePolicy's, with
// the rules of the parts in the member "parts". Without it there are none, and the
// policy is for attest.Verify. Errors carry code invalid.
func ParsePolicy(b []byte) (Policy, error) {
	var p Policy
	var m map[string]json.RawMessage
	if err := strict(b, maxPolicy, &m); err != nil {
		return p, cvm.Errorf(cvm.Invalid, "policy: %w", err)
	}
	rules, composite := m["parts"]
	if composite {
		var list []ruleJSON
		if err := strict(rules, maxPolicy, &list); err != nil {
			return p, cvm.Errorf(cvm.Invalid, "policy: parts: %w", err)
		}
		for _, j := range list {
			r, err := j.rule()
			if err != nil {
				return p, cvm.Errorf(cvm.Invalid, "policy: part %.40q: %w", j.Name, err)
			}
			p.Parts = append(p.Parts, r)
		}
		if err := p.validate(); err != nil {
			return p, err
		}
		delete(m, "parts")
		var err error
		if b, err = json.Marshal(m); err != nil {
			return p, cvm.Errorf(cvm.Invalid, "policy: %w", err)
		}
	}
	var err error
	p.CPU, err = attest.ParsePolicy(b)
	return p, err
}

func (j ruleJSON) rule() (Rule, error) {
	r := Rule{Name: j.Name, Binding: j.Binding}
	if g := j.GPU; g != nil {
		r.GPU = &nvidia.Policy{Roots: spkis(g.Roots), RIMRoots: spkis(g.RIMRoots), WithoutRevocation: g.WithoutRevocation, Drivers: g.Drivers, VBIOSes: g.VBIOSes, AnyVersion: g.AnyVersion}
	}
	if t := j.Token; t != nil {
		r.Token, r.JWKS = &nvidia.TokenPolicy{Issuer: t.Issuer, MaxAge: time.Duration(t.MaxAge) * time.Second, Models: t.Models, GPUs: t.GPUs}, []byte(t.JWKS)
	}
	if t := j.TPM; t != nil {
		banks := map[string]tpm.Alg{"sha256": tpm.SHA256, "sha384": tpm.SHA384, "sha512": tpm.SHA512}
		bank, ok := banks[t.Bank]
		if !ok {
			return r, cvm.Errorf(cvm.Invalid, "bank %.20q: want one of %v", t.Bank, slices.Sorted(maps.Keys(banks)))
		}
		pcrs, err := registers(t.PCRs)
		if err != nil {
			return r, err
		}
		r.TPM = &tpm.Policy{Roots: spkis(t.Roots), WithoutRevocation: t.WithoutRevocation, Bank: bank, PCRs: pcrs, Projects: t.Projects, AnyMachine: t.AnyMachine,
			Kernels: plain(t.Kernels), Phases: t.Phases}
	}
	return r, nil
}

// strict decodes one JSON value: no key that is unknown, or there twice or in two
// cases, and nothing after it.
func strict(b []byte, limit int, v any) error {
	if len(b) > limit {
		return cvm.Errorf(cvm.Invalid, "%d bytes, at most %d", len(b), limit)
	}
	if err := collateral.StrictKeys(b); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return cvm.Errorf(cvm.Invalid, "text after the JSON value")
	}
	return nil
}
