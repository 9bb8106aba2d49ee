package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/gateway/sni"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// pages is the one HTTP server of the gateway's client side: its own pages, and
// the explanations of refused streams. Connections come to it after their TLS
// handshake.
type pages struct {
	g        *Gateway
	server   *http.Server
	conns    chan net.Conn
	done     chan struct{}
	evidence *rate.Limiter // quotes are expensive
}

// pageConn is a stream that the gateway itself answers.
type pageConn struct {
	net.Conn            // after TLS
	raw      net.Conn   // the client's connection, as streams knows it
	name     string     // SNI
	target   sni.Target // Self set, or err
	err      error
	leave    func()
	once     sync.Once
}

func (p *pageConn) Close() error {
	err := p.Conn.Close()
	p.once.Do(p.leave)
	return err
}

type pageKey struct{}

func newPages(g *Gateway) *pages {
	p := &pages{g: g, conns: make(chan net.Conn), done: make(chan struct{}), evidence: rate.NewLimiter(5, 20)}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // TLS is over when a connection comes here
	p.server = &http.Server{
		Handler: http.HandlerFunc(p.serve), Protocols: protocols,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 90 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, pageKey{}, c)
		},
	}
	return p
}

func (p *pages) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.server.Close() })
	defer stop()
	err := p.server.Serve(p)
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// idle closes connections between requests, and lets no other begin.
func (p *pages) idle() { p.server.SetKeepAlivesEnabled(false) }

// Accept, Close and Addr make pages its own server's listener.
func (p *pages) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pages) Close() error   { close(p.done); return nil }
func (p *pages) Addr() net.Addr { return &net.TCPAddr{} }

// give hands a connection over; it is closed when the server has stopped.
func (p *pages) give(c net.Conn) {
	select {
	case p.conns <- c:
	case <-p.done:
		_ = c.Close()
	}
}

// page answers a client itself: with the gateway's pages, or with err.
func (g *Gateway) page(ctx context.Context, c net.Conn, hello sni.Hello, t sni.Target, err error) (handed bool) {
	tc, herr := g.handshake(ctx, c, hello, g.tls.forPage(t.Mode))
	if herr != nil {
		return false
	}
	return g.serveError(tc, c, t, hello.ServerName, err)
}

// refuse explains, where the client can be told: a page after TLS, or an alert
// where TLS is the app's.
func (g *Gateway) refuse(ctx context.Context, c net.Conn, hello sni.Hello, t sni.Target, err error) (handed bool) {
	if t.Mode == sni.Passthrough {
		g.refused(cvm.ReasonOf(err))
		alert(c, alertOf(cvm.ReasonOf(err)))
		return false
	}
	return g.page(ctx, c, hello, t, err)
}

// serveError hands a connection to the pages' server.
func (g *Gateway) serveError(after, c net.Conn, t sni.Target, name string, err error) bool {
	if err != nil {
		g.refused(cvm.ReasonOf(err))
	}
	_ = c.SetDeadline(time.Time{})
	g.pages.give(&pageConn{Conn: after, raw: c, name: name, target: t, err: err, leave: func() { g.streams.leave(c) }})
	return true
}

func (p *pages) serve(w http.ResponseWriter, r *http.Request) {
	pc, ok := r.Context().Value(pageKey{}).(*pageConn)
	if !ok {
		http.Error(w, "no connection", http.StatusInternalServerError)
		return
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if pc.name != "" && !strings.EqualFold(strings.TrimSuffix(host, "."), pc.name) {
		// HTTP/2 clients reuse connections across names of one certificate.
		w.Header().Set("Connection", "close")
		http.Error(w, "this connection is for "+pc.name+", not for "+host, http.StatusMisdirectedRequest)
		return
	}
	switch {
	case pc.err != nil:
		writeError(w, r, pc.err)
	case pc.target.Self == sni.Health:
		health(w, r)
	default:
		p.self(w, r)
	}
}

func health(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != "/health" {
		notFound(w, r)
		return
	}
	_, _ = io.WriteString(w, "OK")
}

// self serves https://gateway.<base>/.
func (p *pages) self(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	// What is public here may be read by any page: verifiers run in browsers too.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "no-store")
	switch strings.TrimPrefix(r.URL.Path, "/.dstack") {
	case "/":
		p.index(w)
	case "/health":
		health(w, r)
	case "/evidence":
		p.serveEvidence(w, r)
	case "/.well-known/phala":
		rpc.WriteJSON(w, http.StatusOK, p.g.info())
	case "/app-info":
		info, err := p.g.id.agent.Info(r.Context())
		if err != nil {
			rpc.WriteError(w, err)
			return
		}
		rpc.WriteJSON(w, http.StatusOK, info)
	default:
		notFound(w, r)
	}
}

func (g *Gateway) info() gatewayapi.Info {
	k := g.id.kms.Load()
	return gatewayapi.Info{BaseDomain: g.cfg.Domain, Port: g.port, AppID: k.AppID, Simulated: k.Simulated, Version: Version}
}

// Nonces of evidence, bytes.
const (
	minNonce = 8
	maxNonce = 64
)

func (p *pages) serveEvidence(w http.ResponseWriter, r *http.Request) {
	nonce, err := hex.DecodeString(r.URL.Query().Get("nonce"))
	if err != nil || len(nonce) < minNonce || len(nonce) > maxNonce {
		rpc.WriteError(w, cvm.Errorf(cvm.Invalid, "nonce: want %d to %d hex digits", 2*minNonce, 2*maxNonce).
			WithReason("nonce-invalid").WithFix("GET /evidence?nonce=<32 random bytes in hex>"))
		return
	}
	if !p.evidence.Allow() {
		rpc.WriteError(w, cvm.Errorf(cvm.Exhausted, "too many evidence requests at once").WithReason(gatewayapi.ReasonRateLimited))
		return
	}
	ev, err := p.g.id.agent.Evidence(r.Context(), guestapi.EvidenceRequest{Nonce: nonce, Bound: p.g.keeper.SPKI()})
	if err != nil {
		p.g.log.Warn("evidence", "err", err)
		rpc.WriteError(w, err)
		return
	}
	rpc.WriteJSON(w, http.StatusOK, gatewayapi.Evidence{Evidence: ev, Domain: p.g.cfg.Domain})
}
