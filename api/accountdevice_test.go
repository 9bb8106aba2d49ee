package api_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

func (b *browser) begin() (d cloudapi.DeviceCode) {
	b.t.Helper()
	b.call("POST", "/auth/device/code", m{"client_id": "phala-cli", "scope": "user:profile cvms:* nodes:*"}, &d, 200)
	return d
}

// poll returns the word of a refusal, or the token.
func (b *browser) poll(d cloudapi.DeviceCode) (word, token string) {
	b.t.Helper()
	status, body, _ := b.do("POST", cloudapi.Prefix+"/auth/device/token", "application/json",
		`{"device_code":"`+d.DeviceCode+`","grant_type":"urn:ietf:params:oauth:grant-type:device_code"}`)
	if status == 200 {
		return "", regexp.MustCompile(`"access_token":"([^"]+)"`).FindStringSubmatch(body)[1]
	}
	w := regexp.MustCompile(`^\{"detail":\{"error":"(\w+)"`).FindStringSubmatch(body)
	if status != 400 || w == nil || strings.Contains(body, "error_code") {
		b.t.Fatalf("%d %s", status, body)
	}
	return w[1], ""
}

func TestDeviceLogin(t *testing.T) {
	p := newPeople(t, nil)
	admin, cli := p.admin(), p.browser()
	d := cli.begin()
	if d.Interval != 5 || d.ExpiresIn != 900 || d.VerificationURI != p.url+"/device" || !strings.Contains(d.VerificationURIComplete, d.UserCode) ||
		!regexp.MustCompile(`^[A-Z]{4}-[A-Z]{4}$`).MatchString(d.UserCode) {
		t.Fatalf("%+v", d)
	}
	if w, _ := cli.poll(d); w != "authorization_pending" {
		t.Error(w)
	}
	if w, _ := cli.poll(d); w != "slow_down" {
		t.Error(w)
	}
	admin.call("POST", "/auth/device/authorize", m{"user_code": strings.ToLower(d.UserCode), "workspace_slug": "default"}, nil, 204)
	admin.call("POST", "/auth/device/authorize", m{"user_code": d.UserCode}, nil, 404) // decided
	p.clock.add(11 * time.Second)
	w, token := cli.poll(d)
	if !strings.HasPrefix(token, "phak_") {
		t.Fatal(w, token)
	}
	p.clock.add(11 * time.Second)
	if w, again := cli.poll(d); w != "expired_token" || again != "" {
		t.Errorf("the key was given twice: %s %s", w, again)
	}
	cli.head.Set("X-API-Key", token)
	for _, path := range []string{"/auth/me", "/cvms", "/apps", "/teepods/available", "/user/ssh-keys", "/workspaces", "/workspaces/default/nodes"} {
		cli.call("GET", path, nil, nil, 200)
	}
	cli.call("POST", "/user/api-tokens", m{"name": "x"}, nil, 403) // not among its scopes
	p.clock.add(90 * 24 * time.Hour)
	cli.call("GET", "/auth/me", nil, nil, 401)
}

func TestDeviceLoginRefusals(t *testing.T) {
	p := newPeople(t, nil)
	admin, cli := p.admin(), p.browser()
	cli.call("POST", "/auth/device/code", m{"scope": "root"}, nil, 400)
	cli.call("POST", "/auth/device/token", m{"device_code": "x", "grant_type": "password"}, nil, 400)
	if w, _ := cli.poll(cloudapi.DeviceCode{DeviceCode: "unknown"}); w != "expired_token" {
		t.Error(w)
	}
	d := cli.begin()
	cli.call("POST", "/auth/device/authorize", m{"user_code": d.UserCode}, nil, 401)
	admin.call("POST", "/auth/device/authorize", m{"user_code": d.UserCode, "deny": true}, nil, 204)
	if w, _ := cli.poll(d); w != "access_denied" {
		t.Error(w)
	}
	d = cli.begin()
	admin.call("POST", "/auth/device/authorize", m{"user_code": d.UserCode, "workspace_slug": "other"}, nil, 404)
	p.clock.add(15 * time.Minute)
	if w, _ := cli.poll(d); w != "expired_token" {
		t.Error(w)
	}
	admin.call("POST", "/auth/device/authorize", m{"user_code": d.UserCode}, nil, 404)
	for range 9 {
		admin.call("POST", "/auth/device/authorize", m{"user_code": "BBBB-BBBB"}, nil, 404)
	}
	admin.call("POST", "/auth/device/authorize", m{"user_code": cli.begin().UserCode}, nil, 429) // guessing
}

func TestDevicePage(t *testing.T) {
	p := newPeople(t, func(c *api.Config) { c.PublicURL = "https://cloud.example" })
	cli, phone := p.browser(), p.browser()
	d := cli.begin()
	if !strings.HasPrefix(d.VerificationURIComplete, "https://cloud.example/device?") {
		t.Error(d)
	}
	path := "/device?user_code=" + d.UserCode
	status, body, h := phone.do("GET", path, "", "")
	if status != 200 || !strings.Contains(body, `name="password"`) || strings.Contains(body, "<script") || !strings.Contains(body, "width=device-width") ||
		!strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%d %v %s", status, h, body)
	}
	form := url.Values{"user_code": {d.UserCode}, "username": {"admin"}, "password": {"no"}}
	if status, body, _ = phone.form("/login", form); status != 401 || !strings.Contains(body, `role="alert"`) {
		t.Errorf("%d %s", status, body)
	}
	form.Set("password", p.password)
	status, _, h = phone.form("/login", form)
	if status != 303 || h.Get("Location") != path || !strings.Contains(h.Get("Set-Cookie"), "Secure") {
		t.Errorf("%d %v", status, h)
	}
	if _, body, _ = phone.do("GET", path, "", ""); !strings.Contains(body, `name="current"`) {
		t.Errorf("no change of the one-time password: %s", body)
	}
	status, _, _ = phone.form("/device", url.Values{"user_code": {d.UserCode}, "action": {"approve"}})
	if w, _ := cli.poll(d); w != "authorization_pending" {
		t.Errorf("approved with a one-time password: %d %s", status, w)
	}
	status, _, h = phone.form("/password", url.Values{"user_code": {d.UserCode}, "current": {p.password}, "password": {ownPassword}})
	if status != 303 || h.Get("Location") != path {
		t.Errorf("%d %v", status, h)
	}
	if _, body, _ = phone.do("GET", path, "", ""); !strings.Contains(body, d.UserCode) || !strings.Contains(body, "phala-cli") || !strings.Contains(body, `value="default"`) {
		t.Errorf("%s", body)
	}
	phone.head.Set("Sec-Fetch-Site", "cross-site")
	if status, _, _ = phone.form("/device", url.Values{"user_code": {d.UserCode}, "action": {"approve"}}); status != 403 {
		t.Errorf("another site approved: %d", status)
	}
	phone.head.Del("Sec-Fetch-Site")
	if status, body, _ = phone.form("/device", url.Values{"user_code": {"XXXX-XXXX"}, "action": {"approve"}}); status != 404 {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ = phone.form("/device", url.Values{"user_code": {d.UserCode}, "workspace": {"default"}, "action": {"approve"}}); status != 200 || !strings.Contains(body, "Approved") {
		t.Errorf("%d %s", status, body)
	}
	p.clock.add(11 * time.Second)
	if _, token := cli.poll(d); token == "" {
		t.Error("no key")
	}
	if status, _, _ = phone.form("/logout", nil); status != 200 || len(phone.jar) != 0 {
		t.Errorf("%d %v", status, phone.jar)
	}
	_, body, _ = phone.do("GET", "/device?user_code="+url.QueryEscape(`"><script>alert(1)`), "", "")
	if strings.Contains(body, "<script") {
		t.Error("the code came back unescaped")
	}
}
