package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/confidential-cloud/phala/api/store"
)

// stepUpFor is how long a proof of the second factor is fresh.
const stepUpFor = 10 * time.Minute

// authenticate lets a request pass with good credentials that may use the operation,
// or to a public operation.
func (s *Server) authenticate(hc huma.Context, next func(huma.Context)) {
	a, ok := hc.Operation().Metadata[accessKey].(access)
	if !ok {
		deny(hc, http.StatusForbidden, "this operation is open to nobody")
		return
	}
	ctx := context.WithValue(hc.Context(), requestKey{}, hc)
	var draft *store.AuditDraft
	if a.changes(hc.Method()) {
		draft = s.draft(hc)
	}
	if !a.public {
		p, refusal := s.principal(hc)
		if refusal == nil {
			if draft != nil {
				draft.Actor(p)
			}
			if refusal = s.allowed(a, p); refusal != nil {
				s.denied(ctx, draft)
			}
		}
		if refusal != nil {
			deny(hc, refusal.status, refusal.Detail)
			return
		}
		ctx = context.WithValue(ctx, principalKey{}, p)
		if r, _ := humachi.Unwrap(hc); p.DefaultVersion != "" && r.Header.Get("X-Phala-Version") == "" {
			r.Header.Set("X-Phala-Version", p.DefaultVersion)
		}
	}
	if draft != nil {
		ctx = store.WithAudit(ctx, draft)
	}
	next(huma.WithContext(hc, ctx))
}

// requestKey is where a handler's context holds its request.
type requestKey struct{}

func requestOf(ctx context.Context) huma.Context {
	hc, _ := ctx.Value(requestKey{}).(huma.Context)
	return hc
}

// principal is who sent the request: a key's owner, or who signed in with a browser.
func (s *Server) principal(hc huma.Context) (store.Principal, *apiError) {
	key := hc.Header("X-API-Key")
	if b, ok := strings.CutPrefix(hc.Header("Authorization"), "Bearer "); key == "" && ok {
		key = strings.TrimSpace(b)
	}
	workspace := hc.Header("X-Workspace-Id")
	if key == "" {
		r, _ := humachi.Unwrap(hc)
		return s.sessionOf(r, workspace)
	}
	p, err := s.store.ByKey(hc.Context(), sha256.Sum256([]byte(key)))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return p, text(http.StatusUnauthorized, "this API key is not valid: it was revoked, has expired, or belongs to another cloud (phala login)")
	case err != nil:
		return p, s.broken("reading a key", err)
	}
	if workspace != "" && workspace != p.WorkspaceSlug {
		return p, text(http.StatusForbidden, "this API key does not belong to that workspace")
	}
	return p, nil
}

func (s *Server) broken(what string, err error) *apiError {
	s.log.Error(what, "err", err)
	return text(http.StatusInternalServerError, "internal error (see the cloud API's log)")
}

// allowed checks role, scope and the second factor.
func (s *Server) allowed(a access, p store.Principal) *apiError {
	switch {
	case p.MustChange && p.KeyID == 0 && !a.unready:
		return text(http.StatusForbidden, "change the one-time password first (PUT /users/me/password)")
	case !p.Member.Allows(a.role):
		return text(http.StatusForbidden, fmt.Sprintf("this needs the role %s in the workspace, yours is %s", a.role, p.Member))
	case !store.ScopeGrants(p.Scopes, a.scope):
		return text(http.StatusForbidden, "this API key lacks the scope "+a.scope)
	case a.stepUp && !p.TOTP:
		return text(http.StatusForbidden, "set up a second factor first (POST /auth/2fa/setup)")
	case (a.stepUp || a.fresh && p.TOTP) && !s.fresh(p):
		return stale()
	}
	return nil
}

func stale() *apiError {
	return text(http.StatusPreconditionRequired, "prove your second factor first (POST /auth/step-up)")
}

// fresh tells whether the caller proved a second factor just now.
func (s *Server) fresh(p store.Principal) bool {
	return p.TOTP && !p.SteppedAt.IsZero() && s.now().Sub(p.SteppedAt) < stepUpFor
}

// address is the client's, through the proxies that the configuration trusts.
func (s *Server) address(remote, forwarded string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	hops := strings.Split(forwarded, ",")
	for i := len(hops) - 1; i >= 0 && s.trusted(host); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		host = hop.Unmap().String()
	}
	return host
}

func (s *Server) trusted(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, p := range s.cfg.TrustedProxies {
		if net, err := netip.ParsePrefix(p); err == nil && net.Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}
