package serve

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
)

func limitedBackend(t *testing.T, policy string) *Backend {
	t.Helper()
	doc, err := appcompose.Parse([]byte(`{"manifest_version":2,"name":"a","runner":"docker-compose","docker_compose_file":"x","public_sysinfo":true,"socket_policy":` + policy + `}`))
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 32)
	raw[31] = 1
	return &Backend{App: doc, AppKey: keys.NewSecret(raw), AppSig: []byte{1}}
}

// ask calls and returns the error's text, "" when it succeeded.
func asked(t *testing.T, h http.Handler, target, body string) string {
	t.Helper()
	r := httptest.NewRequest("POST", target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != nil { // the policy let it through to the quote that this backend has not
				w = httptest.NewRecorder()
				_, _ = w.WriteString("reached")
			}
		}()
		h.ServeHTTP(w, r)
	}()
	if w.Code == http.StatusOK {
		return ""
	}
	return w.Body.String()
}

const policy = `{"default":"none","containers":{
	"wallet":{"keys":["wallet/*"],"purposes":["pay","save"]},"prover":{"quote":true},"front":{"tls":true},"signer":{"sign":true},"all":{"keys":["*"],"quote":true,"tls":true,"sign":true},"nothing":{}}}`

// TestSocketPolicyMatrix: each method of both sockets for each service.
func TestSocketPolicyMatrix(t *testing.T) {
	b := limitedBackend(t, policy)
	for _, row := range []struct {
		tappd        bool
		target, body string
		allowed      string // services
	}{
		{false, "/GetKey", `{"path":"wallet/a","purpose":"pay"}`, "wallet all"},
		{false, "/prpc/DstackGuest.GetKey", `{"path":"wallet/a","purpose":"save","algorithm":"ed25519"}`, "wallet all"},
		{false, "/GetKey?path=wallet/a", `{"path":"other","purpose":"pay"}`, "all"},
		{false, "/GetKey", `{"path":"wallet","purpose":"pay"}`, "all"},
		{false, "/GetKey", `{"path":"","purpose":"pay"}`, "all"},
		{false, "/GetKey", `{"path":"wallet/a","purpose":"steal"}`, "all"},
		{false, "/GetKey", `{"path":"wallet/a"}`, "all"},
		{false, "/GetKey", `{"path":"vms","purpose":"pay"}`, "all"},
		{false, "/Sign", `{"algorithm":"ed25519","data":"00"}`, "signer all"},
		{false, "/GetQuote", `{"report_data":"00"}`, "prover all"},
		{false, "/Attest", `{"report_data":"00"}`, "prover all"},
		{false, "/v1/Evidence", `{"nonce":"AAAAAAAAAAA="}`, "prover all"},
		{false, "/GetTlsKey", `{"subject":"x"}`, "front all"},
		{false, "/GetTlsKey", `{"subject":"x","usage_ra_tls":true}`, "all"},
		{false, "/Version", ``, "wallet prover front signer all nothing other"},
		{false, "/Verify", `{"algorithm":"ed25519","data":"00","signature":"` + strings.Repeat("00", 64) + `","public_key":"` + strings.Repeat("00", 32) + `"}`, "wallet prover front signer all nothing other"},
		{true, "/prpc/Tappd.DeriveKey", `{"path":"wallet/a"}`, "all"},
		{true, "/DeriveKey", `{"path":"wallet/a","random_seed":true}`, "front all"},
		{true, "/prpc/DeriveK256Key", `{"path":"wallet/a","purpose":"pay"}`, "wallet all"},
		{true, "/prpc/DeriveK256Key", `{"path":"a","purpose":"pay"}`, "all"},
		{true, "/prpc/TdxQuote", `{"report_data":"00"}`, "prover all"},
		{true, "/prpc/RawQuote", `{"report_data":"` + strings.Repeat("00", 64) + `"}`, "prover all"},
	} {
		for _, s := range []string{"wallet", "prover", "front", "signer", "all", "nothing", "other"} {
			h := b.DstackOf(s)
			if row.tappd {
				h = b.TappdOf(s)
			}
			refused := strings.Contains(asked(t, h, row.target, row.body), "socket policy: service "+s+" may not ")
			if want := !strings.Contains(" "+row.allowed+" ", " "+s+" "); refused != want {
				t.Errorf("%s %s %s: refused %v, want %v", s, row.target, row.body, refused, want)
			}
		}
	}
}

// TestRequestsAreCounted: rows take values of the policy only.
func TestRequestsAreCounted(t *testing.T) {
	b := limitedBackend(t, policy)
	for i := range 200 {
		asked(t, b.DstackOf("wallet"), "/GetKey", `{"path":"wallet/`+strings.Repeat("x", i)+`","purpose":"pay"}`)
		asked(t, b.DstackOf("wallet"), "/GetKey", `{"path":"p`+strings.Repeat("x", i)+`","purpose":"`+strings.Repeat("y", i+1)+`"}`)
		asked(t, b.Dstack(), "/GetKey", `{"path":"p`+strings.Repeat("x", i)+`","purpose":"`+strings.Repeat("y", i+1)+`"}`)
	}
	asked(t, b.DstackOf("wallet"), "/GetKey", `{"path":"wallet/","purpose":"pay","algorithm":"rsa"}`)
	asked(t, b.DstackOf("wallet"), "/Sign", `{}`)
	want := []guestapi.KeyRequests{
		{Service: "", Method: "GetKey", Path: "other", Purpose: "other", Outcome: "ok", Count: 200},
		{Service: "wallet", Method: "GetKey", Path: "other", Purpose: "other", Outcome: "refused", Count: 200},
		{Service: "wallet", Method: "GetKey", Path: "wallet/*", Purpose: "pay", Outcome: "error", Count: 1},
		{Service: "wallet", Method: "GetKey", Path: "wallet/*", Purpose: "pay", Outcome: "ok", Count: 200},
		{Service: "wallet", Method: "Sign", Outcome: "refused", Count: 1},
	}
	got := b.Requests()
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("row %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	w := httptest.NewRecorder()
	b.External().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	const line = `phala_guest_key_requests_total{service="wallet",method="GetKey",path="wallet/*",purpose="pay",outcome="ok"} 200`
	if !strings.Contains(w.Body.String(), line+"\n") || !strings.Contains(w.Body.String(), "system_num_cpus ") {
		t.Errorf("metrics:\n%s", w.Body)
	}
	r := httptest.NewRecorder()
	b.DstackOf("nothing").ServeHTTP(r, httptest.NewRequest("GET", guestapi.PathKeyRequests, nil))
	var rows []guestapi.KeyRequests
	if json.Unmarshal(r.Body.Bytes(), &rows) != nil || len(rows) != len(want) {
		t.Errorf("%s", r.Body)
	}
}

func TestNoPolicyIsTheReference(t *testing.T) {
	b := limitedBackend(t, "null")
	for _, h := range []http.Handler{b.Dstack(), b.DstackOf("any")} {
		if e := asked(t, h, "/GetKey", `{"path":"a","purpose":"b"}`); e != "" {
			t.Error(e)
		}
	}
}
