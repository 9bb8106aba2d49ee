package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Verdict is what is to be said of one node that does not fit.
type Verdict struct {
	Node     Node
	Problems []Problem
}

// Unplaced is the error of Pick: no node fits, and why those do not that came nearest.
type Unplaced struct {
	err      *cvm.Error
	alone    checks    // what nodes lacked that lacked nothing else
	Verdicts []Verdict // the nearest first
}

func (u *Unplaced) Error() string { return u.err.Error() }

// Unwrap gives the coded error.
func (u *Unplaced) Unwrap() error { return u.err }

// Check names what no node has that passes every other check, or "".
func (u *Unplaced) Check() string {
	if u.alone.count() != 1 {
		return ""
	}
	_, check := u.alone.words()
	return check
}

// passed are the nodes that do not fit.
type passed []passedOver

type passedOver struct {
	node  *Node
	fails checks
}

func (p *passed) add(n *Node, f checks) { *p = append(*p, passedOver{n, f}) }

// nearest are the nodes to name, those first that came nearest to fitting: the later
// the first of their problems, the nearer; then the fewer they have. Where there are
// more than told, nodes of another region, or other than the one that was asked for,
// are only counted, as are those that remain: others says how many for which reason.
func (p passed) nearest(r Request) (named []passedOver, others string) {
	whole := len(p) <= told
	for _, x := range p {
		if whole || x.fails&(notThat|elsewhere) == 0 {
			named = append(named, x)
		}
	}
	slices.SortStableFunc(named, func(a, b passedOver) int {
		return cmp.Or(cmp.Compare(b.fails.first(), a.fails.first()), cmp.Compare(a.fails.count(), b.fails.count()), cmp.Compare(a.node.ID, b.node.ID))
	})
	named = named[:min(len(named), told)]
	var counts [16]int // by the first problem's bit
	for _, x := range p {
		counts[x.fails.bit()]++
	}
	for _, x := range named {
		counts[x.fails.bit()]--
	}
	var parts []string
	for bit, n := range slices.Backward(counts[:]) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, checks(1<<bit).others(r)))
		}
	}
	return named, strings.Join(parts, ", ")
}

// unplaced makes the error that says why no node fits.
func unplaced(r Request, all passed) *Unplaced {
	u := &Unplaced{}
	var furthest checks
	for _, x := range all {
		furthest = max(furthest, x.fails.first())
		if x.fails.count() == 1 {
			u.alone |= x.fails
		}
	}
	named, others := all.nearest(r)
	why := make([]string, 0, len(named)+1)
	for _, x := range named {
		v := Verdict{*x.node, x.fails.problems(r, x.node)}
		u.Verdicts = append(u.Verdicts, v)
		texts := make([]string, len(v.Problems))
		for i, p := range v.Problems {
			texts[i] = p.Text
		}
		why = append(why, x.node.Name+": "+strings.Join(texts, ", "))
	}
	if others != "" && len(why) > 0 {
		others = "and " + others
	}
	if others != "" {
		why = append(why, others)
	}
	reason, _ := furthest.words()
	code := cvm.Exhausted
	if reason == ReasonNoNode || reason == ReasonNoImage {
		code = cvm.NotFound
	}
	u.err = cvm.Errorf(code, "no node can take this CVM: %s", strings.Join(why, "; ")).WithReason(reason).
		WithFix("choose a smaller instance type or disk, another region or image, or free resources by deleting a CVM")
	return u
}
