package netplane

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"
)

// tapPrefix begins the name of every interface that is made here.
const tapPrefix = "pt"

// MAC is the address of a VM's card: SHA-256 of the VM's id ("id:index" from the
// second card on), its first six bytes, made local and unicast.
func MAC(vm string, index int) net.HardwareAddr {
	if index > 0 {
		vm += ":" + strconv.Itoa(index)
	}
	h := sha256.Sum256([]byte(vm))
	h[0] = h[0]&^1 | 2
	return net.HardwareAddr(h[:6])
}

// TapName is the interface of a VM's card on the host: "pt" and 12 hex digits of
// the VM, with one more digit from the second card on; at most 15 bytes.
func TapName(vm string, index int) string {
	h := sha256.Sum256([]byte(vm))
	name := tapPrefix + hex.EncodeToString(h[:6])
	if index > 0 {
		name += strconv.FormatInt(int64(index), 16)
	}
	return name
}

// eui64 is the address that a card gives itself in a /64 (RFC 4291).
func eui64(p netip.Prefix, mac net.HardwareAddr) netip.Addr {
	a := p.Masked().Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}

// linkLocal is the network of every card's first IPv6 address.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return eui64(netip.PrefixFrom(netip.MustParseAddr("fe80::"), 64), mac)
}
