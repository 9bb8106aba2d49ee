package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/api/cloudapi"
)

// usageCmd shows what the workspace used, and what is left.
func (a *app) usageCmd() *cobra.Command {
	var from, to string
	c := &cobra.Command{Use: "usage", Short: "What your CVMs used, and the balance", Args: args(cobra.NoArgs),
		Example: "  phala usage\n  phala usage --from 2026-01-01 --to 2026-02-01",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			u, err := s.api.Usage(c.Context(), from, to)
			if err != nil {
				return a.explain(s, err)
			}
			b, err := s.api.Balance(c.Context())
			if err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(struct {
					Balance cloudapi.Balance `json:"balance"`
					Usage   cloudapi.Usage   `json:"usage"`
				}{b, u})
			}
			if err := printList(a, u.Items, "nothing was used", []string{"CVM", "KIND", "SIZE", "SECONDS", "PER HOUR", "AMOUNT", ""}, usageRow); err != nil {
				return err
			}
			state := b.State
			if !b.Enforced {
				state += " (this cloud suspends nobody)"
			}
			a.printFields([]field{{"from", u.From.Format("2006-01-02 15:04")}, {"to", u.To.Format("2006-01-02 15:04")}, {"used", u.Total + " " + u.Currency},
				{"balance", b.Total + " " + b.Currency}, {"an hour now", b.HourlyNow + " " + b.Currency}, {"state", state}})
			return nil
		}}
	c.Flags().StringVar(&from, "from", "", "date or RFC 3339 time (default: the month's first day)")
	c.Flags().StringVar(&to, "to", "", "date or RFC 3339 time (default: now)")
	return c
}

func usageRow(i cloudapi.UsageItem) []string {
	going := ""
	if i.Running {
		going = "goes on"
	}
	return []string{i.Name, i.Kind, i.What, i.Seconds, i.Rate, i.Amount, going}
}

// invoicesCmd lists the months, or shows or saves one.
func (a *app) invoicesCmd() *cobra.Command {
	var out string
	c := &cobra.Command{Use: "invoices [month]", Short: "Invoices by month", Args: args(cobra.MaximumNArgs(1)),
		Example: "  phala invoices\n  phala invoices 2026-01\n  phala invoices 2026-01 -o invoice.pdf",
		RunE: func(c *cobra.Command, as []string) error {
			s, err := a.loggedIn()
			if err != nil {
				return err
			}
			if len(as) == 0 {
				if out != "" {
					return usage("-o saves one month: phala invoices 2026-01 -o %s", out)
				}
				all, err := s.api.Invoices(c.Context())
				if err != nil {
					return a.explain(s, err)
				}
				return printList(a, all.Items, "no invoices yet", []string{"MONTH", "NUMBER", "STATUS", "TOTAL"},
					func(i cloudapi.InvoiceItem) []string {
						return []string{i.Month, i.Number, i.Status, i.Total + " " + all.Currency}
					})
			}
			if out != "" {
				return a.saveInvoice(c, s, as[0], out)
			}
			v, err := s.api.Invoice(c.Context(), as[0])
			if err != nil {
				return a.explain(s, err)
			}
			if a.json {
				return a.printJSON(v)
			}
			a.printFields([]field{{"invoice", v.Number}, {"month", v.Month}, {"status", v.Status}, {"total", v.Total + " " + v.Currency}})
			return printList(a, v.Items, "nothing was used", []string{"CVM", "KIND", "SIZE", "SECONDS", "PER HOUR", "AMOUNT", ""}, usageRow)
		}}
	c.Flags().StringVarP(&out, "output", "o", "", "save it: FILE.pdf or FILE.csv")
	return c
}

// saveInvoice writes a month as the file's name asks; a file that exists stays.
func (a *app) saveInvoice(c *cobra.Command, s *session, month, file string) error {
	form := "pdf"
	switch {
	case strings.HasSuffix(file, ".csv"):
		form = "csv"
	case !strings.HasSuffix(file, ".pdf"):
		return usage("-o %s: name a .pdf or a .csv file", file)
	}
	b, err := s.api.InvoiceFile(c.Context(), month, form)
	if err != nil {
		return a.explain(s, err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // where the user said
	if err != nil {
		return fmt.Errorf("saving the invoice: %w", err)
	}
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return fmt.Errorf("saving the invoice: %w", err)
	}
	a.say("saved %s", file)
	return f.Close()
}
