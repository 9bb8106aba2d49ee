package gateway

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// proxySignature starts a PROXY protocol version 2 header (haproxy's
// proxy-protocol.txt, section 2.2).
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// proxyHeader tells the app where the client is: version 2, command PROXY, TCP.
func proxyHeader(client, local net.Addr) []byte {
	src, dst := addrPort(client), addrPort(local)
	out := []byte(proxySignature)
	switch {
	case !src.IsValid() || !dst.IsValid():
		return append(out, 0x20, 0x00, 0, 0) // LOCAL: the address is not known
	case src.Addr().Is4() && dst.Addr().Is4():
		out = append(out, 0x21, 0x11, 0, 12)
	default:
		src = netip.AddrPortFrom(netip.AddrFrom16(src.Addr().As16()), src.Port())
		dst = netip.AddrPortFrom(netip.AddrFrom16(dst.Addr().As16()), dst.Port())
		out = append(out, 0x21, 0x21, 0, 36)
	}
	out = append(out, src.Addr().AsSlice()...)
	out = append(out, dst.Addr().AsSlice()...)
	out = binary.BigEndian.AppendUint16(out, src.Port())
	return binary.BigEndian.AppendUint16(out, dst.Port())
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
