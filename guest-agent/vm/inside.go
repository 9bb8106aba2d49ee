package vm

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// What is meant for a container is in clear: TLS and WireGuard have ended. A host that
// makes the guest route it to a card (a lease, or a router's prefix, narrower than the
// container's network) would read it. Three things hold against that: a lease that
// overlaps a network inside is not taken (isFree), an app whose networks overlap the
// card's is not started (Taken), and whatever the routes say, no packet for a network
// inside leaves over a card (Guard).

// Taken are the networks that are reached over the cards, and over any link with a
// default route: an app's own must not overlap them.
func Taken(cards []string) ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "routes: %w", err).WithReason(ReasonNetwork)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "network cards: %w", err).WithReason(ReasonNetwork)
	}
	outer := map[int]bool{}
	for _, l := range links {
		outer[l.Attrs().Index] = slices.Contains(cards, l.Attrs().Name)
	}
	for _, r := range routes {
		if !prefixOf(r.Dst).IsValid() {
			outer[r.LinkIndex] = true
			for _, hop := range r.MultiPath {
				outer[hop.LinkIndex] = true
			}
		}
	}
	var out []netip.Prefix
	for _, r := range routes {
		if p := prefixOf(r.Dst); outer[r.LinkIndex] && p.IsValid() && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() {
			out = append(out, p)
		}
	}
	for _, l := range links {
		if outer[l.Attrs().Index] {
			nets, err := networksOf(l)
			if err != nil {
				return nil, err
			}
			out = append(out, nets...)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}

// prefixOf is invalid for a default route.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	ones, size := n.Mask.Size()
	if ip.Is4In6() && size == 32 {
		ip = ip.Unmap()
	}
	if !ok || ones == 0 || size != ip.BitLen() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(ip, ones).Masked()
}

// networksOf are the networks of a link's addresses, without link-local ones.
func networksOf(l netlink.Link) ([]netip.Prefix, error) {
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "addresses of %s: %w", l.Attrs().Name, err).WithReason(ReasonNetwork)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p := prefixOf(a.IPNet); p.IsValid() && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p)
		}
	}
	return out, nil
}

// network is one that lies inside of the machine.
type network struct {
	of string // the link
	netip.Prefix
}

// inside are the networks of everything but the cards: loopback, containers' bridges.
func (n *Network) inside() (out []network, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "network cards: %w", err).WithReason(ReasonNetwork)
	}
	for _, l := range links {
		if slices.Contains(n.cards, l.Attrs().Name) {
			continue
		}
		nets, err := networksOf(l)
		if err != nil {
			return nil, err
		}
		for _, p := range nets {
			out = append(out, network{l.Attrs().Name, p})
		}
	}
	return out, nil
}

// isFree refuses a network that overlaps one inside of the machine.
func (n *Network) isFree(p netip.Prefix) error {
	nets, err := n.inside()
	if err != nil {
		return err
	}
	for _, in := range nets {
		if in.Overlaps(p) {
			return cvm.Errorf(cvm.Denied, "DHCP: the network %s overlaps %s of %s inside of the machine", p, in.Prefix, in.of).WithReason(ReasonNetwork).
				WithFix("give the VM an address of another network")
		}
	}
	return nil
}

// Names of the filter's sets of networks inside.
const (
	inside4 = "inside4"
	inside6 = "inside6"
)

// guardRetry is the pause after a failure of Guard.
const guardRetry = time.Second

// Guard keeps the filter's sets of networks inside up to date until ctx ends. They are
// written for the first time before it calls ready. The filter must be in force.
func (n *Network) Guard(ctx context.Context, ready func(error)) error {
	told := false
	for ctx.Err() == nil {
		err := n.watch(ctx, func() {
			if !told {
				told = true
				ready(nil)
			}
		})
		if err != nil && ctx.Err() == nil {
			if !told {
				told = true
				ready(err)
			}
			n.Log.Error("keeping what is meant for containers inside", "err", err)
			_ = run.Pause(ctx, guardRetry)
		}
	}
	return nil
}

// watch subscribes first and reads then, so that no change falls between.
func (n *Network) watch(ctx context.Context, written func()) error {
	done, changes := make(chan struct{}), make(chan netlink.AddrUpdate, 64)
	defer close(done)
	var lost error
	err := netlink.AddrSubscribeWithOptions(changes, done, netlink.AddrSubscribeOptions{ErrorCallback: func(err error) { lost = err }})
	if err != nil {
		return fmt.Errorf("watching addresses: %w", err)
	}
	for {
		if err := n.writeInside(ctx); err != nil {
			return err
		}
		written()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-changes:
			if !ok {
				return fmt.Errorf("watching addresses: %w", lost) // closed after lost was set
			}
		}
		for len(changes) > 0 { // one write for many changes
			<-changes
		}
	}
}

func (n *Network) writeInside(ctx context.Context) error {
	nets, err := n.inside()
	if err != nil {
		return err
	}
	var four, six []string
	for _, p := range nets {
		if p.Addr().Is4() {
			four = append(four, p.String())
		} else {
			six = append(six, p.String())
		}
	}
	var b strings.Builder
	for name, list := range map[string][]string{inside4: four, inside6: six} {
		fmt.Fprintf(&b, "flush set inet phala %s\n", name)
		if len(list) > 0 {
			fmt.Fprintf(&b, "add element inet phala %s { %s }\n", name, strings.Join(list, ", "))
		}
	}
	return nft(ctx, b.String())
}
