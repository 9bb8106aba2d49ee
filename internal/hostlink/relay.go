package hostlink

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/internal/splice"
)

// Names of the unix sockets in a run directory, the same on both sides.
const (
	HostSock  = "host.sock"
	TEESock   = "tee.sock"
	GuestSock = "guest.sock"
)

// Open makes a connection to a byte channel. Its errors are retried.
type Open func(ctx context.Context) (io.ReadWriteCloser, error)

// Config of a guest's relay.
type Config struct {
	Open Open
	// RunDir holds the unix sockets. The host answers the guest's streams from host.sock
	// and tee.sock; the guest serves those two and answers from guest.sock.
	RunDir string
	// NoTEE, in a guest: tee.sock is not made, because there is real hardware.
	NoTEE bool
	Log   *slog.Logger
}

// Relay is one side of the link: Run it. It reconnects until its context ends.
type Relay struct {
	cfg      Config
	role     Role
	channels []Open

	mu       sync.Mutex
	sessions []*Session    // those that are up, the newest last
	changed  chan struct{} // closed when sessions change
}

// HostConfig says by which channels a VM can reach its host: by a virtio-serial port,
// by vsock, or by the one of both that its guest takes.
type HostConfig struct {
	Sock   string // QEMU's chardev socket; "": the VM has no such port
	CID    uint32 // context id; 0: the VM has no vsock device
	RunDir string // see Config
	Log    *slog.Logger
}

// NewHost is the VMM's side of one VM.
func NewHost(c HostConfig) *Relay {
	r := newRelay(Host, Config{RunDir: c.RunDir, Log: c.Log})
	if c.CID != 0 {
		r.channels = append(r.channels, func(ctx context.Context) (io.ReadWriteCloser, error) { return AcceptVSock(ctx, c.CID) })
	}
	if c.Sock != "" {
		r.channels = append(r.channels, func(ctx context.Context) (io.ReadWriteCloser, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.Sock)
		})
	}
	return r
}

// NewGuest is the guest agent's side.
func NewGuest(c Config) *Relay { return newRelay(Guest, c, c.Open) }

func newRelay(role Role, c Config, channels ...Open) *Relay {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Relay{cfg: c, role: role, channels: channels, changed: make(chan struct{})}
}

// Pauses between tries to open the channel.
const (
	openPause  = 200 * time.Millisecond
	openSlower = 2 * time.Second
)

// Run keeps the link up until ctx ends. In a guest it first makes the sockets, so
// that an error is a socket that cannot be made.
func (r *Relay) Run(ctx context.Context) error {
	stop, err := r.listen(ctx)
	if err != nil {
		return err
	}
	defer stop()
	var wg sync.WaitGroup
	for _, open := range r.channels {
		wg.Go(func() { r.keepUp(ctx, open) })
	}
	wg.Wait()
	return nil
}

// keepUp serves one session after the other over a channel.
func (r *Relay) keepUp(ctx context.Context, open Open) {
	for pause := openPause; ctx.Err() == nil; {
		up, err := r.once(ctx, open)
		if up {
			pause = openPause
		}
		if ctx.Err() != nil {
			return
		}
		r.cfg.Log.Debug("host link", "was_up", up, "err", err)
		if run.Pause(ctx, pause) != nil {
			return
		}
		pause = min(pause*5/4, openSlower)
	}
}

// once serves one session. up: the other side answered.
func (r *Relay) once(ctx context.Context, open Open) (up bool, err error) {
	c, err := open(ctx)
	if err != nil {
		return false, err
	}
	s, err := Connect(ctx, c, r.role)
	if err != nil {
		return false, err
	}
	r.add(s)
	r.cfg.Log.Debug("host link is up")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	var wg sync.WaitGroup
	for range acceptors {
		wg.Go(func() { r.accept(ctx, s) })
	}
	<-s.Done()
	r.drop(s)
	cancel()
	wg.Wait()
	return true, errors.New("the session ended")
}

// acceptors: a stream that is slow to say its kind must not hold the others up.
const acceptors = 4

func (r *Relay) accept(ctx context.Context, s *Session) {
	for {
		k, c, err := s.Accept(ctx)
		if err != nil {
			return
		}
		sock, ok := r.answers()[k]
		if !ok {
			r.cfg.Log.Warn("host link: a stream of a kind that is not served here", "kind", int(k))
			_ = c.Close()
			continue
		}
		go r.answer(ctx, c, filepath.Join(r.cfg.RunDir, sock))
	}
}

// answers is what this side serves of the other's streams.
func (r *Relay) answers() map[Kind]string {
	if r.role == Guest {
		return map[Kind]string{GuestAPI: GuestSock}
	}
	return map[Kind]string{HostAPI: HostSock, TEE: TEESock}
}

// answer joins a stream and a socket. Without a socket the stream ends at once: the
// other side reads an end instead of waiting.
func (r *Relay) answer(ctx context.Context, c net.Conn, sock string) {
	var d net.Dialer
	local, err := d.DialContext(ctx, "unix", sock)
	if err != nil {
		r.cfg.Log.Debug("host link", "socket", sock, "err", err)
		_ = c.Close()
		return
	}
	_ = splice.Join(c, local, splice.Options{})
}

// listen makes the guest's ends of the host's sockets.
func (r *Relay) listen(ctx context.Context) (stop func(), err error) {
	var open []net.Listener
	var wg sync.WaitGroup
	stop = func() {
		for _, l := range open {
			_ = l.Close()
		}
		wg.Wait()
	}
	if r.role == Host {
		return stop, nil
	}
	socks := map[string]Kind{HostSock: HostAPI}
	if !r.cfg.NoTEE {
		socks[TEESock] = TEE
	}
	for name, k := range socks {
		l, err := listen(filepath.Join(r.cfg.RunDir, name))
		if err != nil {
			stop()
			return nil, err
		}
		open = append(open, l)
		wg.Go(func() { r.serve(ctx, l, k) })
	}
	return stop, nil
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, unavailable("%w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, unavailable("%w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	return l, os.Chmod(path, 0o600)
}

// serve opens a stream for each local connection. While the link is down a caller
// waits as long as it wants to.
func (r *Relay) serve(ctx context.Context, l net.Listener, k Kind) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			remote, err := r.Dial(ctx, k)
			if err != nil {
				_ = c.Close()
				return
			}
			_ = splice.Join(c, remote, splice.Options{})
		}()
	}
}

func (r *Relay) add(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions = append(r.sessions, s)
	r.changedLocked()
}

func (r *Relay) drop(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions = slices.DeleteFunc(r.sessions, func(o *Session) bool { return o == s })
	r.changedLocked()
}

func (r *Relay) changedLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// newest is the session to use, if any, and what is closed when that changes. Of two
// channels the guest has turned to the one where it spoke last.
func (r *Relay) newest() (s *Session, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.sessions); n > 0 {
		s = r.sessions[n-1]
	}
	return s, r.changed
}

// Up reports whether the other side answers at present.
func (r *Relay) Up() bool {
	s, _ := r.newest()
	return s != nil
}

// Dial opens a stream to the other side, waiting for a session until ctx ends.
func (r *Relay) Dial(ctx context.Context, k Kind) (net.Conn, error) {
	for {
		s, changed := r.newest()
		if s != nil {
			c, err := s.Open(ctx, k)
			if err == nil || ctx.Err() != nil {
				return c, err
			}
			select { // a session that is ending: the next one may do
			case <-s.Done():
			default:
				return nil, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, unavailable("the other side does not answer: %w", ctx.Err())
		}
	}
}

// DialGuest opens a connection to the guest API: the host's way in.
func (r *Relay) DialGuest(ctx context.Context) (net.Conn, error) { return r.Dial(ctx, GuestAPI) }
