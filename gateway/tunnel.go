package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/gateway/routes"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// maxRegister bounds a registration's body, in bytes: a ticket in base64.
const maxRegister = 2 * kmsapi.MaxTicket

// serveAPI serves registrations to guests.
func (g *Gateway) serveAPI(ctx context.Context, ln net.Listener) error {
	limit := newLimiter(g.cfg.Tunnel.RegistrationsPerSecond, g.cfg.Tunnel.RegistrationBurst)
	mux := http.NewServeMux()
	register := rpc.Handle(g.register)
	mux.HandleFunc("POST "+gatewayapi.PathRegister, func(w http.ResponseWriter, r *http.Request) {
		if !limit.allow(r.RemoteAddr, time.Now()) {
			g.metrics.registrations.WithLabelValues(gatewayapi.ReasonRateLimited).Inc()
			rpc.WriteError(w, cvm.Errorf(cvm.Exhausted, "too many registrations from this address").WithReason(gatewayapi.ReasonRateLimited))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRegister)
		register(w, r)
	})
	mux.HandleFunc("GET "+gatewayapi.PathHealth, func(w http.ResponseWriter, _ *http.Request) { rpc.WriteJSON(w, http.StatusOK, struct{}{}) })
	mux.HandleFunc("/", notFound)
	return serveHTTP(ctx, &http.Server{
		Handler:   mux,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: g.id.certificate},
	}, ln, true, g.log)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	rpc.WriteError(w, cvm.Errorf(cvm.NotFound, "%s %s is not served here", r.Method, r.URL.Path).WithReason(gatewayapi.ReasonMethodNotKnown))
}

// serveHTTP runs a bounded HTTP server until ctx ends.
func serveHTTP(ctx context.Context, s *http.Server, ln net.Listener, withTLS bool, log *slog.Logger) error {
	s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = 10*time.Second, 20*time.Second, 60*time.Second, 60*time.Second
	s.MaxHeaderBytes = 16 << 10
	s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = s.Shutdown(end)
		_ = s.Close()
	})
	defer stop()
	var err error
	if withTLS {
		err = s.ServeTLS(ln, "", "")
	} else {
		err = s.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (g *Gateway) register(hr *http.Request, req gatewayapi.RegisterRequest) (gatewayapi.Registration, error) {
	r, err := g.admit(hr, req)
	if err != nil {
		reason := cvm.ReasonOf(err)
		if reason == "" {
			reason = "internal"
		}
		g.metrics.registrations.WithLabelValues(reason).Inc()
		g.log.Warn("registration refused", "from", hr.RemoteAddr, "err", err)
		return gatewayapi.Registration{}, err
	}
	g.metrics.registrations.WithLabelValues("ok").Inc()
	pub, err := g.publicKey()
	if err != nil {
		return gatewayapi.Registration{}, err
	}
	return gatewayapi.Registration{
		ClientIP:   r.IP.String(),
		Servers:    []gatewayapi.Server{{PublicKey: pub, IP: g.table.GatewayIP().String(), Endpoint: g.endpoint()}},
		Expires:    r.Expires,
		Domain:     g.cfg.Domain,
		Port:       g.port,
		GatewayRun: g.generation(r),
	}, nil
}

func (g *Gateway) admit(hr *http.Request, req gatewayapi.RegisterRequest) (*routes.Route, error) {
	r, replaced, err := g.table.Register(hr.Context(), req.Ticket, time.Now())
	if err != nil {
		return nil, err
	}
	if replaced != nil {
		g.drop(replaced)
	}
	// The caller's address is a hint for the first handshake only.
	var hint netip.AddrPort
	if from, err := netip.ParseAddrPort(hr.RemoteAddr); err == nil && req.WireGuardPort > 0 && req.WireGuardPort < 1<<16 {
		hint = netip.AddrPortFrom(from.Addr().Unmap(), uint16(req.WireGuardPort))
	}
	return r, g.addPeer(r, hint)
}

// limiter is a token bucket per source address, forgotten when full again.
type limiter struct {
	perSecond float64
	burst     int
	mu        sync.Mutex
	m         map[netip.Addr]*rate.Limiter
}

// maxSources bounds the limiter's memory; beyond it sources share one bucket.
const maxSources = 10000

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{perSecond: perSecond, burst: burst, m: map[netip.Addr]*rate.Limiter{}}
}

func (l *limiter) allow(remote string, at time.Time) bool {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	a := ap.Addr().Unmap()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.m[a]
	if b == nil {
		if len(l.m) >= maxSources {
			for k, x := range l.m {
				if x.TokensAt(at) >= float64(l.burst) {
					delete(l.m, k)
				}
			}
			if len(l.m) >= maxSources {
				a = netip.Addr{}
				b = l.m[a]
			}
		}
		if b == nil {
			b = rate.NewLimiter(rate.Limit(l.perSecond), l.burst)
			l.m[a] = b
		}
	}
	return b.AllowN(at, 1)
}
