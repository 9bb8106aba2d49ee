package netplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

const (
	vmA = "0b7d5f86-6c55-4b6a-9d0a-7a8f54c6d001"
	vmB = "5f0c8d2e-1111-4b6a-9d0a-7a8f54c6d002"
)

func managed() Bridge {
	return Bridge{Name: "ptest0", Managed: true, NAT: true, IPv4: netip.MustParsePrefix("10.77.0.1/24"), IPv6: netip.MustParsePrefix("fd00:77::1/64"),
		DNS: []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd00:77::1")}}
}

// plane starts one, with servers, until the test ends.
func plane(t *testing.T, change func(*Config)) *Plane {
	t.Helper()
	isolated(t)
	cfg := Default()
	cfg.Modes, cfg.Bridges = []string{ModeBridge, ModeUser}, []Bridge{managed()}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg, 64000, 10, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, b := range cfg.Bridges {
			if l, err := netlink.LinkByName(b.Name); err == nil {
				_ = netlink.LinkDel(l)
			}
		}
		_ = exec.Command("nft", "flush", "ruleset").Run()
	})
	return p
}

// guest attaches a VM and plugs an endpoint into its tap.
func guest(t *testing.T, p *Plane, w Wish) (*peer, NIC) {
	t.Helper()
	if w.NICs == nil {
		nics, err := p.Assign(w.ID, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.NICs = nics
	}
	cards, err := p.Attach(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	tap, err := openTap(cards[0].Tap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tap.Close(); _ = p.Forget(context.Background(), w.ID) })
	return newPeer(t, w.NICs[0].MAC, tap), w.NICs[0]
}

// boot gives the endpoint what DHCP says.
func (p *peer) boot() {
	p.t.Helper()
	lease := strings.Fields(p.must("dhcp"))
	p.must("sh", "ip addr add "+lease[0]+" dev eth0 && ip route add default via "+lease[2])
}

func TestAddresses(t *testing.T) {
	p := plane(t, nil)
	g, nic := guest(t, p, Wish{ID: vmA})
	if got, want := g.must("dhcp"), nic.IPv4.String()+"/24 via 10.77.0.1 dns [10.77.0.1]"; got != want {
		t.Errorf("lease %q, want %q", got, want)
	}
	if again := g.must("dhcp"); !strings.HasPrefix(again, nic.IPv4.String()+"/24") {
		t.Errorf("another address the second time: %s", again)
	}
	g.boot()
	g.must("ping", "10.77.0.1")
	// By itself, from the router's advertisement.
	g.must("sh", fmt.Sprintf("for i in $(seq 100); do ip -6 addr show dev eth0 | grep -q %s && ip -6 route | grep -q '^default' && exit 0; sleep 0.1; done; ip -6 addr; ip -6 route; exit 1", nic.IPv6))
	g.must("ping", "fd00:77::1")
}

// watch reads what arrives on a bridge, until a frame with the last word.
func watch(t *testing.T, bridge string) func(last string) []byte {
	t.Helper()
	ifi, err := net.InterfaceByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	proto := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: ifi.Index}); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	return func(last string) []byte {
		var seen []byte
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				t.Fatalf("waiting for %q: %v; seen: %x", last, err, seen)
			}
			seen = append(seen, buf[:n]...)
			if bytes.Contains(buf[:n], []byte(last)) {
				return seen
			}
		}
	}
}

func ether(dst, src net.HardwareAddr, kind uint16, payload []byte) []byte {
	f := append(append([]byte{}, dst...), src...)
	return append(binary.BigEndian.AppendUint16(f, kind), payload...)
}

func udp4(src, dst netip.Addr, sport, dport uint16, body []byte) []byte {
	n := 28 + len(body)
	h := []byte{0x45, 0, byte(n >> 8), byte(n), 0, 0, 0, 0, 64, 17, 0, 0}
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(h); i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	h = binary.BigEndian.AppendUint16(h, sport)
	h = binary.BigEndian.AppendUint16(h, dport)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(body)))
	return append(append(h, 0, 0), body...)
}

func ip6(src, dst netip.Addr, next byte, body []byte) []byte {
	h := []byte{0x60, 0, 0, 0, byte(len(body) >> 8), byte(len(body)), next, 255}
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	return append(h, body...)
}

func arp(op byte, mac net.HardwareAddr, ip netip.Addr, word string) []byte {
	a := []byte{0, 1, 8, 0, 6, 4, 0, op}
	a = append(append(a, mac...), ip.AsSlice()...)
	a = append(a, 0, 0, 0, 0, 0, 0, 10, 77, 0, 1)
	return append(a, word...)
}

func icmp6(kind byte, target netip.Addr, word string) []byte {
	m := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return append(m, word...)
}

func bootp(op byte, mac net.HardwareAddr, word string) []byte {
	b := make([]byte, 240)
	b[0], b[1], b[2] = op, 1, 6
	copy(b[28:], mac)
	return append(b, word...)
}

// TestSpoofing puts frames on the wire as a guest that is nobody's friend. What the
// guard lets through is seen on the bridge.
func TestSpoofing(t *testing.T) {
	p := plane(t, nil)
	_, other := guest(t, p, Wish{ID: vmB})
	g, nic := guest(t, p, Wish{ID: vmA})
	tap := g.tap
	br, _ := net.InterfaceByName("ptest0")
	mac, him, gw := nic.hw(), other.hw(), netip.MustParseAddr("10.77.0.1")
	gw6, ll, zero, all := netip.MustParseAddr("fd00:77::1"), linkLocal(nic.hw()), netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255")
	bcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	const v4, v6, arpT = 0x0800, 0x86dd, 0x0806
	to := func(src net.HardwareAddr, kind uint16, payload []byte) []byte {
		return ether(br.HardwareAddr, src, kind, payload)
	}
	u6 := func(word string) []byte { return append([]byte{4, 0, 4, 0, 0, byte(8 + len(word)), 0, 0}, word...) }
	for _, c := range []struct {
		name  string
		pass  bool
		frame func(word string) []byte
	}{
		{"its own IPv4", true, func(w string) []byte { return to(mac, v4, udp4(nic.IPv4, gw, 1000, 9, []byte(w))) }},
		{"its own ARP", true, func(w string) []byte { return to(mac, arpT, arp(1, mac, nic.IPv4, w)) }},
		{"an ARP probe", true, func(w string) []byte { return to(mac, arpT, arp(1, mac, zero, w)) }},
		{"its own IPv6", true, func(w string) []byte { return to(mac, v6, ip6(nic.IPv6, gw6, 17, u6(w))) }},
		{"its link-local", true, func(w string) []byte { return to(mac, v6, ip6(ll, gw6, 17, u6(w))) }},
		{"a neighbour advertisement about itself", true, func(w string) []byte { return to(mac, v6, ip6(ll, gw6, 58, icmp6(136, nic.IPv6, w))) }},
		{"duplicate address detection", true, func(w string) []byte {
			return to(mac, v6, ip6(netip.IPv6Unspecified(), gw6, 58, icmp6(135, nic.IPv6, w)))
		}},
		{"duplicate address detection of its link-local", true, func(w string) []byte {
			return to(mac, v6, ip6(netip.IPv6Unspecified(), gw6, 58, icmp6(135, ll, w)))
		}},
		{"looking for a neighbour", true, func(w string) []byte { return to(mac, v6, ip6(ll, gw6, 58, icmp6(135, other.IPv6, w))) }},
		{"duplicate address detection of a neighbour's address", false, func(w string) []byte {
			return to(mac, v6, ip6(netip.IPv6Unspecified(), gw6, 58, icmp6(135, other.IPv6, w)))
		}},
		{"duplicate address detection of a neighbour's link-local", false, func(w string) []byte {
			return to(mac, v6, ip6(netip.IPv6Unspecified(), gw6, 58, icmp6(135, linkLocal(him), w)))
		}},
		{"duplicate address detection of the router's address", false, func(w string) []byte {
			return to(mac, v6, ip6(netip.IPv6Unspecified(), gw6, 58, icmp6(135, gw6, w)))
		}},
		{"a DHCP request", true, func(w string) []byte { return ether(bcast, mac, v4, udp4(zero, all, 68, 67, bootp(1, mac, w))) }},
		{"another MAC", false, func(w string) []byte { return to(him, v4, udp4(nic.IPv4, gw, 1000, 9, []byte(w))) }},
		{"a neighbour's IPv4", false, func(w string) []byte { return to(mac, v4, udp4(other.IPv4, gw, 1000, 9, []byte(w))) }},
		{"the router's IPv4", false, func(w string) []byte { return to(mac, v4, udp4(gw, other.IPv4, 1000, 9, []byte(w))) }},
		{"an outside IPv4", false, func(w string) []byte {
			return to(mac, v4, udp4(netip.MustParseAddr("8.8.8.8"), gw, 53, 9, []byte(w)))
		}},
		{"a neighbour's IPv6", false, func(w string) []byte { return to(mac, v6, ip6(other.IPv6, gw6, 17, u6(w))) }},
		{"another's link-local", false, func(w string) []byte { return to(mac, v6, ip6(linkLocal(him), gw6, 17, u6(w))) }},
		{"no IPv6 source", false, func(w string) []byte { return to(mac, v6, ip6(netip.IPv6Unspecified(), gw6, 17, u6(w))) }},
		{"ARP with another's IP", false, func(w string) []byte { return to(mac, arpT, arp(2, mac, gw, w)) }},
		{"ARP with another's MAC", false, func(w string) []byte { return to(mac, arpT, arp(2, him, nic.IPv4, w)) }},
		{"a router advertisement", false, func(w string) []byte { return to(mac, v6, ip6(ll, gw6, 58, icmp6(134, ll, w))) }},
		{"a redirect", false, func(w string) []byte { return to(mac, v6, ip6(ll, gw6, 58, icmp6(137, ll, w))) }},
		{"a neighbour advertisement about the router", false, func(w string) []byte { return to(mac, v6, ip6(ll, gw6, 58, icmp6(136, gw6, w))) }},
		{"a DHCP answer", false, func(w string) []byte { return to(mac, v4, udp4(nic.IPv4, all, 67, 68, bootp(2, him, w))) }},
		{"a DHCPv6 answer", false, func(w string) []byte {
			return to(mac, v6, ip6(ll, gw6, 17, append([]byte{2, 35, 2, 34, 0, byte(8 + len(w)), 0, 0}, w...)))
		}},
		{"a DHCP request in another's name", false, func(w string) []byte { return ether(bcast, mac, v4, udp4(zero, all, 68, 67, bootp(1, him, w))) }},
		{"a VLAN", false, func(w string) []byte {
			return to(mac, 0x8100, append([]byte{0, 5, 8, 0}, udp4(nic.IPv4, gw, 1000, 9, []byte(w))...))
		}},
		{"another protocol", false, func(w string) []byte { return to(mac, 0x88cc, []byte(w)) }},
	} {
		seen := watch(t, "ptest0")
		for _, f := range [][]byte{c.frame("the-frame"), to(mac, v4, udp4(nic.IPv4, gw, 1000, 9, []byte("the-last")))} {
			if _, err := tap.Write(f); err != nil {
				t.Fatal(err)
			}
		}
		if got := bytes.Contains(seen("the-last"), []byte("the-frame")); got != c.pass {
			t.Errorf("%s: passes %v, want %v", c.name, got, c.pass)
		}
	}
}

func TestIsolation(t *testing.T) {
	for name, peers := range map[string]bool{"isolated": false, "peers": true} {
		t.Run(name, func(t *testing.T) {
			p := plane(t, func(c *Config) { c.Bridges[0].Peers = peers })
			a, _ := guest(t, p, Wish{ID: vmA})
			b, nic := guest(t, p, Wish{ID: vmB})
			a.boot()
			b.boot()
			b.must("listen", ":80")
			_, err := a.do("dial", netip.AddrPortFrom(nic.IPv4, 80).String(), "", "1500ms")
			if (err == nil) != peers {
				t.Errorf("one guest reaches another: %v, want %v", err == nil, peers)
			}
			// Neither through the host.
			a.must("sh", "ip route del 10.77.0.0/24 dev eth0; ip route add 10.77.0.1 dev eth0; ip route replace default via 10.77.0.1")
			if _, err := a.do("dial", netip.AddrPortFrom(nic.IPv4, 80).String(), "", "1500ms"); err == nil && !peers {
				t.Error("one guest reaches another through the host")
			}
		})
	}
}

// outside is a client beyond the host, with addresses of two networks.
func outside(t *testing.T) *peer {
	t.Helper()
	c := newPeer(t, "", nil)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "cl0"}); err != nil {
		t.Fatal(err)
	}
	up, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(up) })
	cl, err := netlink.LinkByName("cl0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsPid(cl, c.pid); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/sh", "-c", `ip link set lo up; ip link set up0 up; ip addr add 192.0.2.1/24 dev up0; ip addr add 198.51.100.1/24 dev up0; ip addr add fd00:99::1/64 dev up0 nodad
		echo 1 > /proc/sys/net/ipv6/conf/all/forwarding`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	c.must("sh", "ip link set cl0 up; ip addr add 192.0.2.10/24 dev cl0; ip addr add 198.51.100.10/24 dev cl0; ip addr add fd00:99::10/64 dev cl0 nodad; ip addr add fd00:99::66/64 dev cl0 nodad; ip route add 10.77.0.0/24 via 192.0.2.1; ip -6 route add fd00:77::/64 via fd00:99::1")
	return c
}

func TestPortMapping(t *testing.T) {
	p := plane(t, nil)
	c := outside(t)
	allow := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}
	w := Wish{ID: vmA, Ports: []Port{
		{"tcp", netip.MustParseAddrPort("192.0.2.1:8080"), 80, allow},
		{"tcp", netip.MustParseAddrPort("0.0.0.0:8081"), 80, nil},
		{"tcp", netip.MustParseAddrPort("[fd00:99::1]:8080"), 80, []netip.Prefix{netip.MustParsePrefix("fd00:99::10/128")}},
	}}
	g, nic := guest(t, p, w)
	g.boot()
	g.must("listen", ":80")
	g.must("sh", "for i in $(seq 100); do ip -6 route | grep -q '^default' && exit 0; sleep 0.1; done; exit 1")
	g.must("ping", "fd00:77::1")
	// Something of the host's own listens on the same port: it must not answer for the guest.
	l, err := net.Listen("tcp", "192.0.2.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("the host"))
			_ = conn.Close()
		}
	}()
	for _, d := range []struct {
		to, from, want string
	}{
		{"192.0.2.1:8080", "192.0.2.10", "hello 192.0.2.10"},
		{"198.51.100.1:8081", "198.51.100.10", "hello 198.51.100.10"},
		{"192.0.2.1:8081", "192.0.2.10", "hello 192.0.2.10"},
		{"[fd00:99::1]:8080", "fd00:99::10", "hello fd00:99::10"},
		{"192.0.2.1:8080", "198.51.100.10", ""},                       // not allowed
		{"[fd00:99::1]:8080", "fd00:99::66", ""},                      // not allowed
		{netip.AddrPortFrom(nic.IPv4, 80).String(), "192.0.2.10", ""}, // past the mapping
		{netip.AddrPortFrom(nic.IPv6, 80).String(), "fd00:99::10", ""},
	} {
		wait := "10s"
		if d.want == "" {
			wait = "1500ms"
		}
		if got, err := c.do("dial", d.to, d.from, wait); got != d.want || (err == nil) != (d.want != "") {
			t.Errorf("%s from %s: %q %v, want %q", d.to, d.from, got, err, d.want)
		}
	}
	// The way out, with the host's address; and the host's own services stay closed.
	c.must("listen", "192.0.2.10:90")
	if got := g.must("dial", "192.0.2.10:90"); got != "hello 192.0.2.1" {
		t.Errorf("out through NAT: %q", got)
	}
	if _, err := g.do("dial", "10.77.0.1:8080", "", "1500ms"); err == nil {
		t.Error("the guest reaches a service of the host")
	}
	h, err := net.Listen("tcp", "10.77.0.1:7001")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := g.do("dial", "10.77.0.1:7001", "", "1500ms"); err == nil {
		t.Error("the guest reaches a service of the host that is not listed")
	}
	if err := p.Forget(t.Context(), vmA); err != nil {
		t.Fatal(err)
	}
	if _, err := c.do("dial", "198.51.100.1:8081", "198.51.100.10", "1500ms"); err == nil {
		t.Error("the mapping outlives the VM")
	}
	nothingLeft(t)
}

// nothingLeft of any VM.
func nothingLeft(t *testing.T) {
	t.Helper()
	if taps, err := ourTaps(); err != nil || len(taps) > 0 {
		t.Errorf("taps: %v %v", taps, err)
	}
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil || strings.Contains(string(out), "table netdev") || strings.Contains(string(out), "dnat") {
		t.Errorf("rules: %s %v", out, err)
	}
}

// TestRestart: a VMM that was killed finds the tap of the VM that runs, and removes
// what belongs to a VM that is gone.
func TestRestart(t *testing.T) {
	p := plane(t, nil)
	g, nic := guest(t, p, Wish{ID: vmA, Ports: []Port{{"tcp", netip.MustParseAddrPort("127.0.0.1:8080"), 80, nil}}})
	g.boot()
	before, err := netlink.LinkByName(nic.Tap)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Attach(t.Context(), Wish{ID: vmB, NICs: must(p.Assign(vmB, nil, nil))}); err != nil {
		t.Fatal(err)
	}
	cfg := p.cfg
	q, err := New(cfg, 64000, 10, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := *p.vms[vmA]
	q.Hold(w, true)
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Sweep(t.Context(), map[string]bool{vmA: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Attach(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if after, err := netlink.LinkByName(nic.Tap); err != nil || after.Attrs().Index != before.Attrs().Index {
		t.Errorf("the running VM lost its tap: %v", err)
	}
	g.must("ping", "10.77.0.1")
	taps, _ := ourTaps()
	if len(taps) != 1 || taps[nic.Tap] != vmA {
		t.Errorf("taps after the sweep: %v", taps)
	}
	if nics := must(q.Assign(vmA, nil, w.NICs)); nics[0].IPv4 != nic.IPv4 {
		t.Errorf("another address after the restart: %v", nics)
	}
	if err := q.Forget(t.Context(), vmA); err != nil {
		t.Fatal(err)
	}
	if err := q.Forget(t.Context(), vmA); err != nil {
		t.Error("a second time:", err)
	}
	nothingLeft(t)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestUserModePorts: what QEMU would listen on is closed to those who are not
// allowed.
func TestUserModePorts(t *testing.T) {
	p := plane(t, nil)
	c := outside(t)
	nics := must(p.Assign(vmA, []vmmapi.Network{{Mode: ModeUser}}, nil))
	cards, err := p.Attach(t.Context(), Wish{ID: vmA, NICs: nics, Ports: []Port{{"tcp", netip.MustParseAddrPort("192.0.2.1:8090"), 80, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}}}})
	if err != nil || len(cards) != 1 || len(cards[0].Forwards) != 1 || cards[0].Net.String() != "10.0.2.0/24" {
		t.Fatalf("%+v %v", cards, err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:8090") // QEMU's
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if _, err := c.do("dial", "192.0.2.1:8090", "192.0.2.10"); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if _, err := c.do("dial", "192.0.2.1:8090", "198.51.100.10", "1500ms"); err == nil {
		t.Error("a source that is not allowed got in")
	}
	if err := p.Forget(t.Context(), vmA); err != nil {
		t.Fatal(err)
	}
	if _, err := c.do("dial", "192.0.2.1:8090", "198.51.100.10"); err != nil {
		t.Errorf("the rule outlives the VM: %v", err)
	}
}

func TestRateLimit(t *testing.T) {
	p := plane(t, nil)
	g, nic := guest(t, p, Wish{ID: vmA, BytesPerSec: 200_000})
	out, err := exec.Command("tc", "qdisc", "show", "dev", nic.Tap).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "tbf") || !strings.Contains(string(out), "rate 1600Kbit") {
		t.Errorf("towards the guest: %s %v", out, err)
	}
	g.boot()
	// 3 MB without a pause are far more than bucket and rate give in a moment.
	seen := countBytes(t)
	frame := ether(net.HardwareAddr{255, 255, 255, 255, 255, 255}, nic.hw(), 0x0800, udp4(nic.IPv4, netip.MustParseAddr("10.77.0.255"), 1, 9, make([]byte, 1400)))
	start := time.Now()
	for range 2000 {
		_, _ = g.tap.Write(frame)
	}
	took := time.Since(start)
	if n, most := seen(), 64<<10+int(took.Seconds()*200_000)+200_000; n > most {
		t.Errorf("%d bytes passed in %s, at most %d may", n, took, most)
	}
}

func countBytes(t *testing.T) func() int {
	t.Helper()
	read := func() int {
		l, err := netlink.LinkByName("ptest0")
		if err != nil {
			t.Fatal(err)
		}
		return int(l.Attrs().Statistics.RxBytes)
	}
	before := read()
	return func() int { return read() - before }
}

func TestRefusals(t *testing.T) {
	cfg := Default()
	cfg.Modes, cfg.Bridges = []string{ModeBridge, ModeUser}, []Bridge{managed(), {Name: "lan0"}}
	p, err := New(cfg, 0, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for name, nets := range map[string][]vmmapi.Network{
		"mode": {{Mode: "custom"}}, "bridge": {{Mode: ModeBridge, Bridge: "br0; flush ruleset"}}, "user with bridge": {{Mode: ModeUser, Bridge: "lan0"}}, "too many": make([]vmmapi.Network, 9),
	} {
		if _, err := p.Assign(vmA, nets, nil); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	lan := must(p.Assign(vmA, []vmmapi.Network{{Mode: ModeBridge, Bridge: "lan0"}}, nil))
	user := must(p.Assign(vmA, []vmmapi.Network{{Mode: ModeUser}}, nil))
	v4 := Port{"tcp", netip.MustParseAddrPort("127.0.0.1:80"), 80, nil}
	for name, w := range map[string]Wish{
		"addresses by others": {NICs: lan, Ports: []Port{v4}},
		"limit of user mode":  {NICs: user, BytesPerSec: 1},
		"IPv6 of user mode":   {NICs: user, Ports: []Port{{"tcp", netip.MustParseAddrPort("[::1]:80"), 80, nil}}},
		"source of the other": {NICs: user, Ports: []Port{{"tcp", v4.Host, 80, []netip.Prefix{netip.MustParsePrefix("::/0")}}}},
	} {
		if _, err := p.Attach(t.Context(), w); cvm.CodeOf(err) != cvm.Unsupported && cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	small := managed()
	small.IPv4 = netip.MustParsePrefix("10.77.0.1/28")
	cfg.Bridges = []Bridge{small}
	p, _ = New(cfg, 0, 0, slog.New(slog.DiscardHandler))
	seen := map[netip.Addr]bool{netip.MustParseAddr("10.77.0.1"): true}
	for i := range 13 {
		a := must(p.Assign(fmt.Sprint(i), nil, nil))[0].IPv4
		if seen[a] || !small.IPv4.Contains(a) || a == netip.MustParseAddr("10.77.0.0") || a == netip.MustParseAddr("10.77.0.15") {
			t.Errorf("address %s", a)
		}
		seen[a] = true
	}
	if _, err := p.Assign("one more", nil, nil); cvm.CodeOf(err) != cvm.Exhausted {
		t.Errorf("the 14th of 13: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"no mode": func(c *Config) { c.Modes = nil }, "unknown mode": func(c *Config) { c.Modes = []string{"custom"} }, "no bridge": func(c *Config) { c.Modes = []string{ModeBridge} },
		"public": func(c *Config) { b := managed(); b.IPv4 = netip.MustParsePrefix("8.8.8.1/24"); c.Bridges = []Bridge{b} },
		"name":   func(c *Config) { c.Bridges = []Bridge{{Name: "a b"}} }, "overlap": func(c *Config) { b := managed(); b.Name = "x"; c.Bridges = []Bridge{managed(), b} },
		"network itself": func(c *Config) {
			b := managed()
			b.IPv4 = netip.MustParsePrefix("10.77.0.0/24")
			c.Bridges = []Bridge{b}
		},
		"nat of others": func(c *Config) { c.Bridges = []Bridge{{Name: "x", NAT: true}} },
	} {
		c := Default()
		change(&c)
		if _, err := New(c, 0, 0, nil); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
