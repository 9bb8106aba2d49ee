package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/gateway/routes"
	"github.com/confidential-cloud/phala/gateway/sni"
	"github.com/confidential-cloud/phala/internal/splice"
	"github.com/confidential-cloud/phala/internal/wgnet"
)

// maxTries is how many instances one client's connection may try.
const maxTries = 3

// app carries a client to an app; handed says that the pages' server took it.
func (g *Gateway) app(ctx context.Context, c net.Conn, hello sni.Hello, t sni.Target) (handed bool) {
	list, port, err := g.find(t)
	if err != nil {
		return g.refuse(ctx, c, hello, t, err)
	}
	give, ok := g.streams.reserve(list[0].AppID, g.cfg.Limits.ConnectionsPerApp)
	if !ok {
		return g.refuse(ctx, c, hello, t, cvm.Errorf(cvm.Exhausted, "app %s has its %d connections open", list[0].AppID, g.cfg.Limits.ConnectionsPerApp).
			WithReason(gatewayapi.ReasonTooMany).WithFix("try again when some have ended"))
	}
	defer give()
	var front net.Conn
	if t.Mode == sni.Passthrough {
		front = &passthrough{prefixed: prefixed{Conn: c, head: hello.Raw}}
	} else {
		tc, err := g.handshake(ctx, c, hello, g.tls.forApp(t.Mode, port.Proto, hello.ALPN))
		if err != nil {
			return false
		}
		front = tc
	}
	back, r, err := g.dial(ctx, list, t.Port)
	if err != nil {
		if t.Mode == sni.Passthrough {
			g.refused(cvm.ReasonOf(err))
			alert(c, alertOf(cvm.ReasonOf(err)))
			return false
		}
		return g.serveError(front, c, t, hello.ServerName, err)
	}
	g.join(c, front, back, r, t, port)
	return false
}

// find resolves a target to live instances whose policy allows the port.
func (g *Gateway) find(t sni.Target) ([]*routes.Route, appcompose.Port, error) {
	id := cvm.AppID(t.ID)
	list, known := g.table.Lookup(t.ID, time.Now())
	if len(list) == 0 && known {
		return nil, appcompose.Port{}, cvm.Errorf(cvm.Unavailable, "app %s is not connected to this gateway now", id).
			WithReason(gatewayapi.ReasonNotConnected).
			WithFix("it may be starting, stopped, or no longer allowed; `phala cvms get` and `phala logs` tell")
	}
	if len(list) == 0 {
		return nil, appcompose.Port{}, cvm.Errorf(cvm.NotFound, "no app or instance %s is known to this gateway", id).
			WithReason(gatewayapi.ReasonUnknownApp).WithFix("check the id; a new app appears here when it has booted and joined")
	}
	var port appcompose.Port
	allowed := list[:0:0]
	for _, r := range list {
		p, ok := r.Port(t.Port)
		if !ok {
			continue
		}
		if len(allowed) == 0 {
			port = p
		}
		// Two versions of an app may differ in what a port speaks: keep to the best's.
		if p == port {
			allowed = append(allowed, r)
		}
	}
	if len(allowed) == 0 {
		return nil, port, cvm.Errorf(cvm.Denied, "app %s does not allow port %d: its measured port_policy is restricted", id, t.Port).
			WithReason(gatewayapi.ReasonPortRefused).WithFix("list the port under port_policy in app-compose and deploy again")
	}
	return allowed, port, nil
}

// dial tries instances in order.
func (g *Gateway) dial(ctx context.Context, list []*routes.Route, port uint16) (net.Conn, *routes.Route, error) {
	closed := false
	for i, r := range list {
		if i == maxTries {
			break
		}
		dctx, cancel := context.WithTimeout(ctx, time.Duration(g.cfg.Limits.Connect))
		c, err := g.net.DialContext(dctx, r.IP, port)
		cancel()
		if err == nil {
			r.Load.Worked()
			return c, r, nil
		}
		if errors.Is(err, wgnet.ErrRefused) {
			closed = true
		} else {
			r.Load.Failed(time.Now())
		}
		g.log.Debug("instance did not accept", "app", r.AppID, "instance", r.Key, "port", port, "err", err)
	}
	app := list[0].AppID
	if closed {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "app %s is connected, and nothing accepts on its port %d", app, port).
			WithReason(gatewayapi.ReasonPortClosed).
			WithFix("check that the compose file publishes this port and that the container has started: `phala ps`, `phala logs`")
	}
	return nil, nil, cvm.Errorf(cvm.Unavailable, "app %s has joined, but does not answer through its tunnel", app).
		WithReason(gatewayapi.ReasonNotConnected).WithFix("try again in a few seconds; then look at `phala cvms get`")
}

// join carries bytes until both ends are done, the route ends, or nothing moves.
func (g *Gateway) join(c, front, back net.Conn, r *routes.Route, t sni.Target, p appcompose.Port) {
	end := g.streams.join(r.Load, c, back)
	defer end()
	// After joining, not before: a route that ends from here on cuts this stream.
	if !g.table.Current(r, time.Now()) {
		_ = back.Close()
		return
	}
	if p.PP {
		_ = back.SetWriteDeadline(time.Now().Add(time.Duration(g.cfg.Limits.Connect)))
		if _, err := back.Write(proxyHeader(c.RemoteAddr(), c.LocalAddr())); err != nil {
			_ = back.Close()
			return
		}
		_ = back.SetWriteDeadline(time.Time{})
	}
	_ = c.SetDeadline(time.Time{})
	app := r.AppID.String()
	g.metrics.streams.WithLabelValues(app, string(t.Mode)).Inc()
	in, out := g.metrics.bytes.WithLabelValues(app, "in"), g.metrics.bytes.WithLabelValues(app, "out")
	err := splice.Join(front, back, splice.Options{
		Idle: time.Duration(g.cfg.Limits.Idle),
		AtoB: func(n int) { in.Add(float64(n)) },
		BtoA: func(n int) { out.Add(float64(n)) },
	})
	if errors.Is(err, splice.ErrIdle) {
		g.log.Debug("idle stream ended", "app", app)
	}
}

// passthrough is a client whose TLS is the app's business.
type passthrough struct{ prefixed }

// CloseWrite passes the app's end of stream on.
func (p *passthrough) CloseWrite() error {
	if t, ok := p.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return p.Close()
}

func (g *Gateway) handshake(ctx context.Context, c net.Conn, hello sni.Hello, cfg *tls.Config) (*tls.Conn, error) {
	tc := tls.Server(&prefixed{Conn: c, head: hello.Raw}, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		g.refused("handshake-failed")
		g.log.Debug("TLS handshake failed", "name", hello.ServerName, "err", err)
		lingerClose(c)
		return nil, err
	}
	return tc, nil
}

// acmeChallenge answers the CA's TLS-ALPN-01 visit: the handshake is the answer.
func (g *Gateway) acmeChallenge(ctx context.Context, c net.Conn, hello sni.Hello) {
	if _, err := g.handshake(ctx, c, hello, g.tls.acme); err == nil {
		lingerClose(c)
	}
}

// acmeProto is TLS-ALPN-01's protocol (RFC 8737).
const acmeProto = "acme-tls/1"

// tlsConfigs are made once: their session tickets are shared by all connections.
type tlsConfigs struct{ plain, h2, h2http1, errorH2, acme *tls.Config }

type certSource interface {
	Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Exact(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

func newTLSConfigs(k certSource) *tlsConfigs {
	with := func(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), protos ...string) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, NextProtos: protos}
	}
	return &tlsConfigs{
		plain:   with(k.Certificate),
		h2:      with(k.Exact, "h2"),
		h2http1: with(k.Exact, "h2", "http/1.1"),
		errorH2: with(k.Certificate, "h2"),
		acme:    with(k.Exact, acmeProto),
	}
}

// forApp picks by mode, by what the app's measured policy says the port speaks,
// and by what the client offers. Without a reason for HTTP/2 no protocol is
// negotiated at all: the stream may carry anything.
func (t *tlsConfigs) forApp(m sni.Mode, proto string, offered []string) *tls.Config {
	switch {
	case m == sni.H2:
		return t.h2
	case proto == protoH2 && slices.Contains(offered, "h2"):
		return t.h2http1
	}
	return t.plain
}

// protoH2 is appcompose.Port.Proto of a port that speaks HTTP/2 as well as HTTP/1.1.
const protoH2 = "h2"

// forPage picks for the gateway's own answers.
func (t *tlsConfigs) forPage(m sni.Mode) *tls.Config {
	if m == sni.H2 {
		return t.errorH2
	}
	return t.plain
}

// maxExactNames bounds the names of one app that get certificates of their own:
// each costs a signature and a file, and ports make many names.
const maxExactNames = 32

// allowName says whether a name deserves a certificate of its own.
func (g *Gateway) allowName(_ context.Context, name string) error {
	t, err := sni.ParseName(name, g.cfg.Domain)
	if err != nil {
		return err
	}
	if t.Self != "" {
		return nil
	}
	list, _, err := g.find(t)
	if err != nil {
		return err
	}
	app := list[0].AppID
	g.namesMu.Lock()
	defer g.namesMu.Unlock()
	set := g.names[app]
	if set == nil {
		set = map[string]bool{}
		g.names[app] = set
	}
	if !set[name] && len(set) >= maxExactNames {
		return cvm.Errorf(cvm.Exhausted, "app %s has %d certificates of its own already", app, maxExactNames)
	}
	set[name] = true
	return nil
}
