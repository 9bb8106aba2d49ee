package api_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// machine is a simulated TEE machine with its vendor's collateral service.
type machine struct {
	hw  *simtee.Hardware
	url string
}

func newMachine(t *testing.T, seed byte, f simtee.Faults) *machine {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{seed}, 32), Faults: f})
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(hw.Handler())
	t.Cleanup(hs.Close)
	return &machine{hw, hs.URL}
}

// evidence is an attestation in the guests' encoding, and its quote.
func (x *machine) evidence(t *testing.T, rd [64]byte) (encoded, quote []byte) {
	t.Helper()
	g, err := x.hw.Boot(context.Background(), simtee.Boot{Name: hex.EncodeToString(rd[:8]) + t.Name(), AppID: cvm.AppID{1}, ComposeHash: cvm.ComposeHash{2}})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := g.Evidence(context.Background(), rd)
	if err != nil {
		t.Fatal(err)
	}
	if encoded, err = ev.Marshal(); err != nil {
		t.Fatal(err)
	}
	q, err := tdx.ParseQuote(ev.Quote)
	if err != nil {
		t.Fatal(err)
	}
	return encoded, ev.Quote[:q.Size()]
}

func (x *machine) config(c *api.Config) {
	offChain(c)
	spki := x.hw.RootSPKI()
	c.Attestation = api.AttestationConfig{CollateralURLs: []string{x.url}, SimulatedRoots: []string{hex.EncodeToString(spki[:])}}
}

// send posts a body without any key.
func (w *world) send(kind string, body []byte) (int, string) {
	w.t.Helper()
	res, err := http.Post(w.url+cloudapi.Prefix+"/attestations/verify", kind, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func form(t *testing.T, fields, files map[string]string) (string, []byte) {
	t.Helper()
	var b bytes.Buffer
	mw := multipart.NewWriter(&b)
	for k, v := range fields {
		if err := mw.WriteField(k, v); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range files {
		f, err := mw.CreateFormFile(k, "quote.bin")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write([]byte(v))
	}
	if err := mw.Close(); err != nil {
		t.Fatal(err)
	}
	return mw.FormDataContentType(), b.Bytes()
}

func TestVerifyQuote(t *testing.T) {
	x := newMachine(t, 1, simtee.Faults{})
	w := newWorld(t, x.config)
	_, quote := x.evidence(t, [64]byte{9})
	h := hex.EncodeToString(quote)
	js, _ := json.Marshal(map[string]string{"hex": "0x" + h[:10] + " \n" + h[10:]})
	kindHex, formHex := form(t, map[string]string{"hex": h}, nil)
	kindFile, formFile := form(t, nil, map[string]string{"file": string(quote)})
	var first string
	for name, try := range map[string]struct {
		kind string
		body []byte
	}{"json": {"application/json", js}, "form": {"application/x-www-form-urlencoded", []byte(url.Values{"hex": {h}}.Encode())}, "multipart hex": {kindHex, formHex}, "multipart file": {kindFile, formFile}} {
		status, body := w.send(try.kind, try.body)
		var v cloudapi.QuoteVerification
		if err := json.Unmarshal([]byte(body), &v); err != nil || status != 200 || !v.Success || v.TCBStatus != tdx.UpToDate {
			t.Fatalf("%s: %d %s", name, status, body)
		}
		if v.Quote.Header.AKType != 2 || v.Quote.Header.TEEType != 129 || !strings.HasPrefix(v.Quote.Body.ReportData, "0900") || len(v.Quote.Body.MRTD) != 96 || !*v.Quote.Verified {
			t.Errorf("%s shows %+v", name, v.Quote)
		}
		if v.ProofOfCloud || v.QuoteCollateral.TCBInfo == "" || v.QuoteCollateral.RootCACRL == nil || first != "" && first != *v.Checksum {
			t.Errorf("%s: %s", name, body)
		}
		first = *v.Checksum
	}
	if status, body := w.anonymous("GET", "/attestations/recent", nil); status != 200 || strings.Count(body, first) != 1 || !strings.Contains(body, `"verified":1`) {
		t.Errorf("recent: %d %s", status, body)
	}
	if status, body := w.anonymous("GET", "/attestations/view/"+strings.ToUpper(first), nil); status != 200 || !strings.Contains(body, `"success":true`) {
		t.Errorf("view: %d %s", status, body)
	}
	for _, method := range []string{"GET", "HEAD"} {
		r, _ := http.NewRequest(method, w.url+cloudapi.Prefix+"/attestations/raw/"+first, nil)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/octet-stream" || res.Header.Get("Content-Disposition") != "attachment; filename="+first+".bin" || (method == "GET") != bytes.Equal(b, quote) {
			t.Errorf("raw by %s: %d %v, %d bytes", method, res.StatusCode, res.Header, len(b))
		}
	}
	res, err := http.Get(w.url + cloudapi.Prefix + "/attestations/collateral/" + first)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var set cloudapi.QuoteCollateral
	if err := json.NewDecoder(res.Body).Decode(&set); err != nil || set.QEIdentitySignature == "" || res.Header.Get("ETag") != `"`+first+`"` || res.Header.Get("Cache-Control") != "public, max-age=86400" {
		t.Errorf("collateral: %v %v", err, res.Header)
	}
	for _, sum := range []string{strings.Repeat("0", 64), "x", "%00"} {
		for _, what := range []string{"view", "raw", "collateral"} {
			if status, body := w.anonymous("GET", "/attestations/"+what+"/"+sum, nil); status != 404 {
				t.Errorf("%s of %s: %d %s", what, sum, status, body)
			}
		}
	}
}

func TestVerifyQuoteRefusals(t *testing.T) {
	x, foreign := newMachine(t, 1, simtee.Faults{}), newMachine(t, 2, simtee.Faults{})
	w := newWorld(t, x.config)
	_, quote := x.evidence(t, [64]byte{9})
	_, other := foreign.evidence(t, [64]byte{9})
	asJSON := func(q []byte) []byte { b, _ := json.Marshal(map[string]string{"hex": hex.EncodeToString(q)}); return b }
	broken := bytes.Clone(quote)
	broken[tdx.ReportDataOffset] ^= 1
	both, bothBody := form(t, map[string]string{"hex": "00"}, map[string]string{"file": string(quote)})
	none, noneBody := form(t, nil, nil)
	for name, try := range map[string]struct {
		kind string
		body []byte
		says string
	}{
		"another report data":  {"application/json", asJSON(broken), "quote-not-genuine"},
		"another vendor":       {"application/json", asJSON(other), "quote-not-genuine"},
		"truncated":            {"application/json", asJSON(quote[:len(quote)-100]), "quote"},
		"no hex":               {"application/json", []byte(`{"hex":"xyz"}`), "quote-hex"},
		"too large":            {"application/json", asJSON(make([]byte, 1<<20)), "quote-too-large"},
		"nothing":              {"application/json", []byte(`{}`), "exactly one"},
		"no JSON":              {"application/json", []byte(`[`), "quote-form"},
		"both":                 {both, bothBody, "exactly one"},
		"neither":              {none, noneBody, "exactly one"},
		"a form without bound": {"multipart/form-data", quote, "quote-form"},
	} {
		if status, body := w.send(try.kind, try.body); status != 400 || !strings.Contains(body, try.says) {
			t.Errorf("%s: %d %.300s", name, status, body)
		}
	}
	if status, body := w.anonymous("GET", "/attestations/recent", nil); status != 200 || strings.TrimSpace(body) != "[]" {
		t.Errorf("what was refused is listed: %d %s", status, body)
	}
	// 60 in ten minutes: the next one waits, and somebody who guesses learns nothing.
	w.until("the limit", func() bool { status, _ := w.send("application/json", []byte(`{}`)); return status == 429 })
}

// A genuine machine that its vendor does not rate well is stored with that verdict.
func TestVerifyQuoteOfRevoked(t *testing.T) {
	x := newMachine(t, 3, simtee.Faults{TCBStatus: tdx.Revoked})
	w := newWorld(t, x.config)
	_, quote := x.evidence(t, [64]byte{})
	b, _ := json.Marshal(map[string]string{"hex": hex.EncodeToString(quote)})
	status, body := w.send("application/json", b)
	var v cloudapi.QuoteVerification
	if err := json.Unmarshal([]byte(body), &v); err != nil || status != 200 || v.Success || *v.Quote.Verified || v.Summary == "" {
		t.Errorf("%d %s", status, body)
	}
}

func TestVerifyQuoteWithoutCollateral(t *testing.T) {
	x := newMachine(t, 1, simtee.Faults{})
	_, quote := x.evidence(t, [64]byte{})
	b, _ := json.Marshal(map[string]string{"hex": hex.EncodeToString(quote)})
	w := newWorld(t, func(c *api.Config) { x.config(c); c.Attestation.CollateralURLs = nil })
	if status, body := w.send("application/json", b); status != 501 || !strings.Contains(body, "no-collateral") {
		t.Errorf("without a service: %d %s", status, body)
	}
	w = newWorld(t, func(c *api.Config) { x.config(c); c.Attestation.CollateralURLs = []string{"http://127.0.0.1:1"} })
	if status, body := w.send("application/json", b); status != 503 {
		t.Errorf("with a dead service: %d %s", status, body)
	}
}

// serveGuest makes the fake VMM's guests answer with a machine's evidence.
func (w *world) serveGuest(x *machine) {
	w.vmm.mu.Lock()
	defer w.vmm.mu.Unlock()
	w.vmm.evidence = func(nonce []byte) (guestapi.Evidence, error) {
		encoded, _ := x.evidence(w.t, guestapi.ReportDataEvidence(nonce, nil))
		return guestapi.Evidence{Attestation: encoded}, nil
	}
}

func TestAppAttestations(t *testing.T) {
	x := newMachine(t, 1, simtee.Faults{})
	w := newWorld(t, x.config)
	w.serveGuest(x)
	vm := w.offChainApp("my-app", nil)
	hidden := w.offChainApp("hidden-app", map[string]any{"public_tcbinfo": false})
	path := "/apps/0x" + vm.AppID + "/attestations"
	status, body := w.anonymous("GET", path, nil)
	var v cloudapi.AppAttestations
	if err := json.Unmarshal([]byte(body), &v); err != nil || status != 200 || len(v.Instances) != 1 {
		t.Fatalf("%d %s", status, body)
	}
	i := v.Instances[0]
	if i.Error != nil || i.Quote == nil || i.TCBInfo == nil || i.Name != "" || i.Evidence != nil || i.ComposeFile == nil || !i.Simulated || i.DeviceID == "" {
		t.Errorf("instance %+v (%s)", i, word(i.Error))
	}
	if !strings.Contains(body, `"kms_guest_agent_info":null,"gateway_guest_agent_info":null,"qemu_version":null`) || !strings.Contains(body, `"chain_id":null`) || strings.Contains(body, "my-app") && !strings.Contains(*i.ComposeFile, "my-app") {
		t.Errorf("body %s", body)
	}
	if _, again := w.anonymous("GET", path, nil); again != body {
		t.Error("a second question asked the guest again")
	}
	// A nonce of one's own is answered by a fresh quote, with the whole evidence.
	_, body = w.anonymous("GET", path+"?nonce=0011223344556677", nil)
	var fresh cloudapi.AppAttestations
	if err := json.Unmarshal([]byte(body), &fresh); err != nil || fresh.Instances[0].Evidence == nil {
		t.Fatalf("with a nonce: %s", body)
	}
	rd := guestapi.ReportDataEvidence([]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77}, nil)
	if q, _ := hex.DecodeString(*fresh.Instances[0].Quote); !bytes.Equal(q[tdx.ReportDataOffset:tdx.ReportDataOffset+64], rd[:]) {
		t.Error("the quote does not answer the nonce")
	}
	for _, p := range []string{"/apps/" + hidden.AppID, "/apps/" + strings.Repeat("e", 40), "/apps/hidden-app", "/apps/" + *hidden.VMUUID} {
		for _, rest := range []string{"/attestations", "/attestations/tcb-evaluation"} {
			if status, body := w.anonymous("GET", p+rest, nil); status != 404 || strings.TrimSpace(body) != `{"detail":"App not found"}` {
				t.Errorf("%s: %d %s", p+rest, status, body)
			}
		}
	}
	_, body = w.anonymous("GET", path+"/tcb-evaluation", nil)
	var e cloudapi.TCBEvaluation
	if err := json.Unmarshal([]byte(body), &e); err != nil || len(e.Instances) != 1 || e.Instances[0].EvaluationOK == nil || !*e.Instances[0].EvaluationOK || *e.Instances[0].EvaluationStatus != tdx.UpToDate || e.Instances[0].Name != nil {
		t.Errorf("evaluation %s", body)
	}
	call[cloudapi.VM](w, 200, "POST", "/cvms/my-app/stop", nil, nil)
	w.until("the CVM to stop", func() bool {
		d := call[cloudapi.CVMDetail](w, 200, "GET", "/cvms/my-app", nil, nil)
		return d.Status == cloudapi.StatusStopped
	})
	if status, body := w.anonymous("GET", path+"?nonce=0011223344556677", nil); status != 200 || !strings.Contains(body, `"instances":[]`) {
		t.Errorf("of a stopped one: %d %s", status, body)
	}
}

func word(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// A node is known by its quotes: who verifies one sees whose machine made it.
func TestNodesAreKnownByTheirQuotes(t *testing.T) {
	x := newMachine(t, 1, simtee.Faults{})
	w := newWorld(t, x.config)
	w.vmm.mu.Lock()
	w.vmm.device = x.hw.DeviceID()
	w.vmm.mu.Unlock()
	w.until("the node to be asked", func() bool {
		_, body := w.anonymous("GET", "/attestations/device_ids", nil)
		return strings.Contains(body, x.hw.DeviceID().String())
	})
	if _, body := w.anonymous("GET", "/attestations/ppids", nil); strings.TrimSpace(body) != "[]" {
		t.Errorf("PPIDs before a quote: %s", body)
	}
	_, quote := x.evidence(t, [64]byte{})
	b, _ := json.Marshal(map[string]string{"hex": hex.EncodeToString(quote)})
	if status, body := w.send("application/json", b); status != 200 || !strings.Contains(body, `"proof_of_cloud":true,"provider":"node-1"`) {
		t.Fatalf("%d %s", status, body)
	}
	_, body := w.anonymous("GET", "/attestations/nodes", nil)
	var nodes []cloudapi.NodeRef
	if err := json.Unmarshal([]byte(body), &nodes); err != nil || len(nodes) != 1 || nodes[0].PPID == nil || len(*nodes[0].PPID) != 32 {
		t.Errorf("nodes %s", body)
	}
	if strings.Contains(body, token) || strings.Contains(body, "127.0.0.1") {
		t.Errorf("the public list says how nodes are reached: %s", body)
	}
}
