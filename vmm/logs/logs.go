// Package logs keeps what a guest writes to its console: a file that grows by
// somebody else's hand (QEMU, opened for appending), cut by size, a bounded number
// of older pieces, and an index that says when which byte was written.
//
// Open one Log per file and process, Run it while the machine runs, Read from it at
// any time. A guest can fill only what Config allows; readers get bounded lines.
//
// A piece is called <file>.<offset>: the number of bytes that were written before
// it since the beginning. The file is copied and truncated, because its writer
// keeps it open; what is written between the two (microseconds) is lost.
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Config of a Log; zero fields are the defaults.
type Config struct {
	MaxBytes int64         // of the file before it is cut; 4 MiB
	Keep     int           // older pieces; 3
	Every    time.Duration // how often Run looks; 1 s, the resolution of since and until
	Now      func() time.Time
}

// Log is one growing file. It is safe for concurrent use.
type Log struct {
	path string
	cfg  Config

	mu     sync.Mutex
	pieces []piece // oldest first
	base   int64   // offset of the file's first byte
	marks  []mark
	grown  chan struct{} // closed when a look found more, or the log ended
	ended  bool
	size   int64 // of the file at the last look
}

type piece struct{ base, size int64 }

func (p piece) end() int64 { return p.base + p.size }

// Open finds the older pieces of the file at path, which need not exist yet.
func Open(path string, cfg Config) (*Log, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 4 << 20
	}
	if cfg.Keep == 0 {
		cfg.Keep = 3
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxBytes < 1 || cfg.Keep < 0 {
		return nil, cvm.Errorf(cvm.Invalid, "log %s: %d bytes, %d older pieces", path, cfg.MaxBytes, cfg.Keep)
	}
	l := &Log{path: path, cfg: cfg, grown: make(chan struct{})}
	if err := l.find(); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "log %s: %w", path, err)
	}
	l.marks = readIndex(l.indexFile())
	return l, nil
}

func (l *Log) indexFile() string           { return l.path + ".index" }
func (l *Log) pieceFile(base int64) string { return fmt.Sprintf("%s.%020d", l.path, base) }

// find lists the pieces, and undoes a cut that a crash interrupted between the copy
// and the truncation: its bytes are still in the file.
func (l *Log) find() error {
	names, err := filepath.Glob(globQuote(l.path) + ".[0-9]*")
	if err != nil {
		return err
	}
	for _, n := range names {
		base, err := strconv.ParseInt(strings.TrimPrefix(n, l.path+"."), 10, 64)
		if err != nil || l.pieceFile(base) != n {
			continue // not ours
		}
		st, err := os.Stat(n)
		if err != nil {
			return err
		}
		l.pieces = append(l.pieces, piece{base, st.Size()})
	}
	slices.SortFunc(l.pieces, func(a, b piece) int { return int(min(1, max(-1, a.base-b.base))) })
	if n := len(l.pieces); n > 0 {
		last := l.pieces[n-1]
		twice, err := startsWith(l.path, l.pieceFile(last.base))
		if err != nil {
			return err
		}
		if twice {
			l.pieces = l.pieces[:n-1]
			l.base = last.base
			return os.Remove(l.pieceFile(last.base))
		}
		l.base = last.end()
	}
	return nil
}

func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// startsWith reports whether the file at path begins with the whole (non-empty)
// content of the one at prefix.
func startsWith(path, prefix string) (bool, error) {
	b, err := os.ReadFile(prefix)
	if err != nil || len(b) == 0 {
		return false, err
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(b))
	if _, err := io.ReadFull(f, head); err != nil {
		return false, nil //nolint:nilerr // shorter: not the same
	}
	return bytes.Equal(head, b), nil
}

// Run looks after the file until ctx ends.
func (l *Log) Run(ctx context.Context) {
	t := time.NewTicker(l.cfg.Every)
	defer t.Stop()
	for {
		_ = l.Look()
		select {
		case <-ctx.Done():
			_ = l.Look()
			return
		case <-t.C:
		}
	}
}

// End says that nothing will be written any more: readers that follow come to the
// end. Resume undoes it for the next run of the machine.
func (l *Log) End() {
	_ = l.Look()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wakeLocked()
}

// Resume says that the file may grow again.
func (l *Log) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = false
}

func (l *Log) wakeLocked() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// Look notes the time of what is new, and cuts the file when it is too long.
func (l *Log) Look() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	st, err := os.Stat(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Size() < l.size { // somebody else truncated it: what follows is new
		l.base, l.size = l.base+l.size, 0
	}
	if st.Size() > l.size {
		l.marks = l.addMark(mark{Offset: l.base + l.size, At: l.cfg.Now().UTC()})
		l.size = st.Size()
		l.wakeLocked()
	}
	if l.size <= l.cfg.MaxBytes {
		return nil
	}
	return l.cutLocked()
}

// cutLocked makes the file the newest piece and drops the oldest.
func (l *Log) cutLocked() error {
	src, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp, err := os.CreateTemp(filepath.Dir(l.path), ".log-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // nothing after the rename
	n, err := io.Copy(tmp, src) // up to what was written meanwhile
	if err == nil && l.cfg.Keep > 0 {
		err = os.Rename(tmp.Name(), l.pieceFile(l.base))
	}
	if err == nil {
		err = src.Truncate(0)
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if l.cfg.Keep > 0 {
		l.pieces = append(l.pieces, piece{l.base, n})
	}
	l.base, l.size = l.base+n, 0
	for len(l.pieces) > l.cfg.Keep {
		if err := os.Remove(l.pieceFile(l.pieces[0].base)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		l.pieces = l.pieces[1:]
	}
	return l.trimIndex()
}

// firstLocked is the oldest offset that is kept.
func (l *Log) firstLocked() int64 {
	if len(l.pieces) > 0 {
		return l.pieces[0].base
	}
	return l.base
}

// readAt reads at an offset since the beginning; what is not kept any more is
// skipped. n is 0 at the end; wait is closed when there may be more; done says that
// there will be none.
func (l *Log) readAt(p []byte, at int64) (n int, from int64, wait <-chan struct{}, done bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from = max(at, l.firstLocked())
	for _, x := range l.pieces {
		if from >= x.base && from < x.end() {
			n, err = readFile(l.pieceFile(x.base), p, from-x.base)
			if n > 0 || err != nil {
				return n, from, nil, false, err
			}
			from = x.end() // the file is shorter than it was: go on behind it
		}
	}
	from = max(from, l.base)
	n, err = readFile(l.path, p, from-l.base)
	return n, from, l.grown, l.ended, err
}

func readFile(path string, p []byte, at int64) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(p, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Remove deletes the file with all its pieces.
func (l *Log) Remove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := []error{gone(os.Remove(l.path)), gone(os.Remove(l.indexFile()))}
	for _, p := range l.pieces {
		errs = append(errs, gone(os.Remove(l.pieceFile(p.base))))
	}
	l.pieces, l.marks, l.ended = nil, nil, true
	l.wakeLocked()
	return errors.Join(errs...)
}

func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
