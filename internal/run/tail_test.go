package run

import (
	"bytes"
	"testing"
)

func TestTail(t *testing.T) {
	w := &Tail{Max: 10}
	for range 100 {
		_, _ = w.Write([]byte("abcdefg"))
	}
	if w.String() != "efgabcdefg" {
		t.Errorf("%q", w.String())
	}
	if n, err := w.Write(append(bytes.Repeat([]byte("x"), 1<<20), " the end\n"...)); n != 1<<20+9 || err != nil || w.String() != "x the end" {
		t.Errorf("%d %v %q", n, err, w.String())
	}
	if cap(w.b) > 64 {
		t.Errorf("%d bytes are held for 10", cap(w.b))
	}
}
