package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

func (s *Server) billingRoutes(api huma.API) {
	books := access{role: store.Admin, scope: "billing:read"}
	operator := access{role: store.Viewer, scope: "billing:write"} // and see operates
	register(s, api, op{method: "GET", path: "/apps/{app_id}/usage", summary: "What an app used, by day", access: reads("apps")}, s.appUsage)
	register(s, api, op{method: "GET", path: "/workspace/usage", summary: "What the workspace used", access: reads("billing")}, s.workspaceUsage)
	register(s, api, op{method: "GET", path: "/workspace/balance", summary: "The workspace's money", access: reads("billing")}, s.balance)
	register(s, api, op{method: "GET", path: "/workspace/ledger", summary: "The workspace's ledger, oldest first", access: books}, s.ledgerPage)
	register(s, api, op{method: "GET", path: "/workspace/ledger/check", summary: "Compute the ledger again from the CVMs' events, and compare", access: books}, s.ledgerCheck)
	register(s, api, op{method: "GET", path: "/workspace/invoices", summary: "The workspace's invoices", access: books}, s.invoices)
	register(s, api, op{method: "GET", path: "/workspace/invoices/{month}", summary: "One month's invoice", access: books}, s.invoice)
	s.invoiceFiles(api, books)
	register(s, api, op{method: "GET", path: "/operator/workspaces/{slug}/balance", summary: "A workspace's money (for who operates the cloud)", access: operator}, s.balanceOf)
	register(s, api, op{method: "POST", path: "/operator/workspaces/{slug}/credits", summary: "Write money into a workspace's ledger (for who operates the cloud)", status: 201, access: operator}, s.addMoney)
	register(s, api, op{method: "PUT", path: "/operator/workspaces/{slug}/terms", summary: "A workspace's tier and mode of payment (for who operates the cloud)", access: operator}, s.setTerms)
}

// operates refuses everybody but the cloud's operator, before it tells anything.
func operates(ctx context.Context) error {
	if !who(ctx).Operator() {
		return text(http.StatusForbidden, "only who operates this cloud may do that")
	}
	return nil
}

// PeriodInput chooses a time.
type PeriodInput struct {
	Start string `query:"start_date" doc:"a date or RFC 3339; default 7 days before the end"`
	End   string `query:"end_date" doc:"the same; default now"`
}

const usageDays = 7

func (in PeriodInput) read(now time.Time) (from, to time.Time, err error) {
	to = now
	var list []cloudapi.Validation
	when := func(field, v string, into *time.Time) {
		if v == "" {
			return
		}
		t, err := time.Parse(time.DateOnly, v)
		if err != nil {
			t, err = parseWhen(v)
		}
		if *into = t; err != nil || t.Year() < 1 || t.Year() > 9999 {
			list = append(list, cloudapi.Validation{Loc: []any{"query", field}, Msg: "want a date like 2026-01-31, or RFC 3339", Type: "value_error"})
		}
	}
	when("end_date", in.End, &to)
	from = to.AddDate(0, 0, -usageDays)
	when("start_date", in.Start, &from)
	switch {
	case len(list) > 0:
		return from, to, &apiError{http.StatusUnprocessableEntity, list}
	case to.Before(from):
		return from, to, text(http.StatusBadRequest, "end_date is before start_date")
	}
	return from, to, nil
}

// lines are a workspace's lines that touch a time, with what is not in the ledger yet
// as it stands now (ID 0).
func (s *Server) lines(ctx context.Context, workspace int64, q store.LedgerQuery) ([]store.Entry, error) {
	// The meters first: a line that is written in between is then there twice in no case.
	open, err := s.openLines(ctx, workspace)
	if err != nil {
		return nil, err
	}
	out, err := s.store.Lines(ctx, workspace, q)
	written := map[string]bool{}
	for _, e := range out {
		written[e.Key] = true
	}
	for _, e := range open {
		after := q.From.IsZero() || e.To.After(q.From)
		if !written[e.Key] && after && (q.To.IsZero() || e.From.Before(q.To)) && (q.AppID == "" || q.AppID == e.AppID) {
			out = append(out, e)
		}
	}
	return out, err
}

// openLines is what stands open, as if it ended now.
func (s *Server) openLines(ctx context.Context, workspace int64) (out []store.Entry, err error) {
	prices, err := s.store.PriceLists(ctx)
	if err != nil {
		return nil, err
	}
	running, err := s.store.RunningMeters(ctx, workspace)
	now := s.now()
	for _, r := range running {
		m := r.Meter.Copy()
		for _, g := range m.Until(now, prices) {
			out = append(out, store.Entry{WorkspaceID: r.WorkspaceID, Key: fmt.Sprintf("cvm/%d/%d/%s/%d", r.CVMID, g.Seq, g.Kind, g.From.UnixMilli()),
				Kind: g.Kind, CVMID: r.CVMID, AppID: r.AppID, Amount: -g.Amount, From: g.From, To: g.To,
				EntryBody: store.EntryBody{UUID: r.UUID, Name: r.Name, Size: &g.Size, Rate: g.Rate, Seq: g.Seq}})
		}
	}
	return out, err
}

type appUsageInput struct {
	AppInput
	PeriodInput
	Limit  int `query:"limit" default:"500" minimum:"1" maximum:"5000"`
	Offset int `query:"offset" default:"0" minimum:"0" maximum:"1000000000"`
}

// appUsage has the public shape; of an app whose CVMs are deleted too.
func (s *Server) appUsage(ctx context.Context, in *appUsageInput) (out cloudapi.AppUsage, err error) {
	from, to, err := in.read(s.now())
	if err != nil {
		return out, err
	}
	p := who(ctx)
	id := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(in.AppID), "app_"), "0x")
	all, err := s.lines(ctx, p.WorkspaceID, store.LedgerQuery{AppID: cmp.Or(id, "-"), From: from, To: to})
	if err != nil {
		return out, err
	}
	if len(all) == 0 {
		if _, err := s.cvmsOf(ctx, in.AppID); err != nil {
			return out, s.usedOnce(ctx, p.WorkspaceID, id, err)
		}
	}
	out.Usage = []cloudapi.MeteredUsage{}
	begin := min(in.Offset, len(all))
	var sum billing.Micro
	for _, e := range all[begin:min(begin+in.Limit, len(all))] {
		out.Usage = append(out.Usage, meteredUsage(e))
		sum -= e.Amount
	}
	out.Total, out.TotalCost = len(out.Usage), sum.Float()
	return out, nil
}

// usedOnce is nil for an app of the workspace's past, else err.
func (s *Server) usedOnce(ctx context.Context, workspace int64, app string, err error) error {
	old, lerr := s.store.Lines(ctx, workspace, store.LedgerQuery{AppID: cmp.Or(app, "-"), Limit: 1})
	if lerr != nil || len(old) > 0 {
		return lerr
	}
	return err
}

func meteredUsage(e store.Entry) cloudapi.MeteredUsage {
	details, _ := json.Marshal(map[string]any{"hourly_rate": e.Rate, "size": e.Size, "event": e.Seq, "running": e.ID == 0, "amount": -e.Amount}) // plain values
	return cloudapi.MeteredUsage{InstanceID: e.UUID, ProjectID: e.CVMID, TeamID: e.WorkspaceID, Timestamp: stamp(e.From), EventType: "usage",
		Cost: (-e.Amount).Float(), Details: ptr(string(details)), UsageType: e.Kind, BillingStart: e.From.Format(time.DateOnly), BillingEnd: e.To.Format(time.DateOnly),
		DurationMinutes: e.To.Sub(e.From).Minutes(), BillingKey: e.Key, BillingHour: e.From.Format("2006-01-02T15:00:00Z"), BillingDay: e.From.Format(time.DateOnly)}
}

func (s *Server) workspaceUsage(ctx context.Context, in *PeriodInput) (out cloudapi.Usage, err error) {
	from, to, err := in.read(s.now())
	if err != nil {
		return out, err
	}
	all, err := s.lines(ctx, who(ctx).WorkspaceID, store.LedgerQuery{From: from, To: to})
	items, total := itemsOf(all)
	return cloudapi.Usage{From: from.UTC(), To: to.UTC(), Currency: s.cfg.Billing.Currency, Items: items, Total: total.String()}, err
}

// itemsOf sums usage by CVM, kind, size and rate.
func itemsOf(all []store.Entry) (out []cloudapi.UsageItem, total billing.Micro) {
	type group struct {
		cvm  int64
		kind string
		size billing.Size
		rate billing.Micro
	}
	type sum struct {
		last   store.Entry
		ms     int64
		amount billing.Micro
		open   bool
	}
	sums := map[group]*sum{}
	var order []group
	for _, e := range all {
		if e.Size == nil {
			continue
		}
		g := group{e.CVMID, e.Kind, *e.Size, e.Rate}
		if sums[g] == nil {
			sums[g] = &sum{}
			order = append(order, g)
		}
		v := sums[g]
		v.last, v.ms, v.amount, v.open = e, v.ms+e.To.Sub(e.From).Milliseconds(), v.amount-e.Amount, v.open || e.ID == 0
	}
	slices.SortStableFunc(order, func(a, b group) int {
		return cmp.Or(cmp.Compare(sums[a].last.Name, sums[b].last.Name), cmp.Compare(a.cvm, b.cvm), cmp.Compare(a.kind, b.kind))
	})
	out = []cloudapi.UsageItem{}
	for _, g := range order {
		v := sums[g]
		total += v.amount
		out = append(out, cloudapi.UsageItem{CVMID: v.last.UUID, Name: v.last.Name, AppID: v.last.AppID, Kind: g.kind, What: sizeText(g.kind, g.size),
			Seconds: fmt.Sprintf("%d.%03d", v.ms/1000, v.ms%1000), Rate: g.rate.String(), Amount: v.amount.String(), Running: v.open})
	}
	return out, total
}

func sizeText(kind string, z billing.Size) string {
	switch {
	case kind == billing.Storage:
		return fmt.Sprintf("%d GB disk", z.DiskGB)
	case z.Type != "":
		return z.Type
	}
	return fmt.Sprintf("%d vCPU, %d MB", z.VCPU, z.MemoryMiB)
}

func (s *Server) balance(ctx context.Context, _ *none) (cloudapi.Balance, error) {
	p := who(ctx)
	return s.balanceView(ctx, p.WorkspaceID, p.WorkspaceSlug)
}

func (s *Server) balanceView(ctx context.Context, workspace int64, slug string) (out cloudapi.Balance, err error) {
	a, accruing, hourly, err := s.worth(ctx, workspace)
	if err != nil {
		return out, err
	}
	paid, granted := split(a, accruing)
	name, _ := s.cfg.Billing.tier(a.Tier)
	out = cloudapi.Balance{Workspace: slug, Currency: s.cfg.Billing.Currency, Balance: paid.String(), Granted: granted.String(), Total: (paid + granted).String(),
		Accruing: accruing.String(), HourlyNow: hourly.String(), Tier: name, PostPaid: a.PostPaid, State: a.State, Enforced: s.cfg.Billing.Suspension.Enforce, AsOf: s.now().UTC()}
	if !a.Since.IsZero() {
		out.Since = &a.Since
	}
	return out, nil
}

// worth is an account, what its open meters would add to it now, and an hour's cost.
func (s *Server) worth(ctx context.Context, workspace int64) (a store.Account, accruing, hourly billing.Micro, err error) {
	// The account first: what is metered in between is then missing for a moment, and
	// never counted twice.
	if a, err = s.store.Account(ctx, workspace); err != nil {
		return a, 0, 0, err
	}
	accruing, hourly, err = s.store.Accruing(ctx, workspace, s.now())
	return a, accruing, hourly, err
}

// split is what is left of what was paid and of what was given, which goes first.
func split(a store.Account, accruing billing.Micro) (paid, granted billing.Micro) {
	used := a.Used + accruing
	granted = max(a.Granted-used, 0)
	return a.Paid - (used - (a.Granted - granted)), granted
}

type ledgerInput struct {
	PeriodInput
	Limit  int `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Offset int `query:"offset" default:"0" minimum:"0" maximum:"1000000000"`
}

func (s *Server) ledgerPage(ctx context.Context, in *ledgerInput) ([]cloudapi.LedgerLine, error) {
	q := store.LedgerQuery{Limit: in.Limit, Offset: in.Offset}
	if in.Start != "" || in.End != "" {
		var err error
		if q.From, q.To, err = in.read(s.now()); err != nil {
			return nil, err
		}
	}
	all, err := s.store.Lines(ctx, who(ctx).WorkspaceID, q)
	out := make([]cloudapi.LedgerLine, 0, len(all))
	for _, e := range all {
		out = append(out, ledgerLine(e))
	}
	return out, err
}

func ledgerLine(e store.Entry) cloudapi.LedgerLine {
	l := cloudapi.LedgerLine{ID: e.ID, Kind: e.Kind, Amount: e.Amount.String(), From: e.From, To: e.To, CVMID: e.UUID, Name: e.Name, AppID: e.AppID,
		Event: e.Seq, Reason: e.Reason, By: e.By}
	if e.Size != nil {
		l.Rate = e.Rate.String()
	}
	return l
}

// OfWorkspace names any workspace in the path.
type OfWorkspace struct {
	Slug string `path:"slug" maxLength:"100"`
}

func (s *Server) workspaceOf(ctx context.Context, in OfWorkspace) (int64, error) {
	if err := operates(ctx); err != nil {
		return 0, err
	}
	id, _, err := s.store.WorkspaceBySlug(ctx, in.Slug)
	if errors.Is(err, store.ErrNotFound) {
		return 0, text(http.StatusNotFound, noWorkspace)
	}
	return id, err
}

func (s *Server) balanceOf(ctx context.Context, in *OfWorkspace) (out cloudapi.Balance, err error) {
	id, err := s.workspaceOf(ctx, *in)
	if err != nil {
		return out, err
	}
	return s.balanceView(ctx, id, in.Slug)
}

type moneyInput struct {
	OfWorkspace
	Body cloudapi.Money
}

// addMoney writes a line once for each key, however often it is asked for.
func (s *Server) addMoney(ctx context.Context, in *moneyInput) (out cloudapi.LedgerLine, err error) {
	id, err := s.workspaceOf(ctx, in.OfWorkspace)
	if err != nil {
		return out, err
	}
	r := in.Body
	var p problems
	m, err := billing.ParseMicro(r.Amount)
	switch {
	case err != nil:
		p.add("amount", "value_error", err.Error(), "")
	case m == 0 || m < 0 && r.Kind != store.Correction:
		p.add("amount", "value_error", "want an amount above zero (corrections may be below)", "")
	case m > maxHourly*1000 || -m > maxHourly*1000:
		p.add("amount", "value_error", "the amount is too large", "write several lines")
	}
	if strings.TrimSpace(r.Reason) == "" {
		p.add("reason", "value_error", "say why: the workspace reads it", "")
	}
	if err := p.err(); err != nil {
		return out, err
	}
	e, err := s.store.AddMoney(ctx, store.Entry{WorkspaceID: id, Key: "money/" + r.Key, Kind: r.Kind, Amount: m, EntryBody: store.EntryBody{Reason: r.Reason, By: who(ctx).Username}})
	if errors.Is(err, store.ErrKeyUsed) {
		return out, fail(http.StatusConflict, "", cvm.Conflict, "idempotency-key", err.Error(), "use a new key for another line")
	}
	if err == nil {
		err = s.reviewOne(ctx, id)
	}
	return ledgerLine(e), err
}

type termsInput struct {
	OfWorkspace
	Body cloudapi.Terms
}

func (s *Server) setTerms(ctx context.Context, in *termsInput) (out cloudapi.Balance, err error) {
	id, err := s.workspaceOf(ctx, in.OfWorkspace)
	if err != nil {
		return out, err
	}
	a, err := s.store.Account(ctx, id)
	if err != nil {
		return out, err
	}
	if t := in.Body.Tier; t != nil {
		if !slices.ContainsFunc(s.cfg.Billing.Tiers, func(c TierConfig) bool { return c.Name == *t }) {
			var p problems
			p.add("tier", "value_error", "this cloud has no tier "+strconv.Quote(*t), "its configuration lists them (billing.tier)")
			return out, p.err()
		}
		a.Tier = *t
	}
	if v := in.Body.PostPaid; v != nil {
		a.PostPaid = *v
	}
	if err := s.store.SetTerms(ctx, id, a.Tier, a.PostPaid); err != nil {
		return out, err
	}
	if err := s.reviewOne(ctx, id); err != nil {
		return out, err
	}
	return s.balanceView(ctx, id, in.Slug)
}
