package qemu

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// host is what this host offers.
type host struct {
	accel   Accel
	version string // of QEMU, "11.1.3"
	sev     SEV
	notes   []string // why nothing better
}

// probeGuest is probe/probe.S: the least that an ordinary kernel does.
//
//go:embed probe/probe.bin
var probeGuest []byte

// probeExit is what QEMU exits with when the guest came to its end.
const probeExit = 97

// probeWithin bounds one try of an accelerator.
const probeWithin = 15 * time.Second

// probe finds out once what machines run on. A result is kept, an error is not. A
// caller that cannot wait does not cut it short: the next one finds the result.
func (d *Driver) probe(ctx context.Context) (*host, error) {
	type found struct {
		h   *host
		err error
	}
	ch := make(chan found, 1)
	go func() {
		h, err := d.probeNow(context.WithoutCancel(ctx))
		ch <- found{h, err}
	}()
	select {
	case f := <-ch:
		return f.h, f.err
	case <-ctx.Done():
		return nil, cvm.Errorf(cvm.Unavailable, "still finding out what this host can run: %w", ctx.Err()).WithReason("probing")
	}
}

func (d *Driver) probeNow(ctx context.Context) (*host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host != nil {
		return d.host, nil
	}
	version, err := d.version(ctx)
	if err != nil {
		return nil, err
	}
	h := &host{version: version}
	order := []Accel{TDX, SNP, KVM, TCG}
	if d.cfg.Accel != Auto {
		order = []Accel{d.cfg.Accel}
	}
	var errs []error
	for _, a := range order {
		if !a.hardware() && !d.cfg.AllowSimulated {
			continue
		}
		err := d.try(ctx, a, h)
		if err == nil {
			h.accel = a
			for _, e := range errs {
				h.notes = append(h.notes, e.Error())
			}
			d.host = h
			return h, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", a, err))
	}
	fix := "run `phala node doctor`, or set qemu.allow_simulated for development"
	if d.cfg.Accel != Auto {
		fix = "run `phala node doctor`, or set qemu.accel to auto"
	}
	return nil, cvm.Errorf(cvm.Precondition, "this host cannot run machines: %w", errors.Join(errs...)).WithReason("no-accelerator").WithFix(fix)
}

var versionRE = regexp.MustCompile(`version ([0-9]+\.[0-9]+\.[0-9]+)`)

func (d *Driver) version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, d.cfg.Binary, "--version").Output()
	if err != nil {
		return "", cvm.Errorf(cvm.Precondition, "asking %s for its version: %w", d.cfg.Binary, err).WithReason("qemu-missing").WithFix("install QEMU, or set qemu.binary")
	}
	m := versionRE.FindSubmatch(out)
	if m == nil {
		return "", cvm.Errorf(cvm.Precondition, "%s --version says %.80q", d.cfg.Binary, out).WithReason("qemu-missing")
	}
	return string(m[1]), nil
}

// try reports why an accelerator is not usable.
func (d *Driver) try(ctx context.Context, a Accel, h *host) error {
	switch a {
	case TDX:
		if err := kernelSays("/sys/module/kvm_intel/parameters/tdx"); err != nil {
			return err
		}
		return d.knows(ctx, "tdx-guest")
	case SNP:
		if err := kernelSays("/sys/module/kvm_amd/parameters/sev_snp"); err != nil {
			return err
		}
		if err := d.knows(ctx, "sev-snp-guest"); err != nil {
			return err
		}
		return d.sevCapabilities(ctx, h)
	}
	return d.runs(ctx, a)
}

func kernelSays(parameter string) error {
	b, err := os.ReadFile(parameter)
	if err != nil {
		return fmt.Errorf("the host's kernel does not offer it (%s)", parameter)
	}
	if v := strings.TrimSpace(string(b)); v != "Y" && v != "1" {
		return fmt.Errorf("%s is %s: switched off in the BIOS or on the kernel's command line", parameter, v)
	}
	return nil
}

// knows asks QEMU whether it was built with a kind of object.
func (d *Driver) knows(ctx context.Context, object string) error {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, d.cfg.Binary, "-object", "help").Output()
	if err != nil {
		return fmt.Errorf("%s -object help: %w", d.cfg.Binary, err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == object {
			return nil
		}
	}
	return fmt.Errorf("%s has no %s object: a newer QEMU is needed", d.cfg.Binary, object)
}

// runs boots the probe guest: a /dev/kvm that is there may still not run kernels.
func (d *Driver) runs(ctx context.Context, a Accel) error {
	f, err := os.CreateTemp("", "phala-probe-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(probeGuest)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	cpu := "host"
	if a == TCG {
		cpu = "max"
	}
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.cfg.Binary, "-accel", string(a), "-cpu", cpu, "-machine", "q35", "-m", "16M", "-nographic", "-nodefaults", "-no-user-config",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", f.Name())
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == probeExit {
		return nil
	}
	said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
	return fmt.Errorf("a test guest did not run: %w: %.200s", errors.Join(err, ctx.Err()), said)
}

// sevCapabilities asks a QEMU without a guest.
func (d *Driver) sevCapabilities(ctx context.Context, h *host) error {
	dir, err := os.MkdirTemp("", "phala-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	sock := filepath.Join(dir, qmpSock)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", sock)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, d.cfg.Binary, "-accel", "kvm", "-machine", "q35", "-nographic", "-nodefaults", "-no-user-config", "-S",
		"-chardev", "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	q, err := dialQMP(ctx, sock, ignoreEvents)
	if err != nil {
		return err
	}
	defer func() { _ = q.close() }()
	return q.execute(ctx, "query-sev-capabilities", nil, &h.sev)
}
