package disk

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

// memory is a device of which the power can be cut: after left writes nothing
// arrives any more, and the write that is cut arrives in part.
type memory struct {
	b    []byte
	left *int
	torn int // bytes of the write that is cut
}

var errPower = errors.New("power cut")

func (m *memory) ReadBlock(at int64, b []byte) error {
	copy(b, m.b[at:])
	return nil
}

func (m *memory) WriteBlock(at int64, b []byte) error {
	if *m.left == 0 {
		copy(m.b[at:], b[:m.torn])
		*m.left = -1
		return errPower
	}
	if *m.left < 0 {
		return errPower
	}
	*m.left--
	copy(m.b[at:], b)
	return nil
}

// pair is a disk: the outer record's device and the volume.
type pair struct {
	out, in *memory
	writes  int
}

func newPair() *pair {
	p := &pair{writes: 1 << 30}
	p.out, p.in = &memory{b: make([]byte, HeaderSize), left: &p.writes}, &memory{b: make([]byte, recordSlot), left: &p.writes}
	return p
}

func (p *pair) clone() *pair {
	c := newPair()
	c.out.b, c.in.b = bytes.Clone(p.out.b), bytes.Clone(p.in.b)
	return c
}

func (p *pair) counter(t testing.TB, key byte) *counter {
	t.Helper()
	k, err := macKeyOf(testKey(key))
	if err != nil {
		t.Fatal(err)
	}
	return &counter{outer: outerSlots(p.out), inner: innerSlots(p.in), key: k, header: [32]byte{9}}
}

// format gives the pair its first records.
func (p *pair) format(t testing.TB) {
	t.Helper()
	c := p.counter(t, 1)
	if err := errors.Join(c.inner.write(record{0, stateClosed, c.header}, c.key), c.outer.write(record{0, stateClosed, c.header}, c.key)); err != nil {
		t.Fatal(err)
	}
}

// boot is one boot until its end: load, open, close. reported is what the KMS hears.
func (p *pair) boot(t testing.TB) (reported, now uint64, err error) {
	t.Helper()
	c := p.counter(t, 1)
	r, _, _, err := c.outer.newest()
	if err != nil {
		return 0, 0, err
	}
	if err := c.load(ProfileIntegrity); err != nil {
		return r.generation, c.now, err
	}
	if err := c.move(stateOpen); err != nil {
		return r.generation, c.now, err
	}
	return r.generation, c.now, c.move(stateClosed)
}

// The power is cut at every write of a boot, whole, in the middle of a record, and
// between the two: the next boot always succeeds, and never reports less than what a
// boot before could have confirmed.
func TestCrashAnywhere(t *testing.T) {
	for cut := range 4 { // writes of one boot: inner, outer, inner, outer
		for _, torn := range []int{0, 100, recordSize, recordSize + 100, recordSlot} {
			t.Run(fmt.Sprintf("write %d, %d bytes", cut, torn), func(t *testing.T) {
				p := newPair()
				p.format(t)
				for range 3 {
					if _, _, err := p.boot(t); err != nil {
						t.Fatal(err)
					}
				}
				p.writes, p.out.torn, p.in.torn = cut, torn, torn
				_, confirmed, err := p.boot(t)
				if !errors.Is(err, errPower) {
					t.Fatalf("the cut did not happen: %v", err)
				}
				p.writes = 1 << 30
				reported, now, err := p.boot(t)
				if err != nil {
					t.Fatalf("the next boot: %v", err)
				}
				// The boot that was cut confirms what move returned, nothing else.
				if reported < confirmed || now <= confirmed {
					t.Errorf("reports %d and reaches %d, %d was confirmed", reported, now, confirmed)
				}
			})
		}
	}
}

// What a host can do with the records and with older states of either part.
func TestRecordAttacks(t *testing.T) {
	old := newPair()
	old.format(t)
	if _, _, err := old.boot(t); err != nil {
		t.Fatal(err)
	}
	fresh := old.clone()
	for range 2 {
		if _, _, err := fresh.boot(t); err != nil {
			t.Fatal(err)
		}
	}
	slotOf := func(b []byte, i int) []byte { return b[recordStart+i*recordSlot:][:recordSlot] }
	for _, tc := range []struct {
		name   string
		change func(p *pair)
		want   string
	}{
		{"nothing", func(*pair) {}, ""},
		{"old data behind the new record", func(p *pair) { copy(p.in.b, old.in.b) }, "its data is of generation"},
		{"data one generation behind its record", func(p *pair) {
			c := p.counter(t, 1)
			clear(p.in.b)
			if err := c.inner.write(record{5, stateOpen, c.header}, c.key); err != nil {
				t.Fatal(err)
			}
		}, "its data is of generation 5, its record says 6"},
		{"old record before newer data", func(p *pair) { copy(p.out.b, old.out.b) }, "its data is of generation"},
		{"the record erased", func(p *pair) { clear(p.out.b) }, "record is missing"},
		{"the data's record erased", func(p *pair) { clear(p.in.b) }, "carries no generation"},
		{"both erased", func(p *pair) { clear(p.in.b); clear(p.out.b) }, "record is missing"},
		{"a higher number", func(p *pair) {
			s := slotOf(p.out.b, 0)
			s[20]++ // generation + 2^24
			seal(s[:recordSize])
		}, "was not written by this app"},
		{"the state edited", func(p *pair) {
			for i := range 2 {
				s := slotOf(p.out.b, i)
				s[15] ^= 3
				seal(s[:recordSize])
			}
		}, "was not written by this app"},
		{"the inner record as the outer", func(p *pair) {
			clear(p.out.b)
			copy(slotOf(p.out.b, 0), p.in.b[:recordSize])
			copy(slotOf(p.out.b, 1), p.in.b[recordSize:2*recordSize])
		}, "was not written by this app"},
		{"the outer record as the inner", func(p *pair) {
			copy(p.in.b, slotOf(p.out.b, 0)[:recordSize])
			copy(p.in.b[recordSize:], slotOf(p.out.b, 1)[:recordSize])
		}, "data's generation"},
		{"one newest slot damaged: the one before, which the KMS sees", func(p *pair) {
			slotOf(p.out.b, 0)[16] ^= 1
		}, ""},
		{"a record of version 2", func(p *pair) {
			for i := range 2 {
				s := slotOf(p.out.b, i)
				s[11] = 2
				seal(s[:recordSize])
			}
		}, "record is missing"},
	} {
		p := fresh.clone()
		tc.change(p)
		_, _, err := p.boot(t)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.want != "" && (cvm.ReasonOf(err) != ReasonSwapped || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: want %q, got %v", tc.name, tc.want, err)
		}
	}
}

// A disk of another header, of another app; and an old disk of the reference.
func TestRecordBelongs(t *testing.T) {
	p := newPair()
	p.format(t)
	c := p.counter(t, 1)
	c.header = [32]byte{8}
	if err := c.load(ProfileIntegrity); cvm.ReasonOf(err) != ReasonSwapped || !strings.Contains(err.Error(), "another header") {
		t.Errorf("another header: %v", err)
	}
	if err := p.counter(t, 2).load(ProfileIntegrity); cvm.ReasonOf(err) != ReasonSwapped {
		t.Errorf("another key: %v", err)
	}
	empty := newPair().counter(t, 1)
	if err := empty.load(ProfileReference); err != nil || empty.now != 0 {
		t.Errorf("an old disk: %v", err)
	}
	if err := empty.move(stateOpen); err != nil || empty.load(ProfileReference) != nil || empty.now != 1 {
		t.Errorf("an old disk's first boot: generation %d", empty.now)
	}
}

func TestIsNew(t *testing.T) {
	head := make([]byte, HeaderSize)
	if !isNew(head) {
		t.Error("zeros are not new")
	}
	for _, at := range []int{0, 4096, 1 << 20, HeaderSize - 1} {
		head[at] = 1
		if isNew(head) {
			t.Errorf("new with a byte at %d", at)
		}
		head[at] = 0
	}
	copy(head[recordStart:], marker())
	copy(head, "LUKS\xba\xbe")
	if !isNew(head) {
		t.Error("formatting that was cut short is not new")
	}
	head[recordStart+300] = 1
	if isNew(head) {
		t.Error("new with a damaged marker")
	}
}

// FuzzRecord: what is read as a record is written back as the same bytes, but its MAC.
func FuzzRecord(f *testing.F) {
	key := testKey(1)
	f.Add(record{7, stateOpen, [32]byte{1}}.encode(outer, key))
	f.Add(make([]byte, recordSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > recordSize {
			return
		}
		c := make([]byte, recordSize)
		copy(c, b)
		seal(c) // a host can
		r, ok := parseRecord(c)
		if !ok {
			return
		}
		again := r.encode(outer, key)
		if !bytes.Equal(again[:recordMAC], c[:recordMAC]) {
			t.Fatalf("%x\n%x", c[:recordMAC], again[:recordMAC])
		}
	})
}
