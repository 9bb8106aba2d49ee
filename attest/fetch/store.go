package fetch

import (
	"container/list"
	"math/rand/v2"
	"sync"
	"time"
)

// store is the memory: least recently used statements go first.
type store struct {
	entries int
	bytes   int64

	mu    sync.Mutex
	byKey map[string]*list.Element // of *entry
	order *list.List               // most recently used first
	used  int64
	lost  int // entries without a part
}

// entry is one statement: a part, the memory of a failure to get it, or both.
type entry struct {
	s     statement
	part  *part // nil: never got
	err   error // of the last attempt
	fails int   // in a row
	retry time.Time
	asked time.Time // by a caller
	early int       // in thousandths of a tenth of its age: how much before it is due Run asks, so that clients do not march in step
}

const perMille = 1000

func newStore(entries int, bytes int64) *store {
	s := &store{entries: entries, bytes: bytes}
	s.clear()
	return s
}

func (t *store) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byKey, t.order, t.used, t.lost = map[string]*list.Element{}, list.New(), 0, 0
}

func (t *store) size() (int, int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.order.Len(), t.used
}

// get returns a copy of an entry and marks it used.
func (t *store) get(key string, at time.Time) (entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	el := t.byKey[key]
	if el == nil {
		return entry{}, false
	}
	t.order.MoveToFront(el)
	e := of(el)
	e.asked = at
	return *e, true
}

// peek is get without the mark.
func (t *store) peek(key string) (entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if el := t.byKey[key]; el != nil {
		return *of(el), true
	}
	return entry{}, false
}

func of(el *list.Element) *entry { return el.Value.(*entry) } //nolint:forcetypeassert // only entries are put in

// put replaces a statement's part. A new entry counts as asked for at a time; one
// that was there keeps the time of its last caller.
func (t *store) put(s statement, p *part, at time.Time) {
	t.set(entry{s: s, part: p, asked: at, early: rand.IntN(perMille)})
}

// fail remembers that nobody gave a statement, so that the next callers are not
// made to wait for the same.
func (t *store) fail(s statement, old *part, err error, at time.Time) {
	t.mu.Lock()
	e := entry{s: s, part: old, err: err, asked: at}
	if el := t.byKey[s.key]; el != nil {
		e.fails, e.early = of(el).fails, of(el).early
	}
	t.mu.Unlock()
	e.retry = at.Add(penalty(e.fails))
	e.fails++
	t.set(e)
}

func (t *store) set(e entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if el := t.byKey[e.s.key]; el != nil {
		e.asked = of(el).asked
		t.remove(el)
	}
	t.byKey[e.s.key] = t.order.PushFront(&e)
	t.used += weight(&e)
	if e.part == nil {
		t.lost++
	}
	for t.lost > max(t.entries/8, 1) {
		t.remove(t.oldestFailure())
	}
	for t.order.Len() > t.entries || t.used > t.bytes && t.order.Len() > 1 {
		t.remove(t.order.Back())
	}
}

// oldestFailure finds it: failures have a share of their own, so that questions which
// nobody can answer push out no answers.
func (t *store) oldestFailure() *list.Element {
	el := t.order.Back()
	for of(el).part != nil {
		el = el.Prev()
	}
	return el
}

func (t *store) remove(el *list.Element) {
	e := of(el)
	if e.part == nil {
		t.lost--
	}
	t.order.Remove(el)
	delete(t.byKey, e.s.key)
	t.used -= weight(e)
}

// weight is about what an entry takes, in bytes.
func weight(e *entry) int64 {
	n := 512 + len(e.s.key)
	if e.part != nil {
		n += len(e.part.body) + len(e.part.chain)
	}
	return int64(n)
}

// snapshot lists the entries for Run.
func (t *store) snapshot() []entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]entry, 0, t.order.Len())
	for el := t.order.Front(); el != nil; el = el.Next() {
		out = append(out, *of(el))
	}
	return out
}
