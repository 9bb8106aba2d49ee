package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/internal/config"
)

func TestUnknownNames(t *testing.T) {
	w := newWorld(t)
	unknown := appID(9)
	for _, x := range []struct {
		url    string
		status int
		reason string
	}{
		{"https://" + nameOf(unknown, "") + "/", 404, gatewayapi.ReasonUnknownApp},
		{"https://" + nameOf(unknown, "-g") + "/", 404, gatewayapi.ReasonUnknownApp},
		{"https://hello." + domain + "/", 404, gatewayapi.ReasonBadName},
		{"https://" + nameOf(unknown, "-70000") + "/", 404, gatewayapi.ReasonBadName},
	} {
		for _, accept := range []string{"text/html", "application/json", ""} {
			req, _ := http.NewRequest("GET", x.url, nil)
			req.Header.Set("Accept", accept)
			res, err := w.http(true).Do(req)
			if err != nil {
				t.Fatalf("%s: %v", x.url, err)
			}
			b, _ := io.ReadAll(res.Body)
			if res.StatusCode != x.status || res.Header.Get("X-Phala-Reason") != x.reason {
				t.Errorf("%s: %d %s", x.url, res.StatusCode, res.Header.Get("X-Phala-Reason"))
			}
			if accept == "text/html" && !bytes.Contains(b, []byte("What to do:")) {
				t.Errorf("%s: the page does not help: %s", x.url, b)
			}
			var e struct{ Error cvm.Error }
			if accept == "application/json" && (json.Unmarshal(b, &e) != nil || e.Error.Reason != x.reason || e.Error.Fix == "") {
				t.Errorf("%s: JSON %s", x.url, b)
			}
		}
	}
	for name, want := range map[string]string{
		"example.org":            "unrecognized name",
		"a.b." + domain:          "unrecognized name",
		nameOf(unknown, "-s"):    "unrecognized name",
		nameOf(unknown, "-443s"): "unrecognized name",
	} {
		if err := rawAlert(t, w, name); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want alert %q", name, err, want)
		}
	}
}

// gRPC clients get a gRPC answer.
func TestGRPCError(t *testing.T) {
	w := newWorld(t)
	req, _ := http.NewRequest("POST", "https://"+nameOf(appID(9), "-g")+"/pkg.Service/Method", nil)
	req.Header.Set("Content-Type", "application/grpc")
	res, err := w.http(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != 2 || res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "5" || res.Header.Get("Grpc-Message") == "" {
		t.Fatalf("%s %d %v", res.Proto, res.StatusCode, res.Header)
	}
}

// A connection that answers for one name does not answer for another.
func TestMisdirectedRequest(t *testing.T) {
	w := newWorld(t)
	c, err := w.tlsTo("gateway." + domain)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", nameOf(appID(1), ""))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusMisdirectedRequest {
		t.Fatalf("%v %v", res, err)
	}
}

func TestOwnPages(t *testing.T) {
	w := newWorld(t)
	c := w.http(false)
	base := "https://gateway." + domain
	status, _, body := get(t, c, base+"/")
	if status != 200 || !strings.Contains(body, "SIMULATED TEE") || !strings.Contains(body, domain) {
		t.Errorf("index: %d %s", status, body)
	}
	_, _, body = get(t, c, base+"/.well-known/phala")
	var info gatewayapi.Info
	if err := json.Unmarshal([]byte(body), &info); err != nil || info.BaseDomain != domain || !info.Simulated || info.Port == 0 {
		t.Errorf("info: %s", body)
	}
	nonce := strings.Repeat("ab", 32)
	conn, err := w.tlsTo("gateway." + domain)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /evidence?nonce=%s HTTP/1.1\r\nHost: gateway.%s\r\n\r\n", nonce, domain)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	var ev gatewayapi.Evidence
	if err := json.NewDecoder(res.Body).Decode(&ev); err != nil {
		t.Fatal(err)
	}
	// The evidence binds the key of the very connection it came over.
	spki := conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo
	if !bytes.Equal(ev.Evidence.Bound, spki) || hex.EncodeToString(ev.Evidence.Attestation) != nonce {
		t.Errorf("evidence binds %x, the connection has %x", ev.Evidence.Bound, spki)
	}
	for _, bad := range []string{"", "xyz", "ab", strings.Repeat("a", 2*maxNonce+2)} {
		if status, _, _ := get(t, c, base+"/evidence?nonce="+bad); status != 400 {
			t.Errorf("nonce %q: %d", bad, status)
		}
	}
	if status, _, body := get(t, c, base+"/.dstack/app-info"); status != 200 || !strings.Contains(body, "app_name") {
		t.Errorf("app-info: %d %s", status, body)
	}
	if status, _, _ := get(t, c, base+"/nothing"); status != 404 {
		t.Errorf("unknown path: %d", status)
	}
	if res, err := c.Post(base+"/", "text/plain", nil); err != nil || res.StatusCode != 405 {
		t.Errorf("POST: %v %v", res, err)
	}
	if status, _, body := get(t, c, "https://health."+domain+"/"); status != 200 || body != "OK" {
		t.Errorf("health: %d %s", status, body)
	}
	// Quotes are expensive: a burst is refused.
	limited := false
	for range 40 {
		status, _, _ := get(t, c, base+"/evidence?nonce="+nonce)
		limited = limited || status == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("evidence is not rate limited")
	}
}

func TestPlainHTTPGetsHelp(t *testing.T) {
	w := newWorld(t)
	res, err := http.Get("http://" + w.g.Addr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != 400 || !bytes.Contains(b, []byte("use https://")) {
		t.Fatalf("%d %s", res.StatusCode, b)
	}
}

// A client that sends its hello byte by byte holds a connection for the handshake
// time and no longer.
func TestSlowHelloIsBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Handshake = config.Duration(400 * time.Millisecond) })
	c, err := net.Dial("tcp", w.g.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for _, b := range append([]byte{22, 3, 1, 2, 0}, make([]byte, 512)...) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			<-tick.C
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("still open after %s: %v", time.Since(start), err)
	}
	eventually(t, "the slot is free", func() bool { return w.g.streams.open() == 0 })
}

func TestConnectionLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Connections = 3; c.Limits.ConnectionsPerApp = 2 })
	addr := rawServer(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{7: addr, 80: addr}).join(time.Minute, "")
	for range 2 {
		c, err := w.tlsTo(nameOf(g.app, "-7"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if status, _, body := get(t, w.http(false), "https://"+nameOf(g.app, "")+"/"); status != 503 || !strings.Contains(body, "2 connections") {
		t.Fatalf("third connection of the app: %d %s", status, body)
	}
	eventually(t, "the refused connection has left", func() bool { return w.g.streams.open() == 2 })
	third, err := w.tlsTo("gateway." + domain)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if c, err := w.tlsTo("gateway." + domain); err == nil {
		_ = c.Close()
		t.Fatal("a connection over the limit was served")
	}
}

func TestIdleStreamEnds(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Idle = config.Duration(300 * time.Millisecond) })
	addr := rawServer(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{7: addr}).join(time.Minute, "")
	c, err := w.tlsTo(nameOf(g.app, "-7"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("an idle stream stays: %v", err)
	}
}

// A stopping gateway takes no new clients and lets a stream finish.
func TestDrain(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Drain = config.Duration(20 * time.Second) })
	addr := rawServer(t, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%d", len(b))
	})
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{7: addr}).join(time.Minute, "")
	c, err := w.tlsTo(nameOf(g.app, "-7"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("before "))
	eventually(t, "the stream is joined", func() bool { r := w.g.table.All(time.Now()); return len(r) == 1 && r[0].Load.Streams.Load() == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	eventually(t, "the listener is closed", func() bool {
		x, err := net.Dial("tcp", w.g.Addr())
		if err == nil {
			_ = x.Close()
		}
		return err != nil
	})
	_, _ = c.Write([]byte("after"))
	_ = c.CloseWrite()
	b, err := io.ReadAll(c)
	if string(b) != "12" {
		t.Fatalf("%q %v", b, err)
	}
	_ = c.Close()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

func TestRegistrationIsBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Tunnel.RegistrationBurst = 3; c.Tunnel.RegistrationsPerSecond = 0.001 })
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.root}}}
	post := func(body string) (int, string) {
		res, err := c.Post("https://"+w.g.APIAddr()+gatewayapi.PathRegister, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		return res.StatusCode, string(b)
	}
	if s, b := post(`{"ticket":"` + base64.StdEncoding.EncodeToString(make([]byte, maxRegister)) + `"}`); s != 400 {
		t.Errorf("large body: %d %s", s, b)
	}
	if s, b := post(`{"nonsense":1}`); s != 400 {
		t.Errorf("unknown field: %d %s", s, b)
	}
	if s, b := post(`{"ticket":"e30="}`); s != 403 || !strings.Contains(b, gatewayapi.ReasonTicketForged) {
		t.Errorf("empty ticket: %d %s", s, b)
	}
	if s, b := post(`{}`); s != 429 || !strings.Contains(b, gatewayapi.ReasonRateLimited) {
		t.Errorf("over the rate: %d %s", s, b)
	}
	if err := w.client().Health(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestClientNeedsAPin(t *testing.T) {
	for base, cfg := range map[string]*tls.Config{"https://h:1": nil, "http://h:1": {}, "https://h:1/x": {}, "": {}} {
		if _, err := gatewayapi.NewClient(base, cfg); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestAdmin(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef0123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	w := newWorld(t, func(c *Config) { c.Admin.Listen, c.Admin.TokenFile = addr, token })
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: backend(t, "a", false)}).join(time.Minute, "")
	get(t, w.http(false), "https://"+nameOf(g.app, "")+"/big?n=1000")
	call := func(path, auth string) (int, string) {
		req, _ := http.NewRequest("GET", "http://"+addr+path, nil)
		if auth != "" {
			req.Header.Set("Authorization", "Bearer "+auth)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	if s, b := call("/healthz", ""); s != 200 || !strings.Contains(b, "true") {
		t.Errorf("healthz: %d %s", s, b)
	}
	for _, path := range []string{"/routes", "/metrics"} {
		for _, auth := range []string{"", "wrong", "0123456789abcdef012"} {
			if s, _ := call(path, auth); s != 401 {
				t.Errorf("%s with %q: %d", path, auth, s)
			}
		}
	}
	if s, b := call("/routes", "0123456789abcdef0123"); s != 200 || !strings.Contains(b, g.inst.String()) || !strings.Contains(b, "last_handshake") {
		t.Errorf("routes: %d %s", s, b)
	}
	_, b := call("/metrics", "0123456789abcdef0123")
	for _, want := range []string{
		`phala_gateway_streams_total{app="` + g.app.String() + `",mode="terminate"} 1`,
		`phala_gateway_bytes_total{app="` + g.app.String() + `",direction="out"} 1`, // and more digits
		"phala_gateway_routes 1",
	} {
		if !strings.Contains(b, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	c := Default()
	err := c.Validate()
	for _, want := range []string{"domain", "dstack_sock", "state_dir", "tunnel.api", "tunnel.wireguard", "ca_cert"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not reported: %s (%v)", want, err)
		}
	}
	file := filepath.Join(t.TempDir(), "g.toml")
	text := `domain = "dev.localhost"
dstack_sock = "/run/x.sock"
state_dir = "/var/lib/x"
[tunnel]
api = "127.0.0.1:8740"
wireguard = "127.0.0.1:8741"
[certs]
ca_cert = "/c.pem"
ca_key = "/k.pem"
[limits]
idle = "90s"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c = Default()
	if err := config.Load(file, &c); err != nil || time.Duration(c.Limits.Idle) != 90*time.Second {
		t.Fatalf("%+v %v", c.Limits, err)
	}
	if err := os.WriteFile(file, []byte(text+"idel = \"1s\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := config.Load(file, &c); err == nil || !strings.Contains(err.Error(), "idel") {
		t.Fatalf("an unknown key passed: %v", err)
	}
}

// The bytes are the specification's: DO NOT CHANGE.
func TestProxyHeaderVector(t *testing.T) {
	at := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	for _, x := range []struct{ src, dst, want string }{
		{"192.0.2.1:51234", "198.51.100.2:443", "0d0a0d0a000d0a515549540a2111000cc0000201c6336402c82201bb"},
		{"[2001:db8::1]:1", "[2001:db8::2]:2", "0d0a0d0a000d0a515549540a2121002420010db800000000000000000000000120010db800000000000000000000000200010002"},
		{"192.0.2.1:1", "[2001:db8::2]:2", "0d0a0d0a000d0a515549540a2121002400000000000000000000ffffc000020120010db800000000000000000000000200010002"},
	} {
		if got := hex.EncodeToString(proxyHeader(at(x.src), at(x.dst))); got != x.want {
			t.Errorf("%s: %s", x.src, got)
		}
	}
	if got := hex.EncodeToString(proxyHeader(&net.UnixAddr{}, at("192.0.2.1:1"))); got != "0d0a0d0a000d0a515549540a20000000" {
		t.Errorf("unknown address: %s", got)
	}
}

// The gateway may start before its guest agent.
func TestWaitsForTheGuestAgent(t *testing.T) {
	w := newWorld(t)
	cfg := w.cfg
	cfg.DstackSock = filepath.Join(t.TempDir(), "later.sock")
	cfg.StateDir = t.TempDir()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	if err := os.Symlink(w.cfg.DstackSock, cfg.DstackSock); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.Ready():
	case <-time.After(15 * time.Second):
		t.Fatal("not ready")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
