package wgnet

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.zx2c4.com/wireguard/conn"
)

// bindBatch is how many datagrams one system call moves.
const bindBatch = 64

// bind is a WireGuard socket on one address: wireguard-go's own binds every
// address of the machine.
type bind struct {
	want netip.AddrPort

	mu sync.RWMutex
	pc *net.UDPConn
	bc *ipv4.PacketConn // recvmmsg and sendmmsg, for either family
}

type endpoint struct{ dst netip.AddrPort }

func newBind(listen netip.AddrPort) *bind { return &bind{want: listen} }

func (e *endpoint) ClearSrc()           {}
func (e *endpoint) SrcToString() string { return "" }
func (e *endpoint) SrcIP() netip.Addr   { return netip.Addr{} }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) DstToString() string { return e.dst.String() }
func (e *endpoint) DstToBytes() []byte  { b, _ := e.dst.MarshalBinary(); return b }

// Open binds the configured address; the port comes from the device, which has it
// from the same configuration.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pc != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.want.Addr(), port)))
	if err != nil {
		return nil, 0, err
	}
	// Best effort: the kernel clamps to its own limit.
	_ = pc.SetReadBuffer(4 << 20)
	_ = pc.SetWriteBuffer(4 << 20)
	b.pc, b.bc = pc, ipv4.NewPacketConn(pc)
	return []conn.ReceiveFunc{receiver(b.bc)}, pc.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
}

func receiver(bc *ipv4.PacketConn) conn.ReceiveFunc {
	msgs := make([]ipv4.Message, bindBatch)
	for i := range msgs {
		msgs[i].Buffers = make([][]byte, 1)
	}
	return func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		m := msgs[:min(len(packets), bindBatch)]
		for i := range m {
			m[i].Buffers[0], m[i].N, m[i].Addr = packets[i], 0, nil
		}
		n, err := bc.ReadBatch(m, 0)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return 0, net.ErrClosed
			}
			return 0, err
		}
		for i := range n {
			ua, ok := m[i].Addr.(*net.UDPAddr)
			if !ok {
				sizes[i] = 0
				continue
			}
			a := ua.AddrPort()
			sizes[i] = m[i].N
			eps[i] = &endpoint{netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}
		}
		return n, nil
	}
}

// Close makes the receivers return net.ErrClosed.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pc == nil {
		return nil
	}
	err := b.pc.Close()
	b.pc, b.bc = nil, nil
	return err
}

func (b *bind) addr() netip.AddrPort {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.pc == nil {
		return netip.AddrPort{}
	}
	return b.pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (b *bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	b.mu.RLock()
	pc, bc := b.pc, b.bc
	b.mu.RUnlock()
	if pc == nil {
		return net.ErrClosed
	}
	if len(bufs) == 1 {
		_, err := pc.WriteToUDPAddrPort(bufs[0], e.dst)
		return err
	}
	ua := net.UDPAddrFromAddrPort(e.dst)
	msgs := make([]ipv4.Message, len(bufs))
	for i, p := range bufs {
		msgs[i] = ipv4.Message{Buffers: [][]byte{p}, Addr: ua}
	}
	for len(msgs) > 0 {
		n, err := bc.WriteBatch(msgs, 0)
		if err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &endpoint{a}, nil
}

func (b *bind) SetMark(uint32) error { return nil }
func (b *bind) BatchSize() int       { return bindBatch }
