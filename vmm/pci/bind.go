package pci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/cvm"
)

// vfio is the driver through which a VM has a card.
const vfio = "vfio-pci"

// Binder moves cards between their own driver and vfio-pci.
type Binder struct {
	root  string
	write func(path, value string) error // a test plays the kernel here
}

// NewBinder works on the sysfs below root.
func NewBinder(root string) *Binder {
	return &Binder{root: root, write: func(path, value string) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(value)
		return errors.Join(err, f.Close())
	}}
}

// Bind gives the card to vfio-pci; one that it has already stays as it is. The
// override is written first, so that no other driver can take the card in between.
func (b *Binder) Bind(slot string) error { return b.move(slot, vfio) }

// Unbind gives the card back to whichever driver of the host wants it.
func (b *Binder) Unbind(slot string) error { return b.move(slot, "") }

func (b *Binder) move(slot, driver string) error {
	if _, err := ParseAddress(slot); err != nil {
		return err
	}
	dir := filepath.Join(b.root, "bus/pci/devices", slot)
	if _, err := os.Stat(dir); err != nil {
		return cvm.Errorf(cvm.NotFound, "PCI device %s is not there", slot)
	}
	now := linkBase(dir, "driver")
	if now == driver && driver != "" {
		return nil
	}
	if driver == "" && now != vfio {
		return nil // not ours to take away
	}
	steps := [][2]string{{filepath.Join(dir, "driver_override"), driver + "\n"}}
	if now != "" {
		steps = append(steps, [2]string{filepath.Join(b.root, "bus/pci/drivers", now, "unbind"), slot})
	}
	steps = append(steps, [2]string{filepath.Join(b.root, "bus/pci/drivers_probe"), slot})
	for _, s := range steps {
		if err := b.write(s[0], s[1]); err != nil {
			return cvm.Errorf(cvm.Unavailable, "binding %s: %w", slot, err).WithReason("vfio-bind").WithFix("load the module vfio-pci; stop what uses the card")
		}
	}
	if got := linkBase(dir, "driver"); driver != "" && got != driver {
		return cvm.Errorf(cvm.Unavailable, "PCI device %s: its driver is %q after binding it to %s", slot, got, driver).WithReason("vfio-bind").
			WithFix(fmt.Sprintf("is the module %s loaded?", driver))
	}
	return nil
}
