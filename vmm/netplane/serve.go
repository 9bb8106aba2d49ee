package netplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sync/errgroup"

	"github.com/confidential-cloud/phala/cvm"
)

const (
	leaseTime = time.Hour
	// raEvery is the pause between unasked router advertisements.
	raEvery = 30 * time.Second
)

// Start makes the managed bridges; taps can be put on them afterwards.
func (p *Plane) Start(ctx context.Context) error {
	for i := range p.cfg.Bridges {
		if b := &p.cfg.Bridges[i]; b.Managed {
			if err := ensureBridge(b); err != nil {
				return err
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applyLocked(ctx)
}

// Run gives addresses on the managed bridges until ctx ends. Call Start before.
func (p *Plane) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range p.cfg.Bridges {
		b := &p.cfg.Bridges[i]
		if !b.Managed {
			continue
		}
		g.Go(func() error { return p.serveDHCP(ctx, b) })
		if b.IPv6.IsValid() {
			g.Go(func() error { return p.advertise(ctx, b) })
		}
	}
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (p *Plane) serveDHCP(ctx context.Context, b *Bridge) error {
	srv, err := server4.NewServer(b.Name, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort}, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		if reply := p.answer(b, m); reply != nil {
			if _, err := conn.WriteTo(reply.ToBytes(), peer); err != nil {
				p.log.Warn("answering DHCP", "bridge", b.Name, "error", err)
			}
		}
	})
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "DHCP server of %s: %w", b.Name, err).WithFix("another DHCP server on this bridge? Stop it, or set managed = false")
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err = srv.Serve()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// leaseOf finds the card with that MAC on the bridge.
func (p *Plane) leaseOf(bridge string, mac net.HardwareAddr) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.vms {
		for _, n := range w.NICs {
			if n.Bridge == bridge && n.MAC == mac.String() {
				return n.IPv4, true
			}
		}
	}
	return netip.Addr{}, false
}

// answer gives each card its one address, and strangers nothing.
func (p *Plane) answer(b *Bridge, m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	if m.OpCode != dhcpv4.OpcodeBootRequest {
		return nil
	}
	ip, ok := p.leaseOf(b.Name, m.ClientHWAddr)
	if !ok {
		return nil
	}
	kind := dhcpv4.MessageTypeOffer
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
	case dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
		asked := m.RequestedIPAddress()
		if asked == nil {
			asked = m.ClientIPAddr
		}
		if a, _ := netip.AddrFromSlice(asked.To4()); a != ip {
			kind = dhcpv4.MessageTypeNak
		}
	default:
		return nil
	}
	self := net.IP(b.IPv4.Addr().AsSlice())
	mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(self), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(self))}
	if kind != dhcpv4.MessageTypeNak {
		mods = append(mods, dhcpv4.WithYourIP(net.IP(ip.AsSlice())), dhcpv4.WithNetmask(net.CIDRMask(b.IPv4.Bits(), 32)),
			dhcpv4.WithRouter(self), dhcpv4.WithLeaseTime(uint32(leaseTime.Seconds())))
		var dns []net.IP
		for _, d := range b.DNS {
			if d.Is4() {
				dns = append(dns, d.AsSlice())
			}
		}
		if len(dns) > 0 {
			mods = append(mods, dhcpv4.WithDNS(dns...))
		}
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, mods...)
	if err != nil {
		p.log.Debug("DHCP request", "bridge", b.Name, "error", err)
		return nil
	}
	return reply
}

// advertise answers router solicitations and speaks unasked now and then.
func (p *Plane) advertise(ctx context.Context, b *Bridge) error {
	ifi, err := net.InterfaceByName(b.Name)
	if err != nil {
		return linkError("router of "+b.Name, err)
	}
	lc := net.ListenConfig{}
	pc, err := lc.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return linkError("router of "+b.Name, err)
	}
	defer func() { _ = pc.Close() }()
	c := ipv6.NewPacketConn(pc)
	var only ipv6.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(c.SetICMPFilter(&only), c.JoinGroup(ifi, &net.IPAddr{IP: net.IPv6linklocalallrouters}), c.SetControlMessage(ipv6.FlagInterface, true))
	if err != nil {
		return linkError("router of "+b.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = pc.Close() })
	defer stop()
	buf := make([]byte, 1500)
	for {
		// A bridge without guests has no carrier: the error is the next one's matter.
		if _, err := c.WriteTo(b.advertisement(ifi.HardwareAddr), &ipv6.ControlMessage{IfIndex: ifi.Index, HopLimit: 255, Src: net.ParseIP(routerLL)},
			&net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: b.Name}); err != nil {
			p.log.Debug("router advertisement", "bridge", b.Name, "error", err)
		}
		if err := c.SetReadDeadline(time.Now().Add(raEvery)); err != nil && ctx.Err() == nil {
			return linkError("router of "+b.Name, err)
		}
		for {
			_, cm, _, err := c.ReadFrom(buf)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				break
			}
			if err != nil {
				return linkError("router of "+b.Name, err)
			}
			if cm != nil && cm.IfIndex == ifi.Index {
				break
			}
		}
	}
}

// advertisement is RFC 4861's message 134: this router, and the prefix from which
// guests make their address.
func (b *Bridge) advertisement(mac net.HardwareAddr) []byte {
	lifetime := [2]byte{}
	if b.NAT {
		lifetime = [2]byte{0x07, 0x08} // 1800 s
	}
	m := []byte{134, 0, 0, 0, 64, 0, lifetime[0], lifetime[1], 0, 0, 0, 0, 0, 0, 0, 0}
	m = append(m, 1, 1)
	m = append(m, mac...)
	m = append(m, 3, 4, byte(b.IPv6.Bits()), 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0)
	m = append(m, b.IPv6.Masked().Addr().AsSlice()...)
	var dns []byte
	for _, d := range b.DNS {
		if d.Is6() {
			dns = append(dns, d.AsSlice()...)
		}
	}
	if len(dns) > 0 { // RFC 8106
		m = append(m, 25, byte(1+len(dns)/8), 0, 0, 0, 0, 0x0e, 0x10)
		m = append(m, dns...)
	}
	return m
}
