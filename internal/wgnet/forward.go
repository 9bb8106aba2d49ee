package wgnet

import (
	"net"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/splice"
)

const (
	// maxHalfOpen bounds streams whose target is still being dialled.
	maxHalfOpen = 1024
	// forwardIdle ends a stream that moved nothing for so long. The gateway has
	// its own, shorter limit; this one is for streams that it forgot.
	forwardIdle = 2 * time.Hour
)

// Forward accepts TCP on every port of the tunnel address and joins each stream to
// what dial gives for its port. A dial error resets the stream, so the other end
// sees a refused connection. It returns at once; Close ends it. Call it once.
func (n *Net) Forward(dial func(port uint16) (net.Conn, error)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return net.ErrClosed
	}
	if n.forward {
		return cvm.Errorf(cvm.Conflict, "tunnel: Forward was called before")
	}
	n.forward = true
	n.dialer.Store(&dial)
	return nil
}

// install puts the forwarder into the stack: before the first packet, because the
// stack reads its handler without a lock. Until Forward every port is closed.
func (n *Net) install() {
	f := tcp.NewForwarder(n.tun.stack, 0, maxHalfOpen, func(r *tcp.ForwarderRequest) { n.accept(r, *n.dialer.Load()) })
	n.tun.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
		return n.dialer.Load() != nil && f.HandlePacket(id, p)
	})
}

func (n *Net) accept(r *tcp.ForwarderRequest, dial func(port uint16) (net.Conn, error)) {
	port := r.ID().LocalPort
	target, err := dial(port)
	if err != nil {
		n.cfg.Log.Debug("tunnel stream refused", "port", port, "err", err)
		r.Complete(true)
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		r.Complete(true)
		_ = target.Close()
		return
	}
	r.Complete(false)
	keepAlive(ep)
	stream := gonet.NewTCPConn(&wq, ep)
	if !n.track(stream, target) {
		_ = stream.Close()
		_ = target.Close()
		return
	}
	defer n.untrack(stream, target)
	_ = splice.Join(stream, target, splice.Options{Idle: forwardIdle})
}

// keepAlive finds peers that vanished without a FIN.
func keepAlive(ep tcpip.Endpoint) {
	ep.SocketOptions().SetKeepAlive(true)
	idle, every := tcpip.KeepaliveIdleOption(60*time.Second), tcpip.KeepaliveIntervalOption(30*time.Second)
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&every)
}

func (n *Net) track(cs ...net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.conns.Add(1)
	for _, c := range cs {
		n.live[c] = struct{}{}
	}
	return true
}

func (n *Net) untrack(cs ...net.Conn) {
	n.mu.Lock()
	for _, c := range cs {
		delete(n.live, c)
	}
	n.mu.Unlock()
	n.conns.Done()
}
