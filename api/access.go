package api

import (
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/store"
)

// access is who may use an operation. Every operation says it where it is registered;
// one that does not keeps the server from starting.
type access struct {
	public  bool       // nobody needs to sign in
	role    store.Role // the least role in the workspace
	scope   string     // what a key must have been granted: area:read or area:write
	stepUp  bool       // a second factor, and a fresh proof of it (403 without one, 428 when stale)
	fresh   bool       // 428 when the caller has a second factor and did not prove it just now
	unready bool       // also with a one-time password that was not changed yet
}

// open is for operations that need no key.
func open() access { return access{public: true} }

// reads is for whoever may see the workspace.
func reads(area string) access { return access{role: store.Viewer, scope: area + ":read"} }

// writes is for members.
func writes(area string) access { return access{role: store.Member, scope: area + ":write"} }

// manages is for the workspace's admins.
func manages(area string) access { return access{role: store.Admin, scope: area + ":write"} }

// Guarded is an operation with who may use it.
type Guarded struct {
	Method, Path string
	Public       bool
	Role         store.Role
	Scope        string
	StepUp       bool
}

// Operations lists every operation with who may use it, as it is enforced.
func (s *Server) Operations() []Guarded { return append([]Guarded{}, s.guards...) }

// accessKey is where an operation's metadata holds its access.
const accessKey = "access"

// guard puts who may use it into an operation, and refuses one that does not say.
func (s *Server) guard(h *huma.Operation, a access) bool {
	if !a.public && (!a.role.Known() || !store.ScopeGrants(store.AllScopes, a.scope)) {
		s.refused = append(s.refused, fmt.Errorf("%s %s names no access: set op.access to open(), reads(area), writes(area) or manages(area)", h.Method, h.Path))
		return false
	}
	if h.Metadata == nil {
		h.Metadata = map[string]any{}
	}
	h.Metadata[accessKey] = a
	if !a.public {
		h.Security = []map[string][]string{{"key": {}}}
	}
	s.guards = append(s.guards, Guarded{h.Method, h.Path, a.public, a.role, a.scope, a.stepUp})
	return true
}
