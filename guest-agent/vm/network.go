package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// leaseWait bounds the first DHCP answer. Another card's may stay away.
const (
	leaseWait  = 15 * time.Second
	leaseRetry = 10 * time.Second
)

// Cards are the machine's network cards in the order of their numbers. The container
// engine's bridges and veths have no device below them.
func Cards() ([]string, error) {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "network cards: %w", err).WithReason(ReasonNetwork)
	}
	var out []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join("/sys/class/net", e.Name(), "device")); err == nil {
			out = append(out, e.Name())
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if d := len(a) - len(b); d != 0 { // eth10 after eth2
			return d
		}
		return strings.Compare(a, b)
	})
	return out, nil
}

// Network brings the cards up and keeps their leases: Start, then Run.
type Network struct {
	Log *slog.Logger
	// ResolvConf is the file of the name servers.
	ResolvConf string

	cards  []string
	leases map[string]*nclient4.Lease
}

// Start brings up loopback and every card, and waits for the first card's lease. A
// machine without a card has no network, which is no error: what needs it will say so.
func (n *Network) Start(ctx context.Context, cards []string) error {
	n.cards, n.leases = cards, map[string]*nclient4.Lease{}
	if err := up("lo"); err != nil {
		return err
	}
	for i, c := range cards {
		if err := up(c); err != nil {
			return err
		}
		err := n.lease(ctx, c)
		if err == nil {
			continue
		}
		if i == 0 {
			return err
		}
		n.Log.Warn("a card has no address yet", "card", c, "err", err)
	}
	return nil
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return cvm.Errorf(cvm.Internal, "network card %s: %w", name, err).WithReason(ReasonNetwork)
	}
	return nil
}

// Run renews the leases at half their time until ctx ends.
func (n *Network) Run(ctx context.Context) error {
	for run.Pause(ctx, n.next()) == nil {
		for _, c := range n.cards {
			if n.due(c) > time.Second {
				continue
			}
			if err := n.lease(ctx, c); err != nil && ctx.Err() == nil {
				n.Log.Warn("renewing the address", "card", c, "err", err)
			}
		}
	}
	return nil
}

func (n *Network) next() time.Duration {
	next := time.Hour
	for _, c := range n.cards {
		next = min(next, max(n.due(c), leaseRetry))
	}
	return next
}

// due is the time until a card's lease is half over.
func (n *Network) due(card string) time.Duration {
	l := n.leases[card]
	if l == nil {
		return 0
	}
	return time.Until(l.CreationTime.Add(l.ACK.IPAddressLeaseTime(time.Hour) / 2))
}

// lease gets or renews one card's address and applies it.
func (n *Network) lease(ctx context.Context, card string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	c, err := nclient4.New(card, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(8))
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "DHCP on %s: %w", card, err).WithReason(ReasonNetwork)
	}
	defer c.Close() //nolint:errcheck // a socket
	var l *nclient4.Lease
	if old := n.leases[card]; old != nil {
		l, err = c.Renew(ctx, old)
	}
	if l == nil || err != nil {
		l, err = c.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionInterfaceMTU))
	}
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "no DHCP server answers on %s: %w", card, err).WithReason(ReasonNetwork).
			WithFix("check the VM's network on the host")
	}
	a, err := parseLease(l.ACK)
	if err != nil {
		return err
	}
	if err := n.isFree(a.Address.Masked()); err != nil {
		return err
	}
	if err := n.apply(card, a); err != nil {
		return cvm.Errorf(cvm.Internal, "network card %s: %w", card, err).WithReason(ReasonNetwork)
	}
	n.leases[card] = l
	n.Log.Info("address", "card", card, "address", a.Address, "router", a.Router, "name_servers", a.DNS)
	return nil
}

// offer is what we take from a DHCP answer.
type offer struct {
	Address netip.Prefix
	Router  netip.Addr // invalid: none
	DNS     []netip.Addr
}

// maxServers is what resolvers read.
const maxServers = 3

// parseLease checks a server's answer: it was written by a stranger.
func parseLease(ack *dhcpv4.DHCPv4) (o offer, err error) {
	bad := func(what string) error {
		return cvm.Errorf(cvm.Invalid, "DHCP: %s", what).WithReason(ReasonNetwork)
	}
	ip, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return o, bad(fmt.Sprintf("the address %s cannot be used", ack.YourIPAddr))
	}
	ones, size := ack.SubnetMask().Size()
	if size != 32 || ones < 8 {
		return o, bad(fmt.Sprintf("the network mask %s cannot be used", ack.SubnetMask()))
	}
	o.Address = netip.PrefixFrom(ip, ones)
	if r := ack.Router(); len(r) > 0 {
		gw, ok := netip.AddrFromSlice(r[0].To4())
		if !ok || !o.Address.Contains(gw) || gw == ip {
			return o, bad(fmt.Sprintf("the router %s is not in %s", r[0], o.Address.Masked()))
		}
		o.Router = gw
	}
	for _, d := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(d.To4()); ok && !a.IsUnspecified() && !a.IsMulticast() && len(o.DNS) < maxServers {
			o.DNS = append(o.DNS, a)
		}
	}
	return o, nil
}

// apply sets address, default route (first card only) and name servers.
func (n *Network) apply(card string, o offer) error {
	l, err := netlink.LinkByName(card)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: o.Address.Addr().AsSlice(), Mask: net.CIDRMask(o.Address.Bits(), 32)}}
	have, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, h := range have {
		if !h.IPNet.IP.Equal(addr.IP) || !bytes.Equal(h.Mask, addr.Mask) {
			if err := netlink.AddrDel(l, &h); err != nil {
				return err
			}
		}
	}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return err
	}
	if card != n.cards[0] {
		return nil
	}
	if o.Router.IsValid() {
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: o.Router.AsSlice()}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("default route: %w", err)
		}
	}
	return n.resolvConf(o.DNS)
}

func (n *Network) resolvConf(servers []netip.Addr) error {
	var b bytes.Buffer
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	b.WriteString("options edns0\n")
	if err := os.Remove(n.ResolvConf); err != nil && !errors.Is(err, os.ErrNotExist) { // it may be a link
		return err
	}
	return os.WriteFile(n.ResolvConf, b.Bytes(), 0o644) //nolint:gosec // read by everyone
}
