package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
)

// watchLeast keeps people from asking the cloud all the time.
const watchLeast = 500 * time.Millisecond

// watchable gives a command that shows something --watch: on a terminal what it shows
// is drawn again, elsewhere only what changed is printed. Ctrl-C is its proper end.
func (a *app) watchable(c *cobra.Command) *cobra.Command {
	var on bool
	var every time.Duration
	c.Flags().BoolVarP(&on, "watch", "w", false, "go on showing it: drawn again on a terminal, changes only elsewhere; Ctrl-C ends it")
	c.Flags().DurationVar(&every, "interval", 2*time.Second, "how often --watch looks")
	run := c.RunE
	c.RunE = func(c *cobra.Command, as []string) error {
		switch {
		case !on:
			return run(c, as)
		case every < watchLeast:
			return usage("--interval %s is too short: %s at least", every, watchLeast)
		}
		return a.watch(c.Context(), every, func() error { return run(c, as) })
	}
	return c
}

// shown is what one look printed.
type shown struct{ out, err string }

func (a *app) watch(ctx context.Context, every time.Duration, look func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last shown
	width := a.columns(a.Stdout)
	for n := 0; ; n++ {
		now, err := a.look(look)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (n == 0 || cvm.CodeOf(err) != cvm.Unavailable):
			return err
		case err != nil: // it comes back, or the person ends it
			now = shown{last.out, a.warn(err.Error()) + "\n"}
		}
		switch {
		case width > 0:
			a.printf("\x1b[H\x1b[2J%s  %s\n\n%s%s", a.Now().Format(time.TimeOnly), a.onOut().paint("2", "every "+every.String()+", Ctrl-C ends it"), now.out, now.err)
		case now != last:
			a.changes(last, now, n == 0)
		}
		last = now
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look runs fn and catches what it prints.
func (a *app) look(fn func() error) (shown, error) {
	var out, errs bytes.Buffer
	stdout, stderr, screen := a.Stdout, a.Stderr, a.screen
	a.screen = a.columns(stdout)
	a.Stdout, a.Stderr = &out, &errs
	err := fn()
	a.Stdout, a.Stderr, a.screen = stdout, stderr, screen
	return shown{out.String(), errs.String()}, err
}

// changes prints what is new with a +, what is gone with a -; an object of --json is
// printed whole, on one line.
func (a *app) changes(last, now shown, first bool) {
	if now.err != last.err && now.err != "" {
		a.say("%s", strings.TrimRight(now.err, "\n"))
	}
	if now.out == last.out {
		return
	}
	if a.json {
		var line bytes.Buffer
		if json.Compact(&line, []byte(now.out)) == nil {
			a.printf("%s\n", line.Bytes())
			return
		}
	}
	if first {
		a.printf("%s", now.out)
		return
	}
	at, was, is := a.Now().Format(time.TimeOnly), strings.Split(last.out, "\n"), strings.Split(now.out, "\n")
	for _, l := range was {
		if !slices.Contains(is, l) {
			a.printf("%s - %s\n", at, l)
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			a.printf("%s + %s\n", at, l)
		}
	}
}
