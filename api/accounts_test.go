package api_test

import (
	"bytes"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

// clock is the server's, from the machine's time on.
type clock struct {
	mu   sync.Mutex
	plus time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.plus)
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plus += d
}

// people is a world with an admin who has a one-time password.
type people struct {
	*world
	clock    *clock
	notice   *bytes.Buffer
	password string
}

func newPeople(t *testing.T, mod func(*api.Config)) *people {
	t.Helper()
	p := &people{clock: &clock{}, notice: &bytes.Buffer{}}
	p.world = newWorld(t, func(c *api.Config) {
		c.Notice, c.Now = p.notice, p.clock.now
		if mod != nil {
			mod(c)
		}
	})
	m := regexp.MustCompile(`as admin with the one-time password (\S+)`).FindStringSubmatch(p.notice.String())
	if m == nil {
		t.Fatalf("the first start printed %q", p.notice)
	}
	p.password = m[1]
	return p
}

// browser keeps cookies and follows no redirect.
type browser struct {
	t    *testing.T
	base string
	jar  map[string]string
	head http.Header
}

func (p *people) browser() *browser {
	return &browser{t: p.t, base: p.url, jar: map[string]string{}, head: http.Header{}}
}

func (b *browser) do(method, path, kind, body string) (int, string, http.Header) {
	b.t.Helper()
	r, err := http.NewRequest(method, b.base+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for k, v := range b.head {
		r.Header[k] = v
	}
	r.Header.Set("Content-Type", kind)
	for k, v := range b.jar {
		r.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	for _, k := range res.Cookies() {
		if !k.HttpOnly || k.SameSite != http.SameSiteLaxMode {
			b.t.Errorf("cookie %s is within reach: %v", k.Name, k)
		}
		if b.jar[k.Name] = k.Value; k.MaxAge < 0 {
			delete(b.jar, k.Name)
		}
	}
	out, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(out), res.Header
}

// call is a JSON call; out may be nil.
func (b *browser) call(method, path string, in, out any, want int) string {
	b.t.Helper()
	body := ""
	if in != nil {
		j, _ := json.Marshal(in)
		body = string(j)
	}
	status, answer, _ := b.do(method, cloudapi.Prefix+path, "application/json", body)
	if status != want {
		b.t.Errorf("%s %s: %d, want %d: %s", method, path, status, want, answer)
	}
	if out != nil && status == want {
		if err := json.Unmarshal([]byte(answer), out); err != nil {
			b.t.Errorf("%s %s: %v in %s", method, path, err, answer)
		}
	}
	return answer
}

func (b *browser) form(path string, values url.Values) (int, string, http.Header) {
	b.t.Helper()
	return b.do("POST", path, "application/x-www-form-urlencoded", values.Encode())
}

type m = map[string]any

const ownPassword = "correct horse battery staple"

// admin is the admin's browser, the one-time password changed.
func (p *people) admin() *browser {
	p.t.Helper()
	b := p.browser()
	b.call("POST", "/auth/login", m{"username": "admin", "password": p.password}, nil, 200)
	b.call("PUT", "/users/me/password", m{"password": ownPassword, "current_password": p.password}, nil, 204)
	return b
}

// member is somebody who came by an invitation.
func (p *people) member(admin *browser, name, role string) *browser {
	p.t.Helper()
	var i cloudapi.Invitation
	admin.call("POST", "/workspaces/default/invitations", m{"role": role, "email": name + "@example.com"}, &i, 201)
	b := p.browser()
	b.call("POST", "/invitations/"+i.Token+"/register", m{"username": name, "password": ownPassword}, nil, 200)
	b.call("POST", "/auth/login", m{"username": name, "password": ownPassword}, nil, 200)
	return b
}

func TestFirstPassword(t *testing.T) {
	p := newPeople(t, nil)
	b := p.browser()
	b.call("POST", "/auth/login", m{"username": "admin", "password": p.password + "x"}, nil, 401)
	b.call("POST", "/auth/login", m{"username": "nobody", "password": p.password}, nil, 401)
	b.call("POST", "/auth/login", m{"username": "admin", "password": p.password}, nil, 200)
	b.call("GET", "/auth/me", nil, nil, 200)
	b.call("GET", "/cvms", nil, nil, 403)
	for why, body := range map[string]m{
		"short": {"password": "short", "current_password": p.password}, "no proof": {"password": ownPassword},
		"the same": {"password": p.password, "current_password": p.password}, "name in it": {"password": "my-admin-password", "current_password": p.password},
	} {
		if a := b.call("PUT", "/users/me/password", body, nil, 422); !strings.Contains(a, `"loc":["body","`) {
			t.Errorf("%s: %s", why, a)
		}
	}
	b.call("PUT", "/users/me/password", m{"password": ownPassword, "current_password": "wrong-wrong-wrong"}, nil, 403)
	other := p.browser()
	other.call("POST", "/auth/login", m{"username": "admin", "password": p.password}, nil, 200)
	b.call("PUT", "/users/me/password", m{"password": ownPassword, "current_password": p.password}, nil, 204)
	b.call("GET", "/cvms", nil, nil, 200)
	other.call("GET", "/auth/me", nil, nil, 401) // ended with the old password
	other.call("POST", "/auth/login", m{"username": "admin", "password": p.password}, nil, 401)
	p.stop()
	p.notice.Reset()
	p.start()
	if p.notice.Len() > 0 {
		t.Errorf("the second start printed %q", p.notice)
	}
	if strings.Contains(p.logs.String(), p.password) || strings.Contains(p.logs.String(), ownPassword) {
		t.Error("a password is in the log")
	}
}

func TestLockout(t *testing.T) {
	p := newPeople(t, nil)
	b := p.browser()
	for range 10 {
		b.call("POST", "/auth/login", m{"username": "admin", "password": "wrong"}, nil, 401)
	}
	b.call("POST", "/auth/login", m{"username": "Admin", "password": p.password}, nil, 429)
	if _, _, h := b.do("POST", cloudapi.Prefix+"/auth/login", "application/json", `{"username":"admin","password":"x"}`); h.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	p.clock.add(16 * time.Minute)
	b.call("POST", "/auth/login", m{"username": "admin", "password": p.password}, nil, 200)
}

func TestSessions(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	b.head.Set("Sec-Fetch-Site", "cross-site")
	b.call("POST", "/auth/logout", nil, nil, 403)
	b.call("GET", "/auth/me", nil, nil, 200)
	b.call("POST", "/auth/login", m{"username": "admin", "password": ownPassword}, nil, 403)
	b.head.Del("Sec-Fetch-Site")
	b.head.Set("Origin", "https://evil.example")
	b.call("PATCH", "/users/me", m{"email": "a@example.com"}, nil, 403)
	b.head = http.Header{"User-Agent": {"Mozilla (iPhone)"}}
	two := p.browser()
	two.head.Set("User-Agent", "Mozilla (iPhone)")
	two.call("POST", "/auth/login", m{"username": "admin", "password": ownPassword}, nil, 200)
	var all cloudapi.Sessions
	b.call("GET", "/users/me/sessions", nil, &all, 200)
	if all.Total != 2 || all.Sessions[0].DeviceKind != "Mobile" || all.Sessions[0].IsCurrent || !all.Sessions[1].IsCurrent {
		t.Errorf("%+v", all)
	}
	b.call("DELETE", "/users/me/sessions/"+all.Sessions[0].ID, nil, nil, 204)
	b.call("DELETE", "/users/me/sessions/"+all.Sessions[0].ID, nil, nil, 404)
	two.call("GET", "/auth/me", nil, nil, 401)
	p.clock.add(23 * time.Hour)
	b.call("GET", "/auth/me", nil, nil, 200)
	p.clock.add(25 * time.Hour) // idle
	b.call("GET", "/auth/me", nil, nil, 401)
	b.call("POST", "/auth/login", m{"username": "admin", "password": ownPassword}, nil, 200)
	b.call("POST", "/auth/logout", nil, nil, 204)
	if len(b.jar) != 0 {
		t.Errorf("cookies left: %v", b.jar)
	}
}

func TestAPIKeys(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	var k cloudapi.Token
	b.call("POST", "/user/api-tokens", m{"name": "ci", "scopes": []string{"cvms:read", "user:read"}, "expires_in_days": 1, "default_version": cloudapi.VersionLegacy}, &k, 201)
	if k.Token == nil || !strings.HasPrefix(*k.Token, "phak_") || !strings.HasPrefix(*k.Token, *k.TokenPrefix) || k.ExpiresAt == nil {
		t.Fatalf("%+v", k)
	}
	b.call("POST", "/user/api-tokens", m{"name": "bad", "scopes": []string{"everything"}}, nil, 422)
	c := p.browser()
	c.head.Set("X-API-Key", *k.Token)
	c.call("GET", "/cvms", nil, nil, 200)
	if a := c.call("GET", "/auth/me", nil, nil, 200); !strings.Contains(a, "team_name") {
		t.Errorf("the key's default version was not used: %s", a)
	}
	c.head.Set("X-Phala-Version", cloudapi.VersionCurrent)
	if a := c.call("GET", "/auth/me", nil, nil, 200); strings.Contains(a, "team_name") {
		t.Errorf("the request's own version was not used: %s", a)
	}
	c.call("POST", "/cvms/provision", m{}, nil, 403)
	c.call("POST", "/user/api-tokens", m{"name": "more"}, nil, 403)
	var list []cloudapi.Token
	b.call("GET", "/user/api-tokens", nil, &list, 200)
	if list[0].Token != nil || list[0].LastUsedAt == nil || !list[0].IsActive {
		t.Errorf("%+v", list[0])
	}
	p.clock.add(24 * time.Hour)
	c.call("GET", "/cvms", nil, nil, 401)
	p.clock.add(-24 * time.Hour)
	b.call("DELETE", fmt.Sprintf("/user/api-tokens/%d", k.ID), nil, nil, 204)
	b.call("DELETE", fmt.Sprintf("/user/api-tokens/%d", k.ID), nil, nil, 404)
	c.call("GET", "/cvms", nil, nil, 401)
}

// A key that may make keys makes none that may do more than it.
func TestKeysDoNotGrow(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	var k, k2 cloudapi.Token
	b.call("POST", "/user/api-tokens", m{"name": "maker", "scopes": []string{"keys:write", "cvms:read"}}, &k, 201)
	c := p.browser()
	c.head.Set("X-API-Key", *k.Token)
	c.call("POST", "/user/api-tokens", m{"name": "x", "scopes": []string{"cvms:write"}}, nil, 403)
	c.call("POST", "/user/api-tokens", m{"name": "x", "scopes": []string{"*"}}, nil, 403)
	c.call("POST", "/user/api-tokens", m{"name": "x"}, &k2, 201)
	c.head.Set("X-API-Key", *k2.Token)
	c.call("GET", "/cvms", nil, nil, 200)
	c.call("POST", "/cvms/provision", m{}, nil, 403)
}

func code(t *testing.T, secret string, at time.Time) string {
	t.Helper()
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return api.TOTP(raw, at.Unix()/30)
}

func TestSecondFactor(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	b.call("POST", "/auth/step-up", m{"totp_code": "000000"}, nil, 403)
	var setup cloudapi.FactorSetup
	b.call("POST", "/auth/2fa/setup", nil, &setup, 200)
	b.call("POST", "/auth/2fa/enable", m{"verification_code": "12345x"}, nil, 403)
	now := code(t, setup.Secret, p.clock.now())
	var codes cloudapi.BackupCodes
	b.call("POST", "/auth/2fa/enable", m{"verification_code": now}, &codes, 200)
	if len(codes.Codes) != 10 || !strings.Contains(setup.URI, setup.Secret) {
		t.Fatalf("%+v %+v", codes, setup)
	}
	b.call("POST", "/auth/2fa/setup", nil, nil, 409)
	b.call("POST", "/user/api-tokens", m{"name": "fresh"}, nil, 201)
	p.clock.add(11 * time.Minute)
	b.call("POST", "/user/api-tokens", m{"name": "stale"}, nil, 428)
	b.call("POST", "/auth/step-up", m{"totp_code": codes.Codes[0]}, nil, 204)
	b.call("POST", "/user/api-tokens", m{"name": "fresh again"}, nil, 201)
	b.call("POST", "/auth/step-up", m{"totp_code": codes.Codes[0]}, nil, 403) // once
	two := p.browser()
	login := m{"username": "admin", "password": ownPassword}
	two.call("POST", "/auth/login", login, nil, 428)
	login["totp_code"] = code(t, setup.Secret, p.clock.now())
	two.call("POST", "/auth/login", login, nil, 200)
	two.call("POST", "/auth/login", login, nil, 403) // a code is good once
	for range 4 {
		two.call("POST", "/auth/step-up", m{"totp_code": "999999"}, nil, 403)
	}
	two.call("POST", "/auth/step-up", m{"totp_code": "999999"}, nil, 429)
	p.clock.add(16 * time.Minute)
	two.call("POST", "/auth/2fa/disable", m{"verification_code": code(t, setup.Secret, p.clock.now())}, nil, 204)
	two.call("POST", "/auth/login", m{"username": "admin", "password": ownPassword}, nil, 200)
}

func TestWorkspaceAndRoles(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	mate, viewer := p.member(b, "mate", "member"), p.member(b, "eve", "viewer")
	viewer.call("GET", "/cvms", nil, nil, 200)
	viewer.call("POST", "/cvms/provision", m{}, nil, 403)
	mate.call("POST", "/cvms/provision", m{}, nil, 422)
	mate.call("POST", "/workspaces/default/invitations", m{"role": "viewer"}, nil, 403)
	mate.call("GET", "/audit", nil, nil, 403)
	var members []cloudapi.WorkspaceMember
	viewer.call("GET", "/workspaces/default/members", nil, &members, 200)
	if len(members) != 3 || members[0].Role != "owner" || !members[0].IsCreator || members[2].Username != "eve" {
		t.Fatalf("%+v", members)
	}
	owner, eve := members[0].UserID, members[2].UserID
	b.call("PATCH", "/workspaces/default/members/"+members[1].UserID, m{"role": "admin"}, nil, 204)
	mate.call("PATCH", "/workspaces/default/members/"+owner, m{"role": "viewer"}, nil, 403)
	mate.call("PATCH", "/workspaces/default/members/"+eve, m{"role": "owner"}, nil, 403)
	mate.call("PATCH", "/workspaces/default/members/"+eve, m{"role": "king"}, nil, 422)
	mate.call("DELETE", "/workspaces/default/members/"+owner, nil, nil, 403)
	mate.call("POST", "/workspaces/default/invitations", m{"role": "owner"}, nil, 403)
	b.call("POST", "/workspaces/default/leave", nil, nil, 409)
	var k cloudapi.Token
	viewer.call("POST", "/user/api-tokens", m{"name": "eve"}, &k, 201)
	mate.call("DELETE", "/workspaces/default/members/"+eve, nil, nil, 204)
	viewer.call("GET", "/cvms", nil, nil, 401)
	viewer.jar = map[string]string{}
	viewer.head.Set("X-API-Key", *k.Token)
	viewer.call("GET", "/cvms", nil, nil, 401) // keys end with the membership
	mate.call("POST", "/workspaces", m{"name": "Mine", "slug": "default"}, nil, 409)
	mate.call("POST", "/workspaces", m{"name": "Mine", "slug": "-x-"}, nil, 422)
	mate.call("POST", "/workspaces", m{"name": "Mine", "slug": "mine-too"}, nil, 201)
	var page cloudapi.Workspaces
	mate.call("GET", "/workspaces?limit=1", nil, &page, 200)
	if len(page.Data) != 1 || !page.Pagination.HasMore || page.Data[0].Role != "admin" || !page.Data[0].IsDefault {
		t.Fatalf("%+v", page)
	}
	mate.call("GET", "/workspaces?limit=1&cursor="+*page.Pagination.NextCursor, nil, &page, 200)
	if len(page.Data) != 1 || page.Pagination.HasMore || *page.Data[0].Slug != "mine-too" || page.Data[0].Role != "owner" {
		t.Fatalf("%+v", page)
	}
	foreign, none := b.call("GET", "/workspaces/mine-too", nil, nil, 404), b.call("GET", "/workspaces/nothing", nil, nil, 404)
	if foreign != none {
		t.Errorf("foreign %s, missing %s", foreign, none)
	}
	b.head.Set("X-Workspace-Id", "mine-too")
	b.call("GET", "/cvms", nil, nil, 401)
	mate.head.Set("X-Workspace-Id", "mine-too")
	mate.call("GET", "/workspaces/mine-too/quotas", nil, nil, 200)
	mate.call("GET", "/workspaces/default/quotas", nil, nil, 404)
}

func TestInvitations(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	var i, gone cloudapi.Invitation
	b.call("POST", "/workspaces/default/invitations", m{"role": "viewer"}, &i, 201)
	b.call("POST", "/workspaces/default/invitations", m{"role": "viewer"}, &gone, 201)
	b.call("DELETE", fmt.Sprintf("/workspaces/default/invitations/%d", gone.ID), nil, nil, 204)
	c := p.browser()
	c.call("GET", "/invitations/"+i.Token, nil, nil, 200)
	c.call("GET", "/invitations/phai_no", nil, nil, 404)
	c.call("POST", "/invitations/"+gone.Token+"/register", m{"username": "late", "password": ownPassword}, nil, 404)
	c.call("POST", "/invitations/"+i.Token+"/register", m{"username": "a b", "password": ownPassword}, nil, 422)
	c.call("POST", "/invitations/"+i.Token+"/register", m{"username": "admin", "password": ownPassword}, nil, 409)
	c.call("POST", "/invitations/"+i.Token+"/register", m{"username": "anna", "password": ownPassword}, nil, 200)
	c.call("POST", "/invitations/"+i.Token+"/register", m{"username": "anna2", "password": ownPassword}, nil, 404)
	b.call("POST", "/workspaces/default/invitations", m{"role": "viewer"}, &i, 201)
	b.call("POST", "/invitations/"+i.Token+"/accept", nil, nil, 409)
	p.clock.add(7*24*time.Hour - time.Minute)
	b = p.browser()
	b.call("POST", "/auth/login", m{"username": "admin", "password": ownPassword}, nil, 200)
	var list cloudapi.Page[cloudapi.Invitation]
	b.call("GET", "/workspaces/default/invitations", nil, &list, 200)
	if list.Total != 3 || list.Items[0].Status != "PENDING" || list.Items[0].Token != "" || list.Items[1].Status != "REVOKED" || list.Items[2].Status != "ACCEPTED" {
		t.Errorf("%+v", list)
	}
	p.clock.add(2 * time.Minute)
	c.call("POST", "/invitations/"+i.Token+"/register", m{"username": "tardy", "password": ownPassword}, nil, 404)
}

func TestSSHKeys(t *testing.T) {
	const ed = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	profile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/octo.keys":
			_, _ = io.WriteString(w, ed+"\nnonsense\n")
		case "/away.keys":
			http.Redirect(w, r, "/octo.keys", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(profile.Close)
	p := newPeople(t, func(c *api.Config) { c.SSHKeysURL = profile.URL + "/{username}.keys" })
	b := p.admin()
	var k cloudapi.SSHKey
	b.call("POST", "/user/ssh-keys", m{"name": "laptop", "public_key": ed + " me@laptop"}, &k, 201)
	if k.KeyType != "ed25519" || !strings.HasPrefix(k.Fingerprint, "SHA256:") || k.PublicKey != ed || !strings.HasPrefix(k.ID, "sshkey_") || k.Source != "manual" {
		t.Errorf("%+v", k)
	}
	for why, bad := range map[string]string{"nonsense": "ssh-ed25519 AAAA", "options": `command="rm" ` + ed, "two": ed + "\n" + ed, "empty": ""} {
		if a := b.call("POST", "/user/ssh-keys", m{"name": "x", "public_key": bad}, nil, 422); !strings.Contains(a, "public_key") {
			t.Errorf("%s: %s", why, a)
		}
	}
	b.call("POST", "/user/ssh-keys", m{"name": "again", "public_key": ed}, nil, 409)
	var in cloudapi.ProfileImported
	b.call("POST", "/user/ssh-keys/github-profile", m{"github_username": "octo"}, &in, 200)
	if in.KeysAdded != 0 || in.KeysSkipped != 1 || len(in.Errors) != 1 {
		t.Errorf("%+v", in)
	}
	p.member(b, "mate", "member").call("DELETE", "/user/ssh-keys/"+k.ID, nil, nil, 404)
	b.call("DELETE", "/user/ssh-keys/"+k.ID, nil, nil, 204)
	b.call("POST", "/user/ssh-keys/github-profile", m{"github_username": "octo"}, &in, 200)
	if in.KeysAdded != 1 {
		t.Errorf("%+v", in)
	}
	var sync cloudapi.ProfileSynced
	b.call("POST", "/user/ssh-keys/github-sync", m{}, &sync, 200)
	if sync.SyncedCount != 1 || sync.KeysAdded != 0 || sync.KeysRemoved != 0 {
		t.Errorf("%+v", sync)
	}
	b.call("POST", "/user/ssh-keys/github-profile", m{"github_username": "ghost"}, nil, 404)
	b.call("POST", "/user/ssh-keys/github-profile", m{"github_username": "away"}, nil, 503)
	b.call("POST", "/user/ssh-keys/github-profile", m{"github_username": "../x"}, nil, 422)
	off := newPeople(t, nil)
	off.admin().call("POST", "/user/ssh-keys/github-profile", m{"github_username": "octo"}, nil, 501)
}
