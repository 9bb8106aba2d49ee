package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Adopt finds the last run of a machine.
func (d *Driver) Adopt(_ context.Context, id string) (machine.Instance, bool, error) {
	if !idRE.MatchString(id) {
		return nil, false, cvm.Errorf(cvm.Invalid, "machine id %q: want a lowercase UUID", id)
	}
	p := d.paths(id)
	var rec runRecord
	if err := readJSON(p.launch, &rec); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, false, cvm.Errorf(cvm.NotFound, "machine %s was never started here", id)
		}
		return nil, false, cvm.Errorf(cvm.Internal, "machine %s: %w", id, err).WithReason("machine-record")
	}
	pidfd, err := rec.Process.open(id)
	switch {
	case err == nil:
		return d.instance(id, rec, pidfd, nil), true, nil
	case !errors.Is(err, os.ErrProcessDone):
		return nil, false, cvm.Errorf(cvm.Unavailable, "machine %s: %w", id, err)
	}
	inst := d.instance(id, rec, nil, nil)
	var x exitRecord
	if readJSON(p.exit, &x) == nil && x.Process == rec.Process {
		inst.result = &x.Exit
	}
	return inst, false, nil
}

// Remove ends what still runs and deletes the machine's files; of a kept state its
// disk stays.
func (d *Driver) Remove(ctx context.Context, id string, keepState bool) error {
	if !idRE.MatchString(id) {
		return cvm.Errorf(cvm.Invalid, "machine id %q: want a lowercase UUID", id)
	}
	if err := d.endLeftOver(id); err != nil {
		return err
	}
	p := d.paths(id)
	var rec runRecord
	if err := readJSON(p.launch, &rec); err == nil {
		d.forget(ctx, id, rec.Run, rec.Simulated)
	}
	if !keepState {
		return removed(os.RemoveAll(p.dir))
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return removed(err)
	}
	for _, e := range entries {
		if path := filepath.Join(p.dir, e.Name()); path != p.data {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return removed(err)
}

func removed(err error) error {
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return cvm.Errorf(cvm.Internal, "removing a machine's files: %w", err)
}

// endLeftOver ends a QEMU of this machine that still runs: of a launch that was cut
// short, before or after it was written down.
func (d *Driver) endLeftOver(id string) error {
	p := d.paths(id)
	var left []process
	var rec runRecord
	if readJSON(p.launch, &rec) == nil {
		left = append(left, rec.Process)
	}
	if b, err := os.ReadFile(p.pid); err == nil {
		pid, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
		if proc, err := identify(pid); err == nil {
			left = append(left, proc)
		}
	}
	for _, proc := range left {
		pidfd, err := proc.open(id)
		if errors.Is(err, os.ErrProcessDone) {
			continue
		}
		if err != nil {
			return cvm.Errorf(cvm.Unavailable, "machine %s: %w", id, err)
		}
		d.log.Warn("ending a hypervisor that was left over", "vm", id, "pid", proc.PID)
		err = kill(pidfd)
		if err == nil {
			await(pidfd)
		}
		_ = pidfd.Close()
		if err != nil {
			return fmt.Errorf("ending the last run of machine %s: %w", id, err)
		}
	}
	return nil
}
