package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// snpBackend answers on a simulated SEV-SNP machine; version is that of its events.
func snpBackend(t *testing.T, version int) *Backend {
	t.Helper()
	hw, err := simtee.NewAMD(simtee.AMDConfig{Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	app, err := appcompose.Parse([]byte(`{"manifest_version":2,"name":"t","runner":"none"}`))
	if err != nil {
		t.Fatal(err)
	}
	launch := simtee.Launch{Measurement: cvm.Measurement{5}, Config: attest.MRConfig{Version: 3, ComposeHash: app.Hash().String(), KeyProvider: "none"}, VMConfig: `{"os_image_hash":""}`}
	key := make([]byte, 32)
	key[31] = 1
	return &Backend{
		Now: testClock, App: app, ComposeHash: app.Hash(), AppKey: keys.NewSecret(key), VMConfig: launch.VMConfig, Log: (&Backend{}).logger(),
		Evidence: func(_ context.Context, rd [64]byte) (attest.Evidence, error) {
			ev, err := hw.Evidence(launch, rd)
			ev.RuntimeEvents = []eventlog.Runtime{{Name: eventlog.SystemReady, Version: version}}
			return ev, err
		},
		Sign: func(context.Context, *ecdsa.PrivateKey, kmsapi.CertConfig) ([]string, error) {
			return nil, errors.New("nobody signs here")
		},
	}
}

func post(h http.Handler, path, body string) (int, string) {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// On SEV-SNP nobody gets something that looks like a TDX quote.
func TestNoQuotesOnSNP(t *testing.T) {
	b := snpBackend(t, 1)
	for _, c := range []struct {
		h    http.Handler
		path string
	}{{b.Dstack(), "/GetQuote"}, {b.Tappd(), "/prpc/Tappd.TdxQuote"}, {b.Tappd(), "/prpc/Tappd.RawQuote"}} {
		code, body := post(c.h, c.path, `{"report_data":"`+strings.Repeat("01", 64)+`"}`)
		if code != http.StatusBadRequest || !strings.Contains(body, "SEV-SNP") {
			t.Errorf("%s: %d %s", c.path, code, body)
		}
	}
	code, body := post(b.External(), "/prpc/Worker.GetAttestationForAppKey", `{"algorithm":"ed25519"}`)
	var q guestapi.Quote
	if code != http.StatusOK || json.Unmarshal([]byte(body), &q) != nil || len(q.Quote) != 0 {
		t.Fatalf("%d %s", code, body)
	}
	if ev, err := attest.ParseEvidence(q.Attestation); err != nil || ev.Variant != cvm.VariantSNP || !strings.HasPrefix(string(ev.ReportData[:]), "dip1::ed25519-pk:") {
		t.Errorf("%+v %v", ev, err)
	}
}

// Attest gives SCALE's AmdSevSnp, or msgpack's sev-snp where events need it.
func TestAttestOnSNP(t *testing.T) {
	for version, head := range map[int]string{1: "0003", 2: "83a776657273696f6e01"} {
		b := snpBackend(t, version)
		code, body := post(b.Dstack(), "/Attest", `{"report_data":"0102"}`)
		var a struct{ Attestation guestapi.Hex }
		if code != http.StatusOK || json.Unmarshal([]byte(body), &a) != nil || !strings.HasPrefix(hex.EncodeToString(a.Attestation), head) {
			t.Fatalf("events of version %d: %d %.200s, want %s...", version, code, body, head)
		}
		ev, err := attest.ParseEvidence(a.Attestation)
		if err != nil || ev.Variant != cvm.VariantSNP || ev.ReportData != [64]byte{1, 2} || len(ev.CertChain) != 3 || ev.MRConfig == "" || len(ev.RuntimeEvents) != 1 {
			t.Errorf("%+v %v", ev, err)
		}
	}
}

// Info shows no registers where there are none.
func TestInfoOnSNP(t *testing.T) {
	b := snpBackend(t, 1)
	code, body := post(b.Dstack(), "/Info", `{}`)
	var info guestapi.AppInfo
	if code != http.StatusOK || json.Unmarshal([]byte(body), &info) != nil {
		t.Fatalf("%d %s", code, body)
	}
	var tcb map[string]any
	if err := json.Unmarshal([]byte(info.TCBInfo), &tcb); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"} {
		if v, there := tcb[name]; !there || v != nil {
			t.Errorf("%s is %v, want null", name, v)
		}
	}
	if events, _ := tcb["event_log"].([]any); len(events) != 1 {
		t.Errorf("event log %v", tcb["event_log"])
	}
	doc, err := attest.MRConfig{Version: 3, ComposeHash: b.ComposeHash.String(), KeyProvider: "none"}.Document()
	if err != nil {
		t.Fatal(err)
	}
	host := attest.HostData(doc)
	digest := cvm.Measurement{5}
	if want := sha256.Sum256(append(digest[:], host[:]...)); hex.EncodeToString(info.MRAggregated) != hex.EncodeToString(want[:]) {
		t.Errorf("mr_aggregated %x", []byte(info.MRAggregated))
	}
}
