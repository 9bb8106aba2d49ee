package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/attest/tdx"
)

var (
	long = flag.Bool("long", false, "millions of mutations instead of a sample")
	many = flag.Int("many", 2_000_000, "mutations in a long run; a hundredth of it for npm")
	seed = flag.Uint64("seed", 1, "of the mutations")
)

// tally counts the disagreements of a run by oracle and class.
type tally struct {
	mu      sync.Mutex
	asked   int
	accept  int // both accept
	classes map[string]int
	bad     []disagreement
}

func (t *tally) add(oracle string, c sample, ours, theirs verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	if ours.ok && theirs.ok {
		t.accept++
	}
	d, differ := compare(oracle, c, ours, theirs)
	if !differ {
		return
	}
	id := d.class()
	if id == "" || d.laxer() && !slices.Contains(notLaxer(), id) {
		t.bad = append(t.bad, d)
	}
	if t.classes == nil {
		t.classes = map[string]int{}
	}
	t.classes[oracle+" "+id]++
}

func (t *tally) report(tb *testing.T) {
	tb.Helper()
	var keys []string
	for k, n := range t.classes {
		keys = append(keys, fmt.Sprintf("%s: %d", k, n))
	}
	slices.Sort(keys)
	tb.Logf("%d answers, %d accepted by both; disagreements: %s", t.asked, t.accept, strings.Join(keys, "; "))
	for i, d := range t.bad {
		if i == 10 {
			tb.Errorf("and %d more", len(t.bad)-i)
			break
		}
		tb.Errorf("unexplained: %s%s", d, keep(tb, d.sample, i))
	}
	if t.accept == 0 {
		tb.Error("nothing was accepted by both: the comparison says nothing")
	}
}

// keep writes an unexplained quote where a person can look at it.
func keep(tb *testing.T, c sample, i int) string {
	dir := os.Getenv("DIFFERENTIAL_KEEP")
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, fmt.Sprintf("case-%d.quote", i))
	if err := os.WriteFile(path, c.quote, 0o600); err != nil {
		tb.Error(err)
	}
	return " (" + path + ")"
}

// each calls fn for every plain sample and n drawn ones, on all cores.
func each(p pool, n int, fn func(sample)) {
	work := make(chan sample, 64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for c := range work {
				fn(c)
			}
		})
	}
	for _, c := range p.plain() {
		work <- c
	}
	r := rand.New(rand.NewPCG(*seed, 3)) //nolint:gosec // reproducible on purpose
	for range n {
		work <- p.draw(r)
	}
	close(work)
	wg.Wait()
}

func TestGoTDXGuest(t *testing.T) {
	n := 1500
	if *long {
		n = *many
	}
	p := newPool(t)
	var sum tally
	cache := tdx.NewCache(8)
	each(p, n, func(c sample) {
		ours := p.ours(c)
		sum.add(goOracle, c, ours, p.goTDX(c))
		// What is remembered, of sound and unsound samples alike, changes no verdict.
		if warm := p.cached(cache, c); warm != ours {
			t.Errorf("%s: with a cache %+v, without %+v", c, warm, ours)
		}
	})
	sum.report(t)
}

func TestDcapQVL(t *testing.T) {
	p := newPool(t)
	q := newQVL(t, p.root)
	plain := p.plain()
	n := 60
	if *long {
		n = *many / 100
	} else { // every fifth state of health, another fifth for another seed
		var some []sample
		for i, c := range plain {
			if i == 0 || uint64(i)%5 == *seed%5 { //nolint:gosec // an index
				some = append(some, c)
			}
		}
		plain = some
	}
	r := rand.New(rand.NewPCG(*seed, 4)) //nolint:gosec // reproducible on purpose
	for range n {
		plain = append(plain, p.draw(r))
	}
	var sum tally
	for _, c := range plain {
		ours := p.ours(c)
		js, wasm, ok := q.ask(t, c)
		if !ok {
			continue
		}
		sum.add(jsOracle, c, ours, js)
		sum.add(wasmOracle, c, ours, wasm)
	}
	sum.report(t)
}

// Every class is explained, and nothing is explained that is no class.
func TestClassesAreExplained(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "spec", "differential.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			if id := strings.Trim(cells[1], " `"); id != "" && id != "class" && !strings.HasPrefix(id, "-") {
				listed[id] = true
			}
		}
	}
	have := map[string]bool{}
	for _, c := range classes() {
		have[c.id] = true
		if !listed[c.id] {
			t.Errorf("docs/spec/differential.md does not explain %s", c.id)
		}
	}
	for id := range listed {
		if !have[id] {
			t.Errorf("docs/spec/differential.md explains %s, which is no class", id)
		}
	}
}
