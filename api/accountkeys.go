package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

func (s *Server) keyRoutes(api huma.API) {
	see := access{role: store.Viewer, scope: "keys:read"}
	change := access{role: store.Viewer, scope: "keys:write", fresh: true} // a key may do no more than its user
	register(s, api, op{method: "GET", path: "/user/api-tokens", summary: "Your API keys in the workspace", access: see}, s.listKeys)
	register(s, api, op{method: "POST", path: "/user/api-tokens", summary: "Make an API key (shown once)", status: 201, access: change}, s.createKey)
	register(s, api, op{method: "DELETE", path: "/user/api-tokens/{id}", summary: "Revoke an API key", status: 204, access: change}, s.revokeKey)
}

func publicKey(k store.Key, p store.Principal) cloudapi.Token {
	out := cloudapi.Token{ID: k.ID, Name: k.Name, TokenPrefix: ptr(k.Prefix), IsActive: true, CreatedAt: k.CreatedAt, DefaultVersion: opt(k.Version),
		TeamName: ptr(p.WorkspaceName), TeamSlug: ptr(p.WorkspaceSlug), Scopes: strings.Fields(k.Scopes), LastUsedAt: opt(k.LastUsedAt), ExpiresAt: opt(k.ExpiresAt)}
	return out
}

func (s *Server) listKeys(ctx context.Context, _ *none) ([]cloudapi.Token, error) {
	p := who(ctx)
	keys, err := s.store.KeysOf(ctx, p.UserID, p.WorkspaceID)
	out := make([]cloudapi.Token, 0, len(keys))
	for _, k := range keys {
		v := publicKey(k, p)
		v.IsActive = k.ExpiresAt.IsZero() || k.ExpiresAt.After(s.now())
		out = append(out, v)
	}
	return out, err
}

func (s *Server) createKey(ctx context.Context, in *bodyOf[cloudapi.TokenCreate]) (out cloudapi.Token, err error) {
	p := who(ctx)
	key, k := makeKey(in.Body.Name)
	if k.Scopes, err = narrow(p.Scopes, in.Body.Scopes); err != nil {
		return out, err
	}
	if in.Body.ExpiresInDays != nil {
		k.ExpiresAt = s.now().Add(time.Duration(*in.Body.ExpiresInDays) * 24 * time.Hour).UTC()
	}
	if in.Body.DefaultVersion != nil {
		k.Version = *in.Body.DefaultVersion
	}
	if k, err = s.store.AddKey(ctx, p, k); err != nil {
		return out, err
	}
	out = publicKey(k, p)
	out.Token = ptr(key)
	return out, nil
}

// narrow is what a new key may do: what was asked for, if the caller may do it, else
// all that the caller may.
func narrow(granted string, want []string) (string, error) {
	if len(want) == 0 {
		return granted, nil
	}
	var p problems
	for i, w := range want {
		switch {
		case !store.ValidScope(w):
			p.add(fmt.Sprintf("scopes.%d", i), "value_error", "unknown scope "+w, "areas: "+strings.Join(store.ScopeAreas(), ", ")+"; area:read, area:write or area:*")
		case !covers(granted, w):
			return "", text(http.StatusForbidden, "your own key lacks the scope "+w)
		}
	}
	slices.Sort(want)
	return strings.Join(slices.Compact(want), " "), p.err()
}

// covers tells whether granted scopes reach as far as another one.
func covers(granted, scope string) bool {
	for _, area := range store.ScopeAreas() {
		for _, verb := range []string{":read", ":write"} {
			if store.ScopeGrants(scope, area+verb) && !store.ScopeGrants(granted, area+verb) {
				return false
			}
		}
	}
	return true
}

func (s *Server) revokeKey(ctx context.Context, in *NumberInput) (none, error) {
	p := who(ctx)
	id, err := in.number("")
	if err == nil {
		err = s.store.RevokeKey(ctx, p.UserID, p.WorkspaceID, id)
	}
	return none{}, named(err, "API key not found")
}
