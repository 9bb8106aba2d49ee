package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// palette colours text for one stream, or not at all.
type palette bool

// colored is what a stream may carry: stderr and stdout go to different places often.
func (a *app) colored(stream bool) palette {
	return palette(stream && a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb")
}

// onOut is the palette of stdout.
func (a *app) onOut() palette { return a.colored(a.columns(a.Stdout) > 0) }

func (p palette) paint(code, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) good(s string) string { return p.paint("32", "✓") + " " + s }
func (p palette) bad(s string) string  { return p.paint("31", "✗") + " " + s }
func (p palette) warn(s string) string { return p.paint("33", "⚠") + " " + s }

// These are for stderr.
func (a *app) paint(code, s string) string { return a.colored(a.TTY).paint(code, s) }
func (a *app) good(s string) string        { return a.colored(a.TTY).good(s) }
func (a *app) bad(s string) string         { return a.colored(a.TTY).bad(s) }
func (a *app) warn(s string) string        { return a.colored(a.TTY).warn(s) }

// say writes a line for the person, on stderr.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.Stderr, format+"\n", args...) }

// printf writes to stdout.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.Stdout, format, args...) }

// printJSON writes {"success":true} with the fields of v, which must encode as an object.
func (a *app) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &fields); err != nil {
		return fmt.Errorf("the answer is not an object: %w", err)
	}
	fields["success"] = json.RawMessage("true")
	return writeJSON(a.Stdout, fields)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// list is the JSON form of every list.
type list[T any] struct {
	Items []T `json:"items"`
	Total int `json:"total"`
}

// printList prints items as JSON, or as a table.
func printList[T any](a *app, items []T, none string, head []string, row func(T) []string) error {
	if a.json {
		if items == nil {
			items = []T{}
		}
		return a.printJSON(list[T]{items, len(items)})
	}
	if len(items) == 0 {
		a.say("%s", none)
		return nil
	}
	rows := make([][]string, 0, len(items))
	for _, it := range items {
		rows = append(rows, row(it))
	}
	a.table(head, rows)
	return nil
}

// field is one line of a detail page.
type field struct{ name, value string }

func (a *app) printFields(fields []field) {
	tw := tabwriter.NewWriter(a.Stdout, 0, 2, 2, ' ', 0)
	for _, f := range fields {
		if f.value != "" {
			fmt.Fprintf(tw, "%s\t%s\n", f.name, f.value)
		}
	}
	_ = tw.Flush()
}

// errorJSON is the shape of every error under --json.
type errorJSON struct {
	Success bool     `json:"success"`
	Error   string   `json:"error"`
	Code    cvm.Code `json:"code,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Fix     string   `json:"fix,omitempty"`
	Details any      `json:"details,omitempty"`
}

// printError shows an error once, with its reason and what to do.
func (a *app) printError(err error) {
	var u *usageError
	var ce *cvm.Error
	isCoded := errors.As(err, &ce)
	if a.json {
		out := errorJSON{Error: err.Error(), Code: cvm.CodeOf(err)}
		if errors.As(err, &u) {
			out.Code = cvm.Invalid
		}
		if isCoded {
			out.Reason, out.Fix = ce.Reason, ce.Fix
		}
		var api *cloudapi.APIError
		if errors.As(err, &api) && len(api.Details) > 0 {
			out.Details = api.Details
		}
		_ = writeJSON(a.Stdout, out)
		return
	}
	a.say("%s", a.bad(err.Error()))
	if !isCoded {
		return
	}
	if text := reasonText(ce.Reason); text != "" {
		a.say("  why: %s (%s)", text, ce.Reason)
	}
	if ce.Fix != "" {
		a.say("  fix: %s", ce.Fix)
	}
}

func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func num(p *int) string {
	if p == nil {
		return ""
	}
	return fmt.Sprint(*p)
}

// short shortens a long hex string for a table.
func short(s string) string {
	if len(s) > 14 {
		return s[:12] + "…"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
