package store

import (
	"slices"
	"strings"
)

// Role is what a user may do in a workspace.
type Role string

// The roles of a workspace, each with all that the ones below it may do.
const (
	Owner  Role = "owner"
	Admin  Role = "admin"
	Member Role = "member"
	Viewer Role = "viewer"
)

// RoleInfo is a row of the table of roles.
type RoleInfo struct {
	Name Role   `json:"name"`
	Rank int    `json:"rank" doc:"a role may do what those of lower rank may"`
	May  string `json:"may"`
}

// Roles is the table of roles, highest first.
func Roles() []RoleInfo {
	return []RoleInfo{
		{Owner, 4, "everything, owners and the workspace itself included"},
		{Admin, 3, "members, invitations, webhooks, audit log and billing"},
		{Member, 2, "create, change and delete CVMs"},
		{Viewer, 1, "read"},
	}
}

// Rank orders roles; an unknown one has rank 0 and may do nothing.
func (r Role) Rank() int {
	for _, i := range Roles() {
		if i.Name == r {
			return i.Rank
		}
	}
	return 0
}

// Known tells whether r is one of the roles.
func (r Role) Known() bool { return r.Rank() > 0 }

// Allows tells whether r may do what least may; an unknown role on either side may not.
func (r Role) Allows(least Role) bool { return least.Known() && r.Rank() >= least.Rank() }

// AllScopes is the scope that grants every other.
const AllScopes = "*"

// ScopeAreas are the areas of scopes; a scope is area:read, area:write (which grants
// reading too) or area:*.
func ScopeAreas() []string {
	return []string{"apps", "audit", "billing", "cvms", "keys", "nodes", "user", "webhooks", "workspaces"}
}

// ValidScope tells whether s can be granted. "user:profile" is what the public CLI
// calls user:*.
func ValidScope(s string) bool {
	area, verb, ok := strings.Cut(s, ":")
	return s == AllScopes || s == "user:profile" ||
		ok && slices.Contains(ScopeAreas(), area) && (verb == "read" || verb == "write" || verb == "*")
}

// ScopeGrants tells whether granted, scopes with spaces between, cover the needed
// scope (area:read or area:write). The apps are made of CVMs, and cvms grants both.
func ScopeGrants(granted, needed string) bool {
	area, verb, ok := strings.Cut(needed, ":")
	if !ok || verb != "read" && verb != "write" || !slices.Contains(ScopeAreas(), area) {
		return false
	}
	for g := range strings.FieldsSeq(granted) {
		if g == AllScopes {
			return true
		}
		ga, gv, _ := strings.Cut(g, ":")
		if ga != area && (ga != "cvms" || area != "apps") {
			continue
		}
		if gv == "*" || gv == "write" || gv == verb || g == "user:profile" {
			return true
		}
	}
	return false
}
