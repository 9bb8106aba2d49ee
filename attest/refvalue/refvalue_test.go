package refvalue_test

import (
	"bytes"
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/measure/sample"
	"github.com/confidential-cloud/phala/attest/refvalue"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/cvm"
)

func day(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }

func m(n byte) cvm.Measurement { return cvm.Measurement{n} }

func document(t testing.TB) []byte {
	t.Helper()
	img, err := measure.New(measure.Files{Firmware: sample.Firmware(), Kernel: sample.Kernel(), Initrd: sample.Initrd(), Cmdline: sample.Cmdline})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Volume.UnmarshalText([]byte("344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790")); err != nil {
		t.Fatal(err)
	}
	doc, err := img.Document()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func acpi() measure.ACPI {
	return measure.ACPI{Topology: measure.Topology{QEMUVersion: "9.2.1", CPUCount: 2, MemorySize: 2 << 30}, Loader: m(1), RSDP: m(2), Tables: m(3)}
}

func values(t testing.TB) refvalue.Values {
	return refvalue.Values{
		Format: refvalue.Format, Version: 7, Issued: day(1), Expires: day(20), MinEvalNumber: 17, DenyAdvisories: []string{"INTEL-SA-00001"},
		TDXModules: []refvalue.TDXModule{{MRSeam: m(10), Version: "1.5.16", Status: refvalue.Admitted}, {MRSeam: m(11), Version: "1.5.1", Status: refvalue.Withdrawn}},
		SNP:        []refvalue.SNP{{Product: sevsnp.Milan, MinTCB: sevsnp.TCB{BootLoader: 4, SNP: 20, Microcode: 200}}},
		Images: []refvalue.Image{
			{OSImageHash: cvm.ImageHash{1}, Version: "0.6.0", Flavour: "prod", Status: refvalue.Admitted, TDX: document(t), ACPI: []measure.ACPI{acpi()}, SNPDigests: []cvm.Measurement{m(20)}},
			{OSImageHash: cvm.ImageHash{2}, Version: "0.5.0", Status: refvalue.Withdrawn, TDX: document(t), SNPDigests: []cvm.Measurement{m(21)}},
		},
	}
}

func keys(t testing.TB) (signer, verifier string) {
	t.Helper()
	s, v, err := note.GenerateKey(rand.Reader, "values.example")
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func sign(t testing.TB, v refvalue.Values, key string) []byte {
	t.Helper()
	b, err := refvalue.Sign(v, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpen(t *testing.T) {
	skey, vkey := keys(t)
	_, other := keys(t)
	v := values(t)
	feed := sign(t, v, skey)
	got, mark, err := refvalue.Open(feed, []string{other, vkey}, refvalue.Mark{}, day(2))
	if err != nil {
		t.Fatal(err)
	}
	again, err := refvalue.Sign(got, skey)
	if err != nil || !bytes.Equal(again, feed) {
		t.Errorf("does not re-sign to the same bytes: %v", err)
	}
	if _, same, err := refvalue.Open(feed, []string{vkey}, mark, day(2)); err != nil || same != mark {
		t.Errorf("the same feed again: %v", err)
	}
	fork := v
	fork.MinEvalNumber++
	older := v
	older.Version--
	for name, tc := range map[string]struct {
		feed   []byte
		keys   []string
		at     time.Time
		reason string
	}{
		"no key":          {feed, nil, day(2), ""},
		"not a key":       {feed, []string{"x"}, day(2), ""},
		"another key":     {feed, []string{other}, day(2), refvalue.ReasonSignature},
		"unsigned":        {must(t, v), []string{vkey}, day(2), refvalue.ReasonSignature},
		"empty":           {nil, []string{vkey}, day(2), refvalue.ReasonSignature},
		"edited":          {bytes.Replace(feed, []byte(`"min_eval_number": 17`), []byte(`"min_eval_number": 16`), 1), []string{vkey}, day(2), refvalue.ReasonSignature},
		"text before":     {append([]byte("x"), feed...), []string{vkey}, day(2), refvalue.ReasonSignature},
		"older":           {sign(t, older, skey), []string{vkey}, day(2), refvalue.ReasonOlder},
		"same number":     {sign(t, fork, skey), []string{vkey}, day(2), refvalue.ReasonForked},
		"before its time": {feed, []string{vkey}, day(1).Add(-time.Second), refvalue.ReasonExpired},
		"expired":         {feed, []string{vkey}, day(20), refvalue.ReasonExpired},
		"huge":            {make([]byte, refvalue.MaxFeed+1), []string{vkey}, day(2), ""},
	} {
		if _, _, err := refvalue.Open(tc.feed, tc.keys, mark, tc.at); err == nil || cvm.ReasonOf(err) != tc.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := v
	newer.Version++
	if _, next, err := refvalue.Open(sign(t, newer, skey), []string{vkey}, mark, day(2)); err != nil || next.Version != 8 {
		t.Errorf("newer: %v", err)
	}
}

// What is signed, but not canonical, is still refused: two readers could differ.
func TestOpenRefusesOtherForms(t *testing.T) {
	skey, vkey := keys(t)
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	text := string(must(t, values(t)))
	for name, by := range map[string][2]string{
		"twice": {`"version": 7,`, "\"version\": 6,\n  \"version\": 7,"}, "case variant": {`"version": 7,`, `"Version": 7,`}, "unknown": {`"version": 7,`, "\"version\": 7,\n  \"any\": true,"},
		"spaces": {`"version": 7,`, `"version":  7,`}, "left out": {"  \"min_eval_number\": 17,\n", ""}, "a zone": {"2026-03-01T00:00:00Z", "2026-03-01T00:00:00+00:00"}, "null list": {"\"snp\": [\n", "\"snp\": null, \"x\": [\n"},
	} {
		if !strings.Contains(text, by[0]) {
			t.Fatalf("no %q in %s", by[0], text)
		}
		feed, err := note.Sign(&note.Note{Text: strings.Replace(text, by[0], by[1], 1)}, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := refvalue.Open(feed, []string{vkey}, refvalue.Mark{}, day(2)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func must(t testing.TB, v refvalue.Values) []byte {
	t.Helper()
	b, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*refvalue.Values){
		"format":              func(v *refvalue.Values) { v.Format = "" },
		"no version":          func(v *refvalue.Values) { v.Version = 0 },
		"no times":            func(v *refvalue.Values) { v.Issued, v.Expires = time.Time{}, time.Time{} },
		"local time":          func(v *refvalue.Values) { v.Issued = v.Issued.In(time.FixedZone("x", 3600)) },
		"part of a second":    func(v *refvalue.Values) { v.Expires = v.Expires.Add(1) },
		"expires first":       func(v *refvalue.Values) { v.Expires = v.Issued },
		"too long":            func(v *refvalue.Values) { v.Expires = v.Issued.Add(refvalue.MaxValidity + time.Second) },
		"negative number":     func(v *refvalue.Values) { v.MinEvalNumber = -1 },
		"empty advisory":      func(v *refvalue.Values) { v.DenyAdvisories = []string{""} },
		"empty module":        func(v *refvalue.Values) { v.TDXModules[0].MRSeam = m(0) },
		"module twice":        func(v *refvalue.Values) { v.TDXModules[0].MRSeam = m(11) },
		"module's status":     func(v *refvalue.Values) { v.TDXModules[0].Status = "" },
		"unknown product":     func(v *refvalue.Values) { v.SNP[0].Product = "Rome" },
		"product twice":       func(v *refvalue.Values) { v.SNP = append(v.SNP, v.SNP[0]) },
		"no TCB":              func(v *refvalue.Values) { v.SNP[0].MinTCB = sevsnp.TCB{} },
		"empty image":         func(v *refvalue.Values) { v.Images[0].OSImageHash = cvm.ImageHash{} },
		"image twice":         func(v *refvalue.Values) { v.Images[0].OSImageHash = cvm.ImageHash{2} },
		"image's status":      func(v *refvalue.Values) { v.Images[0].Status = "good" },
		"broken document":     func(v *refvalue.Values) { v.Images[0].TDX = v.Images[0].TDX[1:] },
		"broken ACPI":         func(v *refvalue.Values) { v.Images[0].ACPI[0].Loader = m(0) },
		"empty digest":        func(v *refvalue.Values) { v.Images[0].SNPDigests[0] = m(0) },
		"digest of two":       func(v *refvalue.Values) { v.Images[0].SNPDigests[0] = m(21) },
		"too many modules":    func(v *refvalue.Values) { v.TDXModules = make([]refvalue.TDXModule, refvalue.MaxModules+1) },
		"too many images":     func(v *refvalue.Values) { v.Images = make([]refvalue.Image, refvalue.MaxImages+1) },
		"too many advisories": func(v *refvalue.Values) { v.DenyAdvisories = slices.Repeat([]string{"x"}, 300) },
	} {
		v := values(t)
		change(&v)
		if err := v.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := refvalue.Sign(v, "PRIVATE+KEY+x"); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestFill(t *testing.T) {
	v := values(t)
	base := attest.Policy{MinEvalNumber: 3, DenyAdvisories: []string{"mine"}}
	p := v.Fill(base)
	if !slices.Equal(p.TD.MRSeam, []cvm.Measurement{m(10)}) || p.TD.AnyMRSeam {
		t.Errorf("modules %v", p.TD.MRSeam)
	}
	if p.MinEvalNumber != 17 || !slices.Equal(p.DenyAdvisories, []string{"mine", "INTEL-SA-00001"}) {
		t.Errorf("%d %q", p.MinEvalNumber, p.DenyAdvisories)
	}
	if len(p.Image.Images) != 1 || p.Image.Images[0].Hash != (cvm.ImageHash{1}) || !slices.Equal(p.Image.ACPI, []measure.ACPI{acpi()}) {
		t.Errorf("images %+v", p.Image)
	}
	if !slices.Equal(p.Image.Withdrawn, []cvm.ImageHash{{2}}) {
		t.Errorf("withdrawn %v", p.Image.Withdrawn)
	}
	if d := p.SNP.Measure.Digests; len(d) != 1 || d[m(20)] != (cvm.ImageHash{1}) {
		t.Errorf("digests %v", d)
	}
	if got := p.SNP.MinTCB[sevsnp.Milan]; got != (sevsnp.TCB{BootLoader: 4, SNP: 20, Microcode: 200}) {
		t.Errorf("TCB %+v", got)
	}
	if base.SNP.MinTCB != nil || base.Image.Images != nil || len(base.DenyAdvisories) != 1 {
		t.Error("the policy that was handed in changed")
	}
	if p.SNP.Admit || p.Image.Variants != nil || p.Roots != nil || p.TCBStatus != nil || p.Image.AnyACPI || p.AnyReportData {
		t.Errorf("a feed admitted more than values: %+v", p)
	}
}

// What the policy states stands, unless the feed is stricter.
func TestFillOverridesNothing(t *testing.T) {
	v := values(t)
	own := attest.Policy{MinEvalNumber: 30, TD: attest.TDPolicy{MRSeam: []cvm.Measurement{m(50)}}, Image: measure.Policy{Images: []measure.Image{{Hash: cvm.ImageHash{1}, Version: "own"}}}}
	own.SNP.MinTCB = map[string]sevsnp.TCB{sevsnp.Milan: {BootLoader: 9, SNP: 1}, sevsnp.Turin: {FMC: 1}}
	own.SNP.Measure.Digests = map[cvm.Measurement]cvm.ImageHash{m(20): {9}}
	p := v.Fill(own)
	if !slices.Equal(p.TD.MRSeam, own.TD.MRSeam) || p.MinEvalNumber != 30 || len(p.Image.Images) != 1 || p.Image.Images[0].Version != "own" || p.SNP.Measure.Digests[m(20)] != (cvm.ImageHash{9}) {
		t.Errorf("%+v", p)
	}
	if p.SNP.MinTCB[sevsnp.Milan] != (sevsnp.TCB{BootLoader: 9, SNP: 20, Microcode: 200}) || p.SNP.MinTCB[sevsnp.Turin] != (sevsnp.TCB{FMC: 1}) || own.SNP.MinTCB[sevsnp.Milan].SNP != 1 {
		t.Errorf("%+v", p.SNP.MinTCB)
	}
	if q := v.Fill(attest.Policy{TD: attest.TDPolicy{AnyMRSeam: true}}); q.TD.MRSeam != nil || !q.TD.AnyMRSeam {
		t.Errorf("any was narrowed: %+v", q.TD)
	}
	v.AnyTDXModule = true
	if err := v.Validate(); err == nil || !strings.Contains(err.Error(), "overrules") {
		t.Errorf("a withdrawn module beside any: %v", err)
	}
	if q := v.Fill(attest.Policy{}); q.TD.MRSeam != nil || !q.TD.AnyMRSeam || q.Validate() != nil {
		t.Errorf("%+v", q.TD)
	}
	v.AnyTDXModule, v.TDXModules = false, nil
	if q := v.Fill(attest.Policy{}); q.TD.MRSeam != nil || q.TD.AnyMRSeam {
		t.Errorf("no module is listed, and one is admitted: %+v", q.TD)
	}
}

func TestBuiltinAdmitsNoImage(t *testing.T) {
	p := refvalue.Builtin().Fill(attest.Policy{})
	if p.Image.Images != nil || p.Image.ACPI != nil || p.SNP.MinTCB != nil || p.SNP.Measure.Digests != nil || !p.TD.AnyMRSeam {
		t.Errorf("%+v", p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(must(f, values(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := refvalue.Parse(b)
		if err != nil {
			return
		}
		if again, err := v.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s re-encodes to %s", b, again)
		}
		v.Fill(attest.Policy{})
	})
}

func FuzzOpen(f *testing.F) {
	skey, vkey := keys(f)
	f.Add(sign(f, values(f), skey))
	want := must(f, values(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, _, err := refvalue.Open(b, []string{vkey}, refvalue.Mark{}, day(2))
		if err == nil && !bytes.Equal(must(t, v), want) {
			t.Fatal("opened what nobody signed")
		}
	})
}
