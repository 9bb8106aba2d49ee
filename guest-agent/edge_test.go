package guestagent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/internal/wgnet"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// testGateway is a gateway's end: the registration API and the tunnel.
type testGateway struct {
	url        string
	key        keys.Secret
	registered chan []byte // WireGuard keys

	mu   sync.Mutex
	net  *wgnet.Net
	run  string
	hint bool // shake hands first, at the port that the guest names
}

const guestIP = "10.99.0.2"

func newGateway(t *testing.T, w *world, app cvm.AppID) *testGateway {
	t.Helper()
	key, err := wgnet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := wgnet.PublicKey(key)
	g := &testGateway{key: key, registered: make(chan []byte, 64), run: "first"}
	g.open(t, netip.MustParseAddrPort("127.0.0.1:0"))
	t.Cleanup(func() { _ = g.tunnel().Close() })
	ticketKey, err := w.kms.Root.TicketKey()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+gatewayapi.PathRegister, rpc.Handle(func(_ *http.Request, q gatewayapi.RegisterRequest) (gatewayapi.Registration, error) {
		tk, err := kmsapi.OpenTicket(ticketKey.Public().(ed25519.PublicKey), q.Ticket, time.Now())
		if err != nil {
			return gatewayapi.Registration{}, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		p := wgnet.Peer{PublicKey: tk.WireGuardKey, AllowedIP: netip.MustParseAddr(guestIP)}
		if g.hint {
			p.Endpoint = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(q.WireGuardPort))
		}
		if err := g.net.AddPeer(p); err != nil {
			return gatewayapi.Registration{}, err
		}
		g.registered <- tk.WireGuardKey
		return gatewayapi.Registration{ClientIP: guestIP, Expires: tk.Expires, Domain: "test", GatewayRun: g.run, Servers: []gatewayapi.Server{
			{PublicKey: pub, IP: "10.99.0.1", Endpoint: g.net.LocalAddr().String()}}}, nil
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}}
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{w.kms.Certify(t, app)}}
	s.StartTLS()
	t.Cleanup(s.Close)
	g.url = "https://" + l.Addr().String()
	return g
}

func (g *testGateway) open(t *testing.T, listen netip.AddrPort) {
	t.Helper()
	n, err := wgnet.New(wgnet.Config{PrivateKey: g.key, Listen: listen, Address: netip.MustParseAddr("10.99.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	g.net = n
}

func (g *testGateway) tunnel() *wgnet.Net {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.net
}

// restart forgets every session, as a new process with the same key does.
func (g *testGateway) restart(t *testing.T, run string, hint bool) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.net.LocalAddr()
	_ = g.net.Close()
	g.open(t, at)
	g.run, g.hint = run, hint
}

func (g *testGateway) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	return g.tunnel().DialContext(ctx, ap.Addr(), ap.Port())
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTunnel(t *testing.T) {
	w := newWorld(t, "")
	gateway := cvm.AppID{0x0c}
	w.kms.GatewayAppID = gateway.String()
	w.kms.TTL = time.Second
	g := newGateway(t, w, gateway)
	app := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "from the app") }))
	t.Cleanup(app.Close)
	_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	_, hidden, _ := net.SplitHostPort(other.Listener.Addr().String())
	w.share(t, map[string]any{"gateway_enabled": true, "port_policy": map[string]any{"restrict_mode": true, "ports": []map[string]any{{"port": number(t, port), "pp": false}}}},
		map[string]any{"gateway_urls": []string{g.url}})
	stop, done := start(t, w.config())

	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: g.dial, DisableKeepAlives: true}}
	res, err := c.Get("http://" + guestIP + ":" + port + "/")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if string(b) != "from the app" {
		t.Errorf("%q", b)
	}
	// The measured policy names one port; the other one is refused in the guest.
	if res, err := c.Get("http://" + guestIP + ":" + hidden + "/"); err == nil {
		_ = res.Body.Close()
		t.Error("a port outside restrict_mode was reached")
	}
	// It registers again with each new ticket, under the same key.
	first := <-g.registered
	select {
	case again := <-g.registered:
		if string(again) != string(first) {
			t.Error("another WireGuard key")
		}
	case err := <-done:
		t.Fatalf("the agent ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Error("no second registration")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A gateway that restarts is reached again with the next registration, not with
// the next rekey two minutes later: the guest begins anew when it hears of another
// run, and a gateway that knows the guest's port may begin itself.
func TestGatewayRestart(t *testing.T) {
	for name, tt := range map[string]struct {
		run  string
		hint bool
	}{"another run": {"second", false}, "the guest's port": {"first", true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			gateway := cvm.AppID{0x0c}
			w.kms.GatewayAppID, w.kms.TTL = gateway.String(), time.Second
			g := newGateway(t, w, gateway)
			app := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "from the app") }))
			t.Cleanup(app.Close)
			_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
			w.share(t, map[string]any{"gateway_enabled": true}, map[string]any{"gateway_urls": []string{g.url}})
			stop, _ := start(t, w.config())
			c := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: g.dial, DisableKeepAlives: true}}
			get := func() error {
				res, err := c.Get("http://" + guestIP + ":" + port + "/")
				if err != nil {
					return err
				}
				return res.Body.Close()
			}
			if err := get(); err != nil {
				t.Fatal(err)
			}
			g.restart(t, tt.run, tt.hint)
			deadline := time.Now().Add(10 * time.Second)
			for {
				err := get()
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("not reached after the gateway's restart: %v", err)
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A gateway of the same KMS but another app is not the gateway.
func TestFalseGateway(t *testing.T) {
	for name, want := range map[string]string{"other app": strings.Repeat("0d", 20), "any": "any", "none": ""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			w.kms.GatewayAppID = want
			g := newGateway(t, w, cvm.AppID{0x0c})
			w.share(t, map[string]any{"gateway_enabled": true}, map[string]any{"gateway_urls": []string{g.url}})
			stop, _ := start(t, w.config()) // the app runs, unreachable
			if len(g.registered) != 0 {
				t.Error("the guest registered with a false gateway")
			}
			if p := w.last("boot.progress"); !strings.HasPrefix(p, "10/10") {
				t.Errorf("progress %q", p)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
