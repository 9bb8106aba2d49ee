package check_test

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

// reference posts a body, as the server does, with the world's collateral.
func (w *world) reference(t *testing.T, body []byte) check.Reply {
	t.Helper()
	req, bad, err := check.ParseRequest(body)
	if bad != nil || err != nil {
		t.Fatalf("%v, %v", bad, err)
	}
	return check.Reference(req.Evidence, w.set, []attest.Root{attest.SimulatedRoot(w.hw.RootSPKI())}, now())
}

func TestReferenceForms(t *testing.T) {
	w := newWorld(t, made{rd: [64]byte{0xab}})
	raw, err := w.ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	att := hex.EncodeToString(raw)
	for name, body := range map[string][]byte{
		"as the quote API answers":           w.dstack(nil),
		"attestation":                        w.encode(map[string]any{"attestation": att, "debug": false}, nil),
		"attestation, the rest is ignored":   w.encode(map[string]any{"attestation": att, "quote": "zz", "event_log": "x", "vm_config": "y"}, nil),
		"null members":                       w.encode(map[string]any{"attestation": att, "quote": nil, "debug": nil}, nil),
		"members that the reference ignores": w.dstack(func(d map[string]any) { d["hash_algorithm"] = "raw" }),
	} {
		t.Run(name, func(t *testing.T) {
			r := w.reference(t, body)
			d := r.Details
			if !r.IsValid || r.Reason != nil || !d.QuoteVerified || !d.EventLogVerified || !d.OSImageHashVerified || d.ACPITablesVerified {
				t.Fatalf("%+v, %s", d, reason(r))
			}
			if d.TEEVariant != cvm.VariantTDX || d.TCBStatus != "UpToDate" || *d.ReportData != "ab"+strings.Repeat("0", 126) || d.KeyProvider == nil || d.KeyProvider.Name != "none" {
				t.Errorf("%+v", d)
			}
			if d.AppInfo == nil || d.AppInfo.AppID != "07"+strings.Repeat("00", 19) || d.BootInfo == nil || d.BootInfo.AppID != d.AppInfo.AppID || d.BootInfo.TCBStatus != "UpToDate" {
				t.Errorf("%+v %+v", d.AppInfo, d.BootInfo)
			}
		})
	}
}

func reason(r check.Reply) string {
	if r.Reason == nil {
		return ""
	}
	return *r.Reason
}

// Reasons begin as the reference words them.
func TestReferenceReasons(t *testing.T) {
	debug := made{boot: simtee.Boot{Attributes: simtee.DefaultAttributes | simtee.AttributeDebug}}
	for name, tc := range map[string]struct {
		m      made
		edit   func(map[string]any)
		reason string
		quote  bool
		image  bool
	}{
		"flipped":      {edit: func(d map[string]any) { d["quote"] = flip(d["quote"].(string), 250) }, reason: "Quote verification failed: quote.signature"},
		"debug":        {m: debug, reason: "Quote verification failed: td.debug"},
		"service TD":   {m: made{quote: 5, boot: simtee.Boot{MRServiceTD: cvm.Measurement{1}}}, reason: "Quote verification failed: td.mrservicetd"},
		"revoked":      {m: made{faults: simtee.Faults{TCBStatus: "Revoked"}}, reason: "Quote verification failed: tcb.match"},
		"out of date":  {m: made{faults: simtee.Faults{TCBStatus: "OutOfDate"}}, quote: true, image: true},
		"a lost event": {edit: func(d map[string]any) { d["event_log"] = lessLast(t, d["event_log"].(string)) }, reason: "Quote verification failed: eventlog.replay"},
		"other memory": {edit: func(d map[string]any) {
			d["vm_config"] = strings.Replace(d["vm_config"].(string), "1073741824", "2147483648", 1)
		}, reason: "OS image hash verification failed: image.measurement", quote: true},
		"no vm_config": {edit: func(d map[string]any) { delete(d, "vm_config") }, reason: "OS image hash verification failed: image.measurement", quote: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.m)
			r := w.reference(t, w.dstack(tc.edit))
			if r.IsValid != (tc.reason == "") || !strings.HasPrefix(reason(r), tc.reason) || r.Details.QuoteVerified != tc.quote || r.Details.OSImageHashVerified != tc.image {
				t.Errorf("%+v, %q", r.Details, reason(r))
			}
			if !r.IsValid && r.Details.BootInfo != nil || !tc.quote && r.Details.ReportData != nil {
				t.Errorf("tells what was not proven: %+v", r.Details)
			}
		})
	}
}

func flip(quote string, i int) string {
	b, err := hex.DecodeString(quote)
	if err != nil {
		panic(err)
	}
	b[i] ^= 1
	return hex.EncodeToString(b)
}

// The reply's members, as the reference spells them. DO NOT CHANGE.
func TestReferenceShape(t *testing.T) {
	w := newWorld(t, made{})
	b, err := json.Marshal(w.reference(t, w.dstack(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"is_valid", "details", "reason", "quote_verified", "event_log_verified", "os_image_hash_verified", "acpi_tables_verified", "os_image_is_dev",
		"os_image_version", "tee_variant", "report_data", "tcb_status", "advisory_ids", "key_provider", "app_info", "app_id", "compose_hash", "instance_id", "device_id", "mr_system",
		"mr_aggregated", "os_image_hash", "key_provider_info", "init_script_hashes", "boot_info", "teeVariant", "mrAggregated", "osImageHash", "mrSystem", "appId", "composeHash",
		"instanceId", "deviceId", "keyProviderInfo", "tcbStatus", "advisoryIds"} {
		if !strings.Contains(string(b), `"`+k+`":`) {
			t.Errorf("no %q in %s", k, b)
		}
	}
	none := check.Unreadable(cvm.Errorf(cvm.Invalid, "x"))
	if b, err = json.Marshal(none); err != nil || !strings.Contains(string(b), `"reason":"Internal error: x"`) || strings.Contains(string(b), "boot_info") ||
		!strings.Contains(string(b), `"app_info":null`) || !strings.Contains(string(b), `"advisory_ids":[]`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestRequestRefusals(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON": "x", "a list": "[]", "repeated": `{"quote":"00","quote":"01"}`, "two cases": `{"quote":"00","Quote":"01"}`, "debug": `{"quote":"00","debug":1}`,
	} {
		if _, bad, _ := check.ParseRequest([]byte(body)); cvm.CodeOf(bad) != cvm.Invalid {
			t.Errorf("%s: %v", name, bad)
		}
	}
	for name, body := range map[string]string{"nothing": "{}", "empty": `{"quote":"","attestation":""}`, "not hex": `{"quote":"zz"}`, "not one": `{"attestation":"00"}`} {
		if _, bad, err := check.ParseRequest([]byte(body)); bad != nil || err == nil {
			t.Errorf("%s: %v, %v", name, bad, err)
		}
	}
}

// A genuine machine's evidence, recorded: all of it holds but the collateral, which
// was not recorded.
func TestRecordedEvidence(t *testing.T) {
	req, bad, err := check.ParseRequest(vector(t, "tdx-lite-attestation.json"))
	if bad != nil || err != nil {
		t.Fatalf("%v, %v", bad, err)
	}
	r := check.Reference(req.Evidence, collateral.Set{}, attest.IntelRoots(), now())
	if r.IsValid || !strings.HasPrefix(reason(r), "Quote verification failed: collateral.parse") || strings.Contains(reason(r), ";") {
		t.Errorf("%s", reason(r))
	}
	rep := ask(t, vector(t, "tdx-lite-attestation.json"), check.Options{})
	expect(t, rep, check.Rejected, "tdx", claim.CollateralParse)
	for _, name := range []string{claim.PCKChain, claim.QuoteSignature, claim.EventlogReplay, claim.TDDebug} {
		if status(rep, name) != claim.Passed {
			t.Errorf("%s is %s", name, status(rep, name))
		}
	}
	rep = ask(t, vector(t, "tdx_quote.bin"), check.Options{})
	expect(t, rep, check.Rejected, "tdx", claim.CollateralParse)
}

// A vm_config that contradicts the registers is refused without a policy; one that
// nothing can be computed from is only not judged.
func TestRecordedImage(t *testing.T) {
	in, err := check.Parse(vector(t, "tdx-lite-attestation.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		from, to string
		want     claim.Verdict
	}{
		"as recorded":  {"", "", claim.Skipped},
		"other memory": {"2147483648", "4294967296", claim.Failed},
		"other kind":   {`"lite"`, `"none"`, claim.Skipped},
	} {
		t.Run(name, func(t *testing.T) {
			in := in
			in.Evidence.Config = strings.Replace(in.Evidence.Config, tc.from, tc.to, 1)
			r, err := check.Run(in, check.Options{Now: now()})
			if err != nil || status(r, claim.ImageMeasurement) != tc.want {
				t.Errorf("%s, %v", status(r, claim.ImageMeasurement), err)
			}
		})
	}
}
