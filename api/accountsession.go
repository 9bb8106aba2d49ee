package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

const (
	sessionCookie = "phala_session"
	sessionTTL    = 7 * 24 * time.Hour
	sessionIdle   = 24 * time.Hour
)

// self is for what a user does with their own account.
func self(verb string) access { return access{role: store.Viewer, scope: "user:" + verb} }

func (s *Server) accountRoutes(api huma.API) {
	unready, fresh := self("write"), self("write")
	unready.unready, fresh.fresh = true, true
	register(s, api, op{method: "POST", path: "/auth/login", summary: "Sign in with a password (sets a cookie)", access: open()}, s.login)
	register(s, api, op{method: "POST", path: "/auth/logout", summary: "Sign out", status: 204, access: unready}, s.logout)
	register(s, api, op{method: "POST", path: "/auth/step-up", summary: "Prove the second factor again", status: 204, access: self("write")}, s.stepUp)
	register(s, api, op{method: "POST", path: "/auth/2fa/setup", summary: "Begin a second factor (TOTP)", access: fresh}, s.factorSetup)
	register(s, api, op{method: "POST", path: "/auth/2fa/enable", summary: "Switch the second factor on", access: self("write")}, s.factorEnable)
	register(s, api, op{method: "POST", path: "/auth/2fa/disable", summary: "Switch the second factor off", status: 204, access: self("write")}, s.factorDisable)
	register(s, api, op{method: "POST", path: "/auth/2fa/backup-codes", summary: "New backup codes", access: self("write")}, s.factorCodes)
	register(s, api, op{method: "GET", path: "/users/me", summary: "Who the key belongs to", as: cloudapi.CurrentUser{}, access: self("read")}, s.me)
	register(s, api, op{method: "PATCH", path: "/users/me", summary: "Change name and address", status: 204, access: fresh}, s.updateMe)
	register(s, api, op{method: "PUT", path: "/users/me/password", summary: "Set a password (ends all other sessions)", status: 204, access: unready}, s.setPassword)
	register(s, api, op{method: "GET", path: "/users/me/sessions", summary: "Browsers that are signed in", access: self("read")}, s.sessions)
	register(s, api, op{method: "DELETE", path: "/users/me/sessions/{id}", summary: "Sign a browser out", status: 204, access: self("write")}, s.endSession)
	s.keyRoutes(api)
	s.sshKeyRoutes(api)
	s.workspaceRoutes(api)
	s.deviceRoutes(api)
}

type bodyOf[T any] struct{ Body T }

// sessionOf is who signed in with the browser that sent r. A request of another site
// is refused where it could change something: cookies alone prove no intent.
func (s *Server) sessionOf(r *http.Request, workspace string) (store.Principal, *apiError) {
	c, err := r.Cookie(sessionCookie)
	if err != nil || c.Value == "" {
		return store.Principal{}, text(http.StatusUnauthorized, "API key is missing: send it as X-API-Key (get one with phala login)")
	}
	if err := s.origins.Check(r); err != nil {
		return store.Principal{}, text(http.StatusForbidden, "this request comes from another site")
	}
	p, err := s.store.BySession(r.Context(), sha256.Sum256([]byte(c.Value)), workspace, sessionIdle)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return p, text(http.StatusUnauthorized, "you are signed out: sign in again")
	case err != nil:
		return p, s.broken("reading a session", err)
	}
	return p, nil
}

// signIn makes a session for a user.
func (s *Server) signIn(ctx context.Context, u store.User, agent string, fresh bool) (*http.Cookie, error) {
	token, hash := newToken("")
	if err := s.store.AddSession(ctx, u.ID, hash, clip(agent, 256), sessionTTL, fresh); err != nil {
		return nil, err
	}
	return s.cookie(sessionCookie, token, "/", int(sessionTTL/time.Second)), nil
}

// cookie is out of reach of scripts and of other sites' requests.
func (s *Server) cookie(name, value, path string, age int) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: path, MaxAge: age, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: strings.HasPrefix(s.cfg.PublicURL, "https://")}
}

func (s *Server) login(ctx context.Context, in *bodyOf[cloudapi.LoginRequest]) (none, error) {
	hc := requestOf(ctx)
	if err := s.origins.Check(requestHTTP(hc)); err != nil {
		return none{}, text(http.StatusForbidden, "this request comes from another site")
	}
	u, fresh, err := s.checkLogin(ctx, in.Body, s.address(hc.RemoteAddr(), hc.Header("X-Forwarded-For")))
	if err != nil {
		return none{}, err
	}
	c, err := s.signIn(ctx, u, hc.Header("User-Agent"), fresh)
	if err != nil {
		return none{}, err
	}
	hc.AppendHeader("Set-Cookie", c.String())
	return none{}, nil
}

// checkLogin tells who signs in, and whether with a second factor. What is wrong with
// name or password has one answer, and takes as long.
func (s *Server) checkLogin(ctx context.Context, in cloudapi.LoginRequest, address string) (u store.User, fresh bool, err error) {
	name := strings.ToLower(in.Username)
	if err := errors.Join(s.take(ctx, limitAddress(), address), s.take(ctx, limitLogin(), name)); err != nil {
		return u, false, err
	}
	u, err = s.store.UserByName(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return u, false, err
	}
	if d := store.AuditOf(ctx); d != nil {
		d.Entry.User = u.Username
	}
	ok, err := s.checkPassword(ctx, u.Password, in.Password)
	if err != nil {
		return u, false, err
	}
	if !ok {
		return u, false, text(http.StatusUnauthorized, "username or password is wrong")
	}
	if u.TOTPOn {
		if in.TOTPCode == nil || *in.TOTPCode == "" {
			return u, false, text(http.StatusPreconditionRequired, "the code of your second factor is needed (totp_code)")
		}
		if err := s.checkFactor(ctx, u, *in.TOTPCode); err != nil {
			return u, false, err
		}
	}
	s.forgive(ctx, limitLogin(), name)
	return u, u.TOTPOn, nil
}

func (s *Server) logout(ctx context.Context, _ *none) (none, error) {
	p := who(ctx)
	if p.SessionID == 0 {
		return none{}, text(http.StatusBadRequest, "an API key is not signed in: revoke it instead")
	}
	if err := s.store.EndSession(ctx, p.UserID, p.SessionID); err != nil {
		return none{}, err
	}
	requestOf(ctx).AppendHeader("Set-Cookie", s.cookie(sessionCookie, "", "/", -1).String())
	return none{}, nil
}

func (s *Server) setPassword(ctx context.Context, in *bodyOf[cloudapi.PasswordRequest]) (none, error) {
	p := who(ctx)
	u, err := s.store.User(ctx, p.UserID)
	if err != nil {
		return none{}, err
	}
	if err := s.proveSelf(ctx, p, u, in.Body.CurrentPassword, in.Body.TOTPCode); err != nil {
		return none{}, err
	}
	if in.Body.CurrentPassword != nil && *in.Body.CurrentPassword == in.Body.Password {
		return none{}, invalid("password", "this is the old password")
	}
	if why := weakPassword(in.Body.Password, u.Username); why != "" {
		return none{}, invalid("password", why)
	}
	hash, err := s.hashPassword(ctx, in.Body.Password)
	if err != nil {
		return none{}, err
	}
	return none{}, s.store.SetPassword(ctx, u.ID, hash, false, p.SessionID)
}

// proveSelf wants the present password, if there is one, and the second factor, if
// there is one and it is not fresh.
func (s *Server) proveSelf(ctx context.Context, p store.Principal, u store.User, password, code *string) error {
	if u.Password != "" {
		if err := s.take(ctx, limitLogin(), u.Username); err != nil {
			return err
		}
		if password == nil {
			return invalid("current_password", "the present password is needed")
		}
		ok, err := s.checkPassword(ctx, u.Password, *password)
		if err != nil {
			return err
		}
		if !ok {
			return text(http.StatusForbidden, "the present password is wrong")
		}
		s.forgive(ctx, limitLogin(), u.Username)
	}
	if !u.TOTPOn || s.fresh(p) {
		return nil
	}
	if code == nil {
		return stale()
	}
	return s.checkFactor(ctx, u, *code)
}

// invalid is a validation error of one field of the body.
func invalid(field, msg string) error {
	var p problems
	p.add(field, "value_error", msg, "")
	return p.err()
}

// username is what names look like; they are kept in lower case.
func username(s string) (string, bool) {
	s = strings.ToLower(s)
	ok, _ := regexp.MatchString(`^[a-z0-9][a-z0-9._@+-]{1,63}$`, s) // the pattern is good
	return s, ok
}

func (s *Server) updateMe(ctx context.Context, in *bodyOf[cloudapi.UserUpdate]) (none, error) {
	p := who(ctx)
	name, email := p.Username, p.Email
	if in.Body.Username != nil {
		var ok bool
		if name, ok = username(*in.Body.Username); !ok {
			return none{}, invalid("username", "want 2 to 64 of a-z 0-9 . _ @ + -")
		}
	}
	if in.Body.Email != nil {
		if email = *in.Body.Email; email != "" && !isEmail(email) {
			return none{}, invalid("email", "this is no address")
		}
	}
	err := s.store.UpdateUser(ctx, p.UserID, name, email)
	if errors.Is(err, store.ErrTaken) {
		return none{}, text(http.StatusConflict, "this username is taken")
	}
	return none{}, err
}

func isEmail(s string) bool {
	ok, _ := regexp.MatchString(`^[^@\s<>"]+@[^@\s<>"]+$`, s) // the pattern is good
	return ok
}

func (s *Server) sessions(ctx context.Context, _ *none) (out cloudapi.Sessions, err error) {
	p := who(ctx)
	list, err := s.store.SessionsOf(ctx, p.UserID)
	if err != nil {
		return out, err
	}
	out.Sessions, out.Total = []cloudapi.Session{}, len(list)
	for _, v := range list {
		kind, system := deviceOf(v.UserAgent)
		id := fmt.Sprintf("ses_%d", v.ID)
		out.Sessions = append(out.Sessions, cloudapi.Session{ID: id, JTI: id, UserAgent: opt(v.UserAgent), CreatedAt: v.CreatedAt, LastSeenAt: v.SeenAt,
			IsCurrent: v.ID == p.SessionID, DeviceKind: kind, DeviceOS: system, Label: kind + " (" + system + ")"})
	}
	return out, nil
}

// deviceOf guesses from what a browser says of itself; it is for display only.
func deviceOf(agent string) (kind, system string) {
	for _, k := range []struct{ word, kind, system string }{
		{"iPhone", "Mobile", "iOS"}, {"iPad", "Mobile", "iOS"}, {"Android", "Mobile", "Android"},
		{"Windows", "Desktop", "Windows"}, {"Macintosh", "Desktop", "macOS"}, {"Linux", "Desktop", "Linux"},
	} {
		if strings.Contains(agent, k.word) {
			return k.kind, k.system
		}
	}
	return "Unknown", "Unknown"
}

// NumberInput is an id in the path: a number, with the word of its kind before it.
type NumberInput struct {
	ID string `path:"id"`
}

// number reads the id of a kind ("ses_12", or "12"); anything else is no id at all.
func (in NumberInput) number(prefix string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(in.ID, prefix), 10, 64)
	if err != nil || n <= 0 {
		return 0, store.ErrNotFound
	}
	return n, nil
}

func (s *Server) endSession(ctx context.Context, in *NumberInput) (none, error) {
	id, err := in.number("ses_")
	if err == nil {
		err = s.store.EndSession(ctx, who(ctx).UserID, id)
	}
	return none{}, named(err, "session not found")
}

// named gives a missing thing its own word.
func named(err error, message string) error {
	if errors.Is(err, store.ErrNotFound) {
		return text(http.StatusNotFound, message)
	}
	return err
}
