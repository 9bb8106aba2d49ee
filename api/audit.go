package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// changes tells whether requests of an operation are audited: all that may change
// something.
func (a access) changes(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && (a.public || len(a.scope) > 6 && a.scope[len(a.scope)-6:] == ":write")
}

// draft is the audit entry of a request. A token in the path is left out of it.
func (s *Server) draft(hc huma.Context) *store.AuditDraft {
	o := hc.Operation()
	target := []byte(o.Path)
	for _, p := range o.Parameters {
		if p.In == "path" && p.Name != "token" {
			target = bytes.ReplaceAll(target, []byte("{"+p.Name+"}"), []byte(hc.Param(p.Name)))
		}
	}
	return &store.AuditDraft{Entry: cloudapi.AuditEntry{
		Action: o.OperationID, Target: clip(string(target), 512), Address: s.address(hc.RemoteAddr(), hc.Header("X-Forwarded-For")),
		Outcome: cloudapi.AuditDone, Request: uuid.NewString(),
	}}
}

// startDraft is the entry of what the server does by itself.
func startDraft(action string) *store.AuditDraft {
	return &store.AuditDraft{Entry: cloudapi.AuditEntry{Action: action, Outcome: cloudapi.AuditDone, Request: uuid.NewString()}}
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// audited records a request that changed nothing in the store; one that changed
// something was recorded with the change. A failed audit is a failed call.
func (s *Server) audited(ctx context.Context) error {
	d := store.AuditOf(ctx)
	if d == nil || d.Quiet || d.Written > 0 {
		return nil
	}
	return s.store.Audit(ctx, d)
}

// refuse answers a failed request, and records it when it was not allowed.
func (s *Server) refuse(ctx context.Context, err error) error {
	out := s.answer(ctx, err)
	if e := (*apiError)(nil); errors.As(out, &e) && forbidden(e.status) {
		s.denied(ctx, store.AuditOf(ctx))
	}
	return out
}

func forbidden(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusPreconditionRequired
}

// denied records what somebody who signed in was not allowed to do.
func (s *Server) denied(ctx context.Context, d *store.AuditDraft) {
	if d == nil || d.Entry.User == "" {
		return
	}
	d.Entry.Outcome = cloudapi.AuditDenied
	if err := s.store.Audit(ctx, d); err != nil {
		s.log.Error("audit of a refusal", "err", err)
	}
}

func (s *Server) auditRoutes(api huma.API) {
	see := access{role: store.Admin, scope: "audit:read"}
	register(s, api, op{method: "GET", path: "/audit", summary: "The workspace's audit log", access: see}, s.auditPage)
	register(s, api, op{method: "GET", path: "/audit/verify", summary: "Is every line of the audit log as it was written", access: see}, s.auditVerify)
	export := op{method: "GET", path: "/audit/export", access: see}
	h := huma.Operation{
		OperationID: operationID(export), Method: export.method, Path: cloudapi.Prefix + export.path, Tags: []string{"audit"},
		Summary:   "The whole audit log, a JSON object per line; the hash of each line is in the next one",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"application/x-ndjson": {}}}},
	}
	if s.guard(&h, see) {
		huma.Register(api, h, s.auditExport)
	}
}

// AuditInput chooses a log.
type AuditInput struct {
	Cloud bool `query:"cloud" doc:"the log of what belongs to no workspace, for who operates the cloud"`
}

type auditPageInput struct {
	AuditInput
	After int64 `query:"after" minimum:"0" doc:"only lines with a higher seq"`
	Limit int   `query:"limit" default:"100" minimum:"1" maximum:"1000"`
}

func (in AuditInput) chain(p store.Principal) (int64, error) {
	if !in.Cloud {
		return p.WorkspaceID, nil
	}
	if !p.Operator() {
		return 0, text(http.StatusForbidden, "only who operates this cloud may do that")
	}
	return 0, nil
}

func (s *Server) auditPage(ctx context.Context, in *auditPageInput) (out cloudapi.AuditPage, err error) {
	chain, err := in.chain(who(ctx))
	if err != nil {
		return out, err
	}
	lines, err := s.store.AuditLines(ctx, chain, in.After, in.Limit)
	if err != nil {
		return out, err
	}
	out.Items = make([]cloudapi.AuditEntry, len(lines))
	for i, line := range lines {
		if err := json.Unmarshal(line, &out.Items[i]); err != nil {
			return out, cvm.Errorf(cvm.Internal, "audit line after %d: %w", in.After, err)
		}
	}
	out.Head, err = s.store.AuditHead(ctx, chain)
	return out, err
}

const auditBatch = 500

// auditLines calls fn with every line of a log up to its present end.
func (s *Server) auditLines(ctx context.Context, chain int64, fn func(line []byte) error) error {
	head, err := s.store.AuditHead(ctx, chain)
	if err != nil {
		return err
	}
	for at := int64(0); at < head.Seq; at += auditBatch {
		lines, err := s.store.AuditLines(ctx, chain, at, int(min(auditBatch, head.Seq-at)))
		if err != nil {
			return err
		}
		for _, l := range lines {
			if err := fn(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) auditVerify(ctx context.Context, in *AuditInput) (out cloudapi.AuditVerdict, err error) {
	chain, err := in.chain(who(ctx))
	if err != nil {
		return out, err
	}
	want, err := s.store.AuditHead(ctx, chain)
	if err != nil {
		return out, err
	}
	var broken error
	err = s.auditLines(ctx, chain, func(line []byte) error {
		if broken == nil && out.Head.Seq < want.Seq {
			out.Head, broken = out.Head.Next(line)
		}
		return nil
	})
	switch {
	case err != nil:
		return out, err
	case broken != nil:
		out.Problem = broken.Error()
	case out.Head != want:
		out.Problem = "the newest lines are gone, or the last one was changed"
	}
	out.Valid = out.Problem == ""
	return out, nil
}

func (s *Server) auditExport(ctx context.Context, in *AuditInput) (*huma.StreamResponse, error) {
	chain, err := in.chain(who(ctx))
	if err != nil {
		return nil, s.answer(ctx, err)
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", "application/x-ndjson")
		hc.SetHeader("Content-Disposition", `attachment; filename="audit.jsonl"`)
		err := s.auditLines(hc.Context(), chain, func(line []byte) error {
			_, err := hc.BodyWriter().Write(append(line, '\n'))
			return err
		})
		if err != nil {
			s.log.Error("audit export", "err", err)
		}
	}}, nil
}
