package api

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/api/store"
)

// A provider's word is one factor. Where the account has a second one of its own, the
// provider's answer makes no session: it makes a sealed cookie, and the session comes
// with the code.
const (
	factorCookie = "phala_oidc_factor"
	factorTTL    = 10 * time.Minute
	sealedFactor = "sign-in awaits factor"
)

// factorState is who waits for the code.
type factorState struct {
	UserID int64
	Code   string // of a device that waits for approval
	Until  time.Time
}

func factorPage(problem string) page {
	return page{Title: "Second factor", View: "factor", Problem: problem}
}

// askFactor asks a user whom the provider signed in for the code.
func (s *Server) askFactor(w http.ResponseWriter, u store.User, code string) (page, int) {
	plain, err := json.Marshal(factorState{UserID: u.ID, Code: code, Until: s.now().Add(factorTTL)})
	if err != nil {
		return loginPage(code, "internal error"), http.StatusInternalServerError
	}
	sealed := base64.RawURLEncoding.EncodeToString(s.sealer.seal(sealedFactor, 0, plain))
	http.SetCookie(w, s.cookie(factorCookie, sealed, oidcPath, int(factorTTL/time.Second)))
	return factorPage(""), http.StatusOK
}

// oidcFactor takes the code. A wrong one leaves the cookie, and its tries are counted as
// those of every code of this user.
func (s *Server) oidcFactor(w http.ResponseWriter, r *http.Request) (page, int) {
	const stale = "this sign-in is too old, or began in another browser: begin again"
	st, ok := s.factorState(r)
	if !ok {
		return loginPage("", stale), http.StatusBadRequest
	}
	ctx := r.Context()
	u, err := s.store.User(ctx, st.UserID)
	if err == nil && !u.TOTPOn { // switched off meanwhile
		return loginPage(st.Code, stale), http.StatusBadRequest
	}
	if err == nil {
		store.AuditOf(ctx).Entry.User = u.Username
		err = s.checkFactor(ctx, u, clip(r.PostFormValue("totp_code"), 64))
	}
	if err != nil {
		msg, status := s.said(ctx, err)
		return factorPage(msg), status
	}
	http.SetCookie(w, s.cookie(factorCookie, "", oidcPath, -1))
	return s.enter(w, r, u, true, devicePath(st.Code))
}

func (s *Server) factorState(r *http.Request) (st factorState, ok bool) {
	c, err := r.Cookie(factorCookie)
	if err != nil {
		return st, false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return st, false
	}
	plain, err := s.sealer.open(sealedFactor, 0, sealed)
	if err != nil {
		return st, false
	}
	return st, json.Unmarshal(plain, &st) == nil && s.now().Before(st.Until)
}
