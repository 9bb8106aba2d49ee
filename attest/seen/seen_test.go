package seen_test

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/confidential-cloud/phala/attest/seen"
)

func key(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func TestExactBytes(t *testing.T) {
	c := seen.New[int](8)
	k := []byte("ab")
	c.Put(7, k, []byte("c"))
	k[0] = 'x' // the cache has a copy
	for _, tc := range []struct {
		parts []string
		ok    bool
	}{
		{[]string{"ab", "c"}, true}, {[]string{"a", "bc"}, false}, {[]string{"abc"}, false}, {[]string{"xb", "c"}, false},
		{[]string{"ab", "c", ""}, false}, {[]string{"ab"}, false}, {nil, false},
	} {
		var parts [][]byte
		for _, p := range tc.parts {
			parts = append(parts, []byte(p))
		}
		if v, ok := c.Get(parts...); ok != tc.ok || ok && v != 7 {
			t.Errorf("%q: %d %v", tc.parts, v, ok)
		}
	}
	c.Drop()
	if _, ok := c.Get([]byte("ab"), []byte("c")); ok || c.Len() != 0 {
		t.Error("found after Drop")
	}
}

func TestNilHoldsNothing(t *testing.T) {
	c := seen.New[int](1)
	c.Put(1, key(1))
	if _, ok := c.Get(key(1)); ok || c.Len() != 0 {
		t.Error("the nil cache holds something")
	}
	c.Drop()
}

// However many come, no more than limit stay, and what is asked for stays longest.
func TestBound(t *testing.T) {
	const limit = 100
	c := seen.New[int](limit)
	for i := range 100_000 {
		c.Put(i, key(i))
		if c.Len() > limit {
			t.Fatalf("%d entries after %d", c.Len(), i)
		}
		if v, ok := c.Get(key(i)); !ok || v != i {
			t.Fatalf("%d is not kept", i)
		}
		if _, ok := c.Get(key(0)); !ok {
			t.Fatalf("the one that is always asked for was forgotten at %d", i)
		}
	}
	if _, ok := c.Get(key(5)); ok {
		t.Error("an old one was not forgotten")
	}
}

func TestConcurrentUse(t *testing.T) {
	c := seen.New[int](64)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				n := (i*7 + g) % 200
				if v, ok := c.Get(key(n)); ok && v != n {
					t.Errorf("%d for %d", v, n)
				}
				c.Put(n, key(n))
				if i == 1000 {
					c.Drop()
				}
			}
		})
	}
	wg.Wait()
}
