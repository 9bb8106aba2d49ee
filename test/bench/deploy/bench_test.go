package deploy

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
	write    = flag.String("write", "", "write the tables between their markers in this file")
	rounds   = flag.Int("rounds", 0, "deploys on the driver container, each beside a `docker compose up`; 7 for a table to publish")
	machines = flag.Int("machines", 0, "deploys on the driver qemu, each beside a boot of the bare kernel; 2 for a table to publish")
	prebuilt = flag.String("image", "", "directory of a guest image that is built already, for -machines")
)

// publish logs a table and, with -write, puts it between the markers of its name.
func publish(t *testing.T, name, text string) {
	t.Helper()
	hardware, load := report.Machine()
	text = fmt.Sprintf("%s, %s, load at the end %s.\n\n%s", hardware, runtime.Version(), load, text)
	t.Log("\n" + text)
	report.Splice(t, *write, "deploy:"+name, text)
}

// stage is a part of a deploy, from the end of the one before.
type stage struct {
	name string
	took time.Duration
	end  time.Time
}

// timeline is one deploy: what happened when, in order.
type timeline struct {
	last   time.Time
	stages []stage
}

func begin(at time.Time) *timeline { return &timeline{last: at} }

// until ends a stage. The clocks that say when are one: all of this runs on one
// machine. A stage that the observer saw late may end before the one before did.
func (l *timeline) until(name string, at time.Time) {
	took := at.Sub(l.last)
	l.stages = append(l.stages, stage{name, max(0, took), at})
	if took > 0 {
		l.last = at
	}
}

// sum adds up the stages that pick names.
func (l *timeline) sum(pick func(name string) bool) (total time.Duration) {
	for _, s := range l.stages {
		if pick(s.name) {
			total += s.took
		}
	}
	return total
}

func (l *timeline) total() time.Duration { return l.sum(func(string) bool { return true }) }

// spread is the same thing measured several times.
type spread []time.Duration

func (s spread) at(p float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	d := slices.Sorted(slices.Values(s))
	return d[int(p*float64(len(d)-1)+0.5)]
}

// cells is median | least | most, in ms.
func (s spread) cells() string {
	return fmt.Sprintf("%s | %s | %s", millis(s.at(0.5)), millis(s.at(0)), millis(s.at(1)))
}

func millis(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond)) }

// each collects one figure of every run.
func each[T any](runs []T, of func(T) time.Duration) (out spread) {
	for _, r := range runs {
		out = append(out, of(r))
	}
	return out
}

// ratios is the median of the ratios within the rounds.
func ratios[T any](runs []T, of, to func(T) time.Duration) float64 {
	var out []float64
	for _, r := range runs {
		out = append(out, float64(of(r))/float64(max(to(r), 1)))
	}
	slices.Sort(out)
	return out[len(out)/2]
}

// table is the stages of several deploys, in the first one's order.
func table(lines []*timeline) string {
	var b strings.Builder
	b.WriteString("| stage | median ms | least | most |\n|---|---|---|---|\n")
	for i, s := range lines[0].stages {
		fmt.Fprintf(&b, "| %s | %s |\n", s.name, each(lines, func(l *timeline) time.Duration { return l.stages[i].took }).cells())
	}
	return b.String()
}

func TestTimeline(t *testing.T) {
	zero := time.Unix(1000, 0)
	l := begin(zero)
	l.until("a", zero.Add(2*time.Second))
	l.until("late", zero.Add(time.Second))
	l.until("b", zero.Add(5*time.Second))
	if l.total() != 5*time.Second || l.stages[1].took != 0 || l.stages[2].took != 3*time.Second {
		t.Errorf("%+v", l)
	}
	if n := l.sum(func(n string) bool { return n == "b" }); n != 3*time.Second {
		t.Errorf("sum %s", n)
	}
	if s := (spread{3, 1, 2}); s.at(0) != 1 || s.at(0.5) != 2 || s.at(1) != 3 {
		t.Errorf("spread %v %v %v", s.at(0), s.at(0.5), s.at(1))
	}
}
