package api_test

import (
	"bytes"
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

var oneTime = regexp.MustCompile(`^(\S+) signs in with the one-time password (\S+) `)

// Whoever runs the server lets somebody in again who is locked out, while the API runs.
func TestResetPassword(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	member := p.member(b, "carol", "member")
	var out bytes.Buffer
	if err := api.ResetPassword(t.Context(), p.cfg, api.Reset{}, &out); err != nil {
		t.Fatal(err)
	}
	got := oneTime.FindStringSubmatch(out.String())
	if got == nil || got[1] != "admin" {
		t.Fatalf("%q", out.String())
	}
	b.call("GET", "/auth/me", nil, nil, 401) // signed out
	member.call("GET", "/auth/me", nil, nil, 200)
	n := p.browser()
	n.call("POST", "/auth/login", m{"username": "admin", "password": ownPassword}, nil, 401)
	n.call("POST", "/auth/login", m{"username": "admin", "password": got[2]}, nil, 200)
	n.call("GET", "/cvms", nil, nil, 403) // not before it is changed
	n.call("PUT", "/users/me/password", m{"password": "another " + ownPassword, "current_password": got[2]}, nil, 204)
	n.call("GET", "/cvms", nil, nil, 200)
	log := n.call("GET", "/audit", nil, nil, 200)
	if !strings.Contains(log, `"reset-password"`) || strings.Contains(log, got[2]) || strings.Contains(p.logs.String(), got[2]) {
		t.Errorf("audit log: %s", log)
	}
	out.Reset()
	if err := api.ResetPassword(t.Context(), p.cfg, api.Reset{Username: "Carol"}, &out); err != nil || oneTime.FindStringSubmatch(out.String())[1] != "carol" {
		t.Errorf("%v %q", err, out.String())
	}
	member.call("GET", "/auth/me", nil, nil, 401)
}

func TestResetPasswordRefuses(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	var out bytes.Buffer
	if err := api.ResetPassword(t.Context(), p.cfg, api.Reset{Username: "nobody"}, &out); cvm.CodeOf(err) != cvm.NotFound || out.Len() > 0 {
		t.Errorf("%v %q", err, out.String())
	}
	elsewhere := p.cfg
	elsewhere.Dir = filepath.Join(t.TempDir(), "nothing")
	if err := api.ResetPassword(t.Context(), elsewhere, api.Reset{}, &out); cvm.CodeOf(err) != cvm.Invalid || out.Len() > 0 {
		t.Errorf("no database there: %v %q", err, out.String())
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := api.ResetPassword(ended, p.cfg, api.Reset{}, &out); err == nil || out.Len() > 0 {
		t.Errorf("%v %q", err, out.String())
	}
	b.call("GET", "/auth/me", nil, nil, 200) // nothing was changed
}

// A lost second factor is removed only when that is asked for.
func TestResetPasswordWithFactor(t *testing.T) {
	p := newPeople(t, nil)
	b := p.admin()
	var setup cloudapi.FactorSetup
	b.call("POST", "/auth/2fa/setup", nil, &setup, 200)
	b.call("POST", "/auth/2fa/enable", m{"verification_code": code(t, setup.Secret, p.clock.now())}, nil, 200)
	for _, drop := range []bool{false, true} {
		var out bytes.Buffer
		if err := api.ResetPassword(t.Context(), p.cfg, api.Reset{Factor: drop}, &out); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "still needed") == drop {
			t.Errorf("%q", out.String())
		}
		want := 428
		if drop {
			want = 200
		}
		p.browser().call("POST", "/auth/login", m{"username": "admin", "password": oneTime.FindStringSubmatch(out.String())[2]}, nil, want)
	}
}
