package serve

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// NetworkInfo says how the guest is connected, as far as the files below root say so
// ("/" in a guest): the cards that links names, with their addresses and counters.
func NetworkInfo(root string, links []net.Interface) guestapi.NetworkInfo {
	n := guestapi.NetworkInfo{DNSServers: nameservers(read(root, "etc/resolv.conf")), Gateways: []guestapi.Gateway{}, Interfaces: []guestapi.Interface{}}
	for _, a := range append(gateways4(read(root, "proc/net/route")), gateways6(read(root, "proc/net/ipv6_route"))...) {
		n.Gateways = append(n.Gateways, guestapi.Gateway{Address: a.String()})
	}
	for _, l := range links {
		count := func(name string) uint64 {
			v, _ := strconv.ParseUint(strings.TrimSpace(read(root, filepath.Join("sys/class/net", l.Name, "statistics", name))), 10, 64) // 0: not known
			return v
		}
		out := guestapi.Interface{Name: l.Name, Addresses: []guestapi.IPAddress{}, RxBytes: count("rx_bytes"), TxBytes: count("tx_bytes"), RxErrors: count("rx_errors"), TxErrors: count("tx_errors")}
		addrs, _ := l.Addrs() // a card that went meanwhile has none
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out.Addresses = append(out.Addresses, guestapi.IPAddress{Address: p.Addr().String(), Prefix: p.Bits()})
			}
		}
		n.Interfaces = append(n.Interfaces, out)
	}
	return n
}

// read is "" for what is not there.
func read(root, name string) string {
	b, _ := os.ReadFile(filepath.Join(root, name))
	return string(b)
}

func nameservers(resolv string) []string {
	out := []string{}
	for line := range strings.Lines(resolv) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			out = append(out, f[1])
		}
	}
	return out
}

// gateways4 are those of default routes in /proc/net/route: hexadecimal numbers in
// the machine's byte order.
func gateways4(table string) (out []netip.Addr) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		if v, err := strconv.ParseUint(f[2], 16, 32); err == nil && v != 0 {
			out = append(out, netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, uint32(v)))))
		}
	}
	return out
}

// gateways6 are those of default routes in /proc/net/ipv6_route.
func gateways6(table string) (out []netip.Addr) {
	zero := strings.Repeat("0", 32)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[0] != zero || f[1] != "00" || f[4] == zero {
			continue
		}
		if b, err := hex.DecodeString(f[4]); err == nil && len(b) == 16 {
			out = append(out, netip.AddrFrom16([16]byte(b)))
		}
	}
	return out
}
