package api_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

// legacy is a CVM in the 2025-10-28 shape.
func (w *world) legacy(id string) (v struct {
	ID     int64   `json:"id"`
	Syslog *string `json:"syslog_endpoint"`
	EnvKey *string `json:"encrypted_env_pubkey"`
}) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+cloudapi.Prefix+"/cvms/"+id, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("X-API-Key", w.key)
	r.Header.Set("X-Phala-Version", cloudapi.VersionLegacy)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) fetch(link string) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, link, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
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

func consoleURL(w *world, id int64, uuid, expires, node string) string {
	h := hmac.New(sha256.New, []byte("phala-console-link:"+node))
	_, _ = io.WriteString(h, uuid+" "+expires)
	q := url.Values{"expires": {expires}, "seal": {hex.EncodeToString(h.Sum(nil))}}
	return fmt.Sprintf("%s%s/console/%d?%s", w.url, cloudapi.Prefix, id, q.Encode())
}

func TestConsoleLink(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.Chain = api.ChainConfig{} })
	make := func(name string) (int64, string, string) {
		p, err := w.c.Provision(t.Context(), cloudapi.ProvisionRequest{Name: name, ComposeFile: compose(nil)})
		if err != nil {
			t.Fatal(err)
		}
		vm, err := w.c.Commit(t.Context(), cloudapi.CommitRequest{AppID: *p.AppID, ComposeHash: p.ComposeHash})
		if err != nil {
			t.Fatal(err)
		}
		w.wait(*vm.VMUUID, 0)
		v := w.legacy(*vm.VMUUID)
		if v.Syslog == nil || !strings.Contains(*v.Syslog, "?") {
			t.Fatalf("syslog_endpoint %v: clients append &ch=", v.Syslog)
		}
		d, err := w.c.CVM(t.Context(), name)
		if err != nil || v.EnvKey == nil || d.KMSInfo.EncryptedEnvPubkey == nil || *v.EnvKey != *d.KMSInfo.EncryptedEnvPubkey || *v.EnvKey != *p.AppEnvEncryptPubkey {
			t.Errorf("the environment's key differs between provision and the details: %v %v, %v", v.EnvKey, d.KMSInfo.EncryptedEnvPubkey, err)
		}
		return v.ID, *vm.VMUUID, *v.Syslog
	}
	id, uuid, link := make("first-app")
	other, otherUUID, _ := make("other-app")
	const far, past = "99999999999", "1"
	for name, u := range map[string]string{"given": link + "&ch=serial&tail=10&lines=10&ansi", "far": consoleURL(w, id, uuid, far, token)} {
		if code, body := w.fetch(u); code != 200 || body != "the console\n" {
			t.Errorf("%s link: %d %q", name, code, body)
		}
	}
	none, want := w.fetch(consoleURL(w, 999999, uuid, far, token))
	if none != 404 || !strings.Contains(want, "ERR-03-001") {
		t.Fatalf("link to no CVM: %d %s", none, want)
	}
	refused := map[string]string{
		"expired": consoleURL(w, id, uuid, past, token), "sealed for another CVM": consoleURL(w, other, uuid, far, token),
		"sealed by another node": consoleURL(w, id, uuid, far, "guess"), "no seal": fmt.Sprintf("%s%s/console/%d", w.url, cloudapi.Prefix, id),
		"longer than sealed": strings.Replace(link, "expires=", "expires=9", 1), "no number": consoleURL(w, id, uuid, "soon", token),
	}
	for name, u := range refused {
		if code, body := w.fetch(u); code != none || body != want {
			t.Errorf("%s: %d %s, want the answer for a missing one", name, code, body)
		}
	}
	if code, body := w.fetch(link + "&ch=stderr&since=10m&timestamps&ansi"); code != 200 || body != "the hypervisor's words since 10m times true\n" {
		t.Errorf("another channel: %d %s", code, body)
	}
	if code, body := w.fetch(link + "&ch=stdout"); code != 404 || !strings.Contains(body, "no such channel") {
		t.Errorf("a channel that the node has not: %d %s", code, body)
	}
	if err := w.c.Delete(t.Context(), "other-app", "delete"); err != nil {
		t.Fatal(err)
	}
	w.wait(otherUUID, 0)
	if code, body := w.fetch(consoleURL(w, other, otherUUID, far, token)); code != none || body != want {
		t.Errorf("a deleted CVM's console: %d %s", code, body)
	}
}

// Links name the configured public URL; without one the request's host, and what a
// proxy says only from a trusted address.
func TestLinkOrigin(t *testing.T) {
	forwarded := map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example, shop.example"}
	for name, tt := range map[string]struct {
		cfg    func(*api.Config)
		header map[string]string
		want   string // "" is the address itself
	}{
		"public URL":       {func(c *api.Config) { c.PublicURL = "https://cloud.example/" }, forwarded, "https://cloud.example"},
		"stranger's proxy": {nil, forwarded, ""},
		"trusted proxy":    {func(c *api.Config) { c.TrustedProxies = []string{"127.0.0.0/8"} }, forwarded, "https://shop.example"},
		"no host":          {func(c *api.Config) { c.TrustedProxies = []string{"127.0.0.0/8"} }, map[string]string{"X-Forwarded-Proto": "ftp", "X-Forwarded-Host": "a@b/c?"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.cfg)
			vm, _ := w.deploy("my-app", 1, nil)
			if tt.want == "" {
				tt.want = w.url
			}
			header := map[string]string{"X-Phala-Version": cloudapi.VersionLegacy}
			for k, v := range tt.header {
				header[k] = v
			}
			v := call[struct {
				Syslog string `json:"syslog_endpoint"`
			}](w, 200, "GET", "/cvms/"+*vm.VMUUID, nil, header)
			if !strings.HasPrefix(v.Syslog, tt.want+cloudapi.Prefix+"/console/") {
				t.Errorf("syslog_endpoint %q, want one of %s", v.Syslog, tt.want)
			}
			link := prepared(w, "PATCH", "/cvms/my-app", map[string]any{"docker_compose_file": yaml("1.28")}, header)
			if got := link.text("commit_url"); !strings.HasPrefix(got, tt.want+cloudapi.Prefix+"/cvms/") {
				t.Errorf("commit_url %q, want one of %s", got, tt.want)
			}
		})
	}
}
