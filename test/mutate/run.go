package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// runLimit bounds one run of one test binary: a mutation may loop for ever.
const runLimit = time.Minute

// outcome is what one mutation made the tests do.
type outcome struct {
	failed []string // "attest TestNegative/24_swapped", sorted
	took   time.Duration
}

// testsFor lists the packages whose tests judge a mutation of a package, nearest
// first: its own, the verifier's, which stands on all of them, and the others that
// are built on it. Farther ones are asked only when nearer ones see nothing.
func (t table) testsFor(dir string) [][]string {
	rest := slices.DeleteFunc(slices.Concat(t.Packages, t.Also), func(p string) bool { return p == dir || p == "attest" })
	if dir == "attest" {
		return [][]string{{dir}, rest}
	}
	return [][]string{{dir}, {"attest"}, rest}
}

// lab is what mutations are tried with.
type lab struct {
	table
	bins *binaries
	// first: one failing test is enough, the others need not run.
	first bool
}

// try runs the tests that judge m.
func (l lab) try(ctx context.Context, m mutant) (outcome, error) {
	var o outcome
	start := time.Now()
	for _, tier := range l.testsFor(path.Dir(m.file)) {
		if len(o.failed) > 0 {
			break
		}
		var err error
		if o.failed, err = l.runOne(ctx, m.n, m.file, tier); err != nil {
			return o, err
		}
	}
	o.took = time.Since(start)
	return o, nil
}

// runOne switches on mutant n and runs the tests of the packages;
// file is where its code is.
func (l lab) runOne(ctx context.Context, n int, file string, packages []string) (all []string, err error) {
	for _, p := range packages {
		bin, err := l.bins.of(ctx, p, func(bin string) error { return l.sound(ctx, p, bin) })
		if err != nil {
			return all, err
		}
		if bin == "" {
			continue
		}
		only := l.only(p, file)
		if l.first {
			if len(all) > 0 {
				break
			}
			only = append(only, "-test.failfast")
		}
		failed, err := runTests(ctx, filepath.Join(l.bins.root, p), bin, n, only)
		if err != nil {
			return all, fmt.Errorf("%s: %w", p, err)
		}
		for _, f := range failed {
			all = append(all, p+" "+f)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// sound checks that no test of a package fails while every mutation is off.
func (l lab) sound(ctx context.Context, p, bin string) error {
	failed, err := runTests(ctx, filepath.Join(l.bins.root, p), bin, 0, l.only(p, p+"/any.go"))
	if err == nil && len(failed) != 0 {
		err = fmt.Errorf("without any mutation these tests of %s fail: %s", p, strings.Join(failed, ", "))
	}
	return err
}

// only are the flags that choose among the verifier's own tests: by the file, else
// by the package that a mutation changes.
func (l lab) only(p, file string) (flags []string) {
	if p != "attest" {
		return nil
	}
	for _, key := range []string{file, path.Dir(file)} {
		if run := l.Run[key]; run != "" {
			return []string{"-test.run", run}
		}
		if skip := l.Skip[key]; skip != "" {
			return []string{"-test.skip", skip}
		}
	}
	return nil
}

func runTests(ctx context.Context, dir, bin string, n int, only []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit+10*time.Second)
	defer cancel()
	args := append([]string{"-test.v", "-test.short", "-test.timeout", runLimit.String(), "-test.parallel", "1"}, only...)
	cmd := exec.CommandContext(ctx, bin, args...) //nolint:gosec // a binary that we built
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("MUTANT=%d", n), "GOMAXPROCS=1", "GOTRACEBACK=none")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	failed := failures(out.String())
	if err == nil {
		return nil, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(failed) == 0 {
		return nil, fmt.Errorf("the tests ended with %w and no test failed:\n%s", err, tail(out.String()))
	}
	return failed, nil
}

var (
	failLine    = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	runLine     = regexp.MustCompile(`(?m)^=== RUN\s+(\S+)`)
	timeoutLine = regexp.MustCompile(`(?m)^panic: test timed out`)
)

// failures reads the failed tests of verbose output: the subtests of the negative
// list by name, all others by their top-level name, so that a table row says
// which item it defends without listing every case.
func failures(out string) []string {
	var all []string
	for _, m := range failLine.FindAllStringSubmatch(out, -1) {
		all = append(all, m[1])
	}
	// A panic or an endless loop ends the process: the test that ran last did it.
	if timeoutLine.MatchString(out) || len(all) == 0 && strings.Contains(out, "panic: ") || len(all) == 0 && strings.Contains(out, "fatal error: ") {
		if runs := runLine.FindAllStringSubmatch(out, -1); len(runs) > 0 {
			all = append(all, runs[len(runs)-1][1])
		}
	}
	var kept []string
	for _, name := range all {
		top, rest, sub := strings.Cut(name, "/")
		switch {
		case !strings.HasPrefix(top, "TestNegative"):
			kept = append(kept, top)
		case sub && rest != "":
			kept = append(kept, path.Join(top, rest))
		case !slices.ContainsFunc(all, func(o string) bool { return strings.HasPrefix(o, top+"/") }):
			kept = append(kept, top)
		}
	}
	slices.Sort(kept)
	return slices.Compact(kept)
}

func tail(s string) string {
	if len(s) > 2000 {
		return s[len(s)-2000:]
	}
	return s
}

// runAll runs every mutant with the given parallelism and calls done for each.
func (l lab) runAll(ctx context.Context, mutants []mutant, workers int, done func(mutant, outcome, error)) {
	jobs := make(chan mutant)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range workers {
		wg.Go(func() {
			for m := range jobs {
				o, err := l.try(ctx, m)
				mu.Lock()
				done(m, o, err)
				mu.Unlock()
			}
		})
	}
	for _, m := range mutants {
		if ctx.Err() != nil {
			break
		}
		jobs <- m
	}
	close(jobs)
	wg.Wait()
}
