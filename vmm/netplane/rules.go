package netplane

import (
	"fmt"
	"net/netip"
	"strings"
)

// Two kinds of tables are written, each whole and in one transaction, so that the
// kernel has the old rules or the new ones and never half of them: one per tap
// (its guard, in the netdev family: it sees a frame before anything else does and
// costs the same for one VM and for a thousand), and one for the host. All text
// comes from parsed values: numbers, addresses, checked names.

// guard is the table of one tap: what its guest may send.
func guard(n *NIC, limit int64) string {
	var b strings.Builder
	policy := "accept"
	if n.IPv4.IsValid() {
		policy = "drop"
	}
	fmt.Fprintf(&b, "table netdev %[1]s\ndelete table netdev %[1]s\ntable netdev %[1]s {\n chain guard {\n  type filter hook ingress device %[1]q priority 0; policy %[2]s;\n", n.Tap, policy)
	line := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) }
	line("ether saddr != %s drop", n.MAC)
	if limit > 0 {
		line("limit rate over %d bytes/second burst %d bytes drop", limit, max(limit/10, 64<<10))
	}
	line("ether type ip udp sport 67 drop comment \"a DHCP server\"")
	line("ether type ip6 udp sport 547 drop comment \"a DHCPv6 server\"")
	line("ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } drop comment \"a router\"")
	if !n.IPv4.IsValid() { // somebody else gives addresses on this bridge
		line("ether type arp arp saddr ether != %s drop", n.MAC)
		b.WriteString(" }\n}\n")
		return b.String()
	}
	line("ether type arp arp saddr ether %s arp saddr ip { 0.0.0.0, %s } accept", n.MAC, n.IPv4)
	// 36 bytes into UDP is the hardware address that asks: not a neighbour's.
	line("ether type ip ip saddr { 0.0.0.0, %s } udp sport 68 udp dport 67 @th,288,48 0x%x accept", n.IPv4, []byte(n.hw()))
	line("ether type ip ip saddr %s accept", n.IPv4)
	own := []netip.Addr{linkLocal(n.hw())}
	if n.IPv6.IsValid() {
		own = append(own, n.IPv6)
		line("ether type ip6 ip6 saddr :: icmpv6 type mld2-listener-report accept")
		for _, a := range own { // what is claimed or advertised must be its own
			x := a.As16()
			// Without a source it asks whether an address is taken, which makes another that
			// is about to take it give up.
			line("ether type ip6 ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 0x%x accept", x[:])
			line("ether type ip6 ip6 saddr { %s, %s } icmpv6 type nd-neighbor-advert @th,64,128 0x%x accept", own[0], own[1], x[:])
		}
		line("ether type ip6 icmpv6 type nd-neighbor-advert drop")
		line("ether type ip6 ip6 saddr { %s, %s } accept", own[0], own[1])
	}
	b.WriteString(" }\n}\n")
	return b.String()
}

const hostTable = "inet phala"

// host is the table of the host: port mappings, who may use them, what guests may
// reach, NAT. "" when there is nothing to say.
func host(c *Config, vms []*Wish, firstUID, uids int) string {
	var pre, local, post, forward, input, output strings.Builder
	for _, b := range c.Bridges {
		if b.Managed {
			bridgeRules(&b, c.HostPorts, &post, &forward, &input)
		}
	}
	for _, w := range vms {
		for _, m := range w.Ports {
			w.portRules(m, &pre, &local, &input, &forward)
		}
	}
	closing := &strings.Builder{}
	for _, b := range c.Bridges {
		if b.Managed {
			fmt.Fprintf(closing, "  oifname %q drop\n", b.Name)
			fmt.Fprintf(&input, "  iifname %q drop\n", b.Name)
		}
	}
	if uids > 0 && c.User.Restrict {
		// A restricted guest in user mode speaks as its hypervisor's user.
		fmt.Fprintf(&output, "  meta skuid %d-%d ct state new reject\n", firstUID, firstUID+uids-1)
	}
	if pre.Len()+input.Len()+output.Len() == 0 {
		return ""
	}
	var t strings.Builder
	fmt.Fprintf(&t, "table %[1]s\ndelete table %[1]s\ntable %[1]s {\n", hostTable)
	for _, ch := range []struct{ name, hook, body string }{
		{"mapped", "type nat hook prerouting priority -100", pre.String()},
		{"mapped_here", "type nat hook output priority -100", local.String()},
		{"leaving", "type nat hook postrouting priority 100", post.String()},
		{"passing", "type filter hook forward priority 0", forward.String() + closing.String()},
		{"arriving", "type filter hook input priority 0", input.String()},
		{"sending", "type filter hook output priority 0", output.String()},
	} {
		if ch.body != "" {
			fmt.Fprintf(&t, " chain %s {\n  %s; policy accept;\n%s }\n", ch.name, ch.hook, ch.body)
		}
	}
	t.WriteString("}\n")
	return t.String()
}

// bridgeRules: what guests of a managed bridge may do beyond it.
func bridgeRules(b *Bridge, hostPorts []uint16, post, forward, input *strings.Builder) {
	if b.Peers {
		fmt.Fprintf(forward, "  iifname %[1]q oifname %[1]q accept\n", b.Name)
	}
	fmt.Fprintf(forward, "  oifname %q ct state established,related accept\n", b.Name)
	if b.NAT {
		fmt.Fprintf(post, "  ip saddr %s oifname != %q masquerade\n", b.IPv4.Masked(), b.Name)
		if b.IPv6.IsValid() {
			fmt.Fprintf(post, "  ip6 saddr %s oifname != %q masquerade\n", b.IPv6.Masked(), b.Name)
		}
	} else {
		fmt.Fprintf(forward, "  iifname %q ct state new drop\n", b.Name)
	}
	fmt.Fprintf(input, "  iifname %q ct state established,related accept\n", b.Name)
	fmt.Fprintf(input, "  iifname %q udp dport 67 accept\n", b.Name)
	fmt.Fprintf(input, "  iifname %q meta l4proto { icmp, icmpv6 } accept\n", b.Name)
	if len(hostPorts) > 0 {
		fmt.Fprintf(input, "  iifname %q tcp dport { %s } accept\n", b.Name, join(hostPorts))
	}
}

// portRules: a mapping of a tap is a translation; one of user mode is a socket of
// the hypervisor. Both are closed here to sources that are not allowed.
func (w *Wish) portRules(m Port, pre, local, input, forward *strings.Builder) {
	fam := "ip"
	if m.Host.Addr().Is6() {
		fam = "ip6"
	}
	at := fmt.Sprintf("%s daddr %s", fam, m.Host.Addr())
	if m.Host.Addr().IsUnspecified() {
		at = "meta nfproto " + map[string]string{"ip": "ipv4", "ip6": "ipv6"}[fam] + " fib daddr type local"
	}
	at += fmt.Sprintf(" %s dport %d", m.Protocol, m.Host.Port())
	from := ""
	if len(m.Allow) > 0 {
		from = fmt.Sprintf("%s saddr { %s } ", fam, join(m.Allow))
	}
	if len(w.NICs) == 0 {
		return
	}
	n := &w.NICs[0]
	if n.Mode == ModeUser {
		if from != "" {
			fmt.Fprintf(input, "  %s%s accept\n  %s drop\n", from, at, at)
		}
		return
	}
	to := n.IPv4
	if fam == "ip6" {
		to = n.IPv6
	}
	dnat := fmt.Sprintf("dnat %s to %s", fam, netip.AddrPortFrom(to, m.Guest))
	fmt.Fprintf(pre, "  %s%s %s\n", from, at, dnat)
	notLoop := map[string]string{"ip": "ip daddr != 127.0.0.0/8", "ip6": "ip6 daddr != ::1"}[fam]
	fmt.Fprintf(local, "  %s %s%s %s\n", notLoop, from, at, dnat)
	// Who is not translated would meet whatever listens on the host itself.
	fmt.Fprintf(input, "  %s drop\n", at)
	fmt.Fprintf(forward, "  oifname %q %s daddr %s %s dport %d ct status dnat accept\n", n.Bridge, fam, to, m.Protocol, m.Guest)
}

func join[T any](list []T) string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = fmt.Sprint(v)
	}
	return strings.Join(s, ", ")
}
