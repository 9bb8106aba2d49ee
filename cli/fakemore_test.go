package cli_test

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

type cloudapiSSHKey struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
}

// more is the fake's account, catalogue and apps.
func (f *fakeCloud) more(w http.ResponseWriter, r *http.Request, path string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in)
	switch r.Method + " " + path {
	case "POST /auth/device/code":
		f.polls = 0
		answer(w, 200, map[string]any{"device_code": "dev-1", "user_code": "BCDF-GHJK", "verification_uri": "https://cloud.test/device",
			"verification_uri_complete": "https://cloud.test/device?code=BCDF-GHJK", "expires_in": 30, "interval": 1})
	case "POST /auth/device/token":
		f.deviceToken(w)
	case "GET /user/ssh-keys":
		answer(w, 200, append([]cloudapiSSHKey{}, f.keys...))
	case "POST /user/ssh-keys":
		k := cloudapiSSHKey{ID: "sshkey_1", Name: in["name"].(string), PublicKey: in["public_key"].(string), Fingerprint: "SHA256:abc"}
		f.keys = append(f.keys, k)
		answer(w, 201, k)
	case "POST /user/ssh-keys/github-profile":
		answer(w, 200, map[string]any{"github_username": in["github_username"], "keys_added": 2, "keys_skipped": 1, "errors": []string{}})
	case "GET /nodes":
		answer(w, 200, cloudapi.AvailableNodes{Nodes: []cloudapi.AvailableNode{{TeepodID: 1, Name: "node-1", DeviceID: &device, Driver: "dry", Simulated: true}, {TeepodID: 2, Name: "node-2"}}})
	case "GET /os-images":
		answer(w, 200, cloudapi.Page[cloudapi.OSImage]{Items: []cloudapi.OSImage{{Name: "img-" + r.URL.Query().Get("page") + r.URL.Query().Get("is_dev"), Version: "1"}}, Total: 2, Pages: 2})
	case "GET /kms/on-chain/base":
		answer(w, 200, map[string]any{"chain_name": "base", "chain_id": 8453, "contracts": []any{map[string]any{"contract_address": "0xaa", "devices": []any{map[string]any{"device_id": "0x01", "on_chain_allowed": true}}, "os_images": []any{}}}})
	case "GET /workspace/usage":
		answer(w, 200, cloudapi.Usage{Currency: "USD", Total: "0.19", Items: []cloudapi.UsageItem{{Name: "web", Kind: "compute", What: "tdx.small", Seconds: "12007", Rate: "0.058", Amount: "0.19", Running: true}}})
	case "GET /workspace/balance":
		answer(w, 200, cloudapi.Balance{Currency: "USD", Total: "9.81", HourlyNow: "0.058", State: "active"})
	case "GET /workspace/invoices":
		answer(w, 200, cloudapi.Invoices{Currency: "USD", Items: []cloudapi.InvoiceItem{{Month: "2026-01", Number: "I-1", Status: "final", Total: "3.20"}}})
	case "GET /workspace/invoices/2026-01":
		answer(w, 200, cloudapi.Invoice{Month: "2026-01", Number: "I-1", Status: "final", Total: "3.20", Currency: "USD"})
	case "GET /workspace/invoices/2026-01/pdf":
		_, _ = w.Write([]byte("%PDF-1.3"))
	case "GET /apps":
		answer(w, 200, f.apps(r))
	default:
		switch {
		case parts[0] == "apps" && len(parts) == 3 && parts[2] == "cvms":
			out := []cloudapi.CVMInfo{}
			for n, c := range f.cvms {
				if c.app == parts[1] {
					out = append(out, f.detail(n).CVMInfo)
				}
			}
			answer(w, 200, out)
		case parts[0] == "apps" && len(parts) == 3 && parts[2] == "instances":
			f.instance(w, in, appTwo, strings.Repeat("e", 64))
		case r.Method == "DELETE" && len(parts) == 3 && parts[1] == "ssh-keys" && parts[2] == "sshkey_1":
			f.keys = nil
			w.WriteHeader(204)
		default:
			answer(w, 404, map[string]any{"detail": "not found"})
		}
	}
}

func (f *fakeCloud) apps(r *http.Request) cloudapi.Apps {
	out := cloudapi.Apps{DstackApps: []cloudapi.App{}, Page: 1, PageSize: 50, TotalPages: 1}
	for n, c := range f.cvms {
		if v := f.detail(n).CVMInfo; strings.Contains(n, r.URL.Query().Get("search")) {
			out.DstackApps = append(out.DstackApps, cloudapi.App{ID: c.app, Name: n, AppID: c.app, KMSType: "ethereum", CurrentCVM: &v, CVMCount: 1})
		}
	}
	out.Total = len(out.DstackApps)
	return out
}

// deviceToken is pending once, then ends as the test wants.
func (f *fakeCloud) deviceToken(w http.ResponseWriter) {
	f.polls++
	switch {
	case f.polls == 1:
		answer(w, 400, map[string]any{"detail": map[string]any{"error": "authorization_pending"}})
	case f.deviceDefault != "":
		answer(w, 400, map[string]any{"detail": map[string]any{"error": f.deviceDefault}})
	default:
		answer(w, 200, map[string]any{"access_token": goodKey, "token_type": "bearer"})
	}
}

// instance is asked for a replica: it wants an approval first.
func (f *fakeCloud) instance(w http.ResponseWriter, in map[string]any, app, hash string) {
	if in["token"] != nil {
		f.committed = append(f.committed, in)
		answer(w, 200, cloudapi.VM{Name: "two-replica", Status: "creating", AppID: appTwo, VMUUID: ptr(uuidOf("two-a")), EventSeq: 7})
		return
	}
	f.approvalWanted(w, app, hash)
}

func (f *fakeCloud) approvalWanted(w http.ResponseWriter, app, hash string) {
	answer(w, 465, map[string]any{"detail": map[string]any{"error_code": "ERR-01-005", "message": "the compose hash must be allowed on chain", "details": []any{
		map[string]any{"field": "compose_hash", "value": hash}, map[string]any{"field": "app_id", "value": app},
		map[string]any{"field": "device_id", "value": device}, map[string]any{"field": "kms_info", "value": f.kms},
		map[string]any{"field": "commit_token", "value": "tok-1"}}}})
}

// appTwo has two instances, two-a and two-b.
const appTwo = "00000000000000000000000000000000000000b2"

func (f *fakeCloud) addTwo() {
	for _, n := range []string{"two-a", "two-b"} {
		f.cvms[n] = &fakeCVM{app: appTwo, compose: `{"docker_compose_file":"services: {}"}`, status: cloudapi.StatusRunning}
	}
}

// moreOf is the fake's CVM beyond its life.
func (f *fakeCloud) moreOf(w http.ResponseWriter, r *http.Request, name, rest string) {
	c := f.cvms[name]
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in)
	switch r.Method + " " + rest {
	case "GET user_config":
		answer(w, 200, map[string]any{"hostname": name, "ssh_authorized_keys": []string{}})
	case "PATCH resources":
		f.committed = append(f.committed, in)
		answer(w, 202, map[string]any{})
	case "POST replicas", "POST commit-replica":
		hash := f.prepared
		if hash == "" {
			_, hash = f.canonicalOf(c.compose)
		}
		f.instance(w, in, c.app, hash)
	case "POST commit-update":
		f.committed = append(f.committed, in)
		answer(w, 202, cloudapi.Accepted{Status: "in_progress", CorrelationID: "c-1"})
	case "PATCH ":
		hash := f.lastHash
		if f.prepared != "" {
			hash = f.prepared
		}
		f.approvalWanted(w, c.app, hash)
	default:
		answer(w, 404, map[string]any{"detail": "not found"})
	}
}
