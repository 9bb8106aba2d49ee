package gateway

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

type answer struct{ Name, Proto, Host, Path string }

func get(t *testing.T, c *http.Client, url string) (int, answer, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	var a answer
	_ = json.Unmarshal(b, &a)
	return res.StatusCode, a, string(b)
}

func TestTerminatedHTTP(t *testing.T) {
	w := newWorld(t)
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: backend(t, "a", false), 8080: backend(t, "b", false)}).join(time.Minute, "")
	c := w.http(true) // offers h2: must not get it
	for _, x := range []struct{ name, backend string }{
		{nameOf(g.app, ""), "a"}, {nameOf(g.inst, ""), "a"}, {nameOf(g.app, "-8080"), "b"}, {nameOf(g.inst, "-8080"), "b"},
		{strings.ToUpper(g.app.String()) + "-8080." + domain, "b"},
	} {
		status, a, _ := get(t, c, "https://"+x.name+"/p")
		if status != 200 || a.Name != x.backend || a.Proto != "HTTP/1.1" || a.Path != "/p" {
			t.Errorf("%s: %d %+v", x.name, status, a)
		}
	}
	// Large bodies, both ways; how long they take (the race detector on a busy machine: half a minute) is no matter.
	c.Timeout = 0
	res, err := c.Get("https://" + nameOf(g.app, "") + "/big?n=20000000")
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	n, err := io.Copy(h, res.Body)
	if err != nil || n != 20000000 || hex.EncodeToString(h.Sum(nil)) != res.Header.Get("X-Sum") {
		t.Fatalf("download: %d bytes, err %v", n, err)
	}
	up := make([]byte, 12<<20)
	_, _ = rand.Read(up)
	res, err = c.Post("https://"+nameOf(g.app, "")+"/sum", "application/octet-stream", bytes.NewReader(up))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	if string(b) != fmt.Sprintf("%x", sha256.Sum256(up)) {
		t.Fatal("upload was changed")
	}
}

func TestHTTP2(t *testing.T) {
	w := newWorld(t)
	b := backend(t, "h2", true)
	policy := `{"ports":[{"port":9000,"pp":false,"proto":"h2"},{"port":80,"pp":false}],"restrict_mode":false}`
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: b, 9000: b}).join(time.Minute, policy)
	for _, x := range []struct{ name, proto string }{
		{nameOf(g.app, "-g"), "HTTP/2.0"},    // asked for by the name
		{nameOf(g.app, "-9000"), "HTTP/2.0"}, // by the measured policy
		{nameOf(g.app, ""), "HTTP/1.1"},      // by nobody
	} {
		status, a, body := get(t, w.http(true), "https://"+x.name+"/")
		if status != 200 || a.Proto != x.proto {
			t.Errorf("%s: %d %s, want %s (%s)", x.name, status, a.Proto, x.proto, body)
		}
	}
	// A client without HTTP/2 still gets the policy's port.
	if _, a, _ := get(t, w.http(false), "https://"+nameOf(g.app, "-9000")+"/"); a.Proto != "HTTP/1.1" {
		t.Errorf("h1 client on an h2 port: %s", a.Proto)
	}
}

// Browsers reuse an HTTP/2 connection for every name its certificate covers, so a
// connection that speaks HTTP/2 to an app must cover this one name.
func TestHTTP2CertificateCoversOneName(t *testing.T) {
	w := newWorld(t)
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: backend(t, "h2", true)}).join(time.Minute, "")
	c, err := w.tlsTo(nameOf(g.app, "-g"), "h2")
	if err != nil {
		t.Fatal(err)
	}
	cs := c.ConnectionState()
	leaf := cs.PeerCertificates[0]
	if cs.NegotiatedProtocol != "h2" || leaf.VerifyHostname(nameOf(appID(2), "")) == nil || len(leaf.DNSNames) != 1 {
		t.Fatalf("proto %q, names %v", cs.NegotiatedProtocol, leaf.DNSNames)
	}
	// One key serves both, so that one quote binds both.
	p, err := w.tlsTo(nameOf(g.app, ""))
	if err != nil {
		t.Fatal(err)
	}
	wild := p.ConnectionState().PeerCertificates[0]
	if !bytes.Equal(wild.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) || !bytes.Equal(leaf.RawSubjectPublicKeyInfo, w.g.keeper.SPKI()) {
		t.Fatal("the keys differ")
	}
	// Names of one app that get certificates are bounded.
	refused := false
	for i := range maxExactNames + 2 {
		if err := w.g.allowName(t.Context(), nameOf(g.app, fmt.Sprintf("-%dg", 1000+i))); cvm.CodeOf(err) == cvm.Exhausted {
			refused = true
		}
	}
	if !refused {
		t.Fatal("an app may have any number of certificates")
	}
}

func TestPassthrough(t *testing.T) {
	w := newWorld(t)
	app := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, "the app's own TLS, "+r.Host) }))
	defer app.Close()
	addr := strings.TrimPrefix(app.URL, "https://")
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{443: addr, 8443: addr}).join(time.Minute, "")
	for _, suffix := range []string{"-s", "-8443s"} {
		name := nameOf(g.app, suffix)
		raw, err := net.Dial("tcp", w.g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(app.Certificate())
		c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if !c.ConnectionState().PeerCertificates[0].Equal(app.Certificate()) {
			t.Fatal("the certificate is not the app's")
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
		b, _ := io.ReadAll(c)
		if !strings.Contains(string(b), "the app's own TLS, "+name) {
			t.Fatalf("%s: %q", suffix, b)
		}
		_ = c.Close()
	}
}

// rawServer runs f for each connection.
func rawServer(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(c) }()
		}
	}()
	return ln.Addr().String()
}

func TestWebSocketUpgrade(t *testing.T) {
	w := newWorld(t)
	addr := rawServer(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil || r.Header.Get("Upgrade") != "websocket" {
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, br)
	})
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: addr}).join(time.Minute, "")
	req, _ := http.NewRequest("GET", "https://"+nameOf(g.app, "")+"/ws", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	res, err := w.http(false).Transport.RoundTrip(req)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	rw := res.Body.(io.ReadWriteCloser)
	defer rw.Close()
	frame := []byte{0x81, 0x02, 'h', 'i'}
	for range 3 {
		if _, err := rw.Write(frame); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(rw, got); err != nil || !bytes.Equal(got, frame) {
			t.Fatalf("%x %v", got, err)
		}
	}
}

// Raw TCP in TLS, with a protocol of the client's own in ALPN, the server speaking
// first, and a half-close: the answer comes after the client's end.
func TestRawTCPAndHalfClose(t *testing.T) {
	w := newWorld(t)
	addr := rawServer(t, func(c net.Conn) {
		fmt.Fprint(c, "hello\n")
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%d bytes\n", len(b))
	})
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{5432: addr}).join(time.Minute, "")
	c, err := w.tlsTo(nameOf(g.app, "-5432"), "postgresql")
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	if s, err := br.ReadString('\n'); s != "hello\n" {
		t.Fatalf("%q %v", s, err)
	}
	if _, err := c.Write(make([]byte, 100000)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if s, err := br.ReadString('\n'); s != "100000 bytes\n" {
		t.Fatalf("%q %v", s, err)
	}
}

func TestProxyProtocolWhereThePolicyAsks(t *testing.T) {
	w := newWorld(t)
	addr := rawServer(t, func(c net.Conn) {
		b := make([]byte, 28)
		if _, err := io.ReadFull(c, b); err == nil {
			fmt.Fprintf(c, "%x\n", b)
		}
	})
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{7000: addr}).join(time.Minute, `{"ports":[{"port":7000,"pp":true}],"restrict_mode":true}`)
	c, err := w.tlsTo(nameOf(g.app, "-7000"))
	if err != nil {
		t.Fatal(err)
	}
	got, _ := bufio.NewReader(c).ReadString('\n')
	want := hex.EncodeToString(proxyHeader(c.LocalAddr(), c.RemoteAddr()))
	if strings.TrimSpace(got) != want {
		t.Fatalf("header %s, want %s", got, want)
	}
}

func TestTicketsDecide(t *testing.T) {
	w := newWorld(t)
	b := backend(t, "a", false)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: b})
	check := func(what, reason string, err error) {
		t.Helper()
		if cvm.ReasonOf(err) != reason {
			t.Errorf("%s: want reason %s, got %q (%v)", what, reason, cvm.ReasonOf(err), err)
		}
	}
	check("forged", gatewayapi.ReasonTicketForged, g.register(g.ticketOf(time.Minute, ""), stranger))
	check("expired", gatewayapi.ReasonTicketExpired, func() error {
		tk := g.ticketOf(time.Minute, "")
		tk.IssuedAt, tk.Expires = tk.IssuedAt.Add(-2*time.Minute), tk.IssuedAt.Add(-time.Minute)
		return g.register(tk, w.ticket)
	}())
	bad := g.ticketOf(time.Minute, "")
	bad.WireGuardKey = bad.WireGuardKey[:31]
	check("short key", gatewayapi.ReasonTicketInvalid, g.register(bad, w.ticket))
	check("broken policy", gatewayapi.ReasonTicketInvalid, g.register(g.ticketOf(time.Minute, `{"ports":[{"port":0}]}`), w.ticket))
	if status, _, _ := get(t, w.http(false), "https://"+nameOf(g.app, "")+"/"); status != http.StatusNotFound {
		t.Fatalf("refused tickets made a route: %d", status)
	}

	old := g.ticketOf(time.Minute, "")
	g.join(time.Minute, "")
	check("older than the route", gatewayapi.ReasonTicketStale, g.register(old, w.ticket))
	thief := w.newGuest(appID(2), instanceID(2), nil)
	thief.pub = g.pub
	check("another's key", gatewayapi.ReasonKeyTaken, thief.register(thief.ticketOf(time.Minute, ""), w.ticket))
	ip, gen := g.reg.ClientIP, g.reg.GatewayRun
	if err := g.register(g.ticketOf(time.Minute, ""), w.ticket); err != nil || g.reg.ClientIP != ip || g.reg.GatewayRun != gen {
		t.Fatalf("renewal changed the tunnel: %+v, err %v", g.reg, err)
	}
	if status, _, _ := get(t, w.http(false), "https://"+nameOf(g.app, "")+"/"); status != 200 {
		t.Fatalf("renewed route: %d", status)
	}
}

// A ticket that is not renewed ends its route, and the streams on it.
func TestExpiredTicketStopsRoutingAndStreams(t *testing.T) {
	w := newWorld(t)
	addr := rawServer(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: backend(t, "a", false), 7: addr}).join(3*time.Second, "")
	c, err := w.tlsTo(nameOf(g.app, "-7"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("the stream outlived its ticket: %v", err)
	}
	status, _, body := get(t, w.http(false), "https://"+nameOf(g.app, "")+"/")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "not connected") {
		t.Fatalf("after expiry: %d %s", status, body)
	}
	// A new ticket brings it back; the guest is told that its session is forgotten.
	gen := g.reg.GatewayRun
	if err := g.register(g.ticketOf(time.Minute, ""), w.ticket); err != nil || g.reg.GatewayRun == gen {
		t.Fatalf("run %s, err %v", g.reg.GatewayRun, err)
	}
	if err := g.net.ResetPeer(g.reg.Servers[0].PublicKey); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the app is back", func() bool {
		status, _, _ := get(t, w.http(false), "https://"+nameOf(g.app, "")+"/")
		return status == 200
	})
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func TestRestrictMode(t *testing.T) {
	w := newWorld(t)
	b := backend(t, "a", false)
	policy := `{"ports":[{"port":80,"pp":false}],"restrict_mode":true}`
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: b, 81: b, guestapi.ExternalPort: b}).join(time.Minute, policy)
	if status, _, _ := get(t, w.http(false), "https://"+nameOf(g.app, "")+"/"); status != 200 {
		t.Fatalf("listed port: %d", status)
	}
	// Evidence stays reachable: a restricted app can be checked like any other.
	if status, _, body := get(t, w.http(false), fmt.Sprintf("https://%s/evidence", nameOf(g.app, fmt.Sprintf("-%d", guestapi.ExternalPort)))); status != 200 {
		t.Fatalf("evidence of a restricted app: %d %s", status, body)
	}
	status, _, body := get(t, w.http(false), "https://"+nameOf(g.app, "-81")+"/")
	if status != http.StatusForbidden || !strings.Contains(body, "port_policy") {
		t.Fatalf("unlisted port: %d %s", status, body)
	}
	if err := rawAlert(t, w, nameOf(g.app, "-81s")); !strings.Contains(err.Error(), "access denied") {
		t.Fatalf("unlisted port, passthrough: %v", err)
	}
}

func rawAlert(t *testing.T, w *world, name string) error {
	t.Helper()
	c, err := w.tlsTo(name)
	if err == nil {
		_ = c.Close()
		t.Fatalf("%s: a handshake succeeded", name)
	}
	return err
}

func TestTwoInstances(t *testing.T) {
	w := newWorld(t)
	g1 := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: backend(t, "one", false)}).join(time.Minute, "")
	g2 := w.newGuest(appID(1), instanceID(2), map[uint16]string{80: backend(t, "two", false)}).join(time.Minute, "")
	seen := map[string]int{}
	for range 20 {
		c := w.http(false)
		_, a, _ := get(t, c, "https://"+nameOf(g1.app, "")+"/")
		seen[a.Name]++
		c.CloseIdleConnections()
	}
	if seen["one"] < 3 || seen["two"] < 3 {
		t.Fatalf("not spread: %v", seen)
	}
	// An instance id means this instance.
	for range 3 {
		if _, a, _ := get(t, w.http(false), "https://"+nameOf(g2.inst, "")+"/"); a.Name != "two" {
			t.Fatalf("instance 2's name led to %q", a.Name)
		}
	}
	// One goes without a word: its clients go to the other, the first after the
	// connect timeout, the next at once.
	_ = g1.net.Close()
	for range 4 {
		c := w.http(false)
		if status, a, body := get(t, c, "https://"+nameOf(g1.app, "")+"/"); a.Name != "two" {
			t.Fatalf("failover: %d %s", status, body)
		}
		c.CloseIdleConnections()
	}
	if status, _, _ := get(t, w.http(false), "https://"+nameOf(g1.inst, "")+"/"); status != http.StatusServiceUnavailable {
		t.Fatalf("the dead instance by its id: %d", status)
	}
	// A port that only one has.
	g2.mu.Lock()
	g2.ports = map[uint16]string{}
	g2.mu.Unlock()
	if status, _, body := get(t, w.http(false), "https://"+nameOf(g2.inst, "")+"/"); status != http.StatusBadGateway || !strings.Contains(body, "port 80") {
		t.Fatalf("closed port: %d %s", status, body)
	}
}

func TestRestartKeepsIdentity(t *testing.T) {
	w := newWorld(t)
	g := w.newGuest(appID(1), instanceID(1), map[uint16]string{80: backend(t, "a", false)}).join(time.Minute, "")
	spki, ip, pub, run := w.g.keeper.SPKI(), g.reg.ClientIP, g.reg.Servers[0].PublicKey, g.reg.GatewayRun
	// The same UDP port again, as in a deployment: guests keep their endpoint.
	w.cfg.Tunnel.WireGuard = w.g.net.LocalAddr().String()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.start()
	if !bytes.Equal(spki, w.g.keeper.SPKI()) {
		t.Error("the TLS key changed")
	}
	if err := g.register(g.ticketOf(time.Minute, ""), w.ticket); err != nil {
		t.Fatal(err)
	}
	if g.reg.ClientIP != ip || !bytes.Equal(pub, g.reg.Servers[0].PublicKey) || g.reg.GatewayRun == run {
		t.Errorf("after the restart: %+v", g.reg)
	}
	_ = g.net.ResetPeer(pub)
	eventually(t, "the guest is reached", func() bool {
		status, _, _ := get(t, w.http(false), "https://"+nameOf(g.app, "")+"/")
		return status == 200
	})
}
