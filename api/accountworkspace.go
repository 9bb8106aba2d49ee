package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

const (
	invitationTTL    = 7 * 24 * time.Hour
	invitationPrefix = "phai_"
)

func (s *Server) workspaceRoutes(api huma.API) {
	add := access{role: store.Viewer, scope: "workspaces:write"}
	register(s, api, op{method: "GET", path: "/workspaces", summary: "Your workspaces", access: self("read")}, s.workspaces)
	register(s, api, op{method: "POST", path: "/workspaces", summary: "Make a workspace that you own", status: 201, access: add}, s.createWorkspace)
	register(s, api, op{method: "GET", path: "/workspaces/{slug}", summary: "One of your workspaces", access: self("read")}, s.workspace)
	register(s, api, op{method: "GET", path: "/workspaces/{slug}/quotas", summary: "Limits of the workspace", access: reads("workspaces")}, s.quotas)
	register(s, api, op{method: "POST", path: "/workspaces/{slug}/leave", summary: "Leave the workspace", status: 204, access: add}, s.leave)
	register(s, api, op{method: "GET", path: "/workspaces/{slug}/members", summary: "The workspace's people", access: reads("workspaces")}, s.members)
	register(s, api, op{method: "PATCH", path: "/workspaces/{slug}/members/{id}", summary: "Change a member's role", status: 204, access: manages("workspaces")}, s.setRole)
	register(s, api, op{method: "DELETE", path: "/workspaces/{slug}/members/{id}", summary: "Remove a member", status: 204, access: manages("workspaces")}, s.removeMember)
	see := access{role: store.Admin, scope: "workspaces:read"}
	register(s, api, op{method: "GET", path: "/workspaces/{slug}/invitations", summary: "Invitations to the workspace", access: see}, s.invitations)
	register(s, api, op{method: "POST", path: "/workspaces/{slug}/invitations", summary: "Invite somebody (the token is shown once)", status: 201, access: manages("workspaces")}, s.invite)
	register(s, api, op{method: "DELETE", path: "/workspaces/{slug}/invitations/{id}", summary: "Revoke an invitation", status: 204, access: manages("workspaces")}, s.revokeInvitation)
	register(s, api, op{method: "GET", path: "/invitations/{token}", summary: "What an invitation is for", access: open()}, s.invitation)
	register(s, api, op{method: "POST", path: "/invitations/{token}/accept", summary: "Join with your account", access: self("write")}, s.acceptInvitation)
	register(s, api, op{method: "POST", path: "/invitations/{token}/register", summary: "Make an account and join", access: open()}, s.registerInvited)
	register(s, api, op{method: "GET", path: "/roles", summary: "The table of roles", access: open()}, s.roles)
}

func (s *Server) roles(context.Context, *none) ([]store.RoleInfo, error) { return store.Roles(), nil }

func (s *Server) publicWorkspace(ctx context.Context, w store.Workspace) (cloudapi.WorkspaceInfo, error) {
	name, _, err := s.tierOf(ctx, w.ID)
	return cloudapi.WorkspaceInfo{ID: wksID(w.ID), Name: w.Name, Slug: ptr(w.Slug), Tier: name, Role: string(w.Role), IsDefault: w.Default, CreatedAt: w.CreatedAt}, err
}

// tierOf is a workspace's tier and its limits.
func (s *Server) tierOf(ctx context.Context, workspace int64) (string, billing.Limits, error) {
	a, err := s.store.Account(ctx, workspace)
	name, limits := s.cfg.Billing.tier(a.Tier)
	return name, limits, err
}

type cursorInput struct {
	Cursor string `query:"cursor" pattern:"^[0-9]{0,18}$"`
	Limit  int    `query:"limit" default:"50" minimum:"1" maximum:"100"`
}

func (s *Server) workspaces(ctx context.Context, in *cursorInput) (out cloudapi.Workspaces, err error) {
	after, _ := strconv.ParseInt(in.Cursor, 10, 64) // "" begins at the first
	list, err := s.store.WorkspacesOf(ctx, who(ctx).UserID, after, in.Limit+1)
	if err != nil {
		return out, err
	}
	out.Data = []cloudapi.WorkspaceInfo{}
	for i, w := range list {
		if i == in.Limit {
			out.Pagination = cloudapi.Pagination{HasMore: true, NextCursor: ptr(strconv.FormatInt(list[i-1].ID, 10))}
			break
		}
		v, err := s.publicWorkspace(ctx, w)
		if err != nil {
			return out, err
		}
		out.Data = append(out.Data, v)
	}
	return out, nil
}

func (s *Server) createWorkspace(ctx context.Context, in *bodyOf[cloudapi.WorkspaceCreate]) (out cloudapi.WorkspaceInfo, err error) {
	if ok, _ := regexp.MatchString(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`, in.Body.Slug); !ok { // the pattern is good
		return out, invalid("slug", "want words of a-z 0-9 with single dashes between, a letter first")
	}
	w, err := s.store.CreateWorkspace(ctx, who(ctx).UserID, in.Body.Name, in.Body.Slug)
	if errors.Is(err, store.ErrTaken) {
		return out, text(http.StatusConflict, "this slug is taken")
	}
	if err != nil {
		return out, err
	}
	return s.publicWorkspace(ctx, w)
}

// SlugInput names a workspace in the path.
type SlugInput struct {
	Slug string `path:"slug"`
}

const noWorkspace = "workspace not found"

// in refuses any workspace but the one that the request is about; another one and
// none look the same. (A browser chooses with X-Workspace-Id.)
func (in SlugInput) in(p store.Principal) error {
	if in.Slug != p.WorkspaceSlug {
		return text(http.StatusNotFound, noWorkspace)
	}
	return nil
}

func (s *Server) workspace(ctx context.Context, in *SlugInput) (out cloudapi.WorkspaceInfo, err error) {
	for after := int64(0); ; {
		list, err := s.store.WorkspacesOf(ctx, who(ctx).UserID, after, 100)
		if err != nil {
			return out, err
		}
		for _, w := range list {
			if w.Slug == in.Slug {
				return s.publicWorkspace(ctx, w)
			}
			after = w.ID
		}
		if len(list) == 0 {
			return out, text(http.StatusNotFound, noWorkspace)
		}
	}
}

func (s *Server) members(ctx context.Context, in *SlugInput) ([]cloudapi.WorkspaceMember, error) {
	p := who(ctx)
	if err := in.in(p); err != nil {
		return nil, err
	}
	list, err := s.store.Members(ctx, p.WorkspaceID)
	out := make([]cloudapi.WorkspaceMember, 0, len(list))
	for _, m := range list {
		out = append(out, cloudapi.WorkspaceMember{UserID: userID(m.UserID), Username: m.Username, Email: opt(m.Email), Role: string(m.Role), JoinedAt: m.JoinedAt, IsCreator: m.Creator})
	}
	return out, err
}

// MemberInput names a member in the path.
type MemberInput struct {
	SlugInput
	NumberInput
}

type roleInput struct {
	MemberInput
	Body cloudapi.RoleUpdate
}

func (s *Server) setRole(ctx context.Context, in *roleInput) (none, error) {
	role := store.Role(in.Body.Role)
	if !role.Known() {
		return none{}, invalid("role", "want owner, admin, member or viewer")
	}
	if !who(ctx).Member.Allows(role) {
		return none{}, text(http.StatusForbidden, "you cannot give a role above your own")
	}
	return none{}, s.changeMember(ctx, in.MemberInput, role)
}

func (s *Server) removeMember(ctx context.Context, in *MemberInput) (none, error) {
	return none{}, s.changeMember(ctx, *in, "")
}

// changeMember refuses to touch somebody of a role above the caller's.
func (s *Server) changeMember(ctx context.Context, in MemberInput, role store.Role) error {
	p := who(ctx)
	if err := in.in(p); err != nil {
		return err
	}
	id, err := in.number("usr_")
	if err != nil {
		return named(err, "member not found")
	}
	list, err := s.store.Members(ctx, p.WorkspaceID)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.UserID == id && !p.Member.Allows(m.Role) {
			return text(http.StatusForbidden, "you cannot change somebody whose role is above your own")
		}
	}
	return s.memberChanged(s.store.SetRole(ctx, p.WorkspaceID, id, role))
}

func (s *Server) memberChanged(err error) error {
	if errors.Is(err, store.ErrLastOwner) {
		return text(http.StatusConflict, "a workspace needs an owner: make somebody else one first")
	}
	return named(err, "member not found")
}

func (s *Server) leave(ctx context.Context, in *SlugInput) (none, error) {
	p := who(ctx)
	if err := in.in(p); err != nil {
		return none{}, err
	}
	return none{}, s.memberChanged(s.store.SetRole(ctx, p.WorkspaceID, p.UserID, ""))
}

func (s *Server) invitationStatus(i store.Invitation) string {
	switch {
	case !i.AcceptedAt.IsZero():
		return "ACCEPTED"
	case !i.RevokedAt.IsZero():
		return "REVOKED"
	case !i.ExpiresAt.After(s.now()):
		return "EXPIRED"
	}
	return "PENDING"
}

func (s *Server) publicInvitation(i store.Invitation, token string) cloudapi.Invitation {
	return cloudapi.Invitation{ID: i.ID, Email: opt(i.Email), Role: string(i.Role), Status: s.invitationStatus(i), Token: token,
		InviterName: i.Inviter.Username, InviterEmail: i.Inviter.Email, CreatedAt: i.CreatedAt, ExpiresAt: i.ExpiresAt}
}

type slugPageInput struct {
	SlugInput
	PageInput
}

func (s *Server) invitations(ctx context.Context, in *slugPageInput) (out cloudapi.Page[cloudapi.Invitation], err error) {
	p := who(ctx)
	if err := in.in(p); err != nil {
		return out, err
	}
	list, err := s.store.InvitationsTo(ctx, p.WorkspaceID)
	all := make([]cloudapi.Invitation, 0, len(list))
	for _, i := range list {
		all = append(all, s.publicInvitation(i, ""))
	}
	return paginate(all, in.PageInput), err
}

type inviteInput struct {
	SlugInput
	Body cloudapi.InvitationCreate
}

func (s *Server) invite(ctx context.Context, in *inviteInput) (out cloudapi.Invitation, err error) {
	p := who(ctx)
	if err := in.in(p); err != nil {
		return out, err
	}
	role := store.Role(in.Body.Role)
	if !role.Known() {
		return out, invalid("role", "want owner, admin, member or viewer")
	}
	if in.Body.Email != "" && !isEmail(in.Body.Email) {
		return out, invalid("email", "this is no address")
	}
	if !p.Member.Allows(role) {
		return out, text(http.StatusForbidden, "you cannot invite to a role above your own")
	}
	token, hash := newToken(invitationPrefix)
	i, err := s.store.AddInvitation(ctx, p, in.Body.Email, role, hash, invitationTTL)
	return s.publicInvitation(i, token), err
}

type invitationInput struct {
	SlugInput
	NumberInput
}

func (s *Server) revokeInvitation(ctx context.Context, in *invitationInput) (none, error) {
	p := who(ctx)
	if err := in.in(p); err != nil {
		return none{}, err
	}
	id, err := in.number("")
	if err == nil {
		err = s.store.RevokeInvitation(ctx, p.WorkspaceID, id)
	}
	return none{}, named(err, noInvitation)
}

const noInvitation = "invitation not found, used or expired"

// TokenInput is an invitation in the path.
type TokenInput struct {
	Token string `path:"token"`
}

func (in TokenInput) hash() [32]byte { return sha256.Sum256([]byte(in.Token)) }

func (s *Server) invitation(ctx context.Context, in *TokenInput) (out cloudapi.InvitationDetail, err error) {
	i, err := s.store.Invitation(ctx, in.hash())
	if err != nil {
		return out, named(err, noInvitation)
	}
	return cloudapi.InvitationDetail{Email: opt(i.Email), TeamName: i.Workspace.Name, TeamSlug: ptr(i.Workspace.Slug), InviterName: i.Inviter.Username,
		InviterEmail: i.Inviter.Email, Role: string(i.Role), ExpiresAt: i.ExpiresAt, Status: s.invitationStatus(i)}, nil
}

func (s *Server) acceptInvitation(ctx context.Context, in *TokenInput) (out cloudapi.InvitationAccepted, err error) {
	return s.accepted(s.store.Accept(ctx, in.hash(), who(ctx).UserID, "", ""))
}

func (s *Server) accepted(i store.Invitation, err error) (out cloudapi.InvitationAccepted, _ error) {
	if errors.Is(err, store.ErrTaken) {
		return out, text(http.StatusConflict, "you are a member already, or the username is taken")
	}
	if err != nil {
		return out, named(err, noInvitation)
	}
	return cloudapi.InvitationAccepted{Message: "welcome", WorkspaceSlug: i.Workspace.Slug, WorkspaceName: i.Workspace.Name}, nil
}

type registerInput struct {
	TokenInput
	Body cloudapi.InvitationRegister
}

func (s *Server) registerInvited(ctx context.Context, in *registerInput) (out cloudapi.InvitationAccepted, err error) {
	hc := requestOf(ctx)
	if err := s.take(ctx, limitAddress(), s.address(hc.RemoteAddr(), hc.Header("X-Forwarded-For"))); err != nil {
		return out, err
	}
	i, err := s.store.Invitation(ctx, in.hash())
	if err == nil && s.invitationStatus(i) != "PENDING" {
		err = store.ErrNotFound
	}
	if err != nil {
		return out, named(err, noInvitation)
	}
	name, ok := username(in.Body.Username)
	if !ok {
		return out, invalid("username", "want 2 to 64 of a-z 0-9 . _ @ + -")
	}
	if why := weakPassword(in.Body.Password, name); why != "" {
		return out, invalid("password", why)
	}
	hash, err := s.hashPassword(ctx, in.Body.Password)
	if err != nil {
		return out, err
	}
	if d := store.AuditOf(ctx); d != nil {
		d.Chain, d.Entry.User = i.Workspace.ID, name
	}
	return s.accepted(s.store.Accept(ctx, in.hash(), 0, name, hash))
}
