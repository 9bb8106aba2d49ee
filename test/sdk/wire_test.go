package sdk

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// wireRow is one line of dstack-core C.1 to C.5 and D: what is sent and what must come
// back. Fields must all be there, with their JSON types, and no others.
type wireRow struct {
	sock, method, target, body string
	fields                     string // "name:type ..." with s string, h hex, b bool, l list of hex, L list of text, n null
}

const (
	dst = "dstack.sock"
	tap = "tappd.sock"
	ext = "external.sock"
)

const (
	fInfo   = "app_id:h instance_id:h app_cert:s tcb_info:s app_name:s device_id:h mr_aggregated:h os_image_hash:h key_provider_info:s compose_hash:h vm_config:s cloud_vendor:s cloud_product:s"
	fTLS    = "key:s certificate_chain:L"
	fKey    = "key:h signature_chain:l"
	fQuote  = "quote:h event_log:s report_data:h vm_config:s attestation:h"
	fTdx    = "quote:h event_log:s hash_algorithm:s prefix:s"
	fVer    = "version:s rev:s"
	zeros64 = "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
)

// TestWire: each method and field of the reference's document, POST and GET, with and
// without prefixes.
func TestWire(t *testing.T) {
	dir := simulator(t)
	for _, r := range []wireRow{
		{dst, "POST", "/Info", "", fInfo}, {dst, "GET", "/Info", "", fInfo}, {dst, "POST", "/prpc/DstackGuest.Info", "ignored body", fInfo}, {dst, "POST", "/Info?json", "{}", fInfo},
		{dst, "POST", "/Version", "", fVer}, {dst, "GET", "/DstackGuest.Version", "", fVer}, {dst, "POST", "/DstackGuest.DstackGuest.Version", "null", fVer},
		{dst, "POST", "/GpuInfo", "{}", "attestation:s"}, {dst, "GET", "/GpuInfo", "", "attestation:s"},
		{dst, "POST", "/GetTlsKey", "", fTLS}, {dst, "GET", "/GetTlsKey?subject=a&alt_names[]=b&alt_names[]=c&usage_server_auth=true&not_before=1&not_after=2000000000", "", fTLS},
		{dst, "POST", "/GetTlsKey", `{"subject":"a","alt_names":["b"],"usage_ra_tls":true,"usage_server_auth":true,"usage_client_auth":true,"not_before":null,"not_after":2000000000,"with_app_info":true,"later":1}`, fTLS},
		{dst, "POST", "/GetKey", "", fKey}, {dst, "GET", "/GetKey?path=a&purpose=b&algorithm=ed25519", "", fKey}, {dst, "POST", "/GetKey?json=1", `{"path":"a","purpose":null}`, fKey},
		{dst, "POST", "/GetQuote", "", fQuote}, {dst, "GET", "/GetQuote?report_data=0x01", "", fQuote}, {dst, "POST", "/GetQuote", `{"report_data":"` + zeros64 + `"}`, fQuote},
		{dst, "POST", "/Attest", `{"report_data":"0x0xAB"}`, "attestation:h"}, {dst, "GET", "/Attest?report_data=00", "", "attestation:h"},
		{dst, "POST", "/Sign", `{"algorithm":"ed25519","data":""}`, "signature:h signature_chain:l public_key:h"}, {dst, "GET", "/Sign?algorithm=k256&data=00", "", "signature:h signature_chain:l public_key:h"},
		{dst, "POST", "/Verify", `{"algorithm":"ed25519","data":"00","signature":"` + zeros64 + `","public_key":"` + zeros64[:64] + `"}`, "valid:b"},
		{tap, "POST", "/prpc/Tappd.DeriveKey", `{"path":"a","subject":"b","alt_names":["c"],"usage_ra_tls":true,"usage_server_auth":true,"usage_client_auth":true,"random_seed":true}`, fTLS},
		{tap, "POST", "/prpc/DeriveKey?json", "", fTLS}, {tap, "GET", "/prpc/Tappd.DeriveKey?path=a", "", fTLS},
		{tap, "POST", "/prpc/Tappd.DeriveK256Key", `{"path":"a","purpose":"b"}`, "k256_key:h k256_signature_chain:l"}, {tap, "GET", "/prpc/DeriveK256Key?path=a", "", "k256_key:h k256_signature_chain:l"},
		{tap, "POST", "/prpc/Tappd.TdxQuote", `{"report_data":"00","hash_algorithm":"sha256","prefix":"x"}`, fTdx}, {tap, "GET", "/prpc/TdxQuote?report_data=00", "", fTdx},
		{tap, "POST", "/prpc/Tappd.RawQuote", `{"report_data":"` + zeros64 + `"}`, fTdx}, {tap, "POST", "/prpc/Tappd.Info", "{}", fInfo}, {tap, "GET", "/prpc/Tappd.Version", "", fVer},
		{ext, "POST", "/prpc/Worker.Info", "{}", fInfo}, {ext, "GET", "/prpc/Info", "", fInfo}, {ext, "GET", "/prpc/Worker.Version", "", fVer},
		{ext, "POST", "/prpc/Worker.GetAttestationForAppKey", `{"algorithm":"ed25519"}`, fQuote}, {ext, "GET", "/prpc/GetAttestationForAppKey?algorithm=secp256k1", "", fQuote}, {ext, "GET", "/prpc/GetAttestationForAppKey?algorithm=k256", "", fQuote},
	} {
		a := call(t, filepath.Join(dir, r.sock), r.method, r.target, r.body)
		if a.status != 200 {
			t.Errorf("%s %s %s: %d %.200s", r.sock, r.method, r.target, a.status, a.body)
			continue
		}
		fields(t, r, a.body)
	}
}

func fields(t *testing.T, r wireRow, body []byte) {
	t.Helper()
	var got map[string]json.RawMessage
	if err := json.Unmarshal(body, &got); err != nil {
		t.Errorf("%s: %v", r.target, err)
		return
	}
	forms := map[string]*regexp.Regexp{"s": regexp.MustCompile(`^"`), "h": regexp.MustCompile(`^"([0-9a-f]{2})*"$`), "b": regexp.MustCompile(`^(true|false)$`),
		"l": regexp.MustCompile(`^\["[0-9a-f]+"(,"([0-9a-f]{2})*")*\]$`), "L": regexp.MustCompile(`^\["`)}
	want := strings.Fields(r.fields)
	for _, f := range want {
		name, kind, _ := strings.Cut(f, ":")
		if v := got[name]; !forms[kind].Match(v) {
			t.Errorf("%s %s: %s is %.60s", r.method, r.target, name, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s %s: %d fields, want %d", r.method, r.target, len(got), len(want))
	}
}

// TestWireRefusals: HTTP 400 with {"error": text}, indented, whatever went wrong.
func TestWireRefusals(t *testing.T) {
	dir := simulator(t)
	for _, r := range []struct{ sock, method, target, body, text string }{
		{dst, "POST", "/EmitEvent", `{"event":"x","payload":"00"}`, "Service not found: EmitEvent"}, {dst, "POST", "/", "{}", "Service not found: "}, {dst, "POST", "/info", "{}", "Service not found: info"},
		{dst, "POST", "/Tappd.Info", "{}", "Service not found: Tappd.Info"}, {tap, "POST", "/prpc/GetKey", "{}", "Service not found: GetKey"}, {ext, "POST", "/prpc/Worker.GetKey", "{}", "Service not found: GetKey"},
		{dst, "PUT", "/Info", "{}", "not allowed"}, {dst, "POST", "/GetKey", `{"path":1}`, "request body"}, {dst, "POST", "/GetKey", `[]`, "request body"}, {dst, "POST", "/GetKey", `{"path":"a"`, "request body"}, {dst, "POST", "/GetKey", `{} {}`, "request body"},
		{dst, "POST", "/GetKey", `{"algorithm":"rsa"}`, "Unsupported algorithm"}, {dst, "POST", "/GetKey", `{"algorithm":"secp256k1_prehashed"}`, "Unsupported algorithm"},
		{dst, "POST", "/GetQuote", `{"report_data":"` + zeros64 + `00"}`, "Report data is too long"}, {dst, "POST", "/Attest", `{"report_data":"` + zeros64 + `00"}`, "Report data is too long"},
		{dst, "POST", "/GetQuote", `{"report_data":"0"}`, "hex"}, {dst, "POST", "/GetQuote", `{"report_data":5}`, "hex"}, {dst, "GET", "/GetQuote?report_data=xy", "", "hex"},
		{dst, "POST", "/GetTlsKey", `{"not_before":5,"not_after":5}`, "not_before must be earlier than not_after"}, {dst, "GET", "/GetTlsKey?usage_ra_tls=maybe", "", "usage_ra_tls"},
		{dst, "POST", "/Sign", `{"algorithm":"secp256k1_prehashed","data":"00"}`, "Pre-hashed signing requires a 32-byte digest, but received 1 bytes"}, {dst, "POST", "/Sign", `{}`, "Unsupported algorithm"},
		{dst, "POST", "/Verify", `{"algorithm":"ed25519","data":"00","signature":"00","public_key":"00"}`, ""}, {dst, "POST", "/Verify", `{"algorithm":"x"}`, "Unsupported algorithm"},
		{tap, "POST", "/prpc/TdxQuote", `{"hash_algorithm":"md5"}`, "md5"}, {tap, "POST", "/prpc/TdxQuote", `{"hash_algorithm":"raw","report_data":"00"}`, "64 bytes"}, {tap, "POST", "/prpc/RawQuote", `{"report_data":"00"}`, "64 bytes"},
		{ext, "POST", "/prpc/GetAttestationForAppKey", `{"algorithm":"secp256k1_prehashed"}`, "Unsupported algorithm"}, {ext, "POST", "/prpc/GetAttestationForAppKey", "", "Unsupported algorithm"},
	} {
		a := call(t, filepath.Join(dir, r.sock), r.method, r.target, r.body)
		var e map[string]string
		if a.status != 400 || json.Unmarshal(a.body, &e) != nil || len(e) != 1 || e["error"] == "" || !strings.Contains(e["error"], r.text) || !strings.HasPrefix(string(a.body), "{\n  \"error\": ") {
			t.Errorf("%s %s %s %s: %d %s", r.sock, r.method, r.target, r.body, a.status, a.body)
		}
	}
	if a := call(t, filepath.Join(dir, dst), "POST", "/GetKey", "\x0a\x01a", "Content-Type: application/octet-stream"); a.status != 400 || !strings.Contains(string(a.body), "protobuf") {
		t.Errorf("protobuf: %d %s", a.status, a.body)
	}
}
