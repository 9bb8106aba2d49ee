package guestagent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/boot"
	"github.com/confidential-cloud/phala/guest-agent/disk"
	"github.com/confidential-cloud/phala/guest-agent/vm"
)

// keysOfMachine asks the KMS with the disk's generation in the evidence, so that the
// KMS can refuse an older disk (T7).
func (a *Agent) keysOfMachine(ctx context.Context, s *boot.State, progress func(string)) (k boot.Keys, err error) {
	dev, err := vm.Disk("/", vm.SerialData)
	if err != nil {
		return k, err
	}
	if s.DiskGeneration, err = disk.ReadGeneration(dev); err != nil {
		return k, err
	}
	return a.releaseKeys(ctx, s, progress)
}

// openMachineDisk is the disk stage of a machine.
func (a *Agent) openMachineDisk(ctx context.Context, s *boot.State) (fs string, err error) {
	dev, err := vm.Disk("/", vm.SerialData)
	if err != nil {
		return "", err
	}
	if s.App.Provider() == appcompose.ProviderNone {
		// The key was drawn for this boot: what the disk holds is lost already.
		if err := erase(dev); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(a.cfg.DataDir, 0o711); err != nil {
		return "", fmt.Errorf("data disk: %w", err)
	}
	a.disk, err = disk.Open(ctx, disk.Config{Device: dev, MountPoint: a.cfg.DataDir, Key: s.Keys.Disk,
		Also: []disk.Profile{disk.ProfileReference}, FS: s.App.StorageFS, Reported: s.DiskGeneration})
	if err != nil {
		return "", err
	}
	a.log.Info("the data disk is open", "fs", a.disk.FS, "profile", a.disk.Profile, "generation", a.disk.Generation, "fresh", a.disk.Fresh)
	// Docker's root is below it: others must be able to pass, as in a container.
	return a.disk.FS, os.Chmod(a.cfg.DataDir, 0o711) //nolint:gosec // see above
}

// erase makes a disk new: nothing but zeros where its header is.
func erase(dev string) error {
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return cvm.Errorf(cvm.Precondition, "data disk: %w", err).WithReason(disk.ReasonNotWritable)
	}
	_, err = f.Write(make([]byte, disk.HeaderSize))
	return errors.Join(err, f.Sync(), f.Close())
}

// containersCgroup is where dockerd keeps its containers.
const containersCgroup = cgroupRoot + "/docker"

// closeDisk moves the generation for a clean end. The engine is gone; where it had to be
// killed, its containers are not.
func (a *Agent) closeDisk(ctx context.Context) error {
	if a.disk == nil {
		return nil
	}
	d := a.disk
	a.disk = nil
	return errors.Join(vm.EndContainers(ctx, containersCgroup), d.Close(ctx))
}
