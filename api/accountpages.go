package api

import (
	"context"
	"crypto/rand"
	_ "embed" // the page
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// The pages where a person approves a device login, in a browser without scripts.

//go:embed pages/account.html
var accountHTML string

// maxForm bounds a form, in bytes.
const maxForm = 16 << 10

// page is what the template shows.
type page struct {
	Title, View, Problem, Message string
	Code, Nonce, Provider, Next   string
	NeedFactor                    bool
	User                          store.Principal
	Device                        store.Device
	Workspaces                    []store.Workspace
}

func (s *Server) pages(mux *chi.Mux) {
	t := template.Must(template.New("account").Parse(accountHTML)) // embedded: parses, or no test passes
	form := func(action string, fn func(http.ResponseWriter, *http.Request) (page, int)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if r.Method != http.MethodGet {
				if err := s.origins.Check(r); err != nil {
					s.render(w, t, http.StatusForbidden, page{Title: "Refused", View: "done", Message: "This request comes from another site."})
					return
				}
				d := startDraft(action)
				d.Entry.Address, d.Entry.Target = s.remote(r), clip(r.URL.Path, 512)
				r = r.WithContext(store.WithAudit(r.Context(), d))
			}
			p, status := fn(w, r)
			if status == http.StatusSeeOther {
				return // fn has sent it
			}
			if forbidden(status) {
				s.denied(r.Context(), store.AuditOf(r.Context()))
			}
			s.render(w, t, status, p)
		}
	}
	mux.Get("/device", form("", s.devicePage))
	mux.Post("/device", form("page-device", s.devicePost))
	mux.Post("/login", form("page-login", s.loginPost))
	mux.Post("/password", form("page-password", s.passwordPost))
	mux.Post("/logout", form("page-logout", s.logoutPost))
	mux.Get("/auth/oidc/login", form("", s.oidcLogin))
	mux.Post("/auth/oidc/link", form("page-oidc-link", s.oidcLink))
	mux.Get("/auth/oidc/callback", form("", s.oidcCallback))
	mux.Post("/auth/oidc/factor", form("page-oidc-factor", s.oidcFactor))
}

func (s *Server) remote(r *http.Request) string {
	return s.address(r.RemoteAddr, r.Header.Get("X-Forwarded-For"))
}

// requestHTTP is the plain request under a handler.
func requestHTTP(hc huma.Context) *http.Request {
	r, _ := humachi.Unwrap(hc)
	return r
}

func (s *Server) render(w http.ResponseWriter, t *template.Template, status int, p page) {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	p.Nonce = base64.RawURLEncoding.EncodeToString(b)
	if s.cfg.OIDC.Issuer != "" {
		if p.Provider = s.cfg.OIDC.Name; p.Provider == "" {
			p.Provider = "your provider"
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+p.Nonce+"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // no-referrer would hide a form's origin
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := t.Execute(w, p); err != nil {
		s.log.Warn("page", "err", err)
	}
}

// devicePath is where a code's approval goes on.
func devicePath(code string) string {
	if code == "" {
		return "/device"
	}
	return "/device?" + url.Values{"user_code": {code}}.Encode()
}

func seeOther(w http.ResponseWriter, r *http.Request, path string) (page, int) {
	http.Redirect(w, r, path, http.StatusSeeOther)
	return page{}, http.StatusSeeOther
}

// said is an error as a page says it.
func (s *Server) said(ctx context.Context, err error) (string, int) {
	var e *apiError
	if !errors.As(s.answer(ctx, err), &e) {
		return "internal error", http.StatusInternalServerError
	}
	switch d := e.Detail.(type) {
	case string:
		return d, e.status
	case cloudapi.ErrorDetail:
		return d.Message, e.status
	case []cloudapi.Validation:
		if len(d) > 0 {
			return d[0].Msg, e.status
		}
	}
	return "the request was refused", e.status
}

func loginPage(code, problem string) page {
	return page{Title: "Sign in", View: "login", Code: code, Problem: problem}
}

// person is who is signed in, or the page that comes first.
func (s *Server) person(r *http.Request, workspace, code string) (store.Principal, page, int) {
	p, refusal := s.sessionOf(r, workspace)
	switch {
	case refusal != nil && refusal.status == http.StatusUnauthorized:
		return p, loginPage(code, ""), http.StatusOK
	case refusal != nil:
		return p, page{Title: "Refused", View: "done", Message: refusal.Error()}, refusal.status
	case p.MustChange:
		return p, page{Title: "Change your password", View: "password", Code: code, User: p}, http.StatusOK
	}
	return p, page{}, 0
}

func (s *Server) devicePage(_ http.ResponseWriter, r *http.Request) (page, int) {
	code := clip(r.URL.Query().Get("user_code"), 32)
	p, first, status := s.person(r, "", code)
	if status != 0 {
		return first, status
	}
	if code == "" {
		return page{Title: "Sign in a device", View: "code", User: p}, http.StatusOK
	}
	return s.approvePage(r, p, code, "", http.StatusOK)
}

func (s *Server) approvePage(r *http.Request, p store.Principal, code, problem string, status int) (page, int) {
	d, err := s.waitingDevice(r.Context(), p, code)
	if err != nil {
		msg, status := s.said(r.Context(), err)
		return page{Title: "Sign in a device", View: "code", Problem: msg, User: p}, status
	}
	list, err := s.store.WorkspacesOf(r.Context(), p.UserID, 0, 100)
	if err != nil {
		msg, status := s.said(r.Context(), err)
		return page{Title: "Sign in a device", View: "done", Message: msg}, status
	}
	return page{Title: "Sign in a device", View: "approve", Code: strings.ToUpper(code), User: p, Device: d, Problem: problem,
		Workspaces: list, NeedFactor: p.TOTP && !s.fresh(p)}, status
}

func (s *Server) devicePost(_ http.ResponseWriter, r *http.Request) (page, int) {
	code := clip(r.PostFormValue("user_code"), 32)
	p, first, status := s.person(r, clip(r.PostFormValue("workspace"), 64), code)
	if status != 0 {
		return first, status
	}
	store.AuditOf(r.Context()).Actor(p)
	d, err := s.waitingDevice(r.Context(), p, code)
	if err != nil {
		msg, status := s.said(r.Context(), err)
		return page{Title: "Sign in a device", View: "code", Problem: msg, User: p}, status
	}
	approve := r.PostFormValue("action") == "approve"
	if err := s.decide(r.Context(), p, d, approve, r.PostFormValue("totp_code")); err != nil {
		msg, status := s.said(r.Context(), err)
		return s.approvePage(r, p, code, msg, status)
	}
	msg := "Denied. Nothing was given out."
	if approve {
		msg = "Approved. You can close this page: your terminal goes on by itself."
	}
	return page{Title: "Sign in a device", View: "done", Message: msg}, http.StatusOK
}

func (s *Server) loginPost(w http.ResponseWriter, r *http.Request) (page, int) {
	code, factor := clip(r.PostFormValue("user_code"), 32), r.PostFormValue("totp_code")
	in := cloudapi.LoginRequest{Username: clip(r.PostFormValue("username"), 254), Password: r.PostFormValue("password"), TOTPCode: &factor}
	if len(in.Password) > maxPassword {
		return loginPage(code, "username or password is wrong"), http.StatusUnauthorized
	}
	u, fresh, err := s.checkLogin(r.Context(), in, s.remote(r))
	if err != nil {
		msg, status := s.said(r.Context(), err)
		return loginPage(code, msg), status
	}
	return s.enter(w, r, u, fresh, devicePath(code))
}

// enter signs a user in and goes on.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, u store.User, fresh bool, next string) (page, int) {
	c, err := s.signIn(r.Context(), u, r.UserAgent(), fresh)
	if err != nil {
		msg, status := s.said(r.Context(), err)
		return loginPage("", msg), status
	}
	http.SetCookie(w, c)
	return seeOther(w, r, next)
}

func (s *Server) passwordPost(w http.ResponseWriter, r *http.Request) (page, int) {
	code, current := clip(r.PostFormValue("user_code"), 32), r.PostFormValue("current")
	p, first, status := s.person(r, "", code)
	if p.UserID == 0 {
		return first, status
	}
	store.AuditOf(r.Context()).Actor(p)
	ctx := context.WithValue(r.Context(), principalKey{}, p)
	_, err := s.setPassword(ctx, &bodyOf[cloudapi.PasswordRequest]{Body: cloudapi.PasswordRequest{Password: r.PostFormValue("password"), CurrentPassword: &current}})
	if err != nil {
		msg, status := s.said(ctx, err)
		return page{Title: "Change your password", View: "password", Code: code, User: p, Problem: msg}, status
	}
	return seeOther(w, r, devicePath(code))
}

func (s *Server) logoutPost(w http.ResponseWriter, r *http.Request) (page, int) {
	p, first, status := s.person(r, "", "")
	if p.UserID == 0 {
		return first, status
	}
	store.AuditOf(r.Context()).Actor(p)
	if err := s.store.EndSession(r.Context(), p.UserID, p.SessionID); err != nil {
		msg, status := s.said(r.Context(), err)
		return page{Title: "Sign out", View: "done", Message: msg}, status
	}
	http.SetCookie(w, s.cookie(sessionCookie, "", "/", -1))
	return page{Title: "Sign out", View: "done", Message: "You are signed out."}, http.StatusOK
}

// newDraft is used where a page's GET changes something (a provider's answer).
func (s *Server) newDraft(r *http.Request, action string) *store.AuditDraft {
	return &store.AuditDraft{Entry: cloudapi.AuditEntry{Action: action, Target: clip(r.URL.Path, 512), Address: s.remote(r),
		Outcome: cloudapi.AuditDone, Request: uuid.NewString()}}
}
