// Package netplane connects VMs to networks: taps on bridges of the host, fixed
// addresses by DHCP and router advertisements, a guard on each tap that lets
// nothing through which the guest has no right to send, port mappings with lists
// of allowed sources, NAT, rate limits. User mode needs none of it but the lists.
//
// The VMM calls Assign when it admits a VM (addresses, nothing in the kernel),
// Attach before each launch and for machines it finds running, Detach when a run
// has ended, Forget when the VM is deleted, Sweep once at its start, and Run for
// as long as it lives. Everything is idempotent. What is made is found again by
// its name and tag, so that a VMM that was killed leaks nothing.
package netplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// NIC is a card of a VM as its record keeps it.
type NIC struct {
	Mode   string     `json:"mode"`
	Bridge string     `json:"bridge,omitempty"`
	MAC    string     `json:"mac"`
	Tap    string     `json:"tap,omitempty"`
	IPv4   netip.Addr `json:"ipv4,omitzero"` // on managed bridges
	IPv6   netip.Addr `json:"ipv6,omitzero"`
}

func (n *NIC) hw() net.HardwareAddr {
	mac, _ := net.ParseMAC(n.MAC) // ours
	return mac
}

// Port is a port of the host that leads to the VM's first card.
type Port struct {
	Protocol string
	Host     netip.AddrPort
	Guest    uint16
	Allow    []netip.Prefix // none: everybody
}

// Wish is what a VM has of the network.
type Wish struct {
	ID    string
	UID   int // opens the taps
	NICs  []NIC
	Ports []Port
	// BytesPerSec limits each direction of each tap; 0 is no limit.
	BytesPerSec int64
}

// Plane is safe for concurrent use.
type Plane struct {
	cfg            Config
	log            *slog.Logger
	firstUID, uids int

	mu    sync.Mutex
	vms   map[string]*Wish // with their addresses, running or not
	live  map[string]bool  // attached
	wrote bool             // the host's table may exist
}

// New makes a plane; firstUID and uids are the hypervisors' users, if they have
// any. Nothing in the kernel changes before Run or Attach.
func New(cfg Config, firstUID, uids int, log *slog.Logger) (*Plane, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Plane{cfg: cfg, log: log, firstUID: firstUID, uids: uids, vms: map[string]*Wish{}, live: map[string]bool{}}, nil
}

// Assign gives a VM's cards their addresses: those it had (of the same bridge), or
// free ones. Code exhausted when a bridge has none left, invalid for networks that
// the node does not have. It is remembered until Forget.
func (p *Plane) Assign(id string, nets []vmmapi.Network, had []NIC) ([]NIC, error) {
	nets, err := p.cfg.Check(nets)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]NIC, 0, len(nets))
	for i, n := range nets {
		mac := MAC(id, i)
		nic := NIC{Mode: n.Mode, MAC: mac.String()}
		if n.Mode == ModeBridge {
			nic.Bridge, nic.Tap = n.Bridge, TapName(id, i)
			if err := p.addressLocked(id, &nic, had); err != nil {
				return nil, err
			}
		}
		out = append(out, nic)
	}
	w := p.vms[id]
	if w == nil {
		w = &Wish{ID: id}
		p.vms[id] = w
	}
	w.NICs = out
	return out, nil
}

// addressLocked finds the address of a card on a managed bridge: begins at a place
// that follows from its MAC, so that it is mostly the same on every host.
func (p *Plane) addressLocked(id string, nic *NIC, had []NIC) error {
	b := p.cfg.bridge(nic.Bridge)
	if !b.Managed {
		return nil
	}
	if b.IPv6.IsValid() {
		nic.IPv6 = eui64(b.IPv6, nic.hw())
	}
	taken := map[netip.Addr]bool{b.IPv4.Addr(): true}
	for other, w := range p.vms {
		for _, n := range w.NICs {
			if other != id && n.Bridge == b.Name {
				taken[n.IPv4] = true
			}
		}
	}
	for _, h := range had {
		if h.Bridge == nic.Bridge && h.MAC == nic.MAC && b.IPv4.Contains(h.IPv4) && !taken[h.IPv4] {
			nic.IPv4 = h.IPv4
			return nil
		}
	}
	hosts := uint32(1)<<(32-b.IPv4.Bits()) - 2 // without network and broadcast
	mac := nic.hw()
	start := (uint32(mac[3])<<16 | uint32(mac[4])<<8 | uint32(mac[5])) % hosts
	for i := range hosts {
		a := nth(b.IPv4, 1+(start+i)%hosts)
		if !taken[a] {
			nic.IPv4 = a
			return nil
		}
	}
	return cvm.Errorf(cvm.Exhausted, "bridge %s: all %d addresses of %s are taken", b.Name, hosts-1, b.IPv4.Masked()).WithReason("node-full").WithFix("configure a larger network")
}

func nth(p netip.Prefix, n uint32) netip.Addr {
	a := p.Masked().Addr().As4()
	v := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// Hold repeats what an earlier VMM assigned, without asking; running VMs are in
// the rules from the first time they are written.
func (p *Plane) Hold(w Wish, running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vms[w.ID] = &w
	p.live[w.ID] = running
}

// checkPorts refuses mappings that could not work.
func (p *Plane) checkPorts(w *Wish) error {
	if w.BytesPerSec > 0 && slices.ContainsFunc(w.NICs, func(n NIC) bool { return n.Mode == ModeUser }) {
		return cvm.Errorf(cvm.Unsupported, "limits.net_bytes_per_sec: a card in user mode cannot be limited").WithFix("use mode bridge")
	}
	if len(w.Ports) == 0 {
		return nil
	}
	if len(w.NICs) == 0 {
		return cvm.Errorf(cvm.Invalid, "ports: the VM has no card")
	}
	n := w.NICs[0]
	if n.Mode == ModeBridge && !n.IPv4.IsValid() {
		return cvm.Errorf(cvm.Unsupported, "ports: on bridge %s addresses are not given by the VMM", n.Bridge).WithFix("use a managed bridge or user mode for the first card")
	}
	for _, m := range w.Ports {
		if m.Host.Addr().Is6() && !n.IPv6.IsValid() {
			return cvm.Errorf(cvm.Unsupported, "port %s: the VM's first card has no IPv6 address", m.Host)
		}
		for _, a := range m.Allow {
			if a.Addr().Is6() != m.Host.Addr().Is6() {
				return cvm.Errorf(cvm.Invalid, "port %s: allowed source %s is of the other IP version", m.Host, a)
			}
		}
	}
	return nil
}

// Check refuses what Attach would refuse, without touching anything.
func (p *Plane) Check(w *Wish) error { return p.checkPorts(w) }

// Attach makes the VM's taps with their guards and opens its ports; what exists
// already stays. On an error nothing of it is left.
func (p *Plane) Attach(ctx context.Context, w Wish) ([]machine.NIC, error) {
	if err := p.checkPorts(&w); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vms[w.ID], p.live[w.ID] = &w, true
	err := p.attachLocked(ctx, &w)
	if err == nil {
		err = p.applyLocked(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.detachLocked(context.WithoutCancel(ctx), w.ID))
	}
	return p.cards(&w), nil
}

func (p *Plane) attachLocked(ctx context.Context, w *Wish) error {
	for i := range w.NICs {
		n := &w.NICs[i]
		if n.Mode != ModeBridge {
			continue
		}
		b := p.cfg.bridge(n.Bridge)
		if b == nil {
			return cvm.Errorf(cvm.Precondition, "bridge %s is not configured any more", n.Bridge)
		}
		// The guard is there before the tap is up: not one frame passes without it.
		link, err := makeTap(n.Tap, tag(w.ID), w.UID)
		if err != nil {
			return err
		}
		if err := nft(ctx, guard(n, w.BytesPerSec)); err != nil {
			return err
		}
		if err := plug(link, b, w.BytesPerSec); err != nil {
			return err
		}
	}
	return nil
}

// cards says what the hypervisor needs to know.
func (p *Plane) cards(w *Wish) []machine.NIC {
	var out []machine.NIC
	for i := range w.NICs {
		n := &w.NICs[i]
		if n.Mode == ModeBridge {
			out = append(out, machine.NIC{Mode: machine.NICTap, MAC: n.hw(), Tap: n.Tap})
			continue
		}
		c := machine.NIC{Mode: machine.NICUser, MAC: n.hw(), Net: p.cfg.User.Net, DHCPStart: p.cfg.User.DHCPStart, Restrict: p.cfg.User.Restrict}
		for _, m := range w.Ports {
			if i == 0 {
				c.Forwards = append(c.Forwards, machine.Forward{Protocol: m.Protocol, Host: m.Host, GuestPort: m.Guest})
			}
		}
		out = append(out, c)
	}
	return out
}

// Detach removes taps, guards and rules of a VM; its addresses stay its own.
func (p *Plane) Detach(ctx context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.detachLocked(ctx, id)
}

func (p *Plane) detachLocked(ctx context.Context, id string) error {
	delete(p.live, id)
	var errs []error
	if w := p.vms[id]; w != nil {
		for _, n := range w.NICs {
			if n.Tap != "" {
				errs = append(errs, removeTap(ctx, n.Tap))
			}
		}
	}
	return errors.Join(append(errs, p.applyLocked(ctx))...)
}

// Drop gives back the addresses of a VM that was never attached.
func (p *Plane) Drop(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.vms, id)
}

// Forget is Detach and gives the addresses back.
func (p *Plane) Forget(ctx context.Context, id string) error {
	err := p.Detach(ctx, id)
	p.mu.Lock()
	delete(p.vms, id)
	p.mu.Unlock()
	return err
}

// applyLocked writes the host's table as it has to be.
func (p *Plane) applyLocked(ctx context.Context) error {
	var vms []*Wish
	for id, w := range p.vms {
		if p.live[id] {
			vms = append(vms, w)
		}
	}
	slices.SortFunc(vms, func(a, b *Wish) int { return strings.Compare(a.ID, b.ID) })
	rules := host(&p.cfg, vms, p.firstUID, p.uids)
	if rules == "" {
		if !p.wrote {
			return nil
		}
		rules = fmt.Sprintf("table %[1]s\ndelete table %[1]s\n", hostTable)
	}
	if err := nft(ctx, rules); err != nil {
		return err
	}
	p.wrote = true
	return nil
}

// Sweep removes taps, guards and rules of VMs that are not in keep: what a VMM
// that was killed could not remove.
func (p *Plane) Sweep(ctx context.Context, keep map[string]bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	taps, err := ourTaps()
	if err != nil {
		return err
	}
	var errs []error
	for name, id := range taps {
		if !keep[id] {
			p.log.Info("removing a tap that was left", "tap", name, "vm", id)
			errs = append(errs, removeTap(ctx, name))
		}
	}
	if exec.CommandContext(ctx, "nft", "list", "table", "inet", "phala").Run() == nil {
		p.wrote = true
	}
	return errors.Join(append(errs, p.applyLocked(ctx))...)
}

// nft runs one transaction.
func nft(ctx context.Context, rules string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return cvm.Errorf(cvm.Unavailable, "writing the firewall: %w: %s", err, firstLine(out.String())).WithReason("firewall").
			WithFix("is nft installed, and may the VMM change the network (CAP_NET_ADMIN)?")
	}
	return nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
