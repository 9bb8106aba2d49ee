package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/store"
)

// access is who may use an operation. Every operation says it where it is registered;
// one that does not keeps the server from starting.
type access struct {
	public   bool       // nobody needs to sign in
	role     store.Role // the least role in the workspace
	scope    string     // what a key must have been granted: area:read or area:write
	operator bool       // only who runs this cloud
	stepUp   bool       // a second factor, and a fresh proof of it (403 without one, 428 when stale)
	unready  bool       // also with a one-time password that was not changed yet
}

// open is for operations that need no key.
func open() access { return access{public: true} }

// reads is for whoever may see the workspace.
func reads(area string) access { return access{role: store.Viewer, scope: area + ":read"} }

// writes is for members.
func writes(area string) access { return access{role: store.Member, scope: area + ":write"} }

// manages is for the workspace's admins.
func manages(area string) access { return access{role: store.Admin, scope: area + ":write"} }

// operates is for who runs this cloud.
func operates(area string) access {
	return access{role: store.Viewer, scope: area + ":write", operator: true}
}

// Guarded is an operation with who may use it.
type Guarded struct {
	Method, Path string
	Public       bool
	Role         store.Role
	Scope        string
	Operator     bool
	StepUp       bool
}

// Operations lists every operation with who may use it, as it is enforced.
func (s *Server) Operations() []Guarded { return append([]Guarded{}, s.guards...) }

// accessKey is where an operation's metadata holds its access.
const accessKey = "access"

// guard puts who may use it into an operation, and refuses one that does not say.
func (s *Server) guard(h *huma.Operation, a access) bool {
	if !a.public && (!a.role.Known() || !store.ScopeGrants(store.AllScopes, a.scope)) {
		s.refused = append(s.refused, fmt.Errorf("%s %s names no access: set op.access to open(), reads(area), writes(area), manages(area) or operates(area)", h.Method, h.Path))
		return false
	}
	if h.Metadata == nil {
		h.Metadata = map[string]any{}
	}
	h.Metadata[accessKey] = a
	if !a.public {
		h.Security = []map[string][]string{{"key": {}}}
	}
	s.guards = append(s.guards, Guarded{h.Method, h.Path, a.public, a.role, a.scope, a.operator, a.stepUp})
	return true
}

// authenticate lets a request pass with good credentials that may use the operation,
// or to a public operation.
func (s *Server) authenticate(hc huma.Context, next func(huma.Context)) {
	a, ok := hc.Operation().Metadata[accessKey].(access)
	if !ok {
		deny(hc, http.StatusForbidden, "this operation is open to nobody")
		return
	}
	if a.public {
		next(hc)
		return
	}
	p, refusal := s.principal(hc)
	if refusal == nil {
		refusal = s.allowed(a, p)
	}
	if refusal != nil {
		deny(hc, refusal.status, refusal.Detail)
		return
	}
	next(huma.WithValue(hc, principalKey{}, p))
}

// principal is who sent the request.
func (s *Server) principal(hc huma.Context) (store.Principal, *apiError) {
	key := hc.Header("X-API-Key")
	if b, ok := strings.CutPrefix(hc.Header("Authorization"), "Bearer "); key == "" && ok {
		key = strings.TrimSpace(b)
	}
	if key == "" {
		return store.Principal{}, text(http.StatusUnauthorized, "API key is missing: send it as X-API-Key (get one with phala login)")
	}
	p, err := s.store.ByKey(hc.Context(), sha256.Sum256([]byte(key)))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return p, text(http.StatusUnauthorized, "this API key is not valid: it was revoked, has expired, or belongs to another cloud (phala login)")
	case err != nil:
		s.log.Error("reading a key", "err", err)
		return p, text(http.StatusInternalServerError, "internal error (see the cloud API's log)")
	}
	if w := hc.Header("X-Workspace-Id"); w != "" && w != p.WorkspaceSlug {
		return p, text(http.StatusForbidden, "this API key does not belong to that workspace")
	}
	return p, nil
}

// allowed checks role, scope and the second factor.
func (s *Server) allowed(a access, p store.Principal) *apiError {
	switch {
	case p.MustChange && p.KeyID == 0 && !a.unready:
		return text(http.StatusForbidden, "change the one-time password first")
	case a.operator && !p.Operator():
		return text(http.StatusForbidden, "only who operates this cloud may do that")
	case !p.Member.Allows(a.role):
		return text(http.StatusForbidden, fmt.Sprintf("this needs the role %s in the workspace, yours is %s", a.role, p.Member))
	case !store.ScopeGrants(p.Scopes, a.scope):
		return text(http.StatusForbidden, "this API key lacks the scope "+a.scope)
	}
	return nil
}
