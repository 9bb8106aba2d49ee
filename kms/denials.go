package kms

import (
	"fmt"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// denials decides which refusals of genuine evidence get a leaf of their own (T12).
// Quotes are public: whoever has seen one can send it again, and an app can make
// as many as it likes. So a refusal that repeats itself, and what goes beyond a
// machine's budget, is only counted, like refusals of strangers.
type denials struct {
	mu    sync.Mutex
	since time.Time
	seen  map[string]bool
	spent map[string]int
}

const (
	// denialWindow is how long repeats are remembered and budgets last.
	denialWindow = time.Minute
	// denialBudget is how many deny leaves one machine may cause in a window for one
	// reason: a replayed quote must not use up the budget of what the machine does.
	denialBudget = 12
	// denialTotal bounds what all of them may cause together.
	denialTotal = 240
)

// leaf reports whether a refusal gets a leaf of its own.
func (d *denials) leaf(r *refusal, at time.Time) bool {
	machine, repeat := denialNames(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil || at.Sub(d.since) > denialWindow || at.Before(d.since) {
		d.since, d.seen, d.spent = at, map[string]bool{}, map[string]int{}
	}
	if d.seen[repeat] || d.spent[machine] >= denialBudget || len(d.seen) >= denialTotal {
		return false
	}
	d.seen[repeat] = true
	d.spent[machine]++
	return true
}

// forget takes a leaf back that could not be written: the next try is the first.
func (d *denials) forget(r *refusal) {
	machine, repeat := denialNames(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen[repeat] {
		delete(d.seen, repeat)
		d.spent[machine]--
	}
}

func denialNames(r *refusal) (machine, repeat string) {
	what := evidenceHash(r.claims)
	if r.err.Code == cvm.Unavailable { // the same guest asks again every few seconds, with new evidence
		what = fmt.Sprint(r.claims.AppID, r.claims.InstanceID)
	}
	machine = fmt.Sprint(r.claims.DeviceID, "/", r.err.Reason)
	return machine, machine + "/" + what
}
