package attest

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/test/bench/report"
)

var (
	rounds = flag.Int("rounds", 3, "rounds of the paired table; a few hundred for one to publish")
	hosts  = flag.Int("hosts", 8, "distinct hosts of the flood; 100000 for one to publish")
	qvlDir = flag.String("qvl", "", "directory in which test/differential/testdata/qvl is installed (npm ci); empty: the dcap-qvl builds are left out")
	write  = flag.String("write", "", "write the table between the markers of this file")
)

// op is one row. prepare, if any, runs before each timed call and is not timed.
type op struct {
	name    string
	note    string
	per     string // the signatures that the row cannot do without, by the name of their row
	n       int    // and how many
	prepare func()
	run     func() error
}

type row struct {
	op
	times  []time.Duration
	ratios []float64 // to the bare signatures of the same round
	bytes  uint64
	allocs uint64
}

// TestTable times every operation singly, round-robin, so that whatever else the
// machine does falls on all of them alike; ratios are taken within a round.
func TestTable(t *testing.T) {
	ops := tdxOps(t)
	ops = append(ops, snpOps(t)...)
	rows := measure(t, ops)
	var out strings.Builder
	hardware, load := report.Machine()
	fmt.Fprintf(&out, "%s, %s, load at the start %s, %d rounds.\n\n", hardware, runtime.Version(), load, *rounds)
	table(&out, rows)
	if *qvlDir != "" {
		qvlTable(t, &out, rows)
	}
	out.WriteString("\n")
	distribution(t, &out)
	t.Log("\n" + out.String())
	report.Splice(t, *write, "attest", out.String())
}

func measure(t *testing.T, ops []op) []*row {
	t.Helper()
	var rows []*row
	for _, o := range ops {
		r := &row{op: o}
		if err := r.once(); err != nil { // also warms up
			t.Fatalf("%s: %v", o.name, err)
		}
		r.weigh()
		rows = append(rows, r)
	}
	for n := range *rounds {
		round := map[string]time.Duration{}
		for i := range rows {
			r := rows[(i+n)%len(rows)]
			if r.prepare != nil {
				r.prepare()
			}
			start := time.Now()
			err := r.run()
			d := time.Since(start)
			if err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			round[r.name] = d
			r.times = append(r.times, d)
		}
		for _, r := range rows {
			if r.n > 0 {
				r.ratios = append(r.ratios, float64(round[r.name])/float64(round[r.per]))
			}
		}
	}
	return rows
}

func (r *row) once() error {
	if r.prepare != nil {
		r.prepare()
	}
	return r.run()
}

// weigh counts the memory of one call.
func (r *row) weigh() {
	const calls = 10
	for range calls {
		if r.prepare != nil {
			r.prepare()
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = r.run()
		runtime.ReadMemStats(&after)
		b, a := after.TotalAlloc-before.TotalAlloc, after.Mallocs-before.Mallocs
		if r.allocs == 0 || a < r.allocs {
			r.bytes, r.allocs = b, a
		}
	}
}

func table(out *strings.Builder, rows []*row) {
	out.WriteString("| operation | p10 µs | p50 µs | p99 µs | bytes | allocs | ratio |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		ratio := ""
		if r.n > 0 {
			slices.Sort(r.ratios)
			ratio = fmt.Sprintf("%.2f x %s", r.ratios[len(r.ratios)/2], r.per)
		}
		fmt.Fprintf(out, "| %s | %s | %d | %d | %s |\n", r.name+r.note, quantiles(r.times), r.bytes, r.allocs, ratio)
	}
}

func quantiles(d []time.Duration) string {
	d = slices.Clone(d)
	slices.Sort(d)
	at := func(p float64) string {
		return fmt.Sprintf("%.1f", float64(d[int(p*float64(len(d)-1))])/float64(time.Microsecond))
	}
	return at(0.1) + " | " + at(0.5) + " | " + at(0.99)
}
