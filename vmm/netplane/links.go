package netplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
)

// tagPrefix begins the alias of an interface of ours; the VM's id follows.
const tagPrefix = "phala-vm:"

func tag(vm string) string { return tagPrefix + vm }

// routerLL is the host's link-local address on managed bridges.
const routerLL = "fe80::1"

func linkError(what string, err error) error {
	if err == nil {
		return nil
	}
	return cvm.Errorf(cvm.Unavailable, "%s: %w", what, err).WithReason("network").WithFix("may the VMM change the network (CAP_NET_ADMIN)?")
}

// makeTap makes a persistent tap that uid may open, or finds the one there is. An
// interface of that name that is not ours is refused.
func makeTap(name, alias string, uid int) (netlink.Link, error) {
	if l, err := netlink.LinkByName(name); err == nil {
		if l.Attrs().Alias != alias {
			return nil, cvm.Errorf(cvm.Conflict, "interface %s exists and is not this VM's (alias %q)", name, l.Attrs().Alias)
		}
		return l, nil
	}
	t := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: unix.IFF_NO_PI | unix.IFF_VNET_HDR, Queues: 0, Owner: uint32(uid)} //nolint:gosec // a user id
	if err := netlink.LinkAdd(t); err != nil {
		return nil, linkError("making tap "+name, err)
	}
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetAlias(l, alias)
	}
	if err != nil {
		_ = netlink.LinkDel(t)
		return nil, linkError("naming tap "+name, err)
	}
	return l, nil
}

// plug puts the tap on its bridge, apart from the other guests, and ups it. The
// host speaks no IP on it.
func plug(l netlink.Link, b *Bridge, limit int64) error {
	name := l.Attrs().Name
	br, err := netlink.LinkByName(b.Name)
	if err != nil {
		return cvm.Errorf(cvm.Precondition, "bridge %s is not there: %w", b.Name, err).WithReason("network").WithFix("make it, or set managed = true")
	}
	err = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0o600)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = netlink.LinkSetMaster(l, br)
	}
	if err == nil {
		err = netlink.LinkSetIsolated(l, !b.Peers)
	}
	if err == nil && limit > 0 {
		err = netlink.QdiscReplace(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
			Rate:       uint64(limit), Limit: uint32(min(max(limit/5, 64<<10), 64<<20)), Buffer: burst(limit), //nolint:gosec // bounded
		})
	}
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	return linkError(fmt.Sprintf("putting tap %s on %s", name, b.Name), err)
}

// burst is tbf's bucket in ticks of the kernel's clock: 64 KiB or a tenth of a second.
func burst(rate int64) uint32 {
	size := max(rate/10, 64<<10)
	return netlink.Xmittime(uint64(rate), uint32(min(size, 1<<30))) //nolint:gosec // bounded
}

// removeTap removes a tap and its guard; what is not there is removed already.
func removeTap(ctx context.Context, name string) error {
	var errs []error
	if l, err := netlink.LinkByName(name); err == nil {
		if !strings.HasPrefix(l.Attrs().Alias, tagPrefix) {
			return cvm.Errorf(cvm.Conflict, "interface %s is not ours", name)
		}
		errs = append(errs, linkError("removing tap "+name, netlink.LinkDel(l)))
	} else if !errors.As(err, new(netlink.LinkNotFoundError)) {
		errs = append(errs, linkError("looking for tap "+name, err))
	}
	if exec.CommandContext(ctx, "nft", "list", "table", "netdev", name).Run() == nil { //nolint:gosec // a name of ours
		errs = append(errs, nft(ctx, "delete table netdev "+name+"\n"))
	}
	return errors.Join(errs...)
}

// ourTaps finds interfaces by their tag: name to VM.
func ourTaps() (map[string]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, linkError("listing interfaces", err)
	}
	out := map[string]string{}
	for _, l := range links {
		if id, ok := strings.CutPrefix(l.Attrs().Alias, tagPrefix); ok && strings.HasPrefix(l.Attrs().Name, tapPrefix) {
			out[l.Attrs().Name] = id
		}
	}
	return out, nil
}

// ensureBridge makes a managed bridge with its addresses. A bridge that exists
// keeps what else it has.
func ensureBridge(b *Bridge) error {
	l, err := netlink.LinkByName(b.Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		// A bridge without an address of its own takes one of its ports', and another
		// when that guest goes.
		attrs := netlink.LinkAttrs{Name: b.Name, HardwareAddr: MAC("bridge "+b.Name, 0)}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return linkError("making bridge "+b.Name, err)
		}
		l, err = netlink.LinkByName(b.Name)
	}
	if err != nil {
		return linkError("bridge "+b.Name, err)
	}
	if l.Type() != "bridge" {
		return cvm.Errorf(cvm.Conflict, "interface %s exists and is a %s, not a bridge", b.Name, l.Type())
	}
	addrs := []netip.Prefix{b.IPv4}
	if b.IPv6.IsValid() {
		addrs = append(addrs, b.IPv6, netip.MustParsePrefix(routerLL+"/64"))
	}
	for _, p := range addrs {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // there is no carrier before the first guest
		}
		if err := netlink.AddrReplace(l, a); err != nil {
			return linkError("giving "+b.Name+" the address "+p.String(), err)
		}
	}
	if b.NAT {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
			return linkError("switching forwarding on", err)
		}
	}
	return linkError("switching "+b.Name+" on", netlink.LinkSetUp(l))
}

// Warnings say what of the configuration cannot work on this host.
func (p *Plane) Warnings() (out []string) {
	for _, b := range p.cfg.Bridges {
		if !b.Managed || !b.NAT || !b.IPv6.IsValid() {
			continue
		}
		// Not switched on here: it would make the host deaf to its own router.
		if v, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding"); err == nil && strings.TrimSpace(string(v)) == "0" {
			out = append(out, "network "+b.Name+": IPv6 beyond the host needs net.ipv6.conf.all.forwarding=1 (and accept_ra=2 on the uplink)")
		}
	}
	return out
}
