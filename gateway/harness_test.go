package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/certs"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/internal/wgnet"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

const domain = "dev.localhost"

// world is a gateway with what stands around it: a guest agent that answers as the
// real one does, and a KMS's keys.
type world struct {
	t      testing.TB
	g      *Gateway
	cfg    Config
	ticket ed25519.PrivateKey
	root   *x509.CertPool // of the KMS
	ca     *x509.CertPool // of the local CA
	agent  *fakeAgent
	stop   func() error
}

// fakeAgent is dstack.sock: the wire is the real one, the evidence is a marker.
type fakeAgent struct {
	rootC  *x509.Certificate
	rootK  *ecdsa.PrivateKey
	ticket ed25519.PublicKey
}

func newFakeAgent(t testing.TB, ticket ed25519.PublicKey) *fakeAgent {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "KMS root of the test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeAgent{rootC: c, rootK: k, ticket: ticket}
}

func pemOf(kind string, b []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
}

func (f *fakeAgent) serve(t testing.TB) string {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "d.sock")
	ln, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /Info", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, 200, guestapi.AppInfo{AppID: make([]byte, 20), InstanceID: []byte("instance-of-gateway!"), AppName: "gateway"})
	})
	mux.HandleFunc("POST /GetKey", rpc.Handle(func(_ *http.Request, r guestapi.KeyRequest) (guestapi.Key, error) {
		s := sha256.Sum256([]byte("app key of the test/" + r.Path))
		return guestapi.Key{Key: s[:]}, nil
	}))
	mux.HandleFunc("POST /GetTlsKey", rpc.Handle(f.getTLSKey))
	mux.HandleFunc("GET /v1/KMS", func(w http.ResponseWriter, _ *http.Request) {
		rpc.WriteJSON(w, 200, guestapi.KMSInfo{
			RootCA: pemOf("CERTIFICATE", f.rootC.Raw), RootSPKI: hex.EncodeToString(f.rootC.RawSubjectPublicKeyInfo),
			TicketKey: f.ticket, AppID: "00", Simulated: true,
		})
	})
	mux.HandleFunc("POST /v1/Evidence", rpc.Handle(func(_ *http.Request, r guestapi.EvidenceRequest) (guestapi.Evidence, error) {
		return guestapi.Evidence{Attestation: r.Nonce, Bound: r.Bound}, nil
	}))
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
	return sock
}

func (f *fakeAgent) getTLSKey(_ *http.Request, r guestapi.TLSKeyRequest) (guestapi.TLSKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return guestapi.TLSKey{}, err
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: r.Subject},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range r.AltNames {
		if ip := net.ParseIP(n); ip != nil {
			tpl.IPAddresses = append(tpl.IPAddresses, ip)
		} else {
			tpl.DNSNames = append(tpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, f.rootC, k.Public(), f.rootK)
	if err != nil {
		return guestapi.TLSKey{}, err
	}
	kd, err := x509.MarshalPKCS8PrivateKey(k)
	return guestapi.TLSKey{Key: pemOf("PRIVATE KEY", kd), CertificateChain: []string{pemOf("CERTIFICATE", der), pemOf("CERTIFICATE", f.rootC.Raw)}}, err
}

// newWorld starts a gateway on loopback; change may adjust its configuration.
func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ticket: priv, agent: newFakeAgent(t, pub)}
	dir := t.TempDir()
	ca, err := certs.EnsureCA(filepath.Join(dir, "ca"), domain)
	if err != nil {
		t.Fatal(err)
	}
	w.ca, w.root = x509.NewCertPool(), x509.NewCertPool()
	w.ca.AddCert(ca.Certificate)
	w.root.AddCert(w.agent.rootC)
	c := Default()
	c.Domain, c.Listen, c.DstackSock, c.StateDir = domain, "127.0.0.1:0", w.agent.serve(t), filepath.Join(dir, "state")
	c.Tunnel.API, c.Tunnel.WireGuard, c.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0", ""
	c.Tunnel.Endpoint = "127.0.0.1:0"
	c.Certs.CACert, c.Certs.CAKey = ca.CertFile, ca.KeyFile
	c.Limits.Connect, c.Limits.Drain = config.Duration(time.Second), config.Duration(time.Second)
	c.Tunnel.RegistrationBurst = 1000
	c.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, f := range change {
		f(&c)
	}
	w.cfg = c
	w.start()
	return w
}

// testWriter logs to the test, and drops what comes after its end.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(string(b))
	}
	return len(b), nil
}

func (w *world) start() {
	w.t.Helper()
	g, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.t.Cleanup(func() {
		if err := w.stop(); err != nil {
			w.t.Errorf("stopping: %v", err)
		}
	})
	select {
	case <-g.Ready():
	case err := <-done:
		w.t.Fatalf("gateway: %v", err)
	case <-time.After(20 * time.Second):
		w.t.Fatal("gateway is not ready after 20 s")
	}
	w.g = g
}

// guest is an instance: a tunnel end, and what listens behind its ports.
type guest struct {
	w    *world
	app  cvm.AppID
	inst cvm.InstanceID
	net  *wgnet.Net
	key  keys.Secret
	pub  []byte
	reg  gatewayapi.Registration

	mu    sync.Mutex
	ports map[uint16]string // port -> backend address
}

func appID(n byte) (a cvm.AppID)           { a[0], a[19] = 0xA0, n; return a }
func instanceID(n byte) (i cvm.InstanceID) { i[0], i[19] = 0x10, n; return i }

func (w *world) newGuest(app cvm.AppID, inst cvm.InstanceID, ports map[uint16]string) *guest {
	w.t.Helper()
	k, err := wgnet.GenerateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	pub, err := wgnet.PublicKey(k)
	if err != nil {
		w.t.Fatal(err)
	}
	return &guest{w: w, app: app, inst: inst, key: k, pub: pub, ports: ports}
}

// ticketOf is a fresh ticket that lives for ttl.
func (g *guest) ticketOf(ttl time.Duration, policy string) kmsapi.RouteTicket {
	now := time.Now()
	return kmsapi.RouteTicket{
		AppID: g.app, InstanceID: g.inst, WireGuardKey: g.pub, PortPolicy: []byte(policy), Simulated: true,
		IssuedAt: now, Expires: now.Add(ttl),
	}
}

func (w *world) client() *gatewayapi.Client {
	w.t.Helper()
	c, err := gatewayapi.NewClient("https://"+w.g.APIAddr(), &tls.Config{RootCAs: w.root})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (g *guest) register(t kmsapi.RouteTicket, by ed25519.PrivateKey) error {
	g.w.t.Helper()
	s, err := kmsapi.SignTicket(by, t)
	if err != nil {
		g.w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(g.w.t.Context(), 10*time.Second)
	defer cancel()
	reg, err := g.w.client().Register(ctx, gatewayapi.RegisterRequest{Ticket: s})
	if err == nil {
		g.reg = reg
	}
	return err
}

// join registers and opens the guest's end of the tunnel.
func (g *guest) join(ttl time.Duration, policy string) *guest {
	g.w.t.Helper()
	if err := g.register(g.ticketOf(ttl, policy), g.w.ticket); err != nil {
		g.w.t.Fatal(err)
	}
	var peers []wgnet.Peer
	for _, s := range g.reg.Servers {
		peers = append(peers, wgnet.Peer{
			PublicKey: s.PublicKey, Endpoint: netip.MustParseAddrPort(s.Endpoint), AllowedIP: netip.MustParseAddr(s.IP), Keepalive: time.Second,
		})
	}
	n, err := wgnet.New(wgnet.Config{
		PrivateKey: g.key, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Address: netip.MustParseAddr(g.reg.ClientIP), Peers: peers,
	})
	if err != nil {
		g.w.t.Fatal(err)
	}
	g.net = n
	g.w.t.Cleanup(func() { _ = n.Close() })
	if err := n.Forward(g.dial); err != nil {
		g.w.t.Fatal(err)
	}
	return g
}

func (g *guest) dial(port uint16) (net.Conn, error) {
	g.mu.Lock()
	addr, ok := g.ports[port]
	g.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("port %d is closed", port)
	}
	return net.Dial("tcp", addr)
}

// tlsTo connects to a name; protos is what the client offers.
func (w *world) tlsTo(name string, protos ...string) (*tls.Conn, error) {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{RootCAs: w.ca, ServerName: name, NextProtos: protos}}
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", w.g.Addr())
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c.(*tls.Conn), nil
}

// http makes a client that finds every name at the gateway.
func (w *world) http(h2 bool) *http.Client {
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.ca}, ForceAttemptHTTP2: h2,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, w.g.Addr())
		},
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func nameOf(id fmt.Stringer, suffix string) string { return id.String() + suffix + "." + domain }

// eventually polls until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !f(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// backend is an HTTP server that says who it is.
func backend(t testing.TB, name string, h2 bool) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"name": name, "proto": r.Proto, "host": r.Host, "path": r.URL.Path})
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		b := make([]byte, n)
		h := sha256.New()
		for i := range b {
			b[i] = byte(i * 7)
		}
		h.Write(b)
		w.Header().Set("X-Sum", hex.EncodeToString(h.Sum(nil)))
		_, _ = w.Write(b)
	})
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buf)
			h.Write(buf[:n])
			if err != nil {
				break
			}
		}
		fmt.Fprintf(w, "%x", h.Sum(nil))
	})
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(h2)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux, Protocols: p}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
	return ln.Addr().String()
}
