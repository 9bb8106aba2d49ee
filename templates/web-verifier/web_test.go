// Package webverifier_test builds the browser package and runs it in Node and in
// Chromium, against what the native verifier says of the same evidence.
package webverifier_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
)

func now() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }

// ask is one call of verify, natively and in the package.
type ask struct {
	Evidence string         `json:"evidence"` // base64
	Options  map[string]any `json:"options"`
}

// evidence makes a quote of a simulated machine with its collateral, and a flipped one.
func evidence(t *testing.T) map[string]ask {
	t.Helper()
	hw, err := simtee.New(simtee.Config{Seed: bytes.Repeat([]byte{3}, 32), Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	g, err := hw.Boot(context.Background(), simtee.Boot{Name: "web", AppID: cvm.AppID{1}, Phase: claim.PhaseRunning})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := g.Evidence(context.Background(), [64]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	set, err := hw.Collateral(now())
	if err != nil {
		t.Fatal(err)
	}
	coll, err := check.EncodeCollateral(set)
	if err != nil {
		t.Fatal(err)
	}
	doc := func(raw []byte) string {
		b, err := json.Marshal(map[string]any{"attestation": hex.EncodeToString(raw), "at": now().Unix(), "collateral": coll})
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	flipped := bytes.Clone(raw)
	flipped[bytes.Index(flipped, ev.Quote)+250] ^= 1 // in MRCONFIGID: only the signature notices
	spki := hw.RootSPKI()
	root := []string{hex.EncodeToString(spki[:])}
	policy := hw.Policy([64]byte{1, 2, 3}, claim.PhaseRunning)
	return map[string]ask{
		"sound":            {doc(raw), map[string]any{"roots": root}},
		"flipped":          {doc(flipped), map[string]any{"roots": root}},
		"unknown root":     {doc(raw), map[string]any{}},
		"simulated":        {doc(raw), map[string]any{"policy": policy}},
		"another request":  {doc(raw), map[string]any{"roots": root, "report_data": strings.Repeat("00", 64)}},
		"not for the KMS":  {doc(raw), map[string]any{"policy": "strict:running"}},
		"later":            {doc(raw), map[string]any{"roots": root, "at": now().AddDate(1, 0, 0).Unix()}},
		"repeated members": {base64.StdEncoding.EncodeToString([]byte(`{"quote":"00","QUOTE":"00"}`)), map[string]any{}},
	}
}

// built is a directory with the package as it is published, and the example.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command("./build.sh", filepath.Join(dir, "dist")) //nolint:gosec // our own script
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
	for _, name := range []string{"index.js", "package.json", "example/index.html"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	t.Skipf("SKIPPED: none of %q is installed", names)
	return ""
}

func TestWebVerifier(t *testing.T) {
	dir := built(t)
	t.Run("node", func(t *testing.T) { inNode(t, dir) })
	t.Run("chromium", func(t *testing.T) { inChromium(t, dir) })
	t.Run("size", func(t *testing.T) { size(t, dir) })
}

// The package in Node says, byte for byte, what the native verifier says.
func inNode(t *testing.T, dir string) {
	t.Helper()
	node := tool(t, "node")
	asks := evidence(t)
	in, err := json.Marshal(asks)
	if err != nil {
		t.Fatal(err)
	}
	script := `
import { verify, VerifierError } from ` + quote(dir+"/index.js") + `;
let text = "";
for await (const part of process.stdin) text += part;
const out = {};
for (const [name, { evidence, options }] of Object.entries(JSON.parse(text))) {
  const { report_data: reportData, ...rest } = options;
  try {
    out[name] = await verify(Buffer.from(evidence, "base64"), { ...rest, reportData });
  } catch (e) {
    if (!(e instanceof VerifierError)) throw e;
    out[name] = { code: e.code, message: e.message };
  }
}
process.stdout.write(JSON.stringify(out));
process.exit(0);`
	if err := os.WriteFile(filepath.Join(dir, "test.mjs"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(node, filepath.Join(dir, "test.mjs")) //nolint:gosec // our own script
	c.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.String())
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for name, a := range asks {
		want, verdict := native(t, a)
		if string(got[name]) != want {
			t.Errorf("%s:\nin Node  %s\nnatively %s", name, got[name], want)
		}
		if (name == "sound" || name == "simulated") != (verdict == check.Accepted) {
			t.Errorf("%s: %s", name, verdict)
		}
	}
}

func native(t *testing.T, a ask) (answer, verdict string) {
	t.Helper()
	ev, err := base64.StdEncoding.DecodeString(a.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	o, err := json.Marshal(a.Options)
	if err != nil {
		t.Fatal(err)
	}
	b, err := check.JSON(ev, o, now())
	if err != nil {
		return `{"code":"` + string(cvm.CodeOf(err)) + `","message":` + quote(err.Error()) + `}`, "unread"
	}
	var r struct {
		Verdict string `json:"verdict"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return plain(t, b), r.Verdict
}

// plain undoes Go's escaping for HTML, which JSON.stringify does not make.
func plain(t *testing.T, b []byte) string {
	t.Helper()
	s := string(b)
	for c, e := range map[string]string{"<": `\u003c`, ">": `\u003e`, "&": `\u0026`} {
		s = strings.ReplaceAll(s, e, c)
	}
	return s
}

func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string
	return strings.TrimSpace(b.String())
}

// The example page in Chromium shows in words that sound evidence is verified and
// that a flipped bit is not, and asks nobody else.
func inChromium(t *testing.T, dir string) {
	t.Helper()
	browser := tool(t, "chromium", "chromium-browser", "google-chrome")
	asks := evidence(t)
	for _, tc := range []struct{ name, want, not string }{
		{"sound", "Verified by cryptography and the vendor's rules only (no policy): a machine under a CUSTOM root", "✗"},
		{"flipped", "Rejected: quote.signature failed.", "Verified"},
		{"repeated members", "This cannot be read: evidence:", "✓"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := page(t, browser, dir, asks[tc.name])
			if !strings.Contains(text, tc.want) || strings.Contains(text, tc.not) {
				t.Errorf("the page shows:\n%s", text)
			}
		})
	}
}

// page opens the example in a browser and returns what it shows once it is done.
func page(t *testing.T, browser, dir string, a ask) string {
	t.Helper()
	ev, err := base64.StdEncoding.DecodeString(a.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /evidence.json", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(ev) })
	mux.HandleFunc("POST /seen", func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		select {
		case seen <- string(b):
		default:
		}
	})
	mux.HandleFunc("GET /example/", func(w http.ResponseWriter, _ *http.Request) {
		b, err := os.ReadFile(filepath.Join(dir, "example/index.html"))
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(append(b, reporter...))
	})
	mux.Handle("GET /", http.FileServer(http.Dir(dir)))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	url := srv.URL + "/example/?evidence=/evidence.json"
	if roots, ok := a.Options["roots"].([]string); ok {
		url += "&root=" + roots[0]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", //nolint:gosec // a browser of this machine
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", url)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	defer func() { cancel(); <-done }()
	select {
	case text := <-seen:
		return text
	case err := <-done:
		done <- err
		t.Fatalf("the browser ended: %v\n%s", err, stderr.String())
	case <-ctx.Done():
		t.Fatalf("the page said nothing\n%s", stderr.String())
	}
	return ""
}

// reporter sends what the page shows, once it has checked.
const reporter = `<script type="module">
const look = () => {
  if (document.body.dataset.done) fetch("/seen", { method: "POST", body: document.body.innerText });
  else setTimeout(look, 50);
};
look();
</script>`

// maxCompressed is what a page may have to load, in bytes. It is about 2.4 MB.
const maxCompressed = 2_800_000

func size(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "dist/verifier.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, %d compressed", len(b), z.Len())
	if z.Len() > maxCompressed {
		t.Errorf("%d bytes compressed, at most %d", z.Len(), maxCompressed)
	}
}
