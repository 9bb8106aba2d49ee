package check_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/sevsnp"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

// certificate makes an RA-TLS certificate whose evidence binds its key, or another one.
func certificate(t *testing.T, bound bool) (der []byte, w *world) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	rd := ratls.ReportData(spki)
	if !bound {
		rd[0] ^= 1
	}
	w = newWorld(t, made{rd: rd})
	raw, err := w.ev.Strip().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	ext, err := ratls.Extensions{Attestation: raw}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, ExtraExtensions: ext,
		NotBefore: now().Add(-time.Hour), NotAfter: now().Add(time.Hour)}
	der, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der, w
}

// The evidence of a certificate must name the certificate's key, with or without a
// policy, and the certificate must be in its period.
func TestCertificate(t *testing.T) {
	der, w := certificate(t, true)
	spki := w.hw.RootSPKI()
	o := check.Options{Roots: [][32]byte{spki}, Collateral: &w.set}
	r := ask(t, der, o)
	expect(t, r, check.Accepted, "custom")
	if status(r, claim.ReportData) != claim.Passed || status(r, "certificate.period") != claim.Passed {
		t.Errorf("binding %s, period %s", status(r, claim.ReportData), status(r, "certificate.period"))
	}
	expect(t, ask(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), o), check.Accepted, "custom")

	o.At = now().Add(2 * time.Hour)
	expect(t, ask(t, der, o), check.Rejected, "custom", "certificate.period")
	o.At = time.Time{}
	o.ReportData = &[64]byte{1}
	expect(t, ask(t, der, o), check.Rejected, "custom", claim.ReportData)

	der, w = certificate(t, false)
	expect(t, ask(t, der, check.Options{Roots: [][32]byte{spki}, Collateral: &w.set}), check.Rejected, "custom", claim.ReportData)
}

// amd is a simulated SEV-SNP machine.
func amd(t *testing.T) *simtee.AMD {
	t.Helper()
	a, err := simtee.NewAMD(simtee.AMDConfig{Seed: bytes.Repeat([]byte{5}, 32), Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// snp is the evidence of a machine of a's vendor.
func snp(t *testing.T, a *simtee.AMD, edit func(*simtee.AMDConfig, *simtee.Launch)) (attest.Evidence, collateral.Set, [32]byte) {
	t.Helper()
	l := simtee.Launch{Measurement: cvm.Measurement{1}, Config: attest.MRConfig{AppID: strings.Repeat("07", 20), ComposeHash: strings.Repeat("08", 32), KeyProvider: "none", Version: 3}}
	a, err := a.With(func(c *simtee.AMDConfig) {
		if edit != nil {
			edit(c, &l)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := a.Evidence(l, [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	set, err := a.Collateral(now())
	if err != nil {
		t.Fatal(err)
	}
	return ev, set, a.RootSPKI()
}

func TestSEVSNP(t *testing.T) {
	machine := amd(t)
	for name, tc := range map[string]struct {
		edit    func(*simtee.AMDConfig, *simtee.Launch)
		failed  []string
		skipped string
	}{
		"sound":      {},
		"VLEK":       {edit: func(c *simtee.AMDConfig, _ *simtee.Launch) { c.VLEK = "some cloud" }},
		"debug":      {edit: func(_ *simtee.AMDConfig, l *simtee.Launch) { l.Policy = simtee.DefaultGuestPolicy | sevsnp.GuestDebug }, skipped: claim.SNPDebug},
		"other chip": {edit: func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Faults.OtherChip = true }, failed: []string{claim.SNPChip}},
		"revoked":    {edit: func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Faults.RevokeLeaf = true }, failed: []string{claim.CRLRevoked}},
		"not signed": {edit: func(c *simtee.AMDConfig, _ *simtee.Launch) {
			c.Faults.Report = func(r *sevsnp.Report) { r.SigningKey = sevsnp.KeyNone }
		}, failed: []string{claim.SNPSigner}},
		"other list":  {edit: func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Faults.OtherList = true }, failed: []string{claim.CRLFresh}},
		"another TCB": {edit: func(c *simtee.AMDConfig, _ *simtee.Launch) { c.Faults.OtherTCB = true }, failed: []string{claim.SNPTCB}},
	} {
		t.Run(name, func(t *testing.T) {
			ev, set, spki := snp(t, machine, tc.edit)
			raw, err := ev.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			r := ask(t, raw, check.Options{Roots: [][32]byte{spki}, Collateral: &set})
			if tc.failed != nil {
				expect(t, r, check.Rejected, "custom", tc.failed...)
				return
			}
			expect(t, r, check.Accepted, "custom")
			if r.TCBStatus != "" || r.Claims["app_id"] == nil || r.Claims["mrtd"] != nil || status(r, claim.SNPHostData) != claim.Passed {
				t.Errorf("%q %v", r.TCBStatus, r.Claims)
			}
			if tc.skipped != "" && status(r, tc.skipped) != claim.Skipped {
				t.Errorf("%s is %s", tc.skipped, status(r, tc.skipped))
			}
			expect(t, ask(t, raw, check.Options{Collateral: &set}), check.Rejected, "unknown", claim.RootAdmitted)
		})
	}
}

// What is not one document with one meaning is not read.
func TestInputRefusals(t *testing.T) {
	w := newWorld(t, made{})
	sound := string(w.contract(nil))
	att := string(w.attestation(nil))
	replace := func(old, repl string) string {
		if !strings.Contains(sound, old) {
			t.Fatalf("the contract has no %q", old)
		}
		return strings.Replace(sound, old, repl, 1)
	}
	for name, raw := range map[string]string{
		"nothing":                          " \n",
		"not JSON":                         "{",
		"a list":                           "[]",
		"no evidence":                      `{"at":1}`,
		"two kinds":                        strings.Replace(att, `{`, `{"quote":"00",`, 1),
		"a log beside an attestation":      strings.Replace(att, `{`, `{"event_log":"[]",`, 1),
		"unknown member":                   strings.Replace(sound, `{`, `{"polices":{},`, 1),
		"member in another case":           strings.Replace(sound, `{`, `{"Policy":{},`, 1),
		"repeated member":                  strings.Replace(sound, `{`, `{"quote":"00",`, 1),
		"repeated in two cases":            strings.Replace(sound, `{`, `{"QUOTE":"00",`, 1),
		"text after it":                    sound + "{}",
		"quote not hex":                    replace(`"quote":"`, `"quote":"zz`),
		"quote not text":                   `{"quote":7}`,
		"time not whole":                   replace(`"at":`, `"at":0.`),
		"time in text":                     replace(`"at":`, `"at":"1","x":`),
		"time before everything":           replace(`"at":`, `"at":-`),
		"root not a certificate":           replace(`"root":"`, `"root":"00`),
		"report data too short":            strings.Replace(sound, `{`, `{"report_data":"00",`, 1),
		"collateral unknown member":        replace(`"pck_crl":`, `"x":"","pck_crl":`),
		"collateral repeated member":       replace(`"pck_crl":`, `"pck_crl":"","pck_crl":`),
		"collateral in another case":       replace(`"pck_crl":`, `"PCK_CRL":"","pck_crl":`),
		"statement not an object":          replace(`"tcb_info":"{`, `"tcb_info":"[{`),
		"statement with a tail":            replace(`"tcb_info":"{`, `"tcb_info":"{},\"tcbInfo\":{`),
		"signature not hex":                replace(`"tcb_info_signature":"`, `"tcb_info_signature":"\",`),
		"event log not JSON":               `{"quote":"00","event_log":"x"}`,
		"deep":                             `{"quote":"00","policy":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "}",
		"PEM of something else":            "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
		"a certificate without extensions": string(w.rootDER()),
		"neither":                          "hello",
	} {
		if _, err := check.Parse([]byte(raw)); cvm.CodeOf(err) != cvm.Invalid && cvm.CodeOf(err) != cvm.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
	in, err := check.Parse(w.contract(func(d map[string]any) { d["policy"] = map[string]any{"tcb_statu": []string{}} }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := check.Run(in, check.Options{Now: now()}); cvm.CodeOf(err) != cvm.Invalid {
		t.Errorf("a policy with an unknown member: %v", err)
	}
}

// An edited statement keeps its place but not its signature; a member smuggled
// beside it is not read.
func TestSmuggledCollateral(t *testing.T) {
	w := newWorld(t, made{faults: simtee.Faults{TCBStatus: "Revoked"}})
	edit := func(from, to string) []byte {
		return w.contract(func(d map[string]any) {
			c := d["collateral"].(map[string]any)
			c["tcb_info"] = strings.ReplaceAll(c["tcb_info"].(string), from, to)
		})
	}
	expect(t, ask(t, edit("Revoked", "UpToDate"), check.Options{}), check.Rejected, "custom", claim.CollateralSigned)
	raw := w.contract(func(d map[string]any) {
		c := d["collateral"].(map[string]any)
		c["tcb_info"] = strings.Replace(c["tcb_info"].(string), "{", `{"TCBLEVELS":[],`, 1)
	})
	r := ask(t, raw, check.Options{})
	if r.Verified() || status(r, claim.CollateralParse) != claim.Failed {
		t.Errorf("a second list of levels: %s", r.Summary)
	}
}

func TestReadCollateral(t *testing.T) {
	w, other := newWorld(t, made{}), newWorld(t, made{seed: 3})
	subject, err := collateral.SubjectOf(w.set)
	if err != nil {
		t.Fatal(err)
	}
	b := collateral.Bundle{Format: collateral.BundleFormat, Entries: []collateral.Entry{{Subject: subject.String(), Fetched: now(), Set: w.set}}}
	file, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	set, err := check.ReadCollateral(file, w.ev)
	if err != nil || !bytes.Equal(set.TCBInfo, w.set.TCBInfo) || !bytes.Equal(set.PCKCRL, w.set.PCKCRL) {
		t.Errorf("of a bundle: %v", err)
	}
	if _, err := check.ReadCollateral(file, other.ev); cvm.ReasonOf(err) != "collateral-unavailable" {
		t.Errorf("of another machine's bundle: %v", err)
	}
	form, err := check.EncodeCollateral(w.set)
	if err != nil {
		t.Fatal(err)
	}
	set, err = check.ReadCollateral(form, w.ev)
	if err != nil || !bytes.Equal(set.TCBInfo, w.set.TCBInfo) || !bytes.Equal(set.QEIdentity, w.set.QEIdentity) || !bytes.Equal(set.RootCRL, w.set.RootCRL) {
		t.Errorf("of the contract's form: %v", err)
	}
	_, theirs, _ := snp(t, amd(t), nil)
	if form, err = check.EncodeCollateral(theirs); err != nil {
		t.Fatal(err)
	}
	if set, err = check.ParseCollateral(form); err != nil || set.AMD == nil || !bytes.Equal(set.AMD.CRL, theirs.AMD.CRL) || !bytes.Equal(set.AMD.Leaf, theirs.AMD.Leaf) {
		t.Errorf("of SEV-SNP: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	w := newWorld(f, made{})
	raw, err := w.ev.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{raw, w.ev.Quote, w.contract(nil), w.dstack(nil), w.rootDER(), []byte(`{"attestation":"` + hex.EncodeToString(raw) + `"}`)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := check.Parse(b)
		if err != nil {
			if c := cvm.CodeOf(err); c == cvm.Internal {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		if _, err := in.Evidence.Marshal(); err != nil {
			t.Fatalf("evidence that does not encode: %v", err)
		}
		r, err := check.Run(in, check.Options{Now: now()})
		if err == nil && r.Verified() && r.Platform != "custom" { // the corpus has no vendor's signature but the simulated root's
			t.Fatalf("verified as %s", r.Platform)
		}
	})
}

// What is accepted says the same when it is written again.
func FuzzParseCollateral(f *testing.F) {
	w := newWorld(f, made{})
	form, err := check.EncodeCollateral(w.set)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(form))
	f.Add([]byte(`{"amd":{"vcek":"00","cert_chain":"x","crl":""}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := check.ParseCollateral(b)
		if err != nil {
			if cvm.CodeOf(err) != cvm.Invalid {
				t.Fatalf("%v", err)
			}
			return
		}
		form, err := check.EncodeCollateral(s)
		if err != nil {
			return // statements that attest.Verify refuses
		}
		again, err := check.ParseCollateral(form)
		if err != nil || s.AMD == nil && (!bytes.Equal(again.TCBInfo, s.TCBInfo) && len(s.TCBInfo) > 0 || !bytes.Equal(again.RootCRL, s.RootCRL)) {
			t.Fatalf("does not survive: %v", err)
		}
	})
}
