// Package wgnet is a WireGuard tunnel in user space: wireguard-go for the crypto,
// a gvisor TCP/IP stack for the streams. Both ends use it: the gateway (AddPeer,
// DialContext) and the guest agent (Peers in Config, Forward). It needs no kernel
// module, no TUN device and no privilege.
//
// Only TCP is carried. A peer reaches nothing but the tunnel address of this end:
// the stack forwards no packets, and WireGuard drops inner packets whose source is
// not the peer's AllowedIP.
package wgnet

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// KeySize is the length of a WireGuard key (X25519), in bytes.
const KeySize = 32

// DefaultMTU is the inner packet size that fits in a 1500-byte outer one.
const DefaultMTU = 1420

// Config of one end.
type Config struct {
	// PrivateKey is the X25519 private key, 32 bytes.
	PrivateKey keys.Secret
	// Listen is the UDP address to bind, and the only one. Port 0 picks one.
	Listen netip.AddrPort
	// Address is this end's address in the tunnel.
	Address netip.Addr
	// MTU of the tunnel in bytes; DefaultMTU when zero.
	MTU int
	// Peers to start with; see UpdatePeers.
	Peers []Peer
	// Log gets the tunnel's errors, never keys. nil: no log.
	Log *slog.Logger
}

// Peer is the other end.
type Peer struct {
	PublicKey []byte // 32 bytes
	// Endpoint is where to send first; the peer's own authenticated packets move it.
	// The zero value waits for the peer to speak.
	Endpoint netip.AddrPort
	// AllowedIP is the only inner source address the peer may use.
	AllowedIP netip.Addr
	// Keepalive interval, whole seconds; 0 sends none.
	Keepalive time.Duration
}

// Net is one end of a tunnel. Close ends it; its methods are safe for concurrent use.
type Net struct {
	cfg   Config
	dev   *device.Device
	tun   *tunDevice
	bind  *bind
	conns sync.WaitGroup // forwarded streams
	// dialer is Forward's function; nil: every port is closed.
	dialer atomic.Pointer[func(port uint16) (net.Conn, error)]

	mu      sync.Mutex
	peers   map[device.NoisePublicKey]Peer
	live    map[net.Conn]struct{} // both sides of forwarded streams, closed by Close
	forward bool
	closed  bool
}

// GenerateKey makes a private key.
func GenerateKey() (keys.Secret, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return keys.Secret{}, fmt.Errorf("making a WireGuard key: %w", err)
	}
	return keys.NewSecret(k.Bytes()), nil
}

// PublicKey is the public half of a private key.
func PublicKey(private keys.Secret) ([]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(private.Reveal())
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "WireGuard private key: want %d bytes, got %d", KeySize, private.Len())
	}
	return k.PublicKey().Bytes(), nil
}

// New starts an end: it binds its UDP socket and answers handshakes when it returns.
func New(c Config) (*Net, error) {
	if _, err := PublicKey(c.PrivateKey); err != nil {
		return nil, err
	}
	if !c.Address.IsValid() {
		return nil, cvm.Errorf(cvm.Invalid, "tunnel address is missing")
	}
	if !c.Listen.Addr().IsValid() {
		return nil, cvm.Errorf(cvm.Invalid, "tunnel listen address is missing")
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	t, err := newTUN(c.Address, c.MTU)
	if err != nil {
		return nil, err
	}
	b := newBind(c.Listen)
	n := &Net{
		cfg: c, tun: t, bind: b,
		peers: map[device.NoisePublicKey]Peer{},
		live:  map[net.Conn]struct{}{},
	}
	n.install()
	n.dev = device.NewDevice(t, b, &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   func(f string, a ...any) { c.Log.Warn("wireguard", "err", fmt.Sprintf(f, a...)) },
	})
	if err := n.start(); err != nil {
		n.dev.Close()
		return nil, err
	}
	return n, nil
}

func (n *Net) start() error {
	var sk device.NoisePrivateKey
	copy(sk[:], n.cfg.PrivateKey.Reveal())
	if err := n.dev.SetPrivateKey(sk); err != nil {
		return fmt.Errorf("setting the WireGuard key: %w", err)
	}
	clear(sk[:])
	if err := n.dev.IpcSet(fmt.Sprintf("listen_port=%d\n", n.cfg.Listen.Port())); err != nil {
		return fmt.Errorf("setting the WireGuard port: %w", err)
	}
	if err := n.dev.Up(); err != nil {
		return fmt.Errorf("starting WireGuard on %s: %w", n.cfg.Listen, err)
	}
	return n.UpdatePeers(n.cfg.Peers)
}

// LocalAddr is the bound UDP address.
func (n *Net) LocalAddr() netip.AddrPort { return n.bind.addr() }

// Address is this end's tunnel address.
func (n *Net) Address() netip.Addr { return n.cfg.Address }

// AddPeer adds a peer or changes it. An unchanged peer keeps its session.
func (n *Net) AddPeer(p Peer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.setPeer(p)
}

// RemovePeer ends a peer's session; an unknown one is no error.
func (n *Net) RemovePeer(publicKey []byte) error {
	pk, err := noiseKey(publicKey)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dev.RemovePeer(pk)
	delete(n.peers, pk)
	return nil
}

// UpdatePeers makes exactly these the peers. Unchanged ones keep their sessions.
func (n *Net) UpdatePeers(peers []Peer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	keep := map[device.NoisePublicKey]bool{}
	for _, p := range peers {
		if err := n.setPeer(p); err != nil {
			return err
		}
		keep[device.NoisePublicKey(p.PublicKey)] = true
	}
	for pk := range n.peers {
		if !keep[pk] {
			n.dev.RemovePeer(pk)
			delete(n.peers, pk)
		}
	}
	return nil
}

func (n *Net) setPeer(p Peer) error {
	pk, err := noiseKey(p.PublicKey)
	if err != nil {
		return err
	}
	if n.closed {
		return net.ErrClosed
	}
	if !p.AllowedIP.IsValid() || p.AllowedIP.Is4() != n.cfg.Address.Is4() {
		return cvm.Errorf(cvm.Invalid, "tunnel peer: allowed IP %q does not fit tunnel address %s", p.AllowedIP, n.cfg.Address)
	}
	p.PublicKey = append([]byte(nil), p.PublicKey...)
	old, known := n.peers[pk]
	if known && old.Endpoint == p.Endpoint && old.AllowedIP == p.AllowedIP && old.Keepalive == p.Keepalive {
		return nil
	}
	var s strings.Builder
	fmt.Fprintf(&s, "public_key=%s\nreplace_allowed_ips=true\nallowed_ip=%s/%d\n",
		hex.EncodeToString(pk[:]), p.AllowedIP, p.AllowedIP.BitLen())
	if p.Endpoint.IsValid() {
		fmt.Fprintf(&s, "endpoint=%s\n", p.Endpoint)
	}
	// A keepalive going from 0 to a value makes WireGuard shake hands at once.
	fmt.Fprintf(&s, "persistent_keepalive_interval=%d\n", int(p.Keepalive/time.Second))
	if err := n.dev.IpcSet(s.String()); err != nil {
		return fmt.Errorf("setting tunnel peer %s: %w", p.AllowedIP, err)
	}
	n.peers[pk] = p
	return nil
}

// ResetPeer forgets the session with a peer and starts a new handshake: for an end
// that knows the other one has restarted.
func (n *Net) ResetPeer(publicKey []byte) error {
	pk, err := noiseKey(publicKey)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.peers[pk]
	if !ok {
		return cvm.Errorf(cvm.NotFound, "tunnel peer is not known")
	}
	n.dev.RemovePeer(pk)
	delete(n.peers, pk)
	return n.setPeer(p)
}

// LastHandshake is when the peer last proved itself; the zero time if never.
func (n *Net) LastHandshake(publicKey []byte) time.Time {
	pk, err := noiseKey(publicKey)
	if err != nil {
		return time.Time{}
	}
	return n.handshakes()[pk]
}

// DialContext opens a TCP stream to a peer's tunnel address.
func (n *Net) DialContext(ctx context.Context, ip netip.Addr, port uint16) (net.Conn, error) {
	return n.tun.dial(ctx, netip.AddrPortFrom(ip, port))
}

// Close ends the tunnel, its streams and its goroutines.
func (n *Net) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	for c := range n.live {
		_ = c.Close()
	}
	n.mu.Unlock()
	n.conns.Wait()
	n.dev.Close() // closes the bind and the TUN
	n.tun.wait()
	return nil
}

func noiseKey(b []byte) (device.NoisePublicKey, error) {
	if len(b) != KeySize {
		return device.NoisePublicKey{}, cvm.Errorf(cvm.Invalid, "WireGuard public key: want %d bytes, got %d", KeySize, len(b))
	}
	return device.NoisePublicKey(b), nil
}
