// Package composite verifies a CPU's evidence together with that of the devices
// under it: Verify takes a TD or an SNP guest, its GPUs and its TPM, and a policy that
// names each of them, and gives one report. A part that nothing binds to the CPU's
// evidence is refused, whatever it proves alone.
//
// What binds a part, and what that does not say, is in docs/spec/other-evidence.md.
package composite

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/nvidia"
	"github.com/confidential-cloud/phala/attest/tpm"
	"github.com/confidential-cloud/phala/cvm"
)

// MaxParts bounds the parts of one evidence, and of one policy.
const MaxParts = 20

// Binding is the claim of the CPU's evidence that binds a part.
type Binding string

const (
	// ByReportData: the part was asked with nvidia.NonceFor(report data).
	ByReportData Binding = "report_data"
	// ByQuote: the TPM's qualifying data is sha256 of the CPU's quote.
	ByQuote Binding = "quote"
	// ByQuoteAndKey: ByQuote, and the report data is tpm.ReportDataFor(the TPM's key), so
	// that no other machine's TPM can stand in.
	ByQuoteAndKey Binding = "quote+report_data"
)

// Evidence is a CPU's evidence and its parts.
type Evidence struct {
	CPU   attest.Evidence
	Parts []Part
}

// Part is one device: exactly one of GPU, Token, TPM.
type Part struct {
	Name  string // as in the policy, for example "gpu-0"
	GPU   *GPU
	Token *Token
	TPM   *TPM
}

// GPU is a GPU's own report.
type GPU struct {
	Evidence     nvidia.Evidence
	Endorsements nvidia.Endorsements
}

// Token is a verifier service's answer about GPUs.
type Token struct{ EAT []byte }

// TPM is a TPM's quote.
type TPM struct {
	Evidence     tpm.Evidence
	Endorsements tpm.Endorsements
}

// Policy is what a relying party admits. Every part that it names must be there, and
// no other. The zero Policy accepts nothing.
type Policy struct {
	CPU   attest.Policy
	Parts []Rule
}

// Rule is what is admitted of one part: exactly one of GPU, Token, TPM. Their Nonce
// must be empty: it comes from the CPU's evidence.
type Rule struct {
	Name    string
	Binding Binding // ByReportData for GPU and Token; ByQuote or ByQuoteAndKey for TPM
	GPU     *nvidia.Policy
	Token   *nvidia.TokenPolicy
	JWKS    []byte // Token: the service's key set. Who shows a token cannot be asked for it
	TPM     *tpm.Policy
}

// Result is composite evidence that passed a policy.
type Result struct {
	CPU   attest.Verified
	Parts []Sub
}

// Sub is what one part proved, and by what it belongs to the CPU's evidence.
type Sub struct {
	Name    string              `json:"name"`
	Variant string              `json:"variant"`
	Binding Binding             `json:"binding"`
	GPU     *nvidia.Claims      `json:"gpu,omitempty"`
	Token   *nvidia.TokenClaims `json:"token,omitempty"`
	TPM     *tpm.Claims         `json:"tpm,omitempty"`
}

// Verify checks the CPU's evidence and each part. The checks of a part have its name
// and a slash before theirs. A rejection is a *claim.Rejection with all of them; a
// policy that contradicts itself is an error of code invalid.
func Verify(ev Evidence, set collateral.Set, p Policy, at time.Time) (Result, []claim.Check, error) {
	if err := p.validate(); err != nil {
		return Result{}, nil, err
	}
	cpu, checks, cpuErr := attest.Verify(ev.CPU, set, p.CPU, at)
	v := &verifier{ev: ev.CPU, cpu: cpu, at: at, checks: slices.Clone(checks), devices: map[[32]byte]string{}}
	used := map[string]bool{}
	if len(ev.Parts) > MaxParts {
		v.add("parts", check(claim.PartExpected, fmt.Sprintf("at most %d", MaxParts), fmt.Sprint(len(ev.Parts)), "too many parts"))
		ev.Parts = nil
	}
	for _, part := range ev.Parts {
		i := slices.IndexFunc(p.Parts, func(r Rule) bool { return r.Name == part.Name })
		if i < 0 || used[part.Name] {
			v.add(clip(part.Name), unexpected(part.Name))
			continue
		}
		used[part.Name] = true
		v.part(part, p.Parts[i])
	}
	for _, r := range p.Parts {
		if !used[r.Name] {
			v.add(r.Name, check(claim.PartExpected, r.Name, "nothing", "the evidence has no such part"))
		}
	}
	if cpuErr != nil || !claim.OK(v.checks) {
		return Result{}, v.checks, v.reject(cpuErr)
	}
	return Result{CPU: cpu, Parts: v.subs}, v.checks, nil
}

// Unexpected are the checks of parts that no policy names: each of them is refused.
func Unexpected(parts []Part) []claim.Check {
	v := &verifier{}
	for _, p := range parts[:min(len(parts), MaxParts)] {
		v.add(clip(p.Name), unexpected(p.Name))
	}
	return v.checks
}

func unexpected(name string) claim.Check {
	return check(claim.PartExpected, "a part that the policy names, once", clip(name), "the policy does not admit this part")
}

// reject keeps what the CPU's own says of genuineness and of the app.
func (v *verifier) reject(cpuErr error) error {
	out := &claim.Rejection{Checks: v.checks, Genuine: cpuErr == nil}
	var r *claim.Rejection
	switch {
	case errors.As(cpuErr, &r):
		out.Genuine, out.Unverified = r.Genuine, r.Unverified
	case v.cpu.Valid():
		out.Unverified = v.cpu.Claims()
	}
	return out
}

// validate refuses a policy of which nothing sensible can be asked.
func (p Policy) validate() error {
	if len(p.Parts) == 0 || len(p.Parts) > MaxParts {
		return cvm.Errorf(cvm.Invalid, "composite policy: %d parts, want 1 to %d", len(p.Parts), MaxParts).WithFix("without parts, use attest.Verify")
	}
	seen := map[string]bool{}
	for _, r := range p.Parts {
		kinds, nonce, bind := 0, 0, false
		if r.GPU != nil {
			kinds, nonce, bind = kinds+1, nonce+len(r.GPU.Nonce), r.Binding == ByReportData
		}
		if r.Token != nil {
			kinds, nonce, bind = kinds+1, nonce+len(r.Token.Nonce), r.Binding == ByReportData
		}
		if r.TPM != nil {
			kinds, nonce, bind = kinds+1, nonce+len(r.TPM.Nonce), r.Binding == ByQuote || r.Binding == ByQuoteAndKey
		}
		switch {
		case r.Name == "" || seen[r.Name]:
			return cvm.Errorf(cvm.Invalid, "composite policy: part %q has no name, or another's", r.Name)
		case kinds != 1:
			return cvm.Errorf(cvm.Invalid, "composite policy: part %s is of %d kinds, want one", r.Name, kinds)
		case !bind:
			return cvm.Errorf(cvm.Invalid, "composite policy: nothing binds part %s (%q)", r.Name, r.Binding).WithFix("name the binding: report_data for GPUs, quote or quote+report_data for TPMs")
		case nonce != 0:
			return cvm.Errorf(cvm.Invalid, "composite policy: part %s names a nonce of its own", r.Name).WithFix("leave it empty: it comes from the CPU's evidence")
		}
		seen[r.Name] = true
	}
	return nil
}

type verifier struct {
	ev      attest.Evidence
	cpu     attest.Verified
	at      time.Time
	checks  []claim.Check
	subs    []Sub
	devices map[[32]byte]string // what identifies each device, and the part that showed it
}

// add lists a part's checks.
func (v *verifier) add(part string, checks ...claim.Check) {
	for _, c := range checks {
		c.Name = part + "/" + c.Name
		v.checks = append(v.checks, c)
	}
}

// part verifies one part with the nonce that only this CPU evidence gives. Its report
// data was compared with the quote's; a rejected CPU rejects everything anyhow.
func (v *verifier) part(part Part, r Rule) {
	sub := Sub{Name: r.Name, Binding: r.Binding}
	var checks []claim.Check
	var devices [][32]byte
	var err error
	bound := true
	switch {
	case part.GPU != nil && r.GPU != nil && part.Token == nil && part.TPM == nil:
		p := *r.GPU
		p.Nonce = nvidia.NonceFor(v.ev.ReportData[:])
		var c nvidia.Claims
		c, checks, err = nvidia.Verify(part.GPU.Evidence, part.GPU.Endorsements, p, v.at)
		sub.Variant, sub.GPU, devices = claim.VariantGPU, &c, [][32]byte{c.DeviceID}
	case part.Token != nil && r.Token != nil && part.GPU == nil && part.TPM == nil:
		p := *r.Token
		p.Nonce = nvidia.NonceFor(v.ev.ReportData[:])
		var c nvidia.TokenClaims
		c, checks, err = nvidia.VerifyToken(part.Token.EAT, r.JWKS, p, v.at)
		sub.Variant, sub.Token = claim.VariantGPUToken, &c
		for _, g := range c.GPUs {
			devices = append(devices, sha256.Sum256([]byte(g.UEID)))
		}
	case part.TPM != nil && r.TPM != nil && part.GPU == nil && part.Token == nil:
		p := *r.TPM
		p.Nonce = tpm.NonceFor(v.quote())
		var c tpm.Claims
		c, checks, err = tpm.Verify(part.TPM.Evidence, part.TPM.Endorsements, p, v.at)
		sub.Variant, sub.TPM, devices = claim.VariantTPM, &c, [][32]byte{c.KeySPKI}
		bound = r.Binding == ByQuote || v.ev.ReportData == tpm.ReportDataFor(c.Key)
	default:
		v.add(r.Name, check(claim.PartExpected, "the kind of part that the policy names", "another", "the part is of another kind"))
		return
	}
	v.add(r.Name, checks...)
	switch other := v.claimed(devices, r.Name); {
	case err != nil:
		return
	case other != "":
		v.add(r.Name, check(claim.PartExpected, "another device", other, "the same device stands in twice"))
	case !bound:
		v.add(r.Name, check(claim.PartBinding, "report data of this TPM's key", "other report data", "the CPU's evidence does not name this TPM"))
	default:
		v.add(r.Name, claim.Check{Name: claim.PartBinding, Title: title(), Verdict: claim.Passed, Required: true, Got: string(r.Binding)})
		v.subs = append(v.subs, sub)
	}
}

// claimed notes that a part showed these devices; other is the part that had already.
func (v *verifier) claimed(devices [][32]byte, part string) (other string) {
	for _, d := range devices {
		if o, ok := v.devices[d]; ok {
			other = o
		}
		v.devices[d] = part
	}
	return other
}

// quote is the CPU's own statement, as it was signed.
func (v *verifier) quote() []byte {
	switch v.ev.Variant {
	case cvm.VariantSNP:
		return v.ev.Report
	case claim.VariantNitroEnclave, claim.VariantNitroTPM:
		return v.ev.Document
	}
	return v.ev.Quote
}

func title() string { return "The part belongs to this CPU's evidence" }

// check is a failed one.
func check(name, want, got, reason string) claim.Check {
	t := title()
	if name == claim.PartExpected {
		t = "The evidence has the parts that the policy names"
	}
	return claim.Check{Name: name, Title: t, Verdict: claim.Failed, Required: true, Want: want, Got: got, Reason: reason,
		Fix: "collect the evidence of every device after the CPU's report data was chosen, and name each device in the policy"}
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40]
	}
	return s
}
