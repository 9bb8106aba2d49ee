package netplane

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Modes of a card, as in vmmapi.Network.
const (
	ModeUser   = "user"
	ModeBridge = "bridge"
)

// Config of the guests' networks, part of the VMM's file.
type Config struct {
	// Modes that VMs may ask for; the first is that of VMs that ask for nothing.
	Modes []string `toml:"modes"`
	User  User     `toml:"user"`
	// Bridges of the host; the first is that of VMs that name none.
	Bridges []Bridge `toml:"bridges"`
	// HostPorts are TCP ports of this host that guests on managed bridges may connect
	// to (a KMS or a registry on the same machine).
	HostPorts []uint16 `toml:"host_ports"`
}

// User is the network inside the hypervisor.
type User struct {
	Net       netip.Prefix `toml:"net"`
	DHCPStart netip.Addr   `toml:"dhcp_start"`
	Restrict  bool         `toml:"restrict"` // guests reach nothing but forwarded ports
}

// Bridge is a bridge of the host.
type Bridge struct {
	Name string `toml:"name"`
	// Managed: made, addressed and served by the VMM; guests have fixed addresses and
	// cannot take others. Otherwise the bridge exists, and somebody else gives
	// addresses.
	Managed bool `toml:"managed"`
	// IPv4 and IPv6 are the host's own address on a managed bridge with its network,
	// as 10.77.0.1/24 and fd00:77::1/64. IPv6 may be missing.
	IPv4 netip.Prefix `toml:"ipv4"`
	IPv6 netip.Prefix `toml:"ipv6"`
	DNS  []netip.Addr `toml:"dns"`
	// NAT lets guests reach the outside with the host's address.
	NAT bool `toml:"nat"`
	// Peers lets guests on this bridge reach each other.
	Peers bool `toml:"peers"`
}

// Default is user mode alone, as the reference's.
func Default() Config {
	return Config{Modes: []string{ModeUser}, User: User{Net: netip.MustParsePrefix("10.0.2.0/24"), DHCPStart: netip.MustParseAddr("10.0.2.10")}}
}

var ifName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,14}$`)

// Validate returns all problems at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if len(c.Modes) == 0 {
		bad("networks.modes: empty; no VM could have a card")
	}
	for i, m := range c.Modes {
		if (m != ModeUser && m != ModeBridge) || slices.Contains(c.Modes[:i], m) {
			bad("networks.modes %q: want user and bridge, each once", m)
		}
	}
	if slices.Contains(c.Modes, ModeBridge) && len(c.Bridges) == 0 {
		bad("networks.bridges: mode bridge needs one")
	}
	if u := c.User; slices.Contains(c.Modes, ModeUser) && (!u.Net.Addr().Is4() || u.Net != u.Net.Masked() || u.Net.Bits() > 28 || !u.Net.Contains(u.DHCPStart)) {
		bad("networks.user: net %s and dhcp_start %s: want an IPv4 network of at most /28 and an address in it", u.Net, u.DHCPStart)
	}
	for i, b := range c.Bridges {
		errs = append(errs, b.validate())
		for _, o := range c.Bridges[:i] {
			if o.Name == b.Name || (o.Managed && b.Managed && (o.IPv4.Overlaps(b.IPv4) || o.IPv6.Overlaps(b.IPv6))) {
				bad("networks.bridges %s and %s: the same name, or overlapping networks", o.Name, b.Name)
			}
		}
	}
	if slices.Contains(c.HostPorts, 0) {
		bad("networks.host_ports: 0 is no port")
	}
	return errors.Join(errs...)
}

func (b *Bridge) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if !ifName.MatchString(b.Name) {
		bad("networks.bridges %q: want a letter and up to 14 letters, digits, - or _", b.Name)
	}
	if !b.Managed {
		if b.IPv4.IsValid() || b.IPv6.IsValid() || b.NAT || len(b.DNS) > 0 {
			bad("networks.bridges %s: addresses, dns and nat are for managed bridges", b.Name)
		}
		return errors.Join(errs...)
	}
	if !b.IPv4.IsValid() || !b.IPv4.Addr().Is4() || !b.IPv4.Addr().IsPrivate() || b.IPv4.Bits() < 16 || b.IPv4.Bits() > 28 || b.IPv4.Masked() == b.IPv4 {
		bad("networks.bridges %s: ipv4 %s: want the host's address in a private network of /16 to /28, like 10.77.0.1/24", b.Name, b.IPv4)
	}
	if b.IPv6.IsValid() && (!b.IPv6.Addr().Is6() || b.IPv6.Bits() != 64 || b.IPv6.Masked() == b.IPv6 || b.IPv6.Addr().IsLinkLocalUnicast()) {
		bad("networks.bridges %s: ipv6 %s: want the host's address in a /64, like fd00:77::1/64", b.Name, b.IPv6)
	}
	return errors.Join(errs...)
}

func (c *Config) bridge(name string) *Bridge {
	for i := range c.Bridges {
		if c.Bridges[i].Name == name || (name == "" && i == 0) {
			return &c.Bridges[i]
		}
	}
	return nil
}

// maxNICs bounds the cards of one VM: their index is one digit of the tap's name.
const maxNICs = 8

// Check refuses networks that this node does not give, and returns them with the
// node's defaults filled in.
func (c *Config) Check(nets []vmmapi.Network) ([]vmmapi.Network, error) {
	if len(nets) == 0 {
		nets = []vmmapi.Network{{Mode: c.Modes[0]}}
	}
	if len(nets) > maxNICs {
		return nil, cvm.Errorf(cvm.Invalid, "networks: %d cards, at most %d", len(nets), maxNICs)
	}
	var errs []error
	out := slices.Clone(nets)
	for i, n := range nets {
		switch {
		case !slices.Contains(c.Modes, n.Mode):
			errs = append(errs, cvm.Errorf(cvm.Invalid, "networks[%d].mode %q: this node has %v", i, n.Mode, c.Modes))
		case n.Mode == ModeUser && n.Bridge != "":
			errs = append(errs, cvm.Errorf(cvm.Invalid, "networks[%d].bridge %q: user mode has no bridge", i, n.Bridge))
		case n.Mode == ModeBridge && c.bridge(n.Bridge) == nil:
			errs = append(errs, cvm.Errorf(cvm.Invalid, "networks[%d].bridge %q: not a bridge of this node's configuration", i, n.Bridge))
		case n.Mode == ModeBridge:
			out[i].Bridge = c.bridge(n.Bridge).Name
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}
