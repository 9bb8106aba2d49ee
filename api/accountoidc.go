package api

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/confidential-cloud/phala/api/store"
)

const (
	oidcCookie = "phala_oidc"
	oidcPath   = "/auth/oidc"
	oidcTTL    = 10 * time.Minute
	oidcWait   = 10 * time.Second
	sealedOIDC = "sign-in"
)

// oidcClient finds the provider when it is first needed, so that the API starts
// without it.
type oidcClient struct {
	mu       sync.Mutex
	provider *oidc.Provider
}

// oidcState is what a sign-in remembers in the browser, sealed.
type oidcState struct {
	State, Nonce, Verifier string
	Code                   string // of a device that waits for approval
	Link                   int64  // the user to link, or 0
	Until                  time.Time
}

// oidcClaims are what is read of an ID token.
type oidcClaims struct {
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
}

func (s *Server) oidcConfig(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	o := s.cfg.OIDC
	if o.Issuer == "" {
		return nil, nil, text(http.StatusNotFound, "this cloud has no sign-in by another provider")
	}
	c := &oauth2.Config{ClientID: o.ClientID, RedirectURL: s.publicURL("") + oidcPath + "/callback", Scopes: []string{oidc.ScopeOpenID, "email"}}
	if o.ClientSecretFile != "" {
		b, err := os.ReadFile(o.ClientSecretFile)
		if err != nil {
			return nil, nil, fmt.Errorf("OIDC client secret: %w", err)
		}
		c.ClientSecret = strings.TrimSpace(string(b))
	}
	s.oidc.mu.Lock()
	defer s.oidc.mu.Unlock()
	if s.oidc.provider == nil {
		// The provider keeps its context for fetching keys: not the request's.
		p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), &http.Client{Timeout: oidcWait}), o.Issuer)
		if err != nil {
			s.log.Warn("OIDC provider", "err", err)
			return nil, nil, text(http.StatusServiceUnavailable, "the sign-in provider does not answer")
		}
		s.oidc.provider = p
	}
	c.Endpoint = s.oidc.provider.Endpoint()
	return s.oidc.provider, c, nil
}

func (s *Server) oidcLogin(w http.ResponseWriter, r *http.Request) (page, int) {
	return s.oidcBegin(w, r, oidcState{Code: clip(r.URL.Query().Get("user_code"), 32)})
}

// oidcLink begins a sign-in whose identity will be the signed-in user's. It is a POST:
// another site must not begin it.
func (s *Server) oidcLink(w http.ResponseWriter, r *http.Request) (page, int) {
	p, first, status := s.person(r, "", "")
	if status != 0 {
		return first, status
	}
	if p.TOTP && !s.fresh(p) {
		return page{Title: "Refused", View: "done", Message: "Prove your second factor first."}, http.StatusPreconditionRequired
	}
	where, err := s.oidcAddress(w, r, oidcState{Link: p.UserID})
	if err != nil {
		msg, status := s.said(r.Context(), err)
		return page{Title: "Link a sign-in", View: "done", Message: msg}, status
	}
	// A link, not a redirect: our forms may go nowhere else (Content-Security-Policy).
	return page{Title: "Link a sign-in", View: "leave", Next: where}, http.StatusOK
}

func (s *Server) oidcBegin(w http.ResponseWriter, r *http.Request, st oidcState) (page, int) {
	where, err := s.oidcAddress(w, r, st)
	if err != nil {
		msg, status := s.said(r.Context(), err)
		return loginPage(st.Code, msg), status
	}
	return seeOther(w, r, where)
}

// oidcAddress is where the provider signs people in, for this browser alone.
func (s *Server) oidcAddress(w http.ResponseWriter, r *http.Request, st oidcState) (string, error) {
	_, c, err := s.oidcConfig(r.Context())
	if err != nil {
		return "", err
	}
	st.State, _ = newToken("")
	st.Nonce, _ = newToken("")
	st.Verifier, st.Until = oauth2.GenerateVerifier(), s.now().Add(oidcTTL)
	plain, err := json.Marshal(st)
	if err != nil {
		return "", err
	}
	sealed := base64.RawURLEncoding.EncodeToString(s.sealer.seal(sealedOIDC, 0, plain))
	http.SetCookie(w, s.cookie(oidcCookie, sealed, oidcPath, int(oidcTTL/time.Second)))
	return c.AuthCodeURL(st.State, oidc.Nonce(st.Nonce), oauth2.S256ChallengeOption(st.Verifier)), nil
}

func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request) (page, int) {
	d := s.newDraft(r, "page-oidc-callback")
	ctx := store.WithAudit(r.Context(), d)
	http.SetCookie(w, s.cookie(oidcCookie, "", oidcPath, -1))
	st, err := s.oidcState(r)
	var u store.User
	if err == nil {
		err = s.oidcStill(r, st)
	}
	if err == nil {
		u, err = s.oidcUser(ctx, r, st)
	}
	if err != nil {
		msg, status := s.said(ctx, err)
		return loginPage(st.Code, msg), status
	}
	d.Entry.User = u.Username
	if st.Link != 0 {
		return page{Title: "Linked", View: "done", Message: "You can sign in with your provider now."}, http.StatusOK
	}
	if u.TOTPOn {
		return s.askFactor(w, u, st.Code)
	}
	return s.enter(w, r.WithContext(ctx), u, false, devicePath(st.Code))
}

// oidcState opens what the browser kept, and checks that this answer belongs to it.
func (s *Server) oidcState(r *http.Request) (st oidcState, err error) {
	stale := text(http.StatusBadRequest, "this sign-in is too old, or began in another browser: begin again")
	c, err := r.Cookie(oidcCookie)
	if err != nil {
		return st, stale
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return st, stale
	}
	plain, err := s.sealer.open(sealedOIDC, 0, sealed)
	if err != nil {
		return st, stale
	}
	if err := json.Unmarshal(plain, &st); err != nil {
		return st, stale
	}
	if !s.now().Before(st.Until) || subtle.ConstantTimeCompare([]byte(st.State), []byte(r.URL.Query().Get("state"))) != 1 {
		return st, stale
	}
	return st, nil
}

// oidcStill wants whoever began to link an identity to be signed in still: a browser
// that was signed out meanwhile must not leave a way back in.
func (s *Server) oidcStill(r *http.Request, st oidcState) error {
	if st.Link == 0 {
		return nil
	}
	if p, refusal := s.sessionOf(r, ""); refusal != nil || p.UserID != st.Link {
		return text(http.StatusForbidden, "you are not signed in any more: sign in, and link it again")
	}
	return nil
}

// oidcUser exchanges the answer's code and finds whose identity it is.
func (s *Server) oidcUser(ctx context.Context, r *http.Request, st oidcState) (u store.User, err error) {
	refused := text(http.StatusForbidden, "the provider did not sign you in")
	provider, c, err := s.oidcConfig(ctx)
	if err != nil {
		return u, err
	}
	if r.URL.Query().Get("code") == "" {
		return u, refused
	}
	out := oidc.ClientContext(ctx, &http.Client{Timeout: oidcWait})
	token, err := c.Exchange(out, r.URL.Query().Get("code"), oauth2.VerifierOption(st.Verifier))
	if err != nil {
		return u, refused
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.Verifier(&oidc.Config{ClientID: c.ClientID, Now: s.now}).Verify(out, raw)
	if err != nil || subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(st.Nonce)) != 1 {
		return u, refused
	}
	var claims oidcClaims
	if err := id.Claims(&claims); err != nil {
		return u, refused
	}
	return s.identify(ctx, st, id, claims)
}

// identify links, finds or (where the configuration says so) makes the user. An address
// alone is never enough for an account that is there.
func (s *Server) identify(ctx context.Context, st oidcState, id *oidc.IDToken, claims oidcClaims) (u store.User, err error) {
	if st.Link != 0 {
		if err := s.store.LinkIdentity(ctx, st.Link, id.Issuer, id.Subject); errors.Is(err, store.ErrTaken) {
			return u, text(http.StatusConflict, "this identity belongs to somebody already")
		} else if err != nil {
			return u, err
		}
		return s.store.User(ctx, st.Link)
	}
	u, err = s.store.ByIdentity(ctx, id.Issuer, id.Subject)
	if !errors.Is(err, store.ErrNotFound) {
		return u, err
	}
	name, domain, _ := strings.Cut(claims.Email, "@")
	if !claims.EmailVerified || domain == "" || !slices.Contains(s.cfg.OIDC.CreateFrom, strings.ToLower(domain)) {
		return u, text(http.StatusForbidden, "nobody here has this identity: ask for an invitation, or sign in with your password and link it")
	}
	name = workspaceName(name)
	for range 3 {
		u, err = s.store.AddUserOf(ctx, name, claims.Email, id.Issuer, id.Subject)
		if !errors.Is(err, store.ErrTaken) {
			return u, err
		}
		b := make([]byte, 3)
		_, _ = rand.Read(b) // never fails
		name = workspaceName(name) + "-" + hex.EncodeToString(b)
	}
	return u, err
}

// workspaceName makes a word that is good for a user and for a workspace.
func workspaceName(s string) string {
	clean := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(clip(s, 24))), "-")
	if len(clean) < 2 || clean[0] < 'a' {
		clean = "user-" + clean
	}
	return strings.Trim(clean, "-")
}
