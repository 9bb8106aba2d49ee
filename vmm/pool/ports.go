package pool

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// Port is a port of the host.
type Port struct {
	Protocol string // tcp, udp
	Addr     netip.Addr
	Number   uint16
}

func (p Port) String() string {
	return p.Protocol + " " + netip.AddrPortFrom(p.Addr, p.Number).String()
}

// overlaps reports whether both cannot be open at once: the unspecified address
// stands for every address, that of IPv6 for IPv4 as well.
func (p Port) overlaps(q Port) bool {
	if p.Protocol != q.Protocol || p.Number != q.Number {
		return false
	}
	covers := func(a, b netip.Addr) bool {
		return a == b || (a.IsUnspecified() && (a.Is6() || b.Is4()))
	}
	a, b := p.Addr.Unmap(), q.Addr.Unmap()
	return covers(a, b) || covers(b, a)
}

// portsLocked names the ports that others have. Those that the VM had before are
// not asked about outside: the listener may be its own.
func (p *Pool) portsLocked(want, had []Port) (missing []string) {
	for _, port := range want {
		who := ""
		for _, id := range p.idsLocked() {
			if slices.ContainsFunc(p.held[id].claim.Ports, port.overlaps) {
				who = "VM " + id
				break
			}
		}
		if who == "" && !slices.Contains(had, port) {
			who = p.inUse(port)
		}
		if who != "" {
			missing = append(missing, fmt.Sprintf("port %s: held by %s", port, who))
		}
	}
	return missing
}

// Listening asks the kernel who listens on a port of this host, by trying: "" is
// nobody. It is the inUse of real nodes.
func Listening(p Port) string {
	addr := netip.AddrPortFrom(p.Addr, p.Number).String()
	var err error
	if p.Protocol == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", addr); err == nil { //nolint:noctx // returns at once
			err = c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil { //nolint:noctx // returns at once
			err = l.Close()
		}
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.EADDRINUSE):
		return holder(p)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "nobody: the address is not this host's"
	}
	return "something: " + err.Error()
}
