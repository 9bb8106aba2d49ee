package logs

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// mark says that the byte at Offset (and what follows up to the next mark) was seen
// at At. In the file it is 16 bytes: offset and unix nanoseconds, big endian.
type mark struct {
	Offset int64
	At     time.Time
}

const (
	markSize = 16
	// maxMarks bounds the index; a fuller one forgets every second mark.
	maxMarks = 20_000
)

// addMark appends to the index. A failed write only costs precision.
func (l *Log) addMark(m mark) []mark {
	if n := len(l.marks); n > 0 && m.At.Before(l.marks[n-1].At) {
		m.At = l.marks[n-1].At // the clock was set back
	}
	out := append(l.marks, m)
	if len(out) > maxMarks {
		thin := out[:0:0]
		for i, x := range out {
			if i%2 == 0 || i == len(out)-1 {
				thin = append(thin, x)
			}
		}
		l.marks = thin
		_ = l.writeIndex()
		return thin
	}
	f, err := os.OpenFile(l.indexFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, _ = f.Write(encodeMark(m))
		_ = f.Close()
	}
	return out
}

func encodeMark(m mark) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(m.Offset))        // #nosec G115 -- offsets are not negative
	return binary.BigEndian.AppendUint64(b, uint64(m.At.UnixNano())) // #nosec G115 -- the same bits come back
}

// readIndex reads what is sound of an index: marks that go up in both columns.
func readIndex(path string) []mark {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return decodeIndex(b)
}

func decodeIndex(b []byte) (out []mark) {
	for ; len(b) >= markSize; b = b[markSize:] {
		offset := int64(binary.BigEndian.Uint64(b))                     // #nosec G115 -- checked below
		at := time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))).UTC() // #nosec G115 -- any time is one
		if n := len(out); offset < 0 || n > 0 && (offset <= out[n-1].Offset || at.Before(out[n-1].At)) {
			continue
		}
		out = append(out, mark{offset, at})
	}
	return out
}

// trimIndex forgets marks of pieces that are gone.
func (l *Log) trimIndex() error {
	first := l.firstLocked()
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].Offset > first })
	if i = max(0, i-1); i == 0 { // the mark below first still speaks for it
		return nil
	}
	l.marks = append([]mark(nil), l.marks[i:]...)
	return l.writeIndex()
}

func (l *Log) writeIndex() error {
	var b []byte
	for _, m := range l.marks {
		b = append(b, encodeMark(m)...)
	}
	f, err := os.CreateTemp(filepath.Dir(l.path), ".log-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing after the rename
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), l.indexFile())
}

// since is the first offset that was written at or after t, as far as the index knows.
func (l *Log) since(t time.Time) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.marks), func(i int) bool { return !l.marks[i].At.Before(t) })
	if i == len(l.marks) {
		return l.base + l.size
	}
	return l.marks[i].Offset
}

// until is the first offset that was written after t; -1: none yet.
func (l *Log) until(t time.Time) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].At.After(t) })
	if i == len(l.marks) {
		return -1
	}
	return l.marks[i].Offset
}

// when is the time of an offset, zero when nothing is known.
func (l *Log) when(offset int64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].Offset > offset })
	if i == 0 {
		return time.Time{}
	}
	return l.marks[i-1].At
}
