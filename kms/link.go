package kms

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/ratls"
)

func spkiOf(pub any) ([]byte, error) { return x509.MarshalPKIXPublicKey(pub) }

// Protocols on the members' port, told apart by ALPN.
const (
	protoRaft = "phala-kms-raft/1"
	protoPeer = "http/1.1" // net/http serves no other name
)

const handshakeTimeout = 15 * time.Second

// link is how members reach each other: one listener and one dialer, mutual
// RA-TLS both ways. Whoever gets through has shown evidence that the policy
// admits; who may use raft, and which calls, is decided by its key (isMember).
type link struct {
	addr     net.Addr
	listener net.Listener
	server   *tls.Config
	client   *tls.Config
	isMember func(spki []byte) bool
	now      func() time.Time
	log      *slog.Logger

	raft, peer *queue
}

// queue is a net.Listener that is fed with connections.
type queue struct {
	addr net.Addr
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newQueue(a net.Addr) *queue {
	return &queue{addr: a, ch: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.ch:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}
func (q *queue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *queue) Addr() net.Addr { return q.addr }

func (q *queue) put(c net.Conn) {
	select {
	case q.ch <- c:
	case <-q.done:
		_ = c.Close()
	}
}

// believe verifies a peer's evidence for its binding to a TLS key.
type believe func(ctx context.Context, ev attest.Evidence, binding [64]byte) (claim.Claims, error)

func newLink(bind string, cert ratls.Source, fn believe, isMember func([]byte) bool, now func() time.Time, log *slog.Logger) (*link, error) {
	l := &link{isMember: isMember, now: now, log: log}
	found := func(ev attest.Evidence, _ ratls.Extensions, binding [64]byte) error {
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		defer cancel()
		_, err := fn(ctx, ev, binding)
		return err
	}
	l.server, l.client = ratls.ServerConfig(cert, found, now), ratls.ClientConfig(cert, found, now)
	l.server.NextProtos = []string{protoRaft, protoPeer}
	ln, err := net.Listen("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("members' port: %w", err)
	}
	l.listener, l.addr = ln, ln.Addr()
	l.raft, l.peer = newQueue(l.addr), newQueue(l.addr)
	return l, nil
}

// run accepts until ctx ends.
func (l *link) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.listener.Close() })
	defer stop()
	for {
		c, err := l.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("members' port: %w", err)
		}
		go l.admit(ctx, c)
	}
}

func (l *link) close() error {
	err := l.listener.Close()
	if errors.Is(err, net.ErrClosed) { // the end of serve's context closed it already
		err = nil
	}
	return errors.Join(err, l.raft.Close(), l.peer.Close())
}

func (l *link) admit(ctx context.Context, raw net.Conn) {
	c := tls.Server(raw, l.server)
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(hctx); err != nil {
		l.log.Debug("a connection on the members' port was refused", "from", raw.RemoteAddr(), "err", err)
		_ = raw.Close()
		return
	}
	st := c.ConnectionState()
	switch {
	case st.NegotiatedProtocol == protoPeer:
		l.peer.put(c)
	case st.NegotiatedProtocol == protoRaft && l.isMember(st.PeerCertificates[0].RawSubjectPublicKeyInfo):
		l.raft.put(l.untilExpiry(c))
	default:
		l.log.Debug("raft refused to a stranger", "from", raw.RemoteAddr())
		_ = c.Close()
	}
}

func (l *link) dial(ctx context.Context, addr, proto string) (*tls.Conn, error) {
	conf := l.client.Clone()
	conf.NextProtos = []string{proto}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: conf}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	t := c.(*tls.Conn)
	if t.ConnectionState().NegotiatedProtocol != proto {
		_ = t.Close()
		return nil, cvm.Errorf(cvm.Unavailable, "%s does not speak %s", addr, proto)
	}
	return t, nil
}

// untilExpiry ends a long-lived connection with the certificate that the other end
// showed: the next one shows evidence of its day.
func (l *link) untilExpiry(c *tls.Conn) net.Conn {
	end := c.ConnectionState().PeerCertificates[0].NotAfter
	return &expiring{c, time.AfterFunc(end.Sub(l.now()), func() { _ = c.Close() })}
}

type expiring struct {
	net.Conn
	timer *time.Timer
}

func (e *expiring) Close() error {
	e.timer.Stop()
	return e.Conn.Close()
}

// peerKey is the key of the other end of a verified connection.
func peerKey(st *tls.ConnectionState) []byte {
	if st == nil || len(st.PeerCertificates) == 0 {
		return nil
	}
	return st.PeerCertificates[0].RawSubjectPublicKeyInfo
}

// raftLayer is the link as raft's stream layer.
type raftLayer struct {
	*queue
	link      *link
	advertise string
}

// Dial implements replica.Layer: only a known member is spoken to.
func (r raftLayer) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), max(timeout, handshakeTimeout))
	defer cancel()
	c, err := r.link.dial(ctx, addr, protoRaft)
	if err != nil {
		return nil, err
	}
	st := c.ConnectionState()
	if !r.link.isMember(peerKey(&st)) {
		_ = c.Close()
		return nil, cvm.Errorf(cvm.Denied, "%s is attested, but no member", addr)
	}
	return r.link.untilExpiry(c), nil
}

type stringAddr string

func (stringAddr) Network() string  { return "tcp" }
func (a stringAddr) String() string { return string(a) }

// Addr is what raft tells the others.
func (r raftLayer) Addr() net.Addr { return stringAddr(r.advertise) }

// httpClient talks to peers' HTTP; check sees the peer's key before a request is sent.
func (l *link) httpClient(check func(spki []byte) error) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 4,
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			c, err := l.dial(ctx, addr, protoPeer)
			if err != nil {
				return nil, &dialError{err}
			}
			st := c.ConnectionState()
			if err := check(peerKey(&st)); err != nil {
				_ = c.Close()
				return nil, &dialError{err}
			}
			return c, nil
		},
	}}
}

// httpOver talks HTTP over one connection and no other: what was proved about it
// holds for every call.
func httpOver(c *tls.Conn) *http.Client {
	var used atomic.Bool
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxConnsPerHost: 1,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, &dialError{cvm.Errorf(cvm.Unavailable, "the connection that was proved has ended")}
			}
			return c, nil
		},
	}}
}

// dialError marks failures before anything was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }
