// Package hostapi is what a guest may say to its host: Notify and Info, over one
// unix socket per VM. The guest is not trusted with the host's resources: bodies,
// connections and the rate of messages are bounded, and the socket names the VM,
// so that a guest can only speak for itself.
package hostapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Limits of what a guest may send.
const (
	MaxPayload = 16 << 10 // bytes of one notification's payload
	MaxEvent   = 64       // bytes of its event name
	maxConns   = 16
	burst      = 200 // notifications at once,
	perSecond  = 10  // and then this many each second
)

// Config of one VM's host API.
type Config struct {
	Path string // the socket; at most 107 bytes
	Name string // answered by Info
	// Notify handles one bounded message. Its error is the guest's answer.
	Notify func(guestapi.Notify) error
	Log    *slog.Logger
}

// Info is the answer of GET /api/Info.
type Info struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Version of the host API.
const Version = "1"

// Server serves one VM.
type Server struct {
	cfg  Config
	ln   net.Listener
	http *http.Server
	rate *rate.Limiter
}

// New makes the socket (replacing one left by a VMM that was killed) and listens.
// Call Run to serve, Close when Run was never called.
func New(cfg Config) (*Server, error) {
	if cfg.Notify == nil {
		return nil, cvm.Errorf(cvm.Invalid, "host API: no handler")
	}
	if len(cfg.Path) > 107 {
		return nil, cvm.Errorf(cvm.Invalid, "host API socket %q: %d bytes, a unix socket path holds 107", cfg.Path, len(cfg.Path)).WithFix("set a shorter run_dir")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "host API directory: %w", err)
	}
	if err := os.Remove(cfg.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, cvm.Errorf(cvm.Internal, "host API: removing the old socket: %w", err)
	}
	ln, err := net.Listen("unix", cfg.Path)
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "host API: %w", err)
	}
	s := &Server{cfg: cfg, ln: &limitListener{Listener: ln, slots: make(chan struct{}, maxConns)},
		rate: rate.NewLimiter(perSecond, burst)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/Notify", s.notify)
	mux.HandleFunc("GET /api/Info", s.info)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)}
	s.http.SetKeepAlivesEnabled(false) // idle connections would use up the slots
	return s, nil
}

// Run serves until ctx ends; the socket is gone afterwards.
func (s *Server) Run(ctx context.Context) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = s.http.Shutdown(grace) // a message that is being handled is not cut off
		_ = s.http.Close()
	})
	err := s.http.Serve(s.ln)
	if !stop() {
		<-ended
	}
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil //nolint:nilerr // it was told to end
	}
	return err
}

// Close stops the server and removes the socket.
func (s *Server) Close() error { return errors.Join(s.http.Close(), ignoreClosed(s.ln.Close())) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) info(w http.ResponseWriter, _ *http.Request) {
	rpc.WriteJSON(w, http.StatusOK, Info{Name: s.cfg.Name, Version: Version})
}

func (s *Server) notify(w http.ResponseWriter, r *http.Request) {
	var n guestapi.Notify
	// Strict about size, lenient about unknown fields: a newer guest may say more.
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 8*MaxPayload)).Decode(&n)
	switch {
	case err != nil:
		err = cvm.Errorf(cvm.Invalid, "notification: %w", err)
	case n.Event == "" || len(n.Event) > MaxEvent:
		err = cvm.Errorf(cvm.Invalid, "notification: event name of %d bytes, want 1 to %d", len(n.Event), MaxEvent)
	case len(n.Payload) > MaxPayload:
		err = cvm.Errorf(cvm.Invalid, "notification %s: payload of %d bytes, at most %d", n.Event, len(n.Payload), MaxPayload)
	case !s.rate.Allow():
		err = cvm.Errorf(cvm.Exhausted, "too many notifications").WithReason("rate-limited")
	default:
		err = s.cfg.Notify(n)
	}
	if err != nil {
		rpc.WriteError(w, err)
		return
	}
	rpc.WriteJSON(w, http.StatusOK, struct{}{})
}

// limitListener closes connections beyond the limit at once: a guest that hoards
// them must not keep Close or its own next notification waiting.
type limitListener struct {
	net.Listener
	slots chan struct{}
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			_ = c.Close()
		}
	}
}

type limitConn struct {
	net.Conn
	release func()
}

func (c *limitConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
