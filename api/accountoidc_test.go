package api_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

const (
	oidcID     = "cloud"
	oidcSecret = "a client secret"
	oidcBack   = "https://cloud.test/auth/oidc/callback"
)

// provider is an OpenID Connect provider (authorization code with PKCE, RS256) that is
// as strict as the standard asks, and lies in its tokens as a test says.
type provider struct {
	*httptest.Server
	t     *testing.T
	key   *rsa.PrivateKey
	mu    sync.Mutex
	codes map[string]url.Values // what was asked for with each code
	n     int
	now   func() time.Time
	who   m                           // claims of whoever signs in
	lie   func(claims m, head m)      // changes a token before it is signed
	sign  func(input string) []byte   // nil: as it should
	drop  func(answer map[string]any) // changes the token endpoint's answer
}

func newProvider(t *testing.T, now func() time.Time) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, key: key, codes: map[string]url.Values{}, now: now}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.write(w, 200, m{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.write(w, 200, m{"keys": []m{{"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "e": "AQAB", "n": b64(key.N.Bytes())}}})
	})
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *provider) write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.Get("client_id") != oidcID || q.Get("redirect_uri") != oidcBack || q.Get("response_type") != "code" || !strings.Contains(q.Get("scope"), "openid") ||
		q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 40 || len(q.Get("nonce")) < 40 {
		p.write(w, 400, m{"error": "invalid_request"})
		return
	}
	p.n++
	code := fmt.Sprintf("code-%d", p.n)
	p.codes[code] = q
	http.Redirect(w, r, oidcBack+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusSeeOther)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	p.mu.Lock()
	defer p.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	if id == "" {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	code := r.PostForm.Get("code")
	asked := p.codes[code]
	delete(p.codes, code) // once
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	if secret, _ = url.QueryUnescape(secret); id != oidcID || secret != oidcSecret || asked == nil || r.PostForm.Get("redirect_uri") != oidcBack || b64(challenge[:]) != asked.Get("code_challenge") {
		p.write(w, 400, m{"error": "invalid_grant"})
		return
	}
	head := m{"alg": "RS256", "kid": "1", "typ": "JWT"}
	claims := m{"iss": p.URL, "aud": oidcID, "nonce": asked.Get("nonce"), "iat": p.now().Unix(), "exp": p.now().Add(5 * time.Minute).Unix()}
	maps.Copy(claims, p.who)
	if p.lie != nil {
		p.lie(claims, head)
	}
	h, _ := json.Marshal(head)
	c, _ := json.Marshal(claims)
	input := b64(h) + "." + b64(c)
	out := m{"access_token": "x", "token_type": "Bearer", "id_token": input + "." + b64(p.signature(input))}
	if p.drop != nil {
		p.drop(out)
	}
	p.write(w, 200, out)
}

func (p *provider) signature(input string) []byte {
	if p.sign != nil {
		return p.sign(input)
	}
	sum := sha256.Sum256([]byte(input))
	b, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		p.t.Error(err)
	}
	return b
}

// newPeopleWith is a cloud that lets the provider sign people in.
func newPeopleWith(t *testing.T) (*people, *provider) {
	t.Helper()
	var p *people
	pr := newProvider(t, func() time.Time { return p.clock.now() })
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(oidcSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = newPeople(t, func(c *api.Config) {
		c.PublicURL = "https://cloud.test"
		c.OIDC = api.OIDCConfig{Issuer: pr.URL, Name: "Example Login", ClientID: oidcID, ClientSecretFile: secret, CreateFrom: []string{"example.com"}}
	})
	return p, pr
}

// answered has the provider sign in whoever begins at where, and gives the path that
// the browser comes back to.
func (p *provider) answered(where string) string {
	p.t.Helper()
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Get(where)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	back, ok := strings.CutPrefix(res.Header.Get("Location"), "https://cloud.test")
	if !ok {
		p.t.Fatalf("the provider answered %d, to %q", res.StatusCode, res.Header.Get("Location"))
	}
	return back
}

func (b *browser) get(path string) (int, string, http.Header) {
	b.t.Helper()
	return b.do("GET", path, "", "")
}

// begin starts a sign-in and gives where the provider is asked.
func (b *browser) beginOIDC() string {
	b.t.Helper()
	status, text, head := b.get("/auth/oidc/login?user_code=BCDF-GHJK")
	if status != 303 {
		b.t.Fatalf("%d %s", status, text)
	}
	return head.Get("Location")
}

func (b *browser) user() string {
	b.t.Helper()
	var me cloudapi.CurrentUser
	b.call("GET", "/auth/me", nil, &me, 200)
	return me.User.Username
}

func TestOIDCSignIn(t *testing.T) {
	p, pr := newPeopleWith(t)
	if _, text, _ := p.browser().get("/device"); !strings.Contains(text, "Sign in with Example Login") {
		t.Error("the sign-in page does not offer it")
	}
	pr.who = m{"sub": "1", "email": "Ann@Example.com", "email_verified": true}
	b := p.browser()
	status, text, head := b.get(pr.answered(b.beginOIDC()))
	if status != 303 || head.Get("Location") != "/device?user_code=BCDF-GHJK" {
		t.Fatalf("%d %s", status, text)
	}
	if b.user() != "ann" || b.jar["phala_oidc"] != "" {
		t.Errorf("signed in as %s, with %v", b.user(), b.jar)
	}
	// The same identity is the same user, whatever the address is now; another one with
	// the same address is somebody else.
	pr.who = m{"sub": "1", "email": "other@elsewhere.org"}
	again := p.browser()
	if status, text, _ := again.get(pr.answered(again.beginOIDC())); status != 303 || again.user() != "ann" {
		t.Errorf("%d %s", status, text)
	}
	pr.who = m{"sub": "2", "email": "ann@example.com", "email_verified": true}
	other := p.browser()
	if status, text, _ := other.get(pr.answered(other.beginOIDC())); status != 303 || !strings.HasPrefix(other.user(), "ann-") {
		t.Errorf("%d %s: %s", status, text, other.user())
	}
}

// Whoever has an account by password links an identity to it, and nobody else's.
func TestOIDCLink(t *testing.T) {
	p, pr := newPeopleWith(t)
	b := p.admin()
	link := func(b *browser) (int, string) {
		status, text, _ := b.form("/auth/oidc/link", nil)
		if where := regexp.MustCompile(`href="([^"]+/authorize[^"]+)"`).FindStringSubmatch(text); where != nil {
			return status, html.UnescapeString(where[1])
		}
		return status, text
	}
	if _, text, _ := b.get("/device"); !strings.Contains(text, `action="/auth/oidc/link"`) {
		t.Error("the page does not offer to link")
	}
	pr.who = m{"sub": "9", "email": "boss@elsewhere.org"}
	if status, text := link(p.browser()); strings.Contains(text, "/authorize") {
		t.Errorf("nobody is signed in: %d %s", status, text)
	}
	foreign := p.browser()
	foreign.jar, foreign.head = b.jar, http.Header{"Sec-Fetch-Site": {"cross-site"}}
	if status, text := link(foreign); status != 403 {
		t.Errorf("another site's form: %d %s", status, text)
	}
	_, where := link(b)
	back := pr.answered(where)
	out := p.browser()
	out.jar["phala_oidc"] = b.jar["phala_oidc"] // the same browser, signed out meanwhile
	if status, text, _ := out.get(back); status != 403 {
		t.Errorf("signed out meanwhile: %d %s", status, text)
	}
	_, where = link(b)
	if status, text, _ := b.get(pr.answered(where)); status != 200 || !strings.Contains(text, "Linked") {
		t.Fatalf("%d %s", status, text)
	}
	fresh := p.browser()
	if status, text, _ := fresh.get(pr.answered(fresh.beginOIDC())); status != 303 || fresh.user() != "admin" {
		t.Errorf("%d %s", status, text)
	}
	pr.who = m{"sub": "1", "email": "eve@example.com", "email_verified": true}
	eve := p.browser()
	if status, text, _ := eve.get(pr.answered(eve.beginOIDC())); status != 303 {
		t.Fatalf("%d %s", status, text)
	}
	pr.who = m{"sub": "9"}
	_, where = link(eve)
	if status, text, _ := eve.get(pr.answered(where)); status != 409 {
		t.Errorf("somebody else's identity: %d %s", status, text)
	}
}

// What the provider did not say to this browser, now, about somebody it knows, signs
// nobody in.
func TestOIDCRefusals(t *testing.T) {
	p, pr := newPeopleWith(t)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ann := m{"sub": "1", "email": "ann@example.com", "email_verified": true}
	claim := func(k string, v any) func(m, m) { return func(c, _ m) { c[k] = v } }
	for name, tc := range map[string]struct {
		who    m
		lie    func(claims, head m)
		sign   func(string) []byte
		drop   func(m)
		change func(b *browser, back string) string
		want   int
	}{
		"wrong nonce":      {lie: claim("nonce", strings.Repeat("n", 43))},
		"no nonce":         {lie: func(c, _ m) { delete(c, "nonce") }},
		"another audience": {lie: claim("aud", "somebody")},
		"another issuer":   {lie: claim("iss", "https://evil.example")},
		"expired":          {lie: func(c, _ m) { c["exp"] = p.clock.now().Add(-time.Minute).Unix() }},
		"no expiry":        {lie: func(c, _ m) { delete(c, "exp") }},
		"unsigned":         {lie: func(_, h m) { h["alg"] = "none" }, sign: func(string) []byte { return nil }},
		"signed by a stranger": {sign: func(in string) []byte {
			s := sha256.Sum256([]byte(in))
			b, _ := rsa.SignPKCS1v15(rand.Reader, stranger, crypto.SHA256, s[:])
			return b
		}},
		"no ID token":          {drop: func(a m) { delete(a, "id_token") }},
		"address not verified": {who: m{"sub": "7", "email": "new@example.com"}},
		"verified as text":     {who: m{"sub": "7", "email": "new@example.com", "email_verified": "true"}},
		"address of elsewhere": {who: m{"sub": "7", "email": "new@evil.org", "email_verified": true}},
		"address with two ats": {who: m{"sub": "7", "email": "new@evil.org@example.com", "email_verified": true}},
		"no address":           {who: m{"sub": "7"}},
		"refused there": {change: func(_ *browser, back string) string {
			return strings.Replace(back, "code=", "error=access_denied&no=", 1)
		}},
		"invented code": {change: func(_ *browser, back string) string {
			return regexp.MustCompile(`code-\d+`).ReplaceAllString(back, "code-0")
		}},
		"another state":         {want: 400, change: func(_ *browser, back string) string { return strings.Replace(back, "state=", "state=x", 1) }},
		"no state":              {want: 400, change: func(_ *browser, back string) string { return strings.Replace(back, "state=", "estate=", 1) }},
		"another browser":       {want: 400, change: func(b *browser, back string) string { delete(b.jar, "phala_oidc"); return back }},
		"a cookie of one's own": {want: 400, change: func(b *browser, back string) string { b.jar["phala_oidc"] = b64([]byte(`{"State":""}`)); return back }},
		"too late":              {want: 400, change: func(_ *browser, back string) string { p.clock.add(11 * time.Minute); return back }},
		// PKCE: a code that was meant for another browser's sign-in.
		"a stolen code": {change: func(_ *browser, back string) string {
			victim := p.browser()
			stolen, _ := url.Parse(pr.answered(victim.beginOIDC()))
			return regexp.MustCompile(`code-\d+`).ReplaceAllString(back, stolen.Query().Get("code"))
		}},
	} {
		pr.who, pr.lie, pr.sign, pr.drop = ann, tc.lie, tc.sign, tc.drop
		if tc.who != nil {
			pr.who = tc.who
		}
		if tc.want == 0 {
			tc.want = 403
		}
		b := p.browser()
		back := pr.answered(b.beginOIDC())
		if tc.change != nil {
			back = tc.change(b, back)
		}
		status, text, _ := b.get(back)
		if status != tc.want || b.jar["phala_session"] != "" || !strings.Contains(text, `role="alert"`) {
			t.Errorf("%s: %d, want %d, and no session: %s", name, status, tc.want, text)
		}
	}
	pr.lie, pr.sign, pr.drop, pr.who = nil, nil, nil, ann
	// An answer is good once: the browser forgets it, and the provider does.
	b := p.browser()
	back := pr.answered(b.beginOIDC())
	kept := b.jar["phala_oidc"]
	if status, text, _ := b.get(back); status != 303 {
		t.Fatalf("%d %s", status, text)
	}
	again := p.browser()
	if status, _, _ := again.get(back); status != 400 {
		t.Errorf("the same answer in another browser: %d", status)
	}
	again.jar["phala_oidc"] = kept
	if status, _, _ := again.get(back); status != 403 || again.jar["phala_session"] != "" {
		t.Errorf("the same answer, with its cookie: %d", status)
	}
}

// Without its provider the cloud goes on, and says why nobody can sign in that way.
func TestOIDCProviderIsAway(t *testing.T) {
	p, pr := newPeopleWith(t)
	pr.Close()
	if status, text, _ := p.browser().get("/auth/oidc/login"); status != 503 || !strings.Contains(text, "does not answer") {
		t.Errorf("%d %s", status, text)
	}
	p.admin()
	bare := newPeople(t, nil)
	if status, text, _ := bare.browser().get("/auth/oidc/login"); status != 404 || strings.Contains(text, "/auth/oidc/login") {
		t.Errorf("%d %s", status, text)
	}
}
