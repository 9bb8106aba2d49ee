// Package server answers POST /verify and GET /health as the reference's verifier
// does (dstack-core F.1), so that its clients work unchanged. New and Run serve it;
// Handler is for a server of one's own. Collateral is fetched per request; what is
// verified, and by which rules, is check.Reference.
//
// There is no authentication: an answer is worth what the connection to this server
// is worth. Who can run a verifier should (phala evidence check).
package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/check"
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Collateral finds the vendor's statements for evidence. fetch.Client is one.
type Collateral interface {
	For(ctx context.Context, ev attest.Evidence) (collateral.Set, error)
}

// Config of a Server.
type Config struct {
	Listen     string        // TCP address, for example "127.0.0.1:8080"
	Roots      []attest.Root // admitted roots; none: everything is refused
	Collateral Collateral
	Parallel   int              // verifications at one time; others wait. 0: 16
	Timeout    time.Duration    // of one request, its wait included; 0: 30 s
	Clock      func() time.Time // nil: time.Now
	Log        *slog.Logger     // nil: discarded
}

// Server serves the reference verifier's API.
type Server struct {
	cfg   Config
	slots chan struct{}
}

// New checks the config.
func New(cfg Config) (*Server, error) {
	if cfg.Collateral == nil || len(cfg.Roots) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "verifier: no collateral or no roots: nothing could be verified")
	}
	if cfg.Parallel < 0 || cfg.Timeout < 0 {
		return nil, cvm.Errorf(cvm.Invalid, "verifier: a limit is negative")
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 16
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, slots: make(chan struct{}, cfg.Parallel)}, nil
}

// Handler routes POST /verify and GET /health.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, http.StatusOK, health{Status: "ok", Service: "dstack-verifier"})
	})
	mux.HandleFunc("POST /verify", s.verify)
	return mux
}

type health struct {
	Status  string `json:"status"`
	Service string `json:"service"`
}

// Run serves until ctx ends. ready (nil: ignored) is told the address.
func (s *Server) Run(ctx context.Context, ready func(addr string)) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return cvm.Errorf(cvm.Invalid, "verifier: %w", err)
	}
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: s.cfg.Timeout, WriteTimeout: 2 * s.cfg.Timeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(late)
	})
	defer stop()
	if ready != nil {
		ready(ln.Addr().String())
	}
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
	defer cancel()
	select { // before the body is read: memory is bounded too
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		rpc.WriteError(w, cvm.Errorf(cvm.Exhausted, "too many verifications at once").WithFix("try again later"))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rpc.MaxBody))
	if err != nil {
		rpc.WriteError(w, cvm.Errorf(cvm.Invalid, "request body: %w (at most %d bytes)", err, rpc.MaxBody))
		return
	}
	req, bad, err := check.ParseRequest(body)
	switch {
	case bad != nil:
		rpc.WriteError(w, bad)
	case err != nil:
		rpc.WriteJSON(w, http.StatusOK, check.Unreadable(err))
	default:
		rpc.WriteJSON(w, http.StatusOK, s.reply(ctx, req.Evidence))
	}
}

// reply verifies. Where there is no collateral, what is wrong with the evidence
// itself says more than that.
func (s *Server) reply(ctx context.Context, ev attest.Evidence) check.Reply {
	set, err := s.cfg.Collateral.For(ctx, ev)
	at := s.cfg.Clock()
	if err == nil {
		return check.Reference(ev, set, s.cfg.Roots, at)
	}
	s.cfg.Log.Warn("no collateral", "error", err)
	var rej *claim.Rejection
	if _, _, bare := attest.Verify(ev, collateral.Set{}, attest.Policy{Roots: s.cfg.Roots}, at); errors.As(bare, &rej) && !rej.Genuine {
		return check.Reference(ev, collateral.Set{}, s.cfg.Roots, at)
	}
	return check.Unfetched(err)
}
