package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// A table is as wide as its terminal, a pipe gets everything.
func TestTableFits(t *testing.T) {
	t.Parallel()
	head := []string{"NAME", "STATUS", "APP ID", "URL"}
	rows := [][]string{{"a-name-of-some-length", "running", strings.Repeat("a", 40), "https://" + strings.Repeat("a", 40) + ".example.com"}}
	print := func(width int) (string, string) {
		var out, errs bytes.Buffer
		a := &app{Config: Config{Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &errs}, screen: width}
		a.table(head, rows)
		return out.String(), errs.String()
	}
	if out, errs := print(0); !strings.Contains(out, rows[0][3]) || errs != "" {
		t.Errorf("a pipe:\n%s%s", out, errs)
	}
	for _, width := range []int{200, 100, 80, 60, 52} {
		out, _ := print(width)
		for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
			if len([]rune(l)) > width {
				t.Errorf("%d columns: %q has %d", width, l, len([]rune(l)))
			}
		}
		if !strings.Contains(out, rows[0][0]) || strings.Count(out, "\n") != 2 {
			t.Errorf("%d columns:\n%s", width, out)
		}
	}
	if out, _ := print(30); strings.Count(out, "\n") != 4 || !strings.Contains(out, rows[0][3]) {
		t.Errorf("too narrow for a table:\n%s", out)
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for _, width := range []int{0, 5, 20, 60} {
		got := oneLine("placing it\n"+strings.Repeat("x", 100), "12.3s", width)
		if n := len([]rune(got)) + 2; width >= 20 && n >= width || strings.Contains(got, "\n") || !strings.HasSuffix(got, "12.3s") {
			t.Errorf("%d columns: %d in %q", width, n, got)
		}
	}
}

// --watch draws again on a terminal and tells changes elsewhere, outlives an API that
// is away for a while, and ends with Ctrl-C as a success.
func TestWatch(t *testing.T) {
	t.Parallel()
	const quick = time.Millisecond
	at := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	run := func(width int, json bool, looks ...any) (string, string, error) {
		var out, errs bytes.Buffer
		a := &app{Config: Config{Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &errs, Now: at,
			Columns: func(io.Writer) int { return width }}, json: json}
		ctx, stop := context.WithCancel(t.Context())
		n := 0
		err := a.watch(ctx, quick, func() error {
			defer func() { n++ }()
			if n == len(looks) {
				stop()
				return ctx.Err()
			}
			if err, bad := looks[n].(error); bad {
				return err
			}
			a.printf("%s", looks[n])
			return nil
		})
		return out.String(), errs.String(), err
	}
	away := cvm.Errorf(cvm.Unavailable, "no answer")
	out, errs, err := run(0, false, "H\na up\n", "H\na up\n", away, away, "H\na down\nb up\n")
	if err != nil || out != "H\na up\n03:04:05 - a up\n03:04:05 + a down\n03:04:05 + b up\n" || strings.Count(errs, "no answer") != 1 {
		t.Errorf("pipe: %v\n%s%s", err, out, errs)
	}
	out, _, err = run(0, true, "{\n \"a\": 1\n}\n", "{\n \"a\": 1\n}\n", "{\n \"a\": 2\n}\n")
	if err != nil || out != "{\"a\":1}\n{\"a\":2}\n" {
		t.Errorf("--json: %v\n%s", err, out)
	}
	out, _, err = run(80, false, "one\n", "two\n")
	if err != nil || strings.Count(out, "\x1b[H\x1b[2J") != 2 || !strings.Contains(out, "two") {
		t.Errorf("terminal: %v\n%q", err, out)
	}
	for _, looks := range [][]any{{away}, {"x", cvm.Errorf(cvm.NotFound, "gone")}} {
		if _, _, err := run(0, false, looks...); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v", looks, err)
		}
	}
}

// Colours go where a terminal is: stdout into a pipe has none, whatever stderr is.
func TestColoursFollowTheStream(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env            string
		width          int
		stdout, stderr bool
	}{{"", 0, false, true}, {"", 80, true, true}, {"NO_COLOR=1", 80, false, false}, {"TERM=dumb", 80, false, false}} {
		name, value, _ := strings.Cut(tc.env, "=")
		a := &app{Config: Config{TTY: true, Columns: func(io.Writer) int { return tc.width }, Getenv: func(k string) string {
			if k == name {
				return value
			}
			return ""
		}}}
		if got := strings.Contains(a.onOut().good("x"), "\x1b"); got != tc.stdout {
			t.Errorf("%+v: stdout coloured: %v", tc, got)
		}
		if got := strings.Contains(a.good("x"), "\x1b"); got != tc.stderr {
			t.Errorf("%+v: stderr coloured: %v", tc, got)
		}
	}
}
