// Package splice joins two byte streams until both directions have ended: the
// inner loop of the gateway and of the guest's end of the tunnel.
package splice

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// bufSize of one copy direction, in bytes. Buffers are pooled: an idle stream that
// waits in Read holds one per direction.
const bufSize = 32 << 10

// Options of a joined pair.
type Options struct {
	// Idle ends the pair when neither direction moved a byte for so long. 0: never.
	Idle time.Duration
	// AtoB and BtoA, when set, count bytes as they move.
	AtoB, BtoA func(n int)
}

// ErrIdle says that a pair ended because nothing moved.
var ErrIdle = errors.New("stream was idle too long")

// buffers is safe for concurrent use and holds no state between calls.
var buffers = sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }}

// closeWriter is what TCP, TLS, unix and tunnel streams have.
type closeWriter interface{ CloseWrite() error }

// Join copies both ways. An end of stream on one side closes the writing half of
// the other (half-close), so protocols that send, shut down and then read work.
// An error closes both. It closes a and b before it returns; the result is nil
// after two clean ends.
func Join(a, b net.Conn, o Options) error {
	var last atomic.Int64 // of the last movement, nanoseconds since start
	var idle atomic.Bool
	start := time.Now()
	closeBoth := func() { _ = a.Close(); _ = b.Close() }
	if o.Idle > 0 {
		var t *time.Timer
		var mu sync.Mutex // the timer may fire before t is set
		mu.Lock()
		t = time.AfterFunc(o.Idle, func() {
			rest := o.Idle - (time.Since(start) - time.Duration(last.Load()))
			if rest > 0 {
				mu.Lock()
				t.Reset(rest)
				mu.Unlock()
				return
			}
			idle.Store(true)
			closeBoth()
		})
		mu.Unlock()
		defer t.Stop()
	}
	moved := func(count func(int)) func(int) {
		return func(n int) {
			last.Store(int64(time.Since(start)))
			if count != nil {
				count(n)
			}
		}
	}
	errs := make(chan error, 1)
	go func() { errs <- pipe(b, a, moved(o.AtoB), closeBoth) }()
	err := pipe(a, b, moved(o.BtoA), closeBoth)
	err = errors.Join(err, <-errs)
	closeBoth()
	if idle.Load() {
		return ErrIdle
	}
	return err
}

// pipe copies src to dst and passes the end of the stream on.
func pipe(dst, src net.Conn, moved func(int), closeBoth func()) error {
	if err := copyAll(dst, src, moved); err != nil {
		closeBoth()
		return err
	}
	cw, ok := dst.(closeWriter)
	if !ok {
		closeBoth() // no half-close: the other direction cannot be told
		return nil
	}
	if err := cw.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		closeBoth()
		return err
	}
	return nil
}

func copyAll(dst io.Writer, src io.Reader, moved func(int)) error {
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	for {
		n, rerr := src.Read(*bp)
		if n > 0 {
			moved(n)
			if _, err := dst.Write((*bp)[:n]); err != nil {
				return err
			}
			moved(0)
		}
		if rerr == io.EOF {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}
