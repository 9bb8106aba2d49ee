// Package pci finds the GPUs and NVSwitches of a host and its NUMA nodes in sysfs,
// says which may be given to a VM, and binds them to vfio-pci.
//
// Discover lists the cards that the configuration admits, Attachable checks slots
// that somebody wants, Binder hands cards to vfio-pci and back, Topology reads the
// NUMA nodes. Everything takes the root of sysfs ("/sys"). Who holds a card is not
// known here: that is pool's account.
package pci

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Address is the place of a PCI function: domain:bus:device.function. As a string
// it is always in the long lower-case form, the only one that is accepted: it
// becomes part of a command line and of file names.
type Address struct {
	Domain           uint16
	Bus, Device, Fun uint8
}

var addressForm = regexp.MustCompile(`^([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$`)

// ParseAddress reads "0000:3b:00.0". Code invalid otherwise.
func ParseAddress(s string) (Address, error) {
	f := addressForm.FindStringSubmatch(s)
	if f == nil {
		return Address{}, cvm.Errorf(cvm.Invalid, "PCI address %q: want domain:bus:device.function in lower-case hex, like 0000:3b:00.0", s)
	}
	n := func(s string) uint64 { v, _ := strconv.ParseUint(s, 16, 16); return v }                                  // the form was checked
	return Address{Domain: uint16(n(f[1])), Bus: uint8(n(f[2])), Device: uint8(n(f[3])), Fun: uint8(n(f[4]))}, nil //nolint:gosec // bounded by their digits
}

// String is the form that ParseAddress reads.
func (a Address) String() string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", a.Domain, a.Bus, a.Device, a.Fun)
}

// Device is a card of the host.
type Device struct {
	Slot    string // Address as a string
	Product string // vendor:device, as "10de:2335"
	Switch  bool   // an NVSwitch
	Node    int    // NUMA node; -1: unknown
	Group   int    // IOMMU group; -1: none, such a card cannot be passed through
	Driver  string // that has it now; "" is none
}

// Selection says which cards VMs may have. The zero Selection admits none.
type Selection struct {
	// Products are "vendor:device" ids of GPUs (class 3D controller) and NVSwitches
	// (class bridge) of NVIDIA, as "10de:2335".
	Products []string `toml:"products"`
	// Include and Exclude are slots; an Include that is not empty admits no others,
	// Exclude has the last word.
	Include []string `toml:"include"`
	Exclude []string `toml:"exclude"`
	// AllowAll admits specs that ask for every card of the node.
	AllowAll bool `toml:"allow_all"`
}

var productForm = regexp.MustCompile(`^10de:[0-9a-f]{4}$`)

// Validate returns all problems at once.
func (s *Selection) Validate() error {
	var errs []error
	for _, p := range s.Products {
		if !productForm.MatchString(p) {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "gpus.products %q: want an id of NVIDIA's in lower-case hex, like 10de:2335", p))
		}
	}
	for _, slot := range slices.Concat(s.Include, s.Exclude) {
		if _, err := ParseAddress(slot); err != nil {
			errs = append(errs, fmt.Errorf("gpus.include and exclude: %w", err))
		}
	}
	return errors.Join(errs...)
}

// PCI classes, without the programming interface.
const (
	class3D       = 0x0302
	classBridge   = 0x0680 // "other bridge": NVSwitches
	classPCIToPCI = 0x0604
)

// Discover lists the cards that sel admits, by slot. A host without PCI has none.
func Discover(root string, sel Selection) ([]Device, error) {
	entries, err := os.ReadDir(filepath.Join(root, "bus/pci/devices"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing PCI devices: %w", err)
	}
	var out []Device
	for _, e := range entries {
		if _, err := ParseAddress(e.Name()); err != nil {
			continue // a domain beyond 16 bits: never a GPU's
		}
		d, class, err := read(root, e.Name())
		if err != nil {
			return nil, err
		}
		if (class == class3D || class == classBridge) && sel.admits(&d) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Compare(a.Slot, b.Slot) })
	return out, nil
}

func (s *Selection) admits(d *Device) bool {
	return slices.Contains(s.Products, d.Product) && !slices.Contains(s.Exclude, d.Slot) &&
		(len(s.Include) == 0 || slices.Contains(s.Include, d.Slot))
}

// read reads one device and its class.
func read(root, slot string) (Device, int, error) {
	dir := filepath.Join(root, "bus/pci/devices", slot)
	num := func(name string, missing int) (int, error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) && missing < 0 {
			return missing, nil
		}
		if err != nil {
			return 0, fmt.Errorf("PCI device %s: %w", slot, err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 0, 32)
		if err != nil {
			return 0, cvm.Errorf(cvm.Internal, "PCI device %s: %s: %w", slot, name, err)
		}
		return int(n), nil
	}
	vendor, err1 := num("vendor", 0)
	device, err2 := num("device", 0)
	class, err3 := num("class", 0)
	node, err4 := num("numa_node", -1)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Device{}, 0, err
	}
	d := Device{Slot: slot, Product: fmt.Sprintf("%04x:%04x", vendor, device), Node: max(node, -1), Group: -1, Driver: linkBase(dir, "driver")}
	if g, err := strconv.Atoi(linkBase(dir, "iommu_group")); err == nil {
		d.Group = g
	}
	class >>= 8
	d.Switch = class == classBridge
	return d, class, nil
}

func linkBase(dir, name string) string {
	target, err := os.Readlink(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// Attachable checks slots that a VM wants: each is written as Discover shows it,
// once, is among the admitted cards, and takes its whole IOMMU group with it
// (bridges of the group aside): a neighbour in the group could reach the VM's
// memory. All problems come back together, code invalid or precondition.
func Attachable(root string, admitted []Device, slots []string) ([]Device, error) {
	var errs []error
	var out []Device
	for i, s := range slots {
		if _, err := ParseAddress(s); err != nil {
			errs = append(errs, err)
			continue
		}
		at := slices.IndexFunc(admitted, func(d Device) bool { return d.Slot == s })
		switch {
		case slices.Contains(slots[:i], s):
			errs = append(errs, cvm.Errorf(cvm.Invalid, "GPU %s: named twice", s))
		case at < 0:
			errs = append(errs, cvm.Errorf(cvm.Invalid, "GPU %s: not a card that this node gives to VMs", s).WithReason("gpu-not-listed"))
		case admitted[at].Group < 0:
			errs = append(errs, cvm.Errorf(cvm.Precondition, "GPU %s: in no IOMMU group", s).WithReason("iommu-missing").WithFix("switch the IOMMU on in firmware and kernel"))
		default:
			out = append(out, admitted[at])
			errs = append(errs, wholeGroup(root, admitted[at], slots))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Compare(a.Slot, b.Slot) })
	return out, nil
}

func wholeGroup(root string, d Device, slots []string) error {
	entries, err := os.ReadDir(filepath.Join(root, "kernel/iommu_groups", strconv.Itoa(d.Group), "devices"))
	if err != nil {
		return fmt.Errorf("IOMMU group %d: %w", d.Group, err)
	}
	for _, e := range entries {
		if slices.Contains(slots, e.Name()) {
			continue
		}
		_, class, err := read(root, e.Name())
		if err != nil {
			return err
		}
		if class != classPCIToPCI {
			return cvm.Errorf(cvm.Precondition, "GPU %s: %s is in the same IOMMU group %d and is not given to the VM", d.Slot, e.Name(), d.Group).
				WithReason("iommu-group").WithFix("name both, or move the card to a slot with a group of its own")
		}
	}
	return nil
}
