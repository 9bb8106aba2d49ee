package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

func (s *Server) listing(ctx context.Context, legacy bool, cvms []store.CVM) ([]any, error) {
	ops, err := s.opsOf(ctx, cvms)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, c := range cvms {
		if legacy {
			out = append(out, s.legacyInfo(who(ctx), c, ops[c.ID]))
			continue
		}
		out = append(out, s.info(who(ctx), c, ops[c.ID]))
	}
	return out, nil
}

// opsOf reads the open operations of a list at once.
func (s *Server) opsOf(ctx context.Context, cvms []store.CVM) (map[int64][]store.Operation, error) {
	ids := make([]int64, len(cvms))
	for i, c := range cvms {
		ids[i] = c.ID
	}
	return s.store.OpenOpsOf(ctx, ids)
}

// readAtOnce is how many CVMs are read for an answer that has all, or looks at all: so
// many are in memory, whatever a workspace has.
const readAtOnce = 500

// each calls fn with all CVMs that match, newest first, some at a time.
func (s *Server) each(ctx context.Context, q store.ListQuery, fn func([]store.CVM)) error {
	for before := int64(0); ; {
		some, err := s.store.Older(ctx, q, before, readAtOnce)
		if err != nil {
			return err
		}
		fn(some)
		if len(some) < readAtOnce {
			return nil
		}
		before = some[len(some)-1].ID
	}
}

// listCVMs writes all CVMs as they are read. An answer that breaks off is no JSON.
func (s *Server) listCVMs(ctx context.Context, in *Versioned) (func(huma.Context), error) {
	q := store.ListQuery{Workspace: who(ctx).WorkspaceID}
	read := func(before int64) (items []any, last int64, err error) {
		some, err := s.store.Older(ctx, q, before, readAtOnce)
		if err != nil {
			return nil, 0, err
		}
		if len(some) == readAtOnce {
			last = some[readAtOnce-1].ID
		}
		items, err = s.listing(ctx, in.legacy(), some)
		return items, last, err
	}
	items, last, err := read(0)
	if err != nil {
		return nil, err
	}
	return func(hc huma.Context) {
		w := bufio.NewWriter(hc.BodyWriter())
		defer func() { _ = w.Flush() }() // nobody reads any more
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = w.WriteByte('[')
		for n := 0; ; {
			for _, v := range items {
				if n++; n > 1 {
					_ = w.WriteByte(',')
				}
				if err := enc.Encode(v); err != nil {
					return
				}
			}
			if last == 0 {
				_, _ = w.WriteString("]\n")
				return
			}
			if items, last, err = read(last); err != nil {
				s.log.Error("listing CVMs", "err", err)
				return
			}
		}
	}, nil
}

type pageCVMsInput struct {
	Versioned
	PageInput
	NodeID   int64 `query:"node_id"`
	TeepodID int64 `query:"teepod_id"`
}

func (s *Server) pageCVMs(ctx context.Context, in *pageCVMsInput) (any, error) {
	cvms, total, err := s.store.Page(ctx, in.query(store.ListQuery{Workspace: who(ctx).WorkspaceID, Node: max(in.NodeID, in.TeepodID)}))
	if err != nil {
		return nil, err
	}
	items, err := s.listing(ctx, in.legacy(), cvms)
	return cloudapi.Page[any]{Items: items, Total: total, Page: in.Page, PageSize: in.PageSize, Pages: in.pages(total)}, err
}

type cvmInput struct {
	Versioned
	IDInput
}

func (s *Server) getCVM(ctx context.Context, in *cvmInput) (any, error) {
	c, err := s.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !in.legacy() {
		return s.detail(ctx, who(ctx), c)
	}
	ops, err := s.store.OpenOps(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	v := s.legacyDetail(c, ops)
	v["syslog_endpoint"], v["encrypted_env_pubkey"] = s.consoleLink(ctx, c), s.envPubkey(ctx, c)
	return v, nil
}

type batchInput struct {
	Body cloudapi.StatusBatchRequest
}

// statusBatch leaves out what the caller cannot see.
func (s *Server) statusBatch(ctx context.Context, in *batchInput) (map[string]cloudapi.BatchStatus, error) {
	out := map[string]cloudapi.BatchStatus{}
	for _, id := range in.Body.VMUUIDs {
		found, err := s.store.Find(ctx, who(ctx).WorkspaceID, id, false)
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			continue
		}
		c := found[0]
		ops, err := s.store.OpenOps(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		b := cloudapi.BatchStatus{VMUUID: c.UUID, Status: c.Status, Uptime: opt(uptime(c, s.now())), InProgress: len(ops) > 0,
			BootProgress: opt(c.BootProgress), BootError: bootError(c)}
		if len(ops) > 0 {
			o := ops[len(ops)-1]
			b.OperationType, b.OperationStartedAt, b.CorrelationID = ptr(o.Kind), ptr(stamp(o.CreatedAt)), ptr(o.CorrelationID)
		}
		out[id] = b
	}
	return out, nil
}

type eventsInput struct {
	IDInput
	After int64 `query:"after" doc:"only events with a higher seq"`
	Limit int   `query:"limit" default:"1000" minimum:"1" maximum:"1000"`
}

func (s *Server) events(ctx context.Context, in *eventsInput) ([]cloudapi.Event, error) {
	c, err := s.resolve(ctx, in.ID, true)
	if err != nil {
		return nil, err
	}
	out, err := s.store.Events(ctx, c.ID, in.After, in.Limit)
	if out == nil {
		out = []cloudapi.Event{}
	}
	return out, err
}

type appsInput struct {
	PageInput
	Search string   `query:"search" doc:"within a name, or the beginning of an app id, vm_uuid or instance_id"`
	Status []string `query:"status,explode"`
	AppsFilter
}

func (s *Server) apps(ctx context.Context, in *appsInput) (out cloudapi.Apps, err error) {
	page, total, err := s.appPage(ctx, in)
	if err != nil {
		return out, err
	}
	out = cloudapi.Apps{DstackApps: []cloudapi.App{}, Page: in.Page, PageSize: in.PageSize, Total: total, TotalPages: in.pages(total)}
	ops, err := s.opsOf(ctx, slices.Concat(page...))
	for _, cvms := range page {
		out.DstackApps = append(out.DstackApps, s.appView(ctx, cvms, ops))
	}
	return out, err
}

// appView shows an app by its CVMs, newest first.
func (s *Server) appView(ctx context.Context, cvms []store.CVM, ops map[int64][]store.Operation) cloudapi.App {
	first := cvms[len(cvms)-1]
	a := cloudapi.App{ID: first.AppID, Name: cvms[0].Name, AppID: first.AppID, CreatedAt: stamp(first.CreatedAt), KMSType: s.cfg.kmsType(), CVMCount: len(cvms)}
	for _, c := range cvms {
		a.CVMs = append(a.CVMs, s.info(who(ctx), c, ops[c.ID]))
	}
	a.CurrentCVM = &a.CVMs[0]
	return a
}

// AppInput names an app in the path.
type AppInput struct {
	AppID string `path:"app_id"`
}

func (s *Server) cvmsOf(ctx context.Context, appID string) ([]store.CVM, error) {
	id := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(appID), "app_"), "0x")
	all, _, err := s.store.Page(ctx, store.ListQuery{Workspace: who(ctx).WorkspaceID, App: id})
	if err != nil {
		return nil, err
	}
	if id == "" || len(all) == 0 {
		return nil, text(http.StatusNotFound, "App not found")
	}
	return all, nil
}

func (s *Server) app(ctx context.Context, in *AppInput) (out cloudapi.App, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	ops, err := s.opsOf(ctx, cvms)
	return s.appView(ctx, cvms, ops), err
}

type appCVMsInput struct {
	Versioned
	AppInput
}

func (s *Server) appCVMs(ctx context.Context, in *appCVMsInput) (any, error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return nil, err
	}
	return s.listing(ctx, in.legacy(), cvms)
}

type revisionsInput struct {
	AppInput
	Page     int `query:"page" default:"1" minimum:"1"`
	PageSize int `query:"page_size" default:"20" minimum:"1" maximum:"1000"`
}

func (s *Server) revisions(ctx context.Context, in *revisionsInput) (out cloudapi.Revisions, err error) {
	cvms, err := s.cvmsOf(ctx, in.AppID)
	if err != nil {
		return out, err
	}
	p := who(ctx)
	all, err := s.store.Revisions(ctx, p.WorkspaceID, cvms[0].AppID)
	if err != nil {
		return out, err
	}
	page := paginate(all, PageInput{in.Page, in.PageSize})
	out = cloudapi.Revisions{Revisions: []cloudapi.Revision{}, Total: page.Total, Page: page.Page, PageSize: page.PageSize, TotalPages: page.Pages}
	for _, r := range page.Items {
		c, err := s.store.CVM(ctx, r.CVMID)
		if err != nil {
			return out, err
		}
		out.Revisions = append(out.Revisions, revisionView(p, r, c))
	}
	return out, nil
}
