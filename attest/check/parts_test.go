package check_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/composite"
	"github.com/confidential-cloud/phala/attest/nvidia"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/simtee/simdev"
	"github.com/confidential-cloud/phala/attest/tpm"
	"github.com/confidential-cloud/phala/cvm"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func hexes(list [][]byte) []string {
	out := []string{}
	for _, b := range list {
		out = append(out, hex.EncodeToString(b))
	}
	return out
}

// machine is a TD with a GPU, a service's token about another one, and a TPM, as the
// tool contract says it, and the policy's rules for them.
type machine struct {
	*world
	parts, rules []any
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	gpu, chip := must(simdev.NewGPU("a", now())), must(simdev.NewTPM("a", now()))
	rd := tpm.ReportDataFor(chip.PKI.Certs[0].RawSubjectPublicKeyInfo)
	m := &machine{world: newWorld(t, made{rd: rd})}
	svc := must(simdev.NewService("a", now(), nvidia.NonceFor(rd[:])))
	q := must(chip.Evidence(tpm.NonceFor(m.ev.Quote)))
	pcrs := map[string]string{}
	for i, v := range q.PCRs {
		pcrs[string(must(json.Marshal(i)))] = hex.EncodeToString(v)
	}
	m.parts = []any{
		map[string]any{"name": "gpu-0", "gpu": map[string]any{"report": hex.EncodeToString(must(gpu.Sign(nvidia.NonceFor(rd[:])))), "certificates": hexes(gpu.PKI.DER()),
			"driver_rim": string(must(gpu.DriverRIM(nil))), "vbios_rim": string(must(gpu.VBIOSRIM(nil))), "rim_issuers": hexes(gpu.RIMPKI.DER()[2:]), "ocsp": hexes(must(gpu.OCSP(now())))}},
		map[string]any{"name": "gpu-1", "token": map[string]any{"eat": string(must(svc.EAT()))}},
		map[string]any{"name": "tpm", "tpm": map[string]any{"quote": hex.EncodeToString(q.Quote), "signature": hex.EncodeToString(q.Signature), "pcrs": pcrs,
			"certificates": hexes(q.Chain), "boot_log": hex.EncodeToString(q.BootLog), "issuers": hexes(chip.PKI.DER()[1:]), "crls": hexes(must(chip.PKI.CRLs(now())))}},
	}
	spki := func(p simdev.PKI) []string { r := p.Root(); return []string{hex.EncodeToString(r[:])} }
	m.rules = []any{
		map[string]any{"name": "gpu-0", "binding": "report_data", "gpu": map[string]any{"roots": spki(gpu.PKI), "rim_roots": spki(gpu.RIMPKI), "any_version": true}},
		map[string]any{"name": "gpu-1", "binding": "report_data", "token": map[string]any{"issuer": "https://nras.example", "jwks": string(must(svc.JWKS())), "max_age": 60, "models": []string{"GH100 A01 GSP BROM"}, "gpus": 1}},
		map[string]any{"name": "tpm", "binding": "quote+report_data", "tpm": map[string]any{"roots": spki(chip.PKI), "bank": "sha256", "pcrs": map[string]string{"0": strings.Repeat("00", 32)}, "any_machine": true}},
	}
	return m
}

// policy admits the machine's own TD with its parts.
func (m *machine) policy() []byte {
	p := m.hw.Policy(m.ev.ReportData, claim.PhaseRunning)
	var doc map[string]any
	if err := json.Unmarshal(must(p.MarshalJSON()), &doc); err != nil {
		panic(err)
	}
	doc["parts"] = m.rules
	return must(json.Marshal(doc))
}

func (m *machine) file() []byte {
	return m.attestation(func(d map[string]any) { d["parts"] = m.parts; delete(d, "root") })
}

func (m *machine) check(t *testing.T) check.Report {
	t.Helper()
	in, err := check.Parse(m.file())
	if err != nil {
		t.Fatal(err)
	}
	p, err := composite.ParsePolicy(m.policy())
	if err != nil {
		t.Fatal(err)
	}
	r, err := check.Run(in, check.Options{Now: now(), Policy: &p.CPU, Parts: p.Parts, PolicyName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func failedOf(r check.Report) (out []string) {
	for _, c := range r.Checks {
		if c.Status == claim.Failed {
			out = append(out, c.Name)
		}
	}
	return out
}

func TestComposite(t *testing.T) {
	m := newMachine(t)
	r := m.check(t)
	if !r.Verified() || r.Platform != cvm.PlatformSimulated.String() || len(r.Parts) != 3 {
		t.Fatalf("%s: %v", r.Summary, failedOf(r))
	}
	for i, name := range []string{"gpu-0", "gpu-1", "tpm"} {
		if r.Parts[i].Name != name {
			t.Errorf("part %d is %q", i, r.Parts[i].Name)
		}
	}
	if r.Parts[0].GPU == nil || r.Parts[1].Token == nil || r.Parts[2].TPM == nil {
		t.Errorf("claims are missing: %+v", r.Parts)
	}
	// The same by the function for other languages.
	raw, err := check.JSON(m.file(), must(json.Marshal(map[string]any{"policy": json.RawMessage(m.policy())})), now())
	var again check.Report
	if err != nil || json.Unmarshal(raw, &again) != nil || !again.Verified() || len(again.Parts) != 3 {
		t.Errorf("%v: %.200s", err, raw)
	}
	// And by a policy of the file, whose roots count as custom.
	own := m.attestation(func(d map[string]any) {
		d["parts"] = m.parts
		d["policy"] = json.RawMessage(bytes.Replace(m.policy(), []byte(`"simulated"`), []byte(`"custom"`), 1))
		delete(d, "root")
	})
	in, err := check.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := check.Run(in, check.Options{Now: now()}); err != nil || r.Policy != "file" || slices.ContainsFunc(failedOf(r), func(s string) bool { return strings.Contains(s, "/") }) {
		t.Errorf("%v: %v", err, failedOf(r))
	}
}

// A part that is missing, unnamed, unbound or another's refuses the whole.
func TestCompositeRefused(t *testing.T) {
	part := func(m *machine, i int, kind string) map[string]any {
		return m.parts[i].(map[string]any)[kind].(map[string]any)
	}
	rule := func(m *machine, i int, kind string) map[string]any {
		return m.rules[i].(map[string]any)[kind].(map[string]any)
	}
	other := must(simdev.NewService("b", now(), nil))
	for name, tc := range map[string]struct {
		check string
		edit  func(*machine)
	}{
		"a part is missing": {"tpm/part.expected", func(m *machine) { m.parts = m.parts[:2] }},
		"no parts at all":   {"gpu-0/part.expected", func(m *machine) { m.parts = nil }},
		"a part too many":   {"gpu-1/part.expected", func(m *machine) { m.rules = slices.Delete(m.rules, 1, 2) }},
		"another kind": {"gpu-0/part.expected", func(m *machine) {
			m.parts[0].(map[string]any)["name"], m.parts[1].(map[string]any)["name"] = "gpu-1", "gpu-0"
		}},
		"another GPU root":    {"gpu-0/root.admitted", func(m *machine) { rule(m, 0, "gpu")["roots"] = []string{strings.Repeat("00", 32)} }},
		"no GPU root":         {"gpu-0/root.admitted", func(m *machine) { delete(rule(m, 0, "gpu"), "roots") }},
		"no OCSP":             {"gpu-0/gpu.ocsp", func(m *machine) { part(m, 0, "gpu")["ocsp"] = []string{} }},
		"a cut report":        {"gpu-0/gpu.parse", func(m *machine) { part(m, 0, "gpu")["report"] = "11e0" }},
		"another service":     {"gpu-1/token.signature", func(m *machine) { rule(m, 1, "token")["jwks"] = string(must(other.JWKS())) }},
		"no key set":          {"gpu-1/token.signature", func(m *machine) { delete(rule(m, 1, "token"), "jwks") }},
		"no age of tokens":    {"gpu-1/token.fresh", func(m *machine) { delete(rule(m, 1, "token"), "max_age") }},
		"no PCRs":             {"tpm/tpm.pcrs", func(m *machine) { delete(rule(m, 2, "tpm"), "pcrs") }},
		"no lists":            {"tpm/crl.revoked", func(m *machine) { delete(part(m, 2, "tpm"), "crls") }},
		"a launch log is due": {"tpm/eventlog.replay", func(m *machine) { rule(m, 2, "tpm")["phases"] = []string{"release"} }},
		"another report data": {"gpu-0/gpu.nonce", func(m *machine) {
			m.ev.ReportData[0] ^= 1 // as a host would: the quote does not hold it
		}},
	} {
		m := newMachine(t)
		tc.edit(m)
		if r := m.check(t); r.Verified() || r.Parts != nil || !slices.Contains(failedOf(r), tc.check) {
			t.Errorf("%s: %s, failed %v, want %s", name, r.Verdict, failedOf(r), tc.check)
		}
	}
	m := newMachine(t)
	in, err := check.Parse(m.file())
	if err != nil {
		t.Fatal(err)
	}
	root := m.hw.RootSPKI()
	r, err := check.Run(in, check.Options{Now: now(), Roots: [][32]byte{root}})
	if err != nil || r.Verified() || !slices.Equal(failedOf(r), []string{"gpu-0/part.expected", "gpu-1/part.expected", "tpm/part.expected"}) {
		t.Errorf("parts that nobody admits: %v %v", err, failedOf(r))
	}
}

func TestPartsInputRefused(t *testing.T) {
	m := newMachine(t)
	for name, parts := range map[string]string{
		"no list": `{}`, "no name": `[{"token":{"eat":""}}]`, "no kind": `[{"name":"a"}]`, "two kinds": `[{"name":"a","token":{"eat":""},"tpm":{}}]`,
		"an unknown member": `[{"name":"a","token":{"eat":"","jwks":""}}]`, "a key twice": `[{"name":"a","name":"b","token":{"eat":""}}]`, "a key in two cases": `[{"Name":"b","name":"a","token":{"eat":""}}]`,
		"not hex": `[{"name":"a","tpm":{"quote":"x"}}]`, "PCR 24": `[{"name":"a","tpm":{"pcrs":{"24":""}}}]`, "PCR 01": `[{"name":"a","tpm":{"pcrs":{"01":""}}}]`,
		"a bad log": `[{"name":"a","tpm":{"event_log":"x"}}]`, "too many": "[" + strings.Repeat(`{"name":"a","token":{"eat":""}},`, 20) + `{"name":"a","token":{"eat":""}}]`,
	} {
		raw := m.attestation(func(d map[string]any) { d["parts"] = json.RawMessage(parts) })
		if _, err := check.Parse(raw); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, parts := range map[string]string{
		"no rules": `[]`, "null": `null`, "a nonce": `[{"name":"a","binding":"report_data","gpu":{"nonce":"00"}}]`, "no binding": `[{"name":"a","gpu":{}}]`,
		"a short root": `[{"name":"a","binding":"report_data","gpu":{"roots":["00"]}}]`, "no bank": `[{"name":"a","binding":"quote","tpm":{}}]`,
		"SHA-1": `[{"name":"a","binding":"quote","tpm":{"bank":"sha1"}}]`, "PCR -1": `[{"name":"a","binding":"quote","tpm":{"bank":"sha256","pcrs":{"-1":""}}}]`,
	} {
		if _, err := composite.ParsePolicy([]byte(`{"parts":` + parts + `}`)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("rule: %s: %v", name, err)
		}
	}
	if _, err := composite.ParsePolicy([]byte(`{"roots":["intel"],"Parts":[]}`)); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("another case: %v", err)
	}
}

// nitroFile is an enclave's evidence in the reference's form.
func nitroFile(t *testing.T, edit func(*simdev.Nitro), more map[string]any) (file []byte, hw *simdev.Nitro) {
	t.Helper()
	hw = must(simdev.NewNitro("a", now(), false))
	ev := attest.Evidence{Variant: claim.VariantNitroEnclave, ReportData: [64]byte{1, 2, 3}}
	hw.Document.UserData = ev.ReportData[:]
	if edit != nil {
		edit(hw)
	}
	ev.Document = must(hw.Sign())
	doc := map[string]any{"attestation": hex.EncodeToString(must(ev.Marshal())), "root": hex.EncodeToString(hw.PKI.Certs[len(hw.PKI.Certs)-1].Raw), "at": now().Unix()}
	for k, v := range more {
		doc[k] = v
	}
	return must(json.Marshal(doc)), hw
}

func TestNitro(t *testing.T) {
	file, hw := nitroFile(t, nil, nil)
	run := func(file []byte, o check.Options) check.Report {
		t.Helper()
		o.Now = now()
		in, err := check.Parse(file)
		if err != nil {
			t.Fatal(err)
		}
		return must(check.Run(in, o))
	}
	r := run(file, check.Options{})
	if !r.Verified() || r.Platform != cvm.PlatformCustom.String() || r.TCBStatus != "" {
		t.Fatalf("%+v", r)
	}
	for _, k := range []string{"app_id", "mr_system", "mrtd", "vm_config", "compose_hash"} {
		if _, ok := r.Claims[k]; ok {
			t.Errorf("an enclave claims %s", k)
		}
	}
	if len(r.Claims["nitro"]) == 0 || string(r.Claims["phase"]) != "" && string(r.Claims["phase"]) != `"unproven"` {
		t.Errorf("claims %v", r.Claims)
	}
	for _, c := range r.Checks {
		byPolicy := slices.Contains([]string{claim.DocumentNonce, claim.DocumentImage, claim.PhaseCheck, claim.CRLRevoked}, c.Name)
		if byPolicy != (c.Status == claim.Skipped) {
			t.Errorf("%s is %s", c.Name, c.Status)
		}
	}
	if r := run(file, check.Options{Roots: [][32]byte{attest.AWSRoots()[0].SPKI}}); r.Verified() || !slices.Equal(failedOf(r), []string{claim.RootAdmitted}) {
		t.Errorf("under AWS's root: %v", failedOf(r))
	}
	if r := run(file, check.Options{ReportData: &[64]byte{9}}); r.Verified() || !slices.Equal(failedOf(r), []string{claim.DocumentNonce}) {
		t.Errorf("another request: %v", failedOf(r))
	}
	strict := must(check.NamedPolicy("strict"))
	if r := run(file, check.Options{Policy: &strict, ReportData: &[64]byte{1, 2, 3}}); r.Verified() {
		t.Error("strict admits AWS Nitro")
	}
	var image []byte
	for i := range 3 {
		image = append(image, hw.Document.PCRs[i]...)
	}
	p := attest.Policy{Roots: []attest.Root{attest.SimulatedRoot(hw.PKI.Root())}, Phases: []claim.Phase{claim.PhaseUnproven}, AnyReportData: true,
		Nitro: attest.NitroPolicy{MaxAge: 60, Images: []cvm.ImageHash{sha256.Sum256(image)}}}
	if r := run(file, check.Options{Policy: &p}); r.Verified() || !slices.Equal(failedOf(r), []string{claim.CRLRevoked}) {
		t.Errorf("no revocation lists: %v", failedOf(r))
	}
	lists := must(hw.PKI.CRLs(now()))
	full, _ := nitroFile(t, nil, map[string]any{"collateral": map[string]any{"aws": map[string]any{"crls": hexes(lists)}}})
	if r := run(full, check.Options{Policy: &p}); !r.Verified() || r.Platform != cvm.PlatformSimulated.String() {
		t.Errorf("%v", failedOf(r))
	}
	set := must(check.ParseCollateral(must(check.EncodeCollateral(collateral.Set{AWS: &collateral.AWS{CRLs: lists}}))))
	if r := run(file, check.Options{Policy: &p, Collateral: &set}); !r.Verified() {
		t.Errorf("%v", failedOf(r))
	}
	debug, _ := nitroFile(t, func(n *simdev.Nitro) { n.Document.PCRs[0] = make([]byte, 48) }, nil)
	if r := run(debug, check.Options{}); !slices.ContainsFunc(r.Notes, func(s string) bool { return strings.HasPrefix(s, "DEBUG") }) {
		t.Errorf("debug is not told: %v", r.Notes)
	}
	if r := run(debug, check.Options{Policy: &p}); !slices.Contains(failedOf(r), claim.DocumentDebug) {
		t.Errorf("debug under a policy: %v", failedOf(r))
	}
	if rep := check.Reference(must(check.Parse(file)).Evidence, collateral.Set{}, []attest.Root{attest.SimulatedRoot(hw.PKI.Root())}, now().Add(time.Second)); rep.IsValid {
		t.Error("POST /verify admits an image that nobody named")
	}
}

func FuzzParts(f *testing.F) {
	m := newMachine(f)
	f.Add(must(json.Marshal(m.parts)))
	f.Add(m.policy())
	f.Fuzz(func(t *testing.T, b []byte) {
		if parts, err := composite.ParseParts(b); err == nil && len(parts) > composite.MaxParts || err != nil && cvm.CodeOf(err) != cvm.Invalid {
			t.Fatalf("%d parts, %v", len(parts), err)
		}
		if _, err := composite.ParsePolicy(b); err != nil && cvm.CodeOf(err) != cvm.Invalid {
			t.Fatal(err)
		}
	})
}

// Of a bundle with several chips the entry of the report's own chip and TCB is taken.
func TestBundleOfChips(t *testing.T) {
	vendor := must(simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32), Clock: now}))
	var entries []collateral.Entry
	var evs []attest.Evidence
	for _, edit := range []func(*simtee.AMDConfig){
		func(*simtee.AMDConfig) {}, func(c *simtee.AMDConfig) { c.Machine = "b" },
		func(c *simtee.AMDConfig) { c.TCB = simtee.DefaultTCB("Milan"); c.TCB.Microcode++ },
	} {
		hw := must(vendor.With(edit))
		ev := attest.Evidence{Variant: cvm.VariantSNP, Report: must(hw.Report(cvm.Measurement{1}, [32]byte{}, 0, [64]byte{}))}
		s := must(attest.Subject(ev))
		entries = append(entries, collateral.Entry{Subject: s.String(), Fetched: now(), Set: must(hw.Collateral(now()))})
		evs = append(evs, ev)
	}
	last := evs[2]
	leaves := map[string][]byte{}
	for _, e := range entries {
		leaves[e.Subject] = e.Set.AMD.Leaf
	}
	if len(leaves) != 3 {
		t.Fatalf("%d subjects", len(leaves))
	}
	all := must(collateral.Merge(collateral.Bundle{Format: collateral.BundleFormat, Entries: entries}))
	raw := must(all.Marshal())
	for i, ev := range evs {
		set, err := check.ReadCollateral(raw, ev)
		if err != nil || !bytes.Equal(set.AMD.Leaf, leaves[must(attest.Subject(ev)).String()]) {
			t.Errorf("chip %d: %v", i, err)
		}
	}
	less := must(collateral.Merge(collateral.Bundle{Format: collateral.BundleFormat, Entries: entries[:2]}))
	if _, err := check.ReadCollateral(must(less.Marshal()), last); cvm.ReasonOf(err) != "collateral-unavailable" {
		t.Errorf("another TCB's certificate is taken: %v", err)
	}
	nitro := attest.Evidence{Variant: claim.VariantNitroEnclave}
	if _, err := check.ReadCollateral(raw, nitro); cvm.CodeOf(err) != cvm.Invalid || cvm.ReasonOf(err) != "collateral-unavailable" {
		t.Errorf("AWS: %v", err)
	}
}
