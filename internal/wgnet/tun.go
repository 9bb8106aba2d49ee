package wgnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	nicID = 1
	// queuePackets bounds what the stack has sent and WireGuard has not yet taken.
	queuePackets = 4096
	maxBuffer    = 4 << 20 // per stream and direction, bytes
)

// ErrRefused is in the error of DialContext when the peer is there and its port is
// closed.
var ErrRefused = errors.New("connection refused by the peer")

// tunDevice is the TUN that WireGuard reads and writes: a TCP/IP stack with one
// address. (wireguard-go's netstack hides its stack, and Forward needs it.)
type tunDevice struct {
	ep     *channel.Endpoint
	stack  *stack.Stack
	mtu    int
	events chan tun.Event
	ctx    context.Context // ends Read; not a caller's context
	cancel context.CancelFunc
	once   sync.Once
}

func newTUN(addr netip.Addr, mtu int) (*tunDevice, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	sack := tcpip.TCPSACKEnabled(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcp.DefaultReceiveBufferSize, Max: maxBuffer}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcp.DefaultSendBufferSize, Max: maxBuffer}
	// A SYN that meets a stream in TIME-WAIT is dropped (the forwarder has no listener
	// that could take it over), and the guest's end is the one that waits. WireGuard
	// lets no old duplicate through, which is what TIME-WAIT is for.
	wait := tcpip.TCPTimeWaitTimeoutOption(time.Millisecond)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &rcv, &snd, &wait} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return nil, fmt.Errorf("setting up the tunnel's TCP: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &tunDevice{
		ep: channel.New(queuePackets, uint32(mtu), ""), stack: s, mtu: mtu,
		events: make(chan tun.Event, 1), ctx: ctx, cancel: cancel,
	}
	if err := t.configure(addr); err != nil {
		_ = t.Close()
		return nil, err
	}
	t.events <- tun.EventUp
	return t, nil
}

func (t *tunDevice) configure(addr netip.Addr) error {
	if err := t.stack.CreateNIC(nicID, t.ep); err != nil {
		return fmt.Errorf("setting up the tunnel's interface: %v", err)
	}
	proto, everywhere := ipv4.ProtocolNumber, header.IPv4EmptySubnet
	if addr.Is6() {
		proto, everywhere = ipv6.ProtocolNumber, header.IPv6EmptySubnet
	}
	pa := tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddrFromSlice(addr.AsSlice()).WithPrefix()}
	if err := t.stack.AddProtocolAddress(nicID, pa, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("setting tunnel address %s: %v", addr, err)
	}
	t.stack.AddRoute(tcpip.Route{Destination: everywhere, NIC: nicID})
	return nil
}

func (t *tunDevice) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	proto := ipv4.ProtocolNumber
	if to.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	fa := tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(to.Addr().AsSlice()), Port: to.Port()}
	c, err := gonet.DialContextTCP(ctx, t.stack, fa, proto)
	if err == nil {
		return c, nil
	}
	var oe *net.OpError
	if errors.As(err, &oe) && oe.Err != nil && oe.Err.Error() == (&tcpip.ErrConnectionRefused{}).String() {
		err = ErrRefused // gonet flattens the stack's errors to text
	}
	return nil, fmt.Errorf("dialing %s through the tunnel: %w", to, err)
}

// Read gives WireGuard the packets the stack wants to send: it waits for one and
// takes what else is there.
func (t *tunDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	pkt := t.ep.ReadContext(t.ctx)
	if pkt == nil {
		return 0, os.ErrClosed
	}
	n := 0
	for pkt != nil {
		sizes[n] = copyPacket(bufs[n][offset:], pkt)
		pkt.DecRef()
		if n++; n == len(bufs) {
			break
		}
		pkt = t.ep.Read()
	}
	return n, nil
}

func copyPacket(dst []byte, pkt *stack.PacketBuffer) int {
	n := 0
	for _, s := range pkt.AsSlices() {
		n += copy(dst[n:], s)
	}
	return n
}

// Write hands the stack what WireGuard has decrypted.
func (t *tunDevice) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		p := b[offset:]
		if len(p) == 0 {
			continue
		}
		proto := header.IPv4ProtocolNumber
		switch p[0] >> 4 {
		case 4:
		case 6:
			proto = header.IPv6ProtocolNumber
		default:
			return 0, syscall.EAFNOSUPPORT
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
		t.ep.InjectInbound(proto, pkt)
		pkt.DecRef()
	}
	return len(bufs), nil
}

// Close ends Read and every stream of the stack.
func (t *tunDevice) Close() error {
	t.once.Do(func() {
		t.cancel()
		t.stack.Close()
		t.stack.RemoveNIC(nicID)
		t.ep.Close()
		close(t.events)
	})
	return nil
}

func (t *tunDevice) wait() { t.stack.Wait() }

func (t *tunDevice) File() *os.File           { return nil }
func (t *tunDevice) MTU() (int, error)        { return t.mtu, nil }
func (t *tunDevice) Name() (string, error)    { return "phala", nil }
func (t *tunDevice) Events() <-chan tun.Event { return t.events }
func (t *tunDevice) BatchSize() int           { return bindBatch }
