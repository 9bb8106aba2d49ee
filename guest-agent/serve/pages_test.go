package serve

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/compose"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// crew is containers with hostile names.
type crew struct{}

func (crew) Containers(context.Context) ([]guestapi.Container, error) {
	return []guestapi.Container{{Names: []string{"/<script>alert(1)</script>"}, Image: "\"onload=x", Status: "Up"}}, nil
}

func (crew) Logs(_ context.Context, w io.Writer, name string, o compose.LogOptions) error {
	if name != "web" {
		return cvm.Errorf(cvm.NotFound, "no container %q", name)
	}
	return json.NewEncoder(w).Encode(o)
}

func (crew) Images() []guestapi.ImageUse {
	return []guestapi.ImageUse{{Service: "a", Image: "<b>:1"}, {Service: "b", Pinned: true}, {Service: "c", Built: true}}
}

func pageBackend(t *testing.T, flags string) *Backend {
	t.Helper()
	doc, err := appcompose.Parse([]byte(`{"manifest_version":2,"name":"<i>evil</i>","runner":"docker-compose","docker_compose_file":"x"` + flags + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return &Backend{App: doc, Containers: crew{}, Now: testClock}
}

func get(h http.Handler, target string) (int, string, http.Header) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
	return w.Code, w.Body.String(), w.Header()
}

func TestDashboard(t *testing.T) {
	b := pageBackend(t, `,"public_sysinfo":true,"public_logs":true`)
	code, text, hd := get(b.External(), "/")
	if code != 200 || !strings.Contains(hd.Get("Content-Security-Policy"), "default-src 'none'") || !strings.Contains(text, "width=device-width") {
		t.Errorf("%d %v", code, hd)
	}
	for _, bad := range []string{"<script", "<i>evil", "<b>:1", "\"onload", "SIMULATED"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	for _, want := range []string{"&lt;i&gt;evil", "&lt;script&gt;", "a tag, which", "digest", "built in the guest"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	b.Simulated = true
	if _, text, _ := get(b.External(), "/"); !strings.Contains(text, "SIMULATED TEE") {
		t.Error("a simulator that does not say so")
	}
	b = pageBackend(t, `,"public_tcbinfo":false`)
	if _, text, _ := get(b.External(), "/"); strings.Contains(text, "script") || strings.Contains(text, "Images") {
		t.Errorf("a private app shows its containers: %s", text)
	}
}

// TestTheOwnerSeesWhatIsReported: ignored keys, images that a registry may exchange,
// and every request for a key.
func TestTheOwnerSeesWhatIsReported(t *testing.T) {
	b := pageBackend(t, `,"x_note":1,"public_sysinfo":true`)
	c := b.anyone()
	for range 3 {
		b.count(c, ask{method: "GetKey", key: true, path: "db"}, "db", outcomeOK)
	}
	b.count(&caller{b: b, service: "<b>web", limited: true}, ask{method: "GetQuote", quote: true}, "", outcomeRefused)
	_, page, _ := get(b.External(), "/")
	for _, want := range []string{"<code>x_note</code>", "<td>GetKey</td><td>db</td>", "<td>ok</td><td>3</td>", "<td>&lt;b&gt;web</td><td>GetQuote</td>", "<td>refused</td><td>1</td>", "a tag, which"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s:\n%s", want, page)
		}
	}
	_, metrics, _ := get(b.External(), "/metrics")
	for _, want := range []string{"phala_guest_ignored_keys 1\n", `phala_guest_images{named_by="tag"} 1`, `phala_guest_images{named_by="digest"} 1`, `phala_guest_images{named_by="build"} 1`, `method="GetKey",path="db"`, `outcome="refused"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s:\n%s", want, metrics)
		}
	}
	b.regs, b.cert = &registers{}, "a certificate"
	if i, err := b.PublicInfo(t.Context()); err != nil || !slices.Equal(i.IgnoredKeys, []string{"x_note"}) {
		t.Errorf("Info: %+v %v", i.IgnoredKeys, err)
	}
	b = pageBackend(t, `,"x_note":1,"public_tcbinfo":false`)
	b.regs, b.cert = &registers{}, "a certificate"
	if i, err := b.PublicInfo(t.Context()); err != nil || i.IgnoredKeys != nil {
		t.Errorf("Info of a private app: %+v %v", i.IgnoredKeys, err)
	}
	b.count(b.anyone(), ask{method: "GetKey", key: true, path: "db"}, "db", outcomeOK)
	if _, page, _ := get(b.External(), "/"); strings.Contains(page, "x_note") || strings.Contains(page, "GetKey") {
		t.Errorf("a private app shows them to everyone: %s", page)
	}
}

// TestPublicOnlyWhatIsPublic: logs and metrics need the measured flags.
func TestPublicOnlyWhatIsPublic(t *testing.T) {
	closed, open := pageBackend(t, "").External(), pageBackend(t, `,"public_sysinfo":true,"public_logs":true`).External()
	for _, target := range []string{"/logs/web", "/metrics"} {
		if code, text, _ := get(closed, target); code != http.StatusForbidden {
			t.Errorf("%s of a closed app: %d %s", target, code, text)
		}
		if code, text, _ := get(open, target); code != 200 {
			t.Errorf("%s of an open app: %d %s", target, code, text)
		}
	}
	code, text, hd := get(open, "/logs/web?since=60s&until=1700000100&follow&text&timestamps&tail=7&ansi=1")
	var o compose.LogOptions
	if code != 200 || json.Unmarshal([]byte(text), &o) != nil || hd.Get("Content-Type") != "application/x-ndjson" ||
		o != (compose.LogOptions{Since: "1699999940", Until: "1700000100", Tail: "7", Follow: true, Text: true, Timestamps: true, ANSI: true}) {
		t.Errorf("%d %+v %v", code, o, hd)
	}
	if _, _, hd := get(open, "/logs/web?bare"); !strings.HasPrefix(hd.Get("Content-Type"), "text/plain") {
		t.Error("bare logs are plain text")
	}
	for target, want := range map[string]int{"/logs/other": 404, "/logs/web?tail=x": 400, "/logs/": 404, "/nothing": 404} {
		if code, _, _ := get(open, target); code != want {
			t.Errorf("%s: %d, want %d", target, code, want)
		}
	}
}

func TestPrepare(t *testing.T) {
	b := pageBackend(t, "")
	var seen *appcompose.Document
	var result error
	b.Prepare = func(_ context.Context, d *appcompose.Document, tell func(guestapi.PullProgress)) error {
		seen = d
		tell(guestapi.PullProgress{Image: "x", State: "pulling", Done: 1, Total: 2})
		return result
	}
	g := &Guest{Backend: func() *Backend { return b }}
	post := func(body string) (int, []string) {
		seen = nil
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", guestapi.PathPrepare, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		g.Handler().ServeHTTP(w, r)
		return w.Code, strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	}
	wrap := func(doc string) string {
		b, _ := json.Marshal(guestapi.PrepareRequest{AppCompose: doc})
		return string(b)
	}
	good := string(b.App.Raw())
	if code, lines := post(wrap(good)); code != 200 || len(lines) != 2 || !strings.Contains(lines[1], `"ready"`) || seen == nil || seen.Hash() != b.App.Hash() {
		t.Errorf("%d %q", code, lines)
	}
	result = cvm.Errorf(cvm.Unavailable, "no").WithReason("image-not-pulled").WithFix("do")
	if _, lines := post(wrap(good)); !strings.Contains(lines[1], `"failed"`) || !strings.Contains(lines[1], "image-not-pulled") || !strings.Contains(lines[1], `"fix":"do"`) {
		t.Errorf("%q", lines)
	}
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "{", "unknown key": `{"app_compose":"{}","x":1}`, "no document": wrap("{}"), "another runner": wrap(strings.Replace(good, "docker-compose\"", "bash\"", 1)),
		"no compose file": wrap(strings.Replace(good, `"x"`, `""`, 1)), "too long": wrap(good + strings.Repeat(" ", appcompose.MaxSize)),
	} {
		if code, lines := post(body); code < 400 || code >= 500 || seen != nil {
			t.Errorf("%s: %d %.200q", name, code, lines)
		}
	}
	b.Prepare = nil
	if code, _ := post(wrap(good)); code != http.StatusNotImplemented && code < 400 {
		t.Errorf("no containers: %d", code)
	}
	g.Backend = func() *Backend { return nil }
	if code, _ := post(wrap(good)); code < 400 {
		t.Errorf("while booting: %d", code)
	}
}

// FuzzRequest sends foreign bytes to every method: an answer is JSON, 200 or 400.
func FuzzRequest(f *testing.F) {
	f.Add("GetKey", []byte(`{"path":"a","purpose":"b","algorithm":"ed25519"}`))
	f.Add("GetTlsKey", []byte(`{"not_before":2,"not_after":1}`))
	f.Add("Verify", []byte(`{"algorithm":"secp256k1","data":"00","signature":"00","public_key":"02"}`))
	f.Add("Sign", []byte(`{"algorithm":"secp256k1_prehashed","data":"0x00"}`))
	f.Fuzz(func(t *testing.T, method string, body []byte) {
		switch method {
		case "GetKey", "Sign", "Verify":
		default:
			method = "GetKey"
		}
		b := limitedBackend(t, "null")
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/"+method, strings.NewReader(string(body)))
		b.Dstack().ServeHTTP(w, r)
		if (w.Code != 200 && w.Code != 400) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %q: %d %s", method, body, w.Code, w.Body)
		}
	})
}
