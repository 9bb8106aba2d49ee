package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

const (
	draft = "draft"
	final = "final"
)

// MonthInput names a month in the path.
type MonthInput struct {
	Month string `path:"month" doc:"2026-01"`
}

func (in MonthInput) read() (from, to time.Time, err error) {
	from, err = time.Parse("2006-01", in.Month)
	if err != nil || from.Year() < 2000 {
		return from, to, &apiError{http.StatusUnprocessableEntity, []cloudapi.Validation{{Loc: []any{"path", "month"}, Msg: "want a month like 2026-01", Type: "value_error"}}}
	}
	return from, from.AddDate(0, 1, 0), nil
}

// invoices lists the months in which something was used or paid, and this one.
func (s *Server) invoices(ctx context.Context, _ *none) (out cloudapi.Invoices, err error) {
	p := who(ctx)
	all, err := s.lines(ctx, p.WorkspaceID, store.LedgerQuery{})
	if err != nil {
		return out, err
	}
	sums := map[string]billing.Micro{s.now().UTC().Format("2006-01"): 0}
	for _, e := range all {
		m := e.From.UTC().Format("2006-01")
		if sums[m] += 0; e.Size != nil {
			sums[m] -= e.Amount
		}
	}
	out = cloudapi.Invoices{Currency: s.cfg.Billing.Currency, Items: []cloudapi.InvoiceItem{}}
	for m, sum := range sums {
		_, end, err := MonthInput{m}.read()
		if err != nil {
			continue // a clock before 2000
		}
		status, err := s.invoiceStatus(ctx, p.WorkspaceID, end)
		if err != nil {
			return out, err
		}
		out.Items = append(out.Items, cloudapi.InvoiceItem{Month: m, Number: number(p, m), Status: status, Total: sum.String()})
	}
	slices.SortFunc(out.Items, func(a, b cloudapi.InvoiceItem) int { return strings.Compare(b.Month, a.Month) })
	return out, nil
}

func number(p store.Principal, month string) string { return p.WorkspaceSlug + "-" + month }

// invoiceStatus is final when the month is over and nothing of it is still to be metered.
func (s *Server) invoiceStatus(ctx context.Context, workspace int64, end time.Time) (string, error) {
	if s.now().Before(end.Add(dayRest)) {
		return draft, nil
	}
	done, err := s.store.MeteredUntil(ctx, workspace, end)
	if done {
		return final, err
	}
	return draft, err
}

func (s *Server) invoice(ctx context.Context, in *MonthInput) (out cloudapi.Invoice, err error) {
	from, to, err := in.read()
	if err != nil {
		return out, err
	}
	p := who(ctx)
	// Before the lines: a final invoice has all of them.
	status, err := s.invoiceStatus(ctx, p.WorkspaceID, to)
	if err != nil {
		return out, err
	}
	all, err := s.lines(ctx, p.WorkspaceID, store.LedgerQuery{To: to})
	if err != nil {
		return out, err
	}
	var opening, closing billing.Micro
	var month []store.Entry
	payments := []cloudapi.LedgerLine{}
	for _, e := range all {
		if closing += e.Amount; e.From.Before(from) {
			opening += e.Amount
			continue
		}
		if month = append(month, e); e.Size == nil {
			payments = append(payments, ledgerLine(e))
		}
	}
	items, total := itemsOf(month)
	return cloudapi.Invoice{Month: in.Month, Number: number(p, in.Month), Workspace: p.WorkspaceSlug, Name: p.WorkspaceName, PeriodStart: from, PeriodEnd: to,
		Status: status, Currency: s.cfg.Billing.Currency, Items: items, Total: total.String(), Payments: payments, Opening: opening.String(), Closing: closing.String()}, nil
}

// invoiceFiles are an invoice as files, of the same bytes whenever they are made.
func (s *Server) invoiceFiles(api huma.API, a access) {
	for _, f := range []struct {
		kind, media string
		write       func(cloudapi.Invoice) ([]byte, error)
	}{{"csv", "text/csv; charset=utf-8", invoiceCSV}, {"pdf", "application/pdf", invoicePDF}} {
		media, _, _ := strings.Cut(f.media, ";")
		o := op{method: "GET", path: "/workspace/invoices/{month}/" + f.kind}
		h := huma.Operation{OperationID: operationID(o), Method: o.method, Path: cloudapi.Prefix + o.path, Tags: []string{"workspace"},
			Summary:   "One month's invoice as " + strings.ToUpper(f.kind),
			Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{media: {}}}}}
		if !s.guard(&h, a) {
			continue
		}
		huma.Register(api, h, func(ctx context.Context, in *MonthInput) (*huma.StreamResponse, error) {
			v, err := s.invoice(ctx, in)
			if err != nil {
				return nil, s.refuse(ctx, err)
			}
			b, err := f.write(v)
			if err != nil {
				return nil, s.answer(ctx, err)
			}
			return &huma.StreamResponse{Body: func(hc huma.Context) {
				hc.SetHeader("Content-Type", f.media)
				hc.SetHeader("Content-Disposition", fmt.Sprintf("attachment; filename=%q", v.Number+"."+f.kind))
				_, _ = hc.BodyWriter().Write(b) // the client may go away
			}}, nil
		})
	}
}

func invoiceCSV(v cloudapi.Invoice) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{"invoice", "status", "cvm", "name", "app_id", "kind", "size", "seconds", "hourly_rate", "amount", "currency"}}
	for _, i := range v.Items {
		rows = append(rows, []string{v.Number, v.Status, i.CVMID, cell(i.Name), i.AppID, i.Kind, cell(i.What), i.Seconds, i.Rate, i.Amount, v.Currency})
	}
	rows = append(rows, []string{v.Number, v.Status, "", "", "", "total", "", "", "", v.Total, v.Currency})
	if err := w.WriteAll(rows); err != nil {
		return nil, fmt.Errorf("writing the invoice: %w", err)
	}
	return b.Bytes(), nil
}

// cell keeps spreadsheets from reading text as a formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
