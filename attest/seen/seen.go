// Package seen remembers what was found about exact bytes, within a bound. It is
// for results of checks that depend on those bytes alone (a signature, a parse),
// never for verdicts, which depend on time and policy as well.
package seen

import (
	"bytes"
	"hash/maphash"
	"sync"
)

// Cache maps byte strings, each given as parts, to values. It holds at most limit
// of them: when half of it is new, the older half is forgotten, but for what was
// asked for since. The nil Cache holds nothing. It is safe for concurrent use; values are
// shared between callers and must not change.
type Cache[V any] struct {
	seed maphash.Seed
	half int

	mu         sync.Mutex
	young, old map[uint64]*entry[V]
}

type entry[V any] struct {
	key   []byte // all parts
	sizes []int  // where each ends, so that ("ab","c") is not ("a","bc")
	value V
}

// New makes a cache of at most limit entries; below 2 it is nil and holds nothing.
func New[V any](limit int) *Cache[V] {
	if limit < 2 {
		return nil
	}
	return &Cache[V]{seed: maphash.MakeSeed(), half: limit / 2, young: map[uint64]*entry[V]{}}
}

// Get finds the value that was put under the same parts.
func (c *Cache[V]) Get(parts ...[]byte) (v V, ok bool) {
	if c == nil {
		return v, false
	}
	e := c.find(c.hash(parts))
	// The hash only chooses where to look; the bytes decide.
	if e == nil || !e.is(parts) {
		return v, false
	}
	return e.value, true
}

// Put remembers v under a copy of parts.
func (c *Cache[V]) Put(v V, parts ...[]byte) {
	if c == nil {
		return
	}
	e := &entry[V]{key: bytes.Join(parts, nil), sizes: make([]int, len(parts)), value: v}
	for i, p := range parts {
		e.sizes[i] = len(p)
	}
	h := c.hash(parts)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(h, e)
}

// Drop forgets everything.
func (c *Cache[V]) Drop() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old = map[uint64]*entry[V]{}, nil
}

// Len is the number of entries, at most the limit.
func (c *Cache[V]) Len() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.young) + len(c.old)
}

func (c *Cache[V]) find(h uint64) *entry[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.young[h]; e != nil {
		return e
	}
	e := c.old[h]
	if e != nil {
		c.keep(h, e)
	}
	return e
}

func (c *Cache[V]) keep(h uint64, e *entry[V]) {
	if len(c.young) >= c.half && c.young[h] == nil {
		c.young, c.old = make(map[uint64]*entry[V], c.half), c.young
	}
	c.young[h] = e
	delete(c.old, h)
}

func (c *Cache[V]) hash(parts [][]byte) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	for _, p := range parts {
		_, _ = h.Write(p) // never fails
	}
	return h.Sum64()
}

func (e *entry[V]) is(parts [][]byte) bool {
	if len(parts) != len(e.sizes) {
		return false
	}
	rest := e.key
	for i, p := range parts {
		n := e.sizes[i]
		if !bytes.Equal(p, rest[:n]) {
			return false
		}
		rest = rest[n:]
	}
	return true
}
