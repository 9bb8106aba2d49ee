package api_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// Where an account has a second factor, a provider's word alone makes no session.
func TestOIDCAsksTheSecondFactor(t *testing.T) {
	p, pr := newPeopleWith(t)
	pr.who = m{"sub": "1", "email": "ann@example.com", "email_verified": true}
	b := p.browser()
	b.get(pr.answered(b.beginOIDC()))
	var setup cloudapi.FactorSetup
	var codes cloudapi.BackupCodes
	b.call("POST", "/auth/2fa/setup", nil, &setup, 200)
	b.call("POST", "/auth/2fa/enable", m{"verification_code": code(t, setup.Secret, p.clock.now())}, &codes, 200)
	p.clock.add(time.Minute)

	signIn := func() *browser {
		t.Helper()
		b := p.browser()
		status, text, _ := b.get(pr.answered(b.beginOIDC()))
		if status != 200 || !strings.Contains(text, `action="/auth/oidc/factor"`) || b.jar["phala_session"] != "" {
			t.Fatalf("%d, a session %q\n%s", status, b.jar["phala_session"], text)
		}
		b.call("GET", "/auth/me", nil, nil, 401)
		return b
	}
	show := func(b *browser, c string, want int) {
		t.Helper()
		status, text, head := b.form("/auth/oidc/factor", url.Values{"totp_code": {c}})
		if status != want || (want == 303) != (b.jar["phala_session"] != "") {
			t.Errorf("%q: %d, want %d; a session %q\n%s", c, status, want, b.jar["phala_session"], text)
		}
		if want == 303 && head.Get("Location") != "/device?user_code=BCDF-GHJK" {
			t.Errorf("goes on at %s", head.Get("Location"))
		}
	}
	now := code(t, setup.Secret, p.clock.now())
	one := signIn()
	show(one, "", 403)
	show(one, "12345x", 403)
	show(one, now, 303)
	one.call("POST", "/user/api-tokens", m{"name": "fresh"}, nil, 201) // the factor was proved just now
	show(signIn(), now, 403)                                           // a code is good once
	show(signIn(), codes.Codes[0], 303)

	show(p.browser(), code(t, setup.Secret, p.clock.now()), 400) // no provider
	forged := p.browser()
	forged.jar["phala_oidc_factor"] = b64([]byte(`{"UserID":1}`))
	show(forged, codes.Codes[1], 400)
	other := p.browser() // what is sealed for another step is not for this one
	other.beginOIDC()
	other.jar["phala_oidc_factor"] = other.jar["phala_oidc"]
	show(other, codes.Codes[1], 400)
	late := signIn()
	p.clock.add(10 * time.Minute)
	show(late, codes.Codes[1], 400)

	off := signIn()
	back := signIn()
	show(back, code(t, setup.Secret, p.clock.now()), 303)
	p.clock.add(time.Minute)
	back.call("POST", "/auth/2fa/disable", m{"verification_code": code(t, setup.Secret, p.clock.now())}, nil, 204)
	show(off, codes.Codes[1], 400)
	plain := p.browser()
	if status, text, _ := plain.get(pr.answered(plain.beginOIDC())); status != 303 || plain.user() != "ann" {
		t.Errorf("without a factor: %d %s", status, text)
	}
	p.clock.add(time.Minute)
	guess := p.browser()
	guess.get(pr.answered(guess.beginOIDC()))
	guess.call("POST", "/auth/2fa/setup", nil, &setup, 200)
	guess.call("POST", "/auth/2fa/enable", m{"verification_code": code(t, setup.Secret, p.clock.now())}, nil, 200)
	guess = signIn()
	for range 5 {
		guess.form("/auth/oidc/factor", url.Values{"totp_code": {"000000"}})
	}
	show(guess, "000000", 429)
}
