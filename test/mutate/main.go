// Command mutate proves that every refusal of the verifier is defended: it finds
// each place where the attestation packages refuse, switches the places off one
// at a time, and checks that exactly the tests of table.json fail. A place that
// the table does not know, or a row whose code is gone, fails the run.
//
// No production file changes: all mutations are compiled once through go's
// -overlay, each behind a number that the run chooses.
//
//	go run ./test/mutate            every row (make mutate-attest)
//	go run ./test/mutate -quick     the everyday sample
//	go run ./test/mutate -run REGEXP rows whose id matches
//	go run ./test/mutate -update    write what was seen into the table, for review
//	go run ./test/mutate -survivors a quick search for refusals that no test defends
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

type options struct {
	root    string
	run     string
	quick   bool
	update  bool
	list    bool
	first   bool
	workers int
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", ".", "the repository")
	flag.StringVar(&o.run, "run", "", "only rows whose id matches this regular expression")
	flag.BoolVar(&o.quick, "quick", false, "only the everyday sample")
	flag.BoolVar(&o.update, "update", false, "write what was seen into the table")
	flag.BoolVar(&o.list, "list", false, "list the places and stop")
	flag.BoolVar(&o.first, "survivors", false, "stop at the first test that notices, and list only what no test notices")
	flag.IntVar(&o.workers, "p", 2, "runs at a time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := mutate(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func mutate(ctx context.Context, o options) error {
	start := time.Now()
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	path := filepath.Join(root, "test", "mutate", "table.json")
	t, err := readTable(path)
	if err != nil {
		return fmt.Errorf("reading the table: %w", err)
	}
	mutants, err := collect(root, t.Packages, t.Omit, t.Hand)
	if err != nil {
		return err
	}
	chosen, err := choose(mutants, t, o)
	if err != nil {
		return err
	}
	if o.list {
		for _, m := range chosen {
			fmt.Println(m.ID)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, err := overlay(root, dir, mutants)
	if err != nil {
		return err
	}
	fmt.Printf("%d places, %d to try\n", len(mutants), len(chosen))
	l := lab{t, &binaries{root: root, dir: dir, overlay: file, built: map[string]string{}}, o.first}
	seen, problems := l.tryAll(ctx, chosen, o)
	if o.update { // also of a run that was stopped: the rest can follow
		return errors.Join(t.merge(mutants, seen).write(path), ctx.Err())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if o.first {
		return l.survivors(seen, problems)
	}
	if !o.quick && o.run == "" {
		gone, unlisted := t.stale(mutants)
		for _, id := range gone {
			problems = append(problems, "stale row, its code is gone: "+id)
		}
		for _, id := range unlisted {
			problems = append(problems, "not in the table: "+id)
		}
	}
	return summary(chosen, t, seen, problems, time.Since(start))
}

func choose(mutants []mutant, t table, o options) ([]mutant, error) {
	re, err := regexp.Compile(o.run)
	if err != nil {
		return nil, err
	}
	var out []mutant
	for _, m := range mutants {
		if re.MatchString(m.ID) && (!o.quick || slices.Contains(t.Quick, m.ID)) {
			out = append(out, m)
		}
	}
	if len(out) == 0 || o.quick && o.run == "" && len(out) != len(t.Quick) {
		return nil, fmt.Errorf("%d rows to try, the sample names %d: the table is stale", len(out), len(t.Quick))
	}
	return out, nil
}

func (l lab) tryAll(ctx context.Context, chosen []mutant, o options) (map[string]outcome, []string) {
	seen := map[string]outcome{}
	var problems []string
	l.runAll(ctx, chosen, o.workers, func(m mutant, out outcome, err error) {
		word := "ok"
		switch r, listed := l.row(m.ID); {
		case err != nil:
			word = err.Error()
			problems = append(problems, m.ID+": "+word)
		case o.update || o.first || !listed:
			seen[m.ID] = out
			if len(out.failed) == 0 && r.Why == "" {
				word = "SURVIVED"
			}
		default:
			seen[m.ID] = out
			if p := r.judge(out); p != "" {
				word = p
				problems = append(problems, m.ID+": "+p)
			}
		}
		fmt.Printf("%4d/%d %5.1fs %s: %d tests fail: %s\n", len(seen), len(chosen), out.took.Seconds(), m.ID, len(out.failed), word)
	})
	return seen, problems
}

// survivors lists what no test noticed and no reason excuses.
func (l lab) survivors(seen map[string]outcome, problems []string) error {
	n := 0
	for id, o := range seen {
		if r, _ := l.row(id); len(o.failed) == 0 && r.Why == "" {
			fmt.Println("SURVIVED", id)
			n++
		}
	}
	fmt.Printf("%d of %d survived\n", n, len(seen))
	if n > 0 || len(seen) == 0 {
		return fmt.Errorf("%d survivors, %d problems", n, len(problems))
	}
	return nil
}

// merge records what a run saw; reasons that people wrote stay.
func (t table) merge(mutants []mutant, seen map[string]outcome) table {
	var rows []row
	for _, m := range mutants {
		r, ok := t.row(m.ID)
		if o, ran := seen[m.ID]; ran {
			r.ID, r.Tests = m.ID, o.failed
			if len(o.failed) > 0 {
				r.Why = ""
			}
		} else if !ok {
			continue
		}
		rows = append(rows, r)
	}
	t.Rows = rows
	return t
}

func summary(chosen []mutant, t table, seen map[string]outcome, problems []string, took time.Duration) error {
	noticed, silent := 0, 0
	for _, m := range chosen {
		o, ok := seen[m.ID]
		switch {
		case ok && len(o.failed) > 0:
			noticed++
		case ok:
			silent++
		}
	}
	fmt.Printf("\n%d mutations in %s: %d noticed by their tests, %d change no verdict (reasons in table.json), %d problems\n",
		len(chosen), took.Round(time.Second), noticed, silent, len(problems))
	for _, p := range problems {
		fmt.Println("  " + p)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%d problems; -update records what was seen, for review", len(problems))
	}
	return nil
}
