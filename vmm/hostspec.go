package vmm

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/netplane"
	"github.com/confidential-cloud/phala/vmm/pci"
	"github.com/confidential-cloud/phala/vmm/pool"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Ports of the host that VMs may have. Off unless switched on.
type Ports struct {
	Enabled bool `toml:"enabled"`
	// Address is that of mappings which name none; others may name Addresses.
	Address   netip.Addr         `toml:"address"`
	Addresses []netip.Addr       `toml:"addresses"`
	Ranges    []vmmapi.PortRange `toml:"ranges"`
}

const (
	maxPorts   = 64 // of one VM
	maxAllow   = 64 // sources of one port
	maxVolumes = 16
)

var volumeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// validateHost checks what the configuration says about the host.
func (c *Config) validateHost() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	errs = append(errs, c.Networks.Validate(), c.Confine.Validate(), c.GPUs.Validate())
	if c.OverCommit != 0 && (c.OverCommit < 1 || c.OverCommit > 64) {
		bad("over_commit %g: want 1 to 64 virtual CPUs per core", c.OverCommit)
	}
	if c.HugepageKiB != 2048 && c.HugepageKiB != 1<<20 {
		bad("hugepage_kib %d: want 2048 or 1048576", c.HugepageKiB)
	}
	if c.VolumesDir != "" && !filepath.IsAbs(c.VolumesDir) {
		bad("volumes_dir %q: want an absolute path", c.VolumesDir)
	}
	if !c.Ports.Enabled {
		return errs
	}
	if !c.Ports.Address.IsValid() || len(c.Ports.Ranges) == 0 {
		bad("ports: enabled needs address and ranges")
	}
	for _, r := range c.Ports.Ranges {
		if (r.Protocol != "tcp" && r.Protocol != "udp") || r.From == 0 || r.To < r.From {
			bad("ports.ranges %s %d-%d: want tcp or udp, and from 1 on upwards", r.Protocol, r.From, r.To)
		}
	}
	return errs
}

// checkHost returns all problems of what a spec asks of this host.
func (c *Config) checkHost(s *vmmapi.Spec) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	volumes, err := volumesOf(s)
	if err != nil {
		errs = append(errs, err)
	}
	if c.Driver == "container" && c.Machines == nil && (len(s.Ports) > 0 || len(s.Networks) > 0 || s.GPUs != nil || len(volumes) > 0 || s.PinNUMA || s.Hugepages || s.Limits != nil) {
		return cvm.Errorf(cvm.Invalid, "ports, networks, gpus, volumes (also an app's verity_volumes), pin_numa, hugepages and limits need real machines, this node's driver is container").WithFix("use a node whose driver is qemu")
	}
	errs = append(errs, c.checkPorts(s.Ports), c.checkVolumes(volumes), c.checkGPUs(s.GPUs))
	if _, err := c.Networks.Check(s.Networks); err != nil {
		errs = append(errs, err)
	}
	if l := s.Limits; l != nil && (l.DiskBytesPerSec < 0 || l.DiskIOPS < 0 || l.NetBytesPerSec < 0) {
		bad("limits: negative")
	}
	if s.Hugepages && s.Resources.MemoryMiB%(c.HugepageKiB>>10) != 0 {
		bad("resources.memory_mib %d: with hugepages a multiple of %d", s.Resources.MemoryMiB, c.HugepageKiB>>10)
	}
	return errors.Join(errs...)
}

func (c *Config) checkPorts(ports []vmmapi.PortMap) error {
	if len(ports) > 0 && !c.Ports.Enabled {
		return cvm.Errorf(cvm.Invalid, "ports: this node gives no ports of the host").WithReason("ports-disabled").WithFix("set ports.enabled, address and ranges in the VMM's configuration, or use the gateway")
	}
	if len(ports) > maxPorts {
		return cvm.Errorf(cvm.Invalid, "ports: %d, at most %d", len(ports), maxPorts)
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	for i, p := range ports {
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			bad("ports[%d].protocol %q: want tcp or udp", i, p.Protocol)
		}
		if p.VMPort == 0 {
			bad("ports[%d].vm_port: missing", i)
		}
		if !slices.ContainsFunc(c.Ports.Ranges, func(r vmmapi.PortRange) bool {
			return r.Protocol == p.Protocol && r.From <= p.HostPort && p.HostPort <= r.To
		}) {
			bad("ports[%d].host_port %s %d: not in this node's ranges %v", i, p.Protocol, p.HostPort, c.Ports.Ranges)
		}
		a, err := c.portAddress(p)
		if err != nil || (a != c.Ports.Address && !slices.Contains(c.Ports.Addresses, a)) {
			bad("ports[%d].host_address %q: not an address that this node gives", i, p.HostAddress)
		}
		if _, err := prefixes(p.Allow); err != nil || len(p.Allow) > maxAllow {
			bad("ports[%d].allow: want at most %d networks like 192.0.2.0/24: %v", i, maxAllow, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Config) portAddress(p vmmapi.PortMap) (netip.Addr, error) {
	if p.HostAddress == "" {
		return c.Ports.Address, nil
	}
	return netip.ParseAddr(p.HostAddress)
}

// prefixes reads networks; one with bits beside its mask is a mistake.
func prefixes(list []string) (out []netip.Prefix, err error) {
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err == nil && p != p.Masked() {
			err = cvm.Errorf(cvm.Invalid, "%s is an address in %s, not a network", s, p.Masked())
		}
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// volumesOf is the files that a VM gets as its volumes: those that its app measures,
// in the app's order, unless the spec names files itself (a file under another name,
// or a volume that the app opens on its own). The root hashes are in the app-compose,
// so that another file is a boot that fails.
func volumesOf(s *vmmapi.Spec) ([]string, error) {
	doc, err := appcompose.Parse(s.App.AppCompose)
	if err != nil {
		return s.Volumes, nil //nolint:nilerr // checkApp says so
	}
	want, err := doc.Volumes()
	if err != nil {
		return nil, err
	}
	if len(s.Volumes) > 0 {
		if len(s.Volumes) < len(want) {
			return nil, cvm.Errorf(cvm.Invalid, "volumes: %d, the app measures %d", len(s.Volumes), len(want)).
				WithFix("name a file for each of the app-compose's verity_volumes, in its order, or none")
		}
		return s.Volumes, nil
	}
	var names []string
	for _, v := range want {
		names = append(names, v.Source)
	}
	return names, nil
}

// checkVolumes: bare names of regular files. A link could lead anywhere.
func (c *Config) checkVolumes(names []string) error {
	if len(names) == 0 {
		return nil
	}
	if c.VolumesDir == "" {
		return cvm.Errorf(cvm.Invalid, "volumes: this node has none").WithFix("set volumes_dir in the VMM's configuration")
	}
	if len(names) > maxVolumes {
		return cvm.Errorf(cvm.Invalid, "volumes: %d, at most %d", len(names), maxVolumes)
	}
	var errs []error
	for i, n := range names {
		if !volumeName.MatchString(n) {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "volumes[%d] %q: want the name of a file in the node's volumes directory", i, n))
			continue
		}
		if st, err := os.Lstat(filepath.Join(c.VolumesDir, n)); err != nil || !st.Mode().IsRegular() {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "volumes[%d] %q: no such file in the node's volumes directory", i, n).WithReason("volume-missing"))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) checkGPUs(g *vmmapi.GPUs) error {
	if g == nil {
		return nil
	}
	if g.AttachMode == "count" {
		return c.checkCount(g)
	}
	if g.Product != "" || g.Count != 0 {
		return cvm.Errorf(cvm.Invalid, "gpus: product and count go with attach_mode count, not %q", g.AttachMode)
	}
	switch {
	case g.AttachMode == "all" && len(g.Slots) == 0 && c.GPUs.AllowAll:
		return nil
	case g.AttachMode == "all" && len(g.Slots) == 0:
		return cvm.Errorf(cvm.Invalid, "gpus.attach_mode all: this node does not give all of its cards to one VM").WithFix("name slots, or set gpus.allow_all in the VMM's configuration")
	case g.AttachMode != "listed" || len(g.Slots) == 0:
		return cvm.Errorf(cvm.Invalid, "gpus: want attach_mode listed with slots, all without, or count with product and count")
	}
	cards, err := pci.Discover(c.Sysfs, c.GPUs)
	if err == nil {
		_, err = pci.Attachable(c.Sysfs, cards, g.Slots)
	}
	return err
}

// checkCount looks whether the node has the cards at all; which of them are free is
// the pool's to say, when the VM starts.
func (c *Config) checkCount(g *vmmapi.GPUs) error {
	if len(g.Slots) > 0 || g.Count < 1 || g.Product == "" {
		return cvm.Errorf(cvm.Invalid, "gpus.attach_mode count: want product and a count of 1 or more, and no slots")
	}
	cards, err := pci.Discover(c.Sysfs, c.GPUs)
	if err != nil {
		return err
	}
	has := 0
	for _, d := range cards {
		if _, err := pci.Attachable(c.Sysfs, cards, []string{d.Slot}); err == nil && d.Product == g.Product && !d.Switch {
			has++
		}
	}
	if has < g.Count {
		return cvm.Errorf(cvm.Invalid, "gpus: this node gives %d card(s) %q to VMs, %d wanted", has, g.Product, g.Count).WithReason("gpu-not-listed").
			WithFix("use a node that has them: GET /v1/node lists its cards")
	}
	return nil
}

// hostPorts is what a spec takes of the pool; the spec was checked.
func (c *Config) hostPorts(s *vmmapi.Spec) (held []pool.Port, mapped []netplane.Port) {
	for _, p := range s.Ports {
		a, _ := c.portAddress(p)
		allow, _ := prefixes(p.Allow)
		held = append(held, pool.Port{Protocol: p.Protocol, Addr: a, Number: p.HostPort})
		mapped = append(mapped, netplane.Port{Protocol: p.Protocol, Host: netip.AddrPortFrom(a, p.HostPort), Guest: p.VMPort, Allow: allow})
	}
	return held, mapped
}
