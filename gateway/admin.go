package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/internal/wgnet"
)

// serveAdmin serves the operator: GET /healthz (open), /metrics and /routes (token).
func (g *Gateway) serveAdmin(ctx context.Context, ln net.Listener) error {
	token, err := g.adminToken()
	if err != nil {
		_ = ln.Close()
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-g.ready:
			rpc.WriteJSON(w, http.StatusOK, map[string]any{"ready": true, "routes": g.table.Len()})
		default:
			rpc.WriteError(w, cvm.Errorf(cvm.Unavailable, "waiting for the guest agent").WithReason("gateway-not-ready"))
		}
	})
	metrics := promhttp.HandlerFor(g.metrics.registry, promhttp.HandlerOpts{})
	mux.Handle("GET /metrics", authorized(token, metrics))
	mux.Handle("GET /routes", authorized(token, http.HandlerFunc(g.listRoutes)))
	mux.HandleFunc("/", notFound)
	return serveHTTP(ctx, &http.Server{Handler: mux}, ln, false, g.log)
}

func (g *Gateway) adminToken() (string, error) {
	if g.cfg.Admin.TokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(g.cfg.Admin.TokenFile)
	if err != nil {
		return "", fmt.Errorf("gateway admin token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if len(t) < 16 {
		return "", errors.New("gateway admin token: shorter than 16 characters")
	}
	return t, nil
}

// authorized lets in who has the token; without a configured token, nobody.
func authorized(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		sum := sha256.Sum256([]byte(got))
		if token == "" || !ok || subtle.ConstantTimeCompare(sum[:], want[:]) != 1 {
			rpc.WriteError(w, cvm.Errorf(cvm.Unauthenticated, "the admin token is missing or wrong").
				WithFix("send Authorization: Bearer <content of admin.token_file>"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// routeView is a route as an operator sees it.
type routeView struct {
	AppID      string    `json:"app_id"`
	InstanceID string    `json:"instance_id"`
	IP         string    `json:"ip"`
	WireGuard  string    `json:"wireguard_key"` // public, hex
	Compose    string    `json:"compose_hash"`
	Simulated  bool      `json:"simulated"`
	Expires    time.Time `json:"expires"`
	Handshake  time.Time `json:"last_handshake,omitzero"`
	Streams    int64     `json:"streams"`
}

func (g *Gateway) listRoutes(w http.ResponseWriter, _ *http.Request) {
	out := []routeView{}
	for _, r := range g.table.All(time.Now()) {
		out = append(out, routeView{
			AppID: r.AppID.String(), InstanceID: r.InstanceID.String(), IP: r.IP.String(),
			WireGuard: hex.EncodeToString(r.WireGuardKey[:]), Compose: r.ComposeHash, Simulated: r.Simulated,
			Expires: r.Expires, Handshake: g.net.LastHandshake(r.WireGuardKey[:]), Streams: r.Load.Streams.Load(),
		})
	}
	rpc.WriteJSON(w, http.StatusOK, map[string]any{"routes": out})
}

func (g *Gateway) publicKey() ([]byte, error) { return wgnet.PublicKey(g.id.tunnel) }

// endpoint is where guests send their packets: the configured one, or, when its
// port is 0 (tests), the bound one.
func (g *Gateway) endpoint() string {
	if host, port, err := net.SplitHostPort(g.cfg.Tunnel.Endpoint); err == nil && port == "0" {
		return net.JoinHostPort(host, fmt.Sprint(g.net.LocalAddr().Port()))
	}
	return g.cfg.Tunnel.Endpoint
}

func fixOf(err error) string {
	var e *cvm.Error
	if errors.As(err, &e) {
		return e.Fix
	}
	return ""
}
