package container

import (
	"context"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/containerd/errdefs"
	ctypes "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Launch makes the TD, then the container, and starts it.
func (d *Driver) Launch(ctx context.Context, m machine.Machine) (machine.Instance, error) {
	sock := filepath.Join(m.Run, filepath.Base(guestapi.GuestSock))
	if len(sock) > maxSockPath {
		return nil, cvm.Errorf(cvm.Invalid, "run directory %s is too long for a unix socket", m.Run).WithFix("set a shorter run_dir")
	}
	ref, err := d.ensureImage(ctx, m.Image)
	if err != nil {
		return nil, err
	}
	if _, err := d.EnsureNetwork(ctx); err != nil {
		return nil, err
	}
	if err := d.removeContainer(ctx, m.ID); err != nil { // what is left of the last run
		return nil, err
	}
	if err := d.ensureVolume(ctx, m); err != nil {
		return nil, err
	}
	if err := d.createTD(ctx, m); err != nil {
		return nil, err
	}
	if err := d.start(ctx, m, ref); err != nil {
		clean := context.WithoutCancel(ctx)
		_ = d.removeContainer(clean, m.ID)
		_ = d.cfg.TEE.DestroyTD(clean, d.tdName(m.ID))
		return nil, err
	}
	return d.instance(m.ID, m.Run), nil
}

// createTD gives the guest fresh registers. They follow from vm_config alone, so
// that a verifier can recompute them.
func (d *Driver) createTD(ctx context.Context, m machine.Machine) error {
	if d.cfg.SNP {
		return d.createSNP(ctx, m)
	}
	regs, err := measure.Container(m.VMConfig)
	if err != nil {
		return err
	}
	ccel, err := measure.ContainerCCEL(m.VMConfig)
	if err != nil {
		return err
	}
	_ = d.cfg.TEE.DestroyTD(ctx, d.tdName(m.ID)) // of an earlier boot; usually there is none
	sock := filepath.Join(m.Run, filepath.Base(guestapi.TEESock))
	err = d.cfg.TEE.CreateTD(ctx, d.tdName(m.ID), sock, simtee.Shape{
		MRTD: regs.MRTD, RTMR: regs.RTMR, MRConfigID: m.MRConfigID, CCEL: ccel, SockMode: 0o600,
	})
	if err != nil {
		return cvm.Errorf(cvm.CodeOf(err), "making the simulated TD: %w", err).WithReason("tee-unavailable").
			WithFix("is the simulated TEE hardware running?")
	}
	return nil
}

// createSNP launches a SEV-SNP guest, bound to what the VMM said (version 3 of
// MRCONFIGID holds the same hash as HOST_DATA).
func (d *Driver) createSNP(ctx context.Context, m machine.Machine) error {
	if m.MRConfigID[0] != 3 {
		return cvm.Errorf(cvm.Invalid, "a SEV-SNP guest without a MrConfig document").WithReason("no-mr-config")
	}
	digest, _, err := measure.ContainerSNP(m.VMConfig)
	if err != nil {
		return err
	}
	_ = d.cfg.TEE.DestroyTD(ctx, d.tdName(m.ID)) // of an earlier boot; usually there is none
	sock := filepath.Join(m.Run, filepath.Base(guestapi.TEESock))
	shape := simtee.SNPShape{Measurement: digest, HostData: [32]byte(m.MRConfigID[1:33]), SockMode: 0o600}
	if err := d.cfg.TEE.CreateSNP(ctx, d.tdName(m.ID), sock, shape); err != nil {
		return cvm.Errorf(cvm.CodeOf(err), "making the simulated SEV-SNP guest: %w", err).WithReason("tee-unavailable").
			WithFix("is the simulated TEE hardware running, with SEV-SNP?")
	}
	return nil
}

func (d *Driver) ensureVolume(ctx context.Context, m machine.Machine) error {
	_, err := d.cli.VolumeCreate(ctx, volume.CreateOptions{Name: d.name(m.ID), Labels: map[string]string{labelOwner: "phala", labelVM: m.ID}})
	return engineError("making the VM's volume", err)
}

func (d *Driver) start(ctx context.Context, m machine.Machine, ref string) error {
	cfg := &ctypes.Config{
		Image: ref, Entrypoint: d.cfg.Entrypoint, Hostname: hostname(m.ID),
		Labels: map[string]string{labelOwner: "phala", labelVM: m.ID, labelBoot: strconv.Itoa(m.Boot)},
		// Docker's own default environment is enough; nothing of the host's goes in.
		Env:        []string{"container=docker", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		StopSignal: "SIGTERM",
	}
	nets := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{d.cfg.Network.Name: {}}}
	c, err := d.cli.ContainerCreate(ctx, cfg, d.hostConfig(m), nets, nil, d.name(m.ID))
	if err != nil {
		return engineError("making the guest container", err)
	}
	return engineError("starting the guest container", d.cli.ContainerStart(ctx, c.ID, ctypes.StartOptions{}))
}

func (d *Driver) hostConfig(m machine.Machine) *ctypes.HostConfig {
	pids := int64(1024 * max(m.Size.VCPU, 4))
	memory := int64(m.Size.MemoryMiB) << 20
	return &ctypes.HostConfig{
		// Everything dockerd needs inside; not --privileged, which asks for
		// CAP_SYS_RESOURCE and all devices.
		CapAdd:      []string{"SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "MKNOD", "NET_RAW", "DAC_READ_SEARCH"},
		SecurityOpt: []string{"seccomp=unconfined", "apparmor=unconfined"},
		// A private cgroup namespace nests the guest's containers below this one, so
		// that its limits hold for all of them together (v1 and v2).
		CgroupnsMode:  ctypes.CgroupnsModePrivate,
		NetworkMode:   ctypes.NetworkMode(d.cfg.Network.Name),
		RestartPolicy: ctypes.RestartPolicy{Name: ctypes.RestartPolicyDisabled}, // the VMM decides
		LogConfig:     ctypes.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "8m", "max-file": "2"}},
		Tmpfs:         map[string]string{"/run": "rw,exec,nosuid,nodev,mode=755", "/tmp": "rw,exec,nosuid,nodev,mode=1777"},
		Mounts: []mount.Mount{
			{Type: mount.TypeVolume, Source: d.name(m.ID), Target: guestapi.DataDir},
			{Type: mount.TypeBind, Source: m.Shared, Target: guestapi.SharedDir, ReadOnly: true},
			{Type: mount.TypeBind, Source: m.Run, Target: guestapi.RunDir},
		},
		Resources: ctypes.Resources{
			// The engine refuses more CPUs than the machine has.
			NanoCPUs: int64(min(m.Size.VCPU, runtime.NumCPU())) * 1e9,
			Memory:   memory, MemorySwap: memory, PidsLimit: &pids,
		},
	}
}

func hostname(id string) string { return "cvm-" + id[:min(8, len(id))] }

// Adopt finds the last run of a machine: alive, or ended while nobody watched.
func (d *Driver) Adopt(ctx context.Context, id string) (machine.Instance, bool, error) {
	c, err := d.cli.ContainerInspect(ctx, d.name(id))
	if err != nil {
		return nil, false, engineError("guest container "+d.name(id), err)
	}
	if c.State == nil || c.State.Status == "created" { // the VMM was killed in Launch
		return nil, false, cvm.Errorf(cvm.NotFound, "guest container %s was never started", d.name(id))
	}
	for _, mp := range c.Mounts {
		if mp.Destination == guestapi.RunDir {
			return d.instance(id, mp.Source), c.State.Running, nil
		}
	}
	return nil, false, cvm.Errorf(cvm.NotFound, "container %s is not one of ours", d.name(id))
}

// Remove deletes the container, the TD and, unless keepState, the volume.
func (d *Driver) Remove(ctx context.Context, id string, keepState bool) error {
	if err := d.removeContainer(ctx, id); err != nil {
		return err
	}
	if err := d.cfg.TEE.DestroyTD(ctx, d.tdName(id)); err != nil && cvm.CodeOf(err) != cvm.NotFound {
		// The hardware may be gone for good; its TDs went with it.
		d.log.Warn("forgetting the TD", "vm", id, "error", err)
	}
	if keepState {
		return nil
	}
	if err := d.cli.VolumeRemove(ctx, d.name(id), false); err != nil && !errdefs.IsNotFound(err) {
		return engineError("removing the VM's volume", err)
	}
	return nil
}

func (d *Driver) removeContainer(ctx context.Context, id string) error {
	err := d.cli.ContainerRemove(ctx, d.name(id), ctypes.RemoveOptions{Force: true})
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	return engineError("removing the guest container", err)
}
