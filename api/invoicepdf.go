package api

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/go-pdf/fpdf"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// invoicePDF lays an invoice out on A4. Its dates are the invoice's own, so that the
// same invoice has the same bytes.
func invoicePDF(v cloudapi.Invoice) ([]byte, error) {
	p := fpdf.New("P", "mm", "A4", "")
	p.SetCatalogSort(true)
	p.SetCreationDate(v.PeriodEnd)
	p.SetModificationDate(v.PeriodEnd)
	p.SetTitle("Invoice "+v.Number, true)
	text := p.UnicodeTranslatorFromDescriptor("") // what the font lacks is shown as a dot
	p.SetFooterFunc(func() {
		p.SetY(-15)
		p.SetFont("Helvetica", "", 8)
		p.CellFormat(0, 5, text(fmt.Sprintf("%s, page %d", v.Number, p.PageNo())), "", 0, "C", false, 0, "")
	})
	p.AddPage()
	p.SetFont("Helvetica", "B", 16)
	p.CellFormat(0, 10, text("Invoice "+v.Number), "", 1, "L", false, 0, "")
	p.SetFont("Helvetica", "", 10)
	about := []string{"Workspace: " + clip(v.Name, 80) + " (" + v.Workspace + ")",
		"Period: " + v.PeriodStart.Format(time.DateOnly) + " up to " + v.PeriodEnd.Format(time.DateOnly) + " (UTC)"}
	if v.Status == draft {
		about = append(about, "DRAFT: the month is not over, or not all of it is metered yet")
	}
	for _, l := range about {
		p.CellFormat(0, 6, text(l), "", 1, "L", false, 0, "")
	}
	p.Ln(4)
	table(p, text, "B", []string{"CVM", "Usage", "Seconds", "Per hour", v.Currency})
	for _, i := range v.Items {
		table(p, text, "", []string{clip(i.Name, 34), i.Kind + ", " + i.What, i.Seconds, i.Rate, i.Amount})
	}
	table(p, text, "B", []string{"Total", "", "", "", v.Total})
	p.Ln(4)
	for _, l := range v.Payments {
		table(p, text, "", []string{l.From.Format(time.DateOnly), l.Kind + ": " + clip(strings.Join(strings.Fields(l.Reason), " "), 30), "", "", l.Amount})
	}
	table(p, text, "", []string{"Balance before", "", "", "", v.Opening})
	table(p, text, "B", []string{"Balance after", "", "", "", v.Closing})
	var b bytes.Buffer
	if err := p.Output(&b); err != nil {
		return nil, fmt.Errorf("writing the invoice: %w", err)
	}
	return b.Bytes(), nil
}

func table(p *fpdf.Fpdf, text func(string) string, style string, cells []string) {
	p.SetFont("Helvetica", style, 9)
	for i, width := range []float64{60, 54, 26, 24, 26} {
		align, next := "L", 0
		if i > 1 {
			align = "R"
		}
		if i == 4 {
			next = 1
		}
		p.CellFormat(width, 6, text(cells[i]), "B", next, align, false, 0, "")
	}
}
