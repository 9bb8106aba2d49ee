package composite_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/composite"
	"github.com/confidential-cloud/phala/attest/nvidia"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/attest/tpm"
	"github.com/confidential-cloud/phala/cvm"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is one simulated machine: a TD, two GPUs (one by its own report, one by a
// service's token) and a TPM.
type world struct {
	guest *simtee.Guest
	gpu   *simdev.GPU
	tpm   *simdev.TPM
	set   collateral.Set
	ev    composite.Evidence
	p     composite.Policy
}

func newWorld(t *testing.T) *world {
	t.Helper()
	hw := must(simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{1}, 32), Clock: func() time.Time { return at }}))
	w := &world{gpu: must(simdev.NewGPU("a", at)), tpm: must(simdev.NewTPM("a", at)), set: must(hw.Collateral(at))}
	w.guest = must(hw.Boot(context.Background(), simtee.Boot{Name: "app", AppID: cvm.AppID{7}, ComposeHash: cvm.ComposeHash{8}, InstanceID: cvm.InstanceID{9}}))
	rd := tpm.ReportDataFor(w.tpm.PKI.Certs[0].RawSubjectPublicKeyInfo)
	w.ev.CPU = must(w.guest.Evidence(context.Background(), rd))
	w.ev.Parts = []composite.Part{w.gpuPart(w.gpu, rd), w.tokenPart(rd), w.tpmPart(w.tpm, w.ev.CPU.Quote)}
	w.p = composite.Policy{CPU: hw.Policy(rd, claim.PhaseRelease), Parts: []composite.Rule{
		{Name: "gpu-0", Binding: composite.ByReportData, GPU: &nvidia.Policy{Roots: [][32]byte{w.gpu.PKI.Root()}, RIMRoots: [][32]byte{w.gpu.RIMPKI.Root()}, AnyVersion: true}},
		{Name: "gpu-1", Binding: composite.ByReportData, Token: &nvidia.TokenPolicy{Issuer: "https://nras.example", MaxAge: time.Minute, Models: []string{"GH100 A01 GSP BROM"}, GPUs: 1}},
		{Name: "tpm", Binding: composite.ByQuoteAndKey, TPM: &tpm.Policy{Roots: [][32]byte{w.tpm.PKI.Root()}, Bank: tpm.SHA256, PCRs: map[int][]byte{0: make([]byte, 32)}, AnyMachine: true}},
	}}
	w.p.Parts[1].JWKS = must(must(simdev.NewService("a", at, nil)).JWKS())
	return w
}

func (w *world) gpuPart(g *simdev.GPU, rd [64]byte) composite.Part {
	return composite.Part{Name: "gpu-0", GPU: &composite.GPU{
		Evidence:     nvidia.Evidence{Report: must(g.Sign(nvidia.NonceFor(rd[:]))), Chain: g.PKI.DER()},
		Endorsements: nvidia.Endorsements{DriverRIM: must(g.DriverRIM(nil)), VBIOSRIM: must(g.VBIOSRIM(nil)), RIMIssuers: g.RIMPKI.DER()[2:], OCSP: must(g.OCSP(at))},
	}}
}

func (w *world) tokenPart(rd [64]byte) composite.Part {
	svc := must(simdev.NewService("a", at, nvidia.NonceFor(rd[:])))
	return composite.Part{Name: "gpu-1", Token: &composite.Token{EAT: must(svc.EAT())}}
}

func (w *world) tpmPart(h *simdev.TPM, quote []byte) composite.Part {
	return composite.Part{Name: "tpm", TPM: &composite.TPM{Evidence: must(h.Evidence(tpm.NonceFor(quote))),
		Endorsements: tpm.Endorsements{Chain: h.PKI.DER()[1:], CRLs: must(h.PKI.CRLs(at))}}}
}

func (w *world) verify() (composite.Result, []claim.Check, error) {
	return composite.Verify(w.ev, w.set, w.p, at)
}

func failed(err error) (out []string) {
	var r *claim.Rejection
	if errors.As(err, &r) {
		for _, c := range r.Checks {
			if c.Verdict == claim.Failed {
				out = append(out, c.Name)
			}
		}
	}
	return out
}

func TestOneReport(t *testing.T) {
	w := newWorld(t)
	r, checks, err := w.verify()
	if err != nil {
		t.Fatal(err)
	}
	if !r.CPU.Valid() || r.CPU.Claims().AppID != (cvm.AppID{7}) || len(r.Parts) != 3 {
		t.Fatalf("%+v", r)
	}
	for i, want := range []struct {
		variant string
		binding composite.Binding
	}{{claim.VariantGPU, composite.ByReportData}, {claim.VariantGPUToken, composite.ByReportData}, {claim.VariantTPM, composite.ByQuoteAndKey}} {
		if r.Parts[i].Variant != want.variant || r.Parts[i].Binding != want.binding {
			t.Errorf("part %d: %+v", i, r.Parts[i])
		}
	}
	if r.Parts[0].GPU.Driver == "" || len(r.Parts[1].Token.GPUs) != 1 || r.Parts[2].TPM.Bank != tpm.SHA256 {
		t.Errorf("claims are missing: %+v", r.Parts)
	}
	for _, name := range []string{claim.QuoteSignature, "gpu-0/" + claim.GPUNonce, "gpu-0/" + claim.PartBinding, "gpu-1/" + claim.TokenNonce, "tpm/" + claim.TPMQuoteNonce, "tpm/" + claim.PartBinding} {
		if !slices.ContainsFunc(checks, func(c claim.Check) bool { return c.Name == name && c.Verdict == claim.Passed && c.Title != "" }) {
			t.Errorf("no passed check %s", name)
		}
	}
}

// A part that is not bound, not named, missing, of another kind or shown twice is
// refused, whatever it proves alone.
func TestUnboundIsRefused(t *testing.T) {
	other := [64]byte{1}
	for name, tc := range map[string]struct {
		want []string
		edit func(*world)
	}{
		"GPU asked for other report data": {[]string{"gpu-0/gpu.nonce"}, func(w *world) { w.ev.Parts[0] = w.gpuPart(w.gpu, other) }},
		"token for other report data":     {[]string{"gpu-1/token.nonce"}, func(w *world) { w.ev.Parts[1] = w.tokenPart(other) }},
		"TPM asked for another quote":     {[]string{"tpm/tpm.nonce"}, func(w *world) { w.ev.Parts[2] = w.tpmPart(w.tpm, []byte("other")) }},
		"another machine's TPM": {[]string{"tpm/part.binding"}, func(w *world) {
			h := must(simdev.NewTPM("b", at))
			w.ev.Parts[2] = w.tpmPart(h, w.ev.CPU.Quote)
			w.p.Parts[2].TPM.Roots = [][32]byte{h.PKI.Root()}
		}},
		"a GPU is missing":           {[]string{"gpu-0/part.expected"}, func(w *world) { w.ev.Parts = w.ev.Parts[1:] }},
		"a part nobody asked for":    {[]string{"gpu-0/part.expected"}, func(w *world) { w.p.Parts = w.p.Parts[1:] }},
		"a part twice":               {[]string{"tpm/part.expected"}, func(w *world) { w.ev.Parts = append(w.ev.Parts, w.ev.Parts[2]) }},
		"too many parts":             {[]string{"parts/part.expected", "gpu-0/part.expected", "gpu-1/part.expected", "tpm/part.expected"}, func(w *world) { w.ev.Parts = slices.Repeat(w.ev.Parts, 7) }},
		"a token for a report":       {[]string{"gpu-0/part.expected"}, func(w *world) { w.ev.Parts[0].GPU, w.ev.Parts[0].Token = nil, w.ev.Parts[1].Token }},
		"two kinds in one part":      {[]string{"gpu-0/part.expected"}, func(w *world) { w.ev.Parts[0].Token = w.ev.Parts[1].Token }},
		"nothing in a part":          {[]string{"gpu-0/part.expected"}, func(w *world) { w.ev.Parts[0].GPU = nil }},
		"a GPU that fails by itself": {[]string{"gpu-0/root.admitted"}, func(w *world) { w.p.Parts[0].GPU.Roots = nil }},
		"two GPUs for one": {[]string{"gpu-0/part.expected"}, func(w *world) {
			g := must(simdev.NewGPU("b", at))
			w.p.Parts[0].GPU.Roots = append(w.p.Parts[0].GPU.Roots, g.PKI.Root())
			w.p.Parts[0].GPU.RIMRoots = append(w.p.Parts[0].GPU.RIMRoots, g.RIMPKI.Root())
			w.ev.Parts = append(w.ev.Parts, w.gpuPart(g, tpm.ReportDataFor(w.tpm.PKI.Certs[0].RawSubjectPublicKeyInfo)))
		}},
		"one GPU for two": {[]string{"gpu-2/part.expected"}, func(w *world) {
			p, r := w.ev.Parts[0], w.p.Parts[0]
			p.Name, r.Name = "gpu-2", "gpu-2"
			w.ev.Parts, w.p.Parts = append(w.ev.Parts, p), append(w.p.Parts, r)
		}},
		"one token for two": {[]string{"gpu-2/part.expected"}, func(w *world) {
			p, r := w.ev.Parts[1], w.p.Parts[1]
			p.Name, r.Name = "gpu-2", "gpu-2"
			p.Token = &composite.Token{EAT: append([]byte(" "), p.Token.EAT...)}
			w.ev.Parts, w.p.Parts = append(w.ev.Parts, p), append(w.p.Parts, r)
		}},
		"the CPU is refused": {[]string{claim.RootAdmitted}, func(w *world) { w.p.CPU.Roots = nil }},
	} {
		w := newWorld(t)
		tc.edit(w)
		_, _, err := w.verify()
		got := slices.DeleteFunc(failed(err), func(n string) bool { return name == "the CPU is refused" && n != claim.RootAdmitted })
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: failed %v, want %v (%v)", name, got, tc.want, err)
		}
	}
}

// A TPM bound by the quote alone does not need the report data; the policy says so.
func TestTPMByQuoteAlone(t *testing.T) {
	w := newWorld(t)
	h := must(simdev.NewTPM("b", at))
	w.ev.Parts[2], w.p.Parts[2].Binding, w.p.Parts[2].TPM.Roots = w.tpmPart(h, w.ev.CPU.Quote), composite.ByQuote, [][32]byte{h.PKI.Root()}
	if _, _, err := w.verify(); err != nil {
		t.Fatal(err)
	}
}

func TestPolicyRefusals(t *testing.T) {
	for name, edit := range map[string]func(*composite.Policy){
		"nothing":  func(p *composite.Policy) { *p = composite.Policy{} },
		"no parts": func(p *composite.Policy) { p.Parts = nil },
		"too many": func(p *composite.Policy) {
			for i := range composite.MaxParts {
				r := p.Parts[0]
				r.Name = string(rune('a' + i))
				p.Parts = append(p.Parts, r)
			}
		},
		"no name":             func(p *composite.Policy) { p.Parts[0].Name = "" },
		"a name twice":        func(p *composite.Policy) { p.Parts[0].Name = "tpm" },
		"no binding":          func(p *composite.Policy) { p.Parts[0].Binding = "" },
		"a GPU by the quote":  func(p *composite.Policy) { p.Parts[0].Binding = composite.ByQuote },
		"a TPM by its nonce":  func(p *composite.Policy) { p.Parts[2].Binding = composite.ByReportData },
		"an unknown binding":  func(p *composite.Policy) { p.Parts[1].Binding = "trust me" },
		"no kind":             func(p *composite.Policy) { p.Parts[0].GPU = nil },
		"two kinds":           func(p *composite.Policy) { p.Parts[0].Token = p.Parts[1].Token },
		"a nonce of its own":  func(p *composite.Policy) { p.Parts[0].GPU.Nonce = make([]byte, 32) },
		"a TPM nonce as well": func(p *composite.Policy) { p.Parts[2].TPM.Nonce = []byte{1} },
	} {
		w := newWorld(t)
		edit(&w.p)
		if _, _, err := w.verify(); cvm.CodeOf(err) != cvm.Invalid || len(failed(err)) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := composite.Verify(composite.Evidence{}, collateral.Set{}, composite.Policy{CPU: attest.Policy{}, Parts: newWorld(t).p.Parts}, at); err == nil {
		t.Error("no evidence at all is accepted")
	}
}
