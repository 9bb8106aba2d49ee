package wgnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

var (
	gatewayIP = netip.MustParseAddr("10.88.0.1")
	guestIP   = netip.MustParseAddr("10.88.3.7")
	loopback0 = netip.MustParseAddrPort("127.0.0.1:0")
)

func key(t testing.TB) (keys.Secret, []byte) {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := PublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, pub
}

// pair is a gateway end and a guest end over loopback.
func pair(t testing.TB) (gateway, guest *Net) {
	t.Helper()
	gk, gp := key(t)
	ck, cp := key(t)
	gateway, err := New(Config{PrivateKey: gk, Listen: loopback0, Address: gatewayIP})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gateway.Close() })
	guest, err = New(Config{PrivateKey: ck, Listen: loopback0, Address: guestIP, Peers: []Peer{
		{PublicKey: gp, Endpoint: gateway.LocalAddr(), AllowedIP: gatewayIP, Keepalive: time.Second},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = guest.Close() })
	if err := gateway.AddPeer(Peer{PublicKey: cp, AllowedIP: guestIP}); err != nil {
		t.Fatal(err)
	}
	return gateway, guest
}

func echo(t testing.TB) *net.TCPAddr {
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
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
				_ = c.(*net.TCPConn).CloseWrite()
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr)
}

func forwardTo(a *net.TCPAddr) func(uint16) (net.Conn, error) {
	return func(port uint16) (net.Conn, error) {
		if port == 9 {
			return nil, errors.New("closed")
		}
		return net.DialTCP("tcp", nil, a)
	}
}

func TestStreamsOnAnyPortWithHalfClose(t *testing.T) {
	gateway, guest := pair(t)
	if err := guest.Forward(forwardTo(echo(t))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, port := range []uint16{1, 80, 8090, 65535} {
		c, err := gateway.DialContext(ctx, guestIP, port)
		if err != nil {
			t.Fatalf("port %d: %v", port, err)
		}
		sent := make([]byte, 3<<20)
		_, _ = rand.Read(sent)
		go func() {
			_, _ = c.Write(sent)
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("port %d: %d bytes back of %d, err %v", port, len(got), len(sent), err)
		}
		_ = c.Close()
	}
	if guest.LastHandshake(gatewayPub(t, guest)).IsZero() {
		t.Error("no handshake was noted")
	}
}

func gatewayPub(t *testing.T, n *Net) []byte {
	t.Helper()
	for pk := range n.peers {
		return pk[:]
	}
	t.Fatal("no peer")
	return nil
}

// The guest ends streams first, so that it is the one in TIME-WAIT. A source port
// that comes again meanwhile must not be met with silence: one in a hundred
// connections of a busy app would hang.
func TestSourcePortComesAgain(t *testing.T) {
	gateway, guest := pair(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // says hello and ends
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	if err := guest.Forward(forwardTo(ln.Addr().(*net.TCPAddr))); err != nil {
		t.Fatal(err)
	}
	at := func(ip netip.Addr, port uint16) tcpip.FullAddress {
		return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(ip.AsSlice()), Port: port}
	}
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		c, err := gonet.DialTCPWithBind(ctx, gateway.tun.stack, at(gatewayIP, 40000), at(guestIP, 80), ipv4.ProtocolNumber)
		for err != nil && strings.Contains(err.Error(), "in use") && ctx.Err() == nil { // until the last stream's end has crossed
			runtime.Gosched()
			c, err = gonet.DialTCPWithBind(ctx, gateway.tun.stack, at(gatewayIP, 40000), at(guestIP, 80), ipv4.ProtocolNumber)
		}
		cancel()
		if err != nil {
			t.Fatalf("stream %d from the same port: %v", i, err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
			t.Fatalf("stream %d: %q, %v", i, b, err)
		}
		_ = c.Close()
		for begin := time.Now(); len(guest.tun.stack.RegisteredEndpoints()) > 0; runtime.Gosched() {
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("stream %d: its end in the guest is still there: %v", i, guest.tun.stack.RegisteredEndpoints()[0].(*tcp.Endpoint).EndpointState())
			}
		}
	}
}

func TestClosedPortIsRefused(t *testing.T) {
	gateway, guest := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := guest.Forward(forwardTo(echo(t))); err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.DialContext(ctx, guestIP, 9); !errors.Is(err, ErrRefused) {
		t.Fatalf("want ErrRefused, got %v", err)
	}
}

func TestSecondForwardIsRefused(t *testing.T) {
	_, guest := pair(t)
	if err := guest.Forward(forwardTo(nil)); err != nil {
		t.Fatal(err)
	}
	if err := guest.Forward(forwardTo(nil)); cvm.CodeOf(err) != cvm.Conflict {
		t.Fatalf("want a conflict, got %v", err)
	}
}

// A key that nobody added gets no answer, and a removed one loses its.
func TestStrangersAndRemovedPeersGetNothing(t *testing.T) {
	gateway, guest := pair(t)
	if err := guest.Forward(forwardTo(echo(t))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := gateway.DialContext(ctx, guestIP, 80)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	pub, _ := PublicKey(guest.cfg.PrivateKey)
	if err := gateway.RemovePeer(pub); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer stop()
	if c, err := gateway.DialContext(short, guestIP, 80); err == nil {
		_ = c.Close()
		t.Fatal("a removed peer was reached")
	}
}

// A peer may use its own inner address only: WireGuard drops the rest.
func TestPeerCannotUseAnotherAddress(t *testing.T) {
	gateway, guest := pair(t)
	pub, _ := PublicKey(guest.cfg.PrivateKey)
	if err := gateway.AddPeer(Peer{PublicKey: pub, AllowedIP: netip.MustParseAddr("10.88.9.9")}); err != nil {
		t.Fatal(err)
	}
	if err := guest.Forward(forwardTo(echo(t))); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer stop()
	if c, err := gateway.DialContext(short, guestIP, 80); err == nil {
		_ = c.Close()
		t.Fatal("reached a guest under an address it may not use")
	}
}

// A gateway that has restarted with the same key reaches the guest at once when it
// has a hint, although the guest believes in the old session.
func TestRestartedGatewayWithHint(t *testing.T) {
	gateway, guest := pair(t)
	if err := guest.Forward(forwardTo(echo(t))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := gateway.DialContext(ctx, guestIP, 80)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	cfg, at := gateway.cfg, gateway.LocalAddr()
	_ = gateway.Close()
	cfg.Listen = at
	again, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	pub, _ := PublicKey(guest.cfg.PrivateKey)
	if err := again.AddPeer(Peer{PublicKey: pub, AllowedIP: guestIP, Endpoint: guest.LocalAddr()}); err != nil {
		t.Fatal(err)
	}
	if c, err = again.DialContext(ctx, guestIP, 80); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// Without a hint the guest's ResetPeer brings the session back.
func TestResetPeerAfterRestart(t *testing.T) {
	gateway, guest := pair(t)
	if err := guest.Forward(forwardTo(echo(t))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := gateway.DialContext(ctx, guestIP, 80)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	pub, _ := PublicKey(guest.cfg.PrivateKey)
	_ = gateway.RemovePeer(pub)
	if err := gateway.AddPeer(Peer{PublicKey: pub, AllowedIP: guestIP}); err != nil {
		t.Fatal(err)
	}
	if err := guest.ResetPeer(gatewayPub(t, guest)); err != nil {
		t.Fatal(err)
	}
	if c, err = gateway.DialContext(ctx, guestIP, 80); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestUpdatePeers(t *testing.T) {
	_, guest := pair(t)
	_, a := key(t)
	_, b := key(t)
	pa := Peer{PublicKey: a, AllowedIP: netip.MustParseAddr("10.88.0.2"), Endpoint: netip.MustParseAddrPort("127.0.0.1:9")}
	pb := Peer{PublicKey: b, AllowedIP: netip.MustParseAddr("10.88.0.3")}
	if err := guest.UpdatePeers([]Peer{pa, pb}); err != nil || len(guest.peers) != 2 {
		t.Fatalf("%d peers, err %v", len(guest.peers), err)
	}
	if err := guest.UpdatePeers([]Peer{pb}); err != nil || len(guest.peers) != 1 {
		t.Fatalf("%d peers, err %v", len(guest.peers), err)
	}
}

func TestBadConfigs(t *testing.T) {
	k, pub := key(t)
	for name, c := range map[string]Config{
		"no key":     {Listen: loopback0, Address: guestIP},
		"short key":  {PrivateKey: keys.NewSecret([]byte("short")), Listen: loopback0, Address: guestIP},
		"no listen":  {PrivateKey: k, Address: guestIP},
		"no address": {PrivateKey: k, Listen: loopback0},
		"bad peer":   {PrivateKey: k, Listen: loopback0, Address: guestIP, Peers: []Peer{{PublicKey: pub[:31], AllowedIP: gatewayIP}}},
		"v6 peer":    {PrivateKey: k, Listen: loopback0, Address: guestIP, Peers: []Peer{{PublicKey: pub, AllowedIP: netip.IPv6LinkLocalAllNodes()}}},
	} {
		n, err := New(c)
		if err == nil {
			_ = n.Close()
			t.Errorf("%s: accepted", name)
		} else if cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: code %s (%v)", name, cvm.CodeOf(err), err)
		} else if strings.Contains(err.Error(), string(k.Reveal())) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

// Only the configured address is bound.
func TestBindsOneAddress(t *testing.T) {
	gateway, _ := pair(t)
	p := gateway.LocalAddr().Port()
	other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: int(p)})
	if err != nil {
		t.Fatalf("the port is taken on another address too: %v", err)
	}
	_ = other.Close()
}

func TestCloseLeavesNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		gateway, guest := pair(t)
		if err := guest.Forward(forwardTo(echo(t))); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := gateway.DialContext(ctx, guestIP, 80)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil { // left open on purpose
			t.Fatal(err)
		}
		cancel()
		_ = guest.Close()
		_ = gateway.Close()
		if err := guest.AddPeer(Peer{PublicKey: make([]byte, 32), AllowedIP: gatewayIP}); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("want net.ErrClosed, got %v", err)
		}
	}
	// The echo servers (one goroutine each) end with the test; all else must end now.
	var n int
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if n = runtime.NumGoroutine(); n <= before+3+1 {
			return
		}
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("%d goroutines before, %d after\n%s", before, n, buf[:runtime.Stack(buf, true)])
}

func BenchmarkThroughput(b *testing.B) {
	gateway, guest := pair(b)
	if err := guest.Forward(forwardTo(echo(b))); err != nil {
		b.Fatal(err)
	}
	c, err := gateway.DialContext(b.Context(), guestIP, 80)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	chunk := make([]byte, 1<<20)
	b.SetBytes(int64(len(chunk))) // each byte goes both ways
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, c, int64(b.N)<<20); err != nil {
		b.Fatal(err)
	}
}
