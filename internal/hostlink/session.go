// Package hostlink makes many streams of the one byte channel between a host and its
// guest: a virtio-serial port, or a vsock connection.
//
// Both sides run a Relay (NewHost, NewGuest), which ties the streams to unix sockets
// and begins anew when the channel or the other side was away. Nothing secret may
// cross the link, and nothing that arrives is believed.
package hostlink

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/yamux"
)

// Kind says what a stream is for; it is the stream's first byte.
type Kind byte

// The kinds.
const (
	HostAPI  Kind = 'h' // opened by the guest
	TEE      Kind = 't' // opened by the guest: the simulated TEE's device
	GuestAPI Kind = 'g' // opened by the host
)

// Role of a side.
type Role int

// The roles.
const (
	Guest Role = iota + 1
	Host
)

// Bounds of a session.
const (
	maxStreams = 64        // of both sides together
	window     = 256 << 10 // bytes that a stream may have in flight: yamux takes no less
	helloEvery = 250 * time.Millisecond
	// An emulated guest that is busy may answer late.
	keepAlive = 20 * time.Second
	patience  = 40 * time.Second
	kindWait  = 10 * time.Second
)

// Session is an established link. It ends when the channel ends or the other side
// has restarted: Done is closed, every stream fails, the channel is closed.
type Session struct{ mux *yamux.Session }

// Connect waits until the other side of the channel answers. It discards what an
// earlier session left in the channel. Whatever the outcome, c now belongs to
// Connect: it is closed when ctx ends before the session is there, on an error, and
// when the session ends.
func Connect(ctx context.Context, c io.ReadWriteCloser, role Role) (*Session, error) {
	s := &stream{c: c, r: bufio.NewReaderSize(c, 32<<10), seen: meter{now: time.Now}}
	_, _ = rand.Read(s.self[:])
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.handshake(); err != nil {
		_ = s.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, unavailable("%w", err)
	}
	cfg := &yamux.Config{AcceptBacklog: maxStreams, EnableKeepAlive: true, KeepAliveInterval: keepAlive, ConnectionWriteTimeout: patience,
		MaxStreamWindowSize: window, StreamOpenTimeout: patience, StreamCloseTimeout: time.Minute, LogOutput: io.Discard}
	start := yamux.Server
	if role == Guest {
		start = yamux.Client
	}
	mux, err := start(s, cfg)
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("host link: %w", err)
	}
	return &Session{mux}, nil
}

// handshake says hello until the other side has said that it heard this hello, so
// that no byte of an earlier peer can be taken for the present one's. It reads and
// writes at once: the other side does the same, and the channel may hold nothing.
func (s *stream) handshake() error {
	heard := make(chan nonce)
	wrote := make(chan error, 1)
	go func() {
		err := s.sayHello(heard)
		if err != nil {
			_ = s.Close() // the reader must not wait for an answer
		}
		wrote <- err
	}()
	for {
		h, err := readHello(s.r)
		if err != nil {
			_ = s.Close() // a writer that is blocked
			close(heard)
			return errors.Join(err, <-wrote)
		}
		select {
		case heard <- h.from:
		case err := <-wrote:
			return err
		}
		if h.heard == s.self {
			// The last hello goes out beside what follows: the other side may be reading
			// nothing until its own last one is out.
			s.peer = h.from
			close(heard)
			return nil
		}
	}
}

// sayHello repeats this side's hello, naming the last nonce that was heard, until
// heard is closed.
func (s *stream) sayHello(heard <-chan nonce) error {
	t := time.NewTicker(helloEvery)
	defer t.Stop()
	h := hello{from: s.self}
	for {
		if err := s.send(h.encode()); err != nil {
			return err
		}
		select {
		case n, ok := <-heard:
			if !ok {
				return nil
			}
			h.heard = n
		case <-t.C:
		}
	}
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// Close ends the session and the channel below it.
func (s *Session) Close() error { return s.mux.Close() }

// Open starts a stream of a kind. ctx bounds the opening only.
func (s *Session) Open(ctx context.Context, k Kind) (net.Conn, error) {
	type result struct {
		c   *yamux.Stream
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := s.mux.OpenStream()
		if err == nil {
			_ = c.SetWriteDeadline(time.Now().Add(patience))
			if _, err = c.Write([]byte{byte(k)}); err != nil {
				_ = c.Close()
			}
			_ = c.SetWriteDeadline(time.Time{})
		}
		got <- result{c, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, unavailable("%w", r.err)
		}
		return &conn{r.c}, nil
	case <-ctx.Done():
		go func() {
			if r := <-got; r.err == nil {
				_ = r.c.Close()
			}
		}()
		return nil, unavailable("%w", ctx.Err())
	}
}

// Accept waits for a stream of the other side; it may be called many times at once.
// A stream that says no kind in time is dropped, one beyond the limit is refused, and
// a peer that goes on regardless loses the session: what it sends into streams is
// held in this side's memory.
func (s *Session) Accept(ctx context.Context) (Kind, net.Conn, error) {
	for {
		c, err := s.mux.AcceptStreamWithContext(ctx)
		if err != nil {
			return 0, nil, unavailable("%w", err)
		}
		n := s.mux.NumStreams()
		if n > 2*maxStreams {
			_ = s.Close()
			return 0, nil, unavailable("the other side opened more than %d streams", 2*maxStreams)
		}
		var k [1]byte
		_ = c.SetReadDeadline(time.Now().Add(kindWait))
		if n > maxStreams {
			_ = c.Close()
			continue
		}
		if _, err := io.ReadFull(c, k[:]); err != nil {
			_ = c.Close()
			continue
		}
		_ = c.SetReadDeadline(time.Time{})
		return Kind(k[0]), &conn{c}, nil
	}
}

// conn is a stream with the two closes that a socket has: yamux closes the writing
// half only.
type conn struct{ *yamux.Stream }

// CloseWrite ends what this side sends.
func (c *conn) CloseWrite() error { return c.Stream.Close() }

// Close ends both directions here; the other side reads an end.
func (c *conn) Close() error {
	_ = c.SetReadDeadline(time.Unix(1, 0)) // a reader of ours returns
	return c.Stream.Close()
}
