package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// MaxLine is the default bound of a line, in bytes.
const MaxLine = 16 << 10

// Options select what Read returns; the zero value is everything that is kept, once.
type Options struct {
	Tail         int       // the last lines only; 0 is all
	Since, Until time.Time // zero is no bound; exact to Config.Every
	Follow       bool      // go on until ctx ends, the log ends, or Until has passed
	KeepANSI     bool      // leave control sequences in
	Timestamps   bool      // RFC 3339 before each line, where known
	MaxLine      int       // the rest of a longer line is left out; 0 is MaxLine
	// Heartbeat writes an empty line when nothing came for so long; 0 is never.
	Heartbeat time.Duration
}

// Read streams the log. Close it when done; ctx bounds it as well.
func (l *Log) Read(ctx context.Context, o Options) (io.ReadCloser, error) {
	if o.Tail < 0 || o.MaxLine < 0 || o.Heartbeat < 0 {
		return nil, cvm.Errorf(cvm.Invalid, "log options: negative number")
	}
	if !o.Since.IsZero() && !o.Until.IsZero() && o.Until.Before(o.Since) {
		return nil, cvm.Errorf(cvm.Invalid, "log options: until is before since")
	}
	if o.MaxLine == 0 {
		o.MaxLine = MaxLine
	}
	if err := l.Look(); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "reading the log: %w", err)
	}
	r := reader{l: l, o: o, at: l.start(o)}
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	go func() {
		defer cancel()
		_ = pw.CloseWithError(r.run(ctx, pw))
	}()
	return &closer{pr, cancel}, nil
}

type closer struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close ends the stream.
func (c *closer) Close() error {
	c.cancel()
	return c.PipeReader.Close()
}

// start is the offset that a reader with these options begins at.
func (l *Log) start(o Options) int64 {
	l.mu.Lock()
	first, end := l.firstLocked(), l.base+l.size
	l.mu.Unlock()
	if !o.Since.IsZero() {
		first = max(first, l.since(o.Since))
	}
	if o.Tail == 0 {
		return first
	}
	if !o.Until.IsZero() {
		if u := l.until(o.Until); u >= 0 {
			end = u
		}
	}
	return l.backLines(o.Tail, first, end)
}

// backLines is where the last n lines before end begin, not before first.
func (l *Log) backLines(n int, first, end int64) int64 {
	const chunk = 32 << 10
	buf := make([]byte, chunk)
	skipped := false // the newline that ends the last line does not count
	for to := end; to > first; {
		from := max(first, to-chunk)
		got := l.fill(buf[:to-from], from)
		for i := got - 1; i >= 0; i-- {
			if buf[i] != '\n' {
				skipped = true
				continue
			}
			if skipped {
				n--
			}
			skipped = true
			if n == 0 {
				return from + int64(i) + 1
			}
		}
		to = from
	}
	return first
}

// fill reads p at an offset across pieces; it returns less only at the end.
func (l *Log) fill(p []byte, at int64) (n int) {
	for n < len(p) {
		got, from, _, _, err := l.readAt(p[n:], at+int64(n))
		if got == 0 || err != nil || from != at+int64(n) {
			break
		}
		n += got
	}
	return n
}

// reader is one Read.
type reader struct {
	l    *Log
	o    Options
	at   int64
	line []byte // of the present line, not written yet
	// long: the present line had its MaxLine; begun: a part of it was written.
	used        int
	long, begun bool
	begins      int64 // offset of the present line
	strip       Stripper
}

func (r *reader) run(ctx context.Context, w io.Writer) error {
	buf := make([]byte, 32<<10)
	r.begins = r.at
	for ctx.Err() == nil {
		end := int64(-1)
		if !r.o.Until.IsZero() {
			if end = r.l.until(r.o.Until); end >= 0 && r.at >= end {
				return r.flush(w)
			}
		}
		p := buf
		if end >= 0 {
			p = buf[:min(int64(len(buf)), end-r.at)]
		}
		n, from, wait, done, err := r.l.readAt(p, r.at)
		if err != nil {
			return cvm.Errorf(cvm.Internal, "reading the log: %w", err)
		}
		if from > r.at {
			if err := r.lost(w, from); err != nil {
				return err
			}
		}
		if n > 0 {
			r.at = from + int64(n)
			if err := r.write(w, p[:n], from); err != nil {
				return err
			}
			continue
		}
		if err := r.flush(w); err != nil || !r.o.Follow || done {
			return err
		}
		if past, err := r.wait(ctx, w, wait); past || err != nil {
			return err
		}
	}
	return ctx.Err()
}

// wait until there is more; past says that Until has passed.
func (r *reader) wait(ctx context.Context, w io.Writer, more <-chan struct{}) (past bool, err error) {
	var beat, over <-chan time.Time
	if r.o.Heartbeat > 0 {
		t := time.NewTimer(r.o.Heartbeat)
		defer t.Stop()
		beat = t.C
	}
	if !r.o.Until.IsZero() {
		t := time.NewTimer(r.o.Until.Sub(r.l.cfg.Now()))
		defer t.Stop()
		over = t.C
	}
	select {
	case <-more:
	case <-ctx.Done():
	case <-over:
		return true, nil
	case <-beat:
		_, err = io.WriteString(w, "\n")
	}
	return false, err
}

// lost tells a reader that was too slow what it missed.
func (r *reader) lost(w io.Writer, from int64) error {
	if err := r.flush(w); err != nil {
		return err
	}
	nl := ""
	if r.begun {
		nl = "\n"
	}
	_, err := fmt.Fprintf(w, "%s[%d bytes are not kept any more]\n", nl, from-r.at)
	r.at, r.begins, r.begun, r.long, r.used = from, from, false, false, 0
	return err
}

// write takes bytes that begin at an offset and writes whole lines.
func (r *reader) write(w io.Writer, p []byte, from int64) error {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if room := r.o.MaxLine - r.used; len(part) > room {
			r.line = append(r.line, part[:room]...)
			r.used, r.long = r.o.MaxLine, true
		} else {
			r.line = append(r.line, part...)
			r.used += len(part)
		}
		if i < 0 {
			return nil
		}
		if r.long {
			r.line = append(r.line, " [line cut]"...)
		}
		r.line = append(r.line, '\n')
		if err := r.flush(w); err != nil {
			return err
		}
		p, from = p[i+1:], from+int64(i)+1
		r.begins, r.begun, r.long, r.used = from, false, false, 0
	}
	return nil
}

// flush writes what there is of the present line.
func (r *reader) flush(w io.Writer) error {
	if len(r.line) == 0 {
		return nil
	}
	var out []byte
	if r.o.Timestamps && !r.begun {
		if t := r.l.when(r.begins); !t.IsZero() {
			out = append(t.AppendFormat(out, time.RFC3339), ' ')
		}
	}
	if r.o.KeepANSI {
		out = append(out, r.line...)
	} else {
		out = r.strip.Strip(out, r.line)
	}
	r.line, r.begun = r.line[:0], true
	_, err := w.Write(out)
	return err
}
