package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/gateway/sni"
	"github.com/confidential-cloud/phala/internal/run"
)

// serveEdge accepts clients until ctx ends, then drains.
func (g *Gateway) serveEdge(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			g.pages.idle()
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(g.cfg.Limits.Drain))
			g.streams.drain(end)
			cancel()
			return ctx.Err()
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // out of file descriptors, or a client that left in the queue
			g.log.Warn("accepting clients", "err", err)
			if err := run.Pause(ctx, 50*time.Millisecond); err != nil {
				continue
			}
			continue
		}
		if !g.streams.enter(c) {
			g.refused(gatewayapi.ReasonTooMany)
			_ = c.Close()
			continue
		}
		go g.client(ctx, c)
	}
}

func (g *Gateway) refused(reason string) { g.metrics.refused.WithLabelValues(reason).Inc() }

// client serves one connection to its end.
func (g *Gateway) client(ctx context.Context, c net.Conn) {
	handed := false // to the pages' server, which closes it
	defer func() {
		if !handed {
			_ = c.Close()
			g.streams.leave(c)
		}
	}()
	_ = c.SetDeadline(time.Now().Add(time.Duration(g.cfg.Limits.Handshake)))
	hello, err := sni.ReadHello(c)
	switch {
	case errors.Is(err, sni.ErrNotTLS):
		g.refused(gatewayapi.ReasonPlainHTTP)
		g.plainHTTP(c)
		return
	case errors.Is(err, sni.ErrMalformed), errors.Is(err, sni.ErrTooLong):
		g.refused("hello-malformed")
		alert(c, alertDecodeError)
		return
	case err != nil: // gone, or too slow
		g.refused("hello-incomplete")
		return
	}
	if len(hello.ALPN) == 1 && hello.ALPN[0] == acmeProto {
		g.acmeChallenge(ctx, c, hello)
		return
	}
	target, err := sni.ParseName(hello.ServerName, g.cfg.Domain)
	if cvm.ReasonOf(err) == gatewayapi.ReasonUnknownDomain {
		g.refused(gatewayapi.ReasonUnknownDomain)
		alert(c, alertUnrecognizedName)
		return
	}
	if err != nil || target.Self != "" {
		handed = g.page(ctx, c, hello, target, err)
		return
	}
	handed = g.app(ctx, c, hello, target)
}

// TLS alerts (RFC 8446 section 6) for streams that are refused before a handshake.
const (
	alertAccessDenied     = 49
	alertDecodeError      = 50
	alertInternalError    = 80
	alertUnrecognizedName = 112
)

// alert sends a fatal alert in clear, as every TLS version expects it here.
func alert(c net.Conn, code byte) {
	_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, code})
	lingerClose(c)
}

// lingerClose ends the stream without a reset that could overtake the last bytes:
// the client may still be sending.
func lingerClose(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, c, 64<<10)
	_ = c.Close()
}

func alertOf(reason string) byte {
	switch reason {
	case gatewayapi.ReasonPortRefused:
		return alertAccessDenied
	case gatewayapi.ReasonUnknownApp, gatewayapi.ReasonBadName:
		return alertUnrecognizedName
	}
	return alertInternalError
}

// prefixed replays what was read from a connection.
type prefixed struct {
	net.Conn
	head []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
