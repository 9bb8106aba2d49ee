// Package container runs CVMs as containers of the local docker engine, where
// there is no TEE and no virtual machine. It is a development driver: the TEE is
// simulated (attest/simtee), the guest's kernel is the host's, and a guest holds
// capabilities (SYS_ADMIN, MKNOD) that make it as powerful as root on the host.
// It proves the software, not the isolation.
//
// The container is a whole guest: the same root filesystem a virtual machine
// would boot, the guest agent as PID 1, its own dockerd, store and network. The
// driver keeps no state: labels and names in the engine say what is there.
//
// Together with guest-agent/compose this is the home of the docker client.
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/attest/simtee"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Config of the driver.
type Config struct {
	DockerHost string  // "" is the environment's default socket
	Network    Network // see DefaultNetwork
	TEE        TEE     // the simulated hardware: simtee.NewControl(socket)
	// SNP makes guests of the hardware's SEV-SNP side instead of TDs.
	SNP bool
	// Prefix of container and volume names; "" is DefaultPrefix.
	Prefix string
	// ImageRepo names guest images in the engine, default "phala-guest": the image with
	// tag os_image_hash, and "<ImageRepo>-base" with the sha256 of the root filesystem.
	ImageRepo string
	// Entrypoint is the guest's first process, default /usr/bin/phala-guest-agent.
	Entrypoint []string
	Log        *slog.Logger
}

// TEE is what the driver asks of the simulated hardware (simtee.Control).
type TEE interface {
	CreateTD(ctx context.Context, name, sock string, s simtee.Shape) error
	CreateSNP(ctx context.Context, name, sock string, s simtee.SNPShape) error
	DestroyTD(ctx context.Context, name string) error
	Info(ctx context.Context) (simtee.Info, error)
}

// accelSNP is machine.Description's word for SEV-SNP guests.
const accelSNP = "snp"

const (
	labelOwner = "cloud.phala.owner"
	labelVM    = "cloud.phala.vm"
	labelBoot  = "cloud.phala.boot"

	// maxSockPath is what a unix socket address holds, without its closing zero byte.
	maxSockPath = 107
)

// Driver implements machine.Driver.
type Driver struct {
	cfg Config
	cli *client.Client
	log *slog.Logger

	importing sync.Mutex // one image import at a time
}

var _ machine.Driver = (*Driver)(nil)

// New connects to the engine lazily: an engine that is down is an error of the
// calls, not of New.
func New(cfg Config) (*Driver, error) {
	if cfg.TEE == nil {
		return nil, cvm.Errorf(cvm.Invalid, "container driver: no TEE hardware configured").WithFix("set tee_socket to the control socket of the simulated TEE")
	}
	if err := cfg.Network.validate(); err != nil {
		return nil, err
	}
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.ImageRepo == "" {
		cfg.ImageRepo = "phala-guest"
	}
	if len(cfg.Entrypoint) == 0 {
		cfg.Entrypoint = []string{"/usr/bin/phala-guest-agent"}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cli, err := dial(cfg.DockerHost)
	if err != nil {
		return nil, err
	}
	return &Driver{cfg: cfg, cli: cli, log: cfg.Log}, nil
}

// EnsureNetwork is the function of the same name for the driver's network.
func (d *Driver) EnsureNetwork(ctx context.Context) (gatewayIP string, err error) {
	return ensureNetwork(ctx, d.cli, d.cfg.Network)
}

// Describe asks the engine and the simulated hardware.
func (d *Driver) Describe(ctx context.Context) (machine.Description, error) {
	out := machine.Description{Name: "container", Simulated: true, Variant: measure.VariantContainer, Warnings: []string{
		"SIMULATED TEE: the container driver is for development; it proves nothing about hardware and does not isolate guests from the host",
		"the container driver does not enforce disk sizes",
	}}
	info, err := d.cfg.TEE.Info(ctx)
	if err != nil {
		return out, cvm.Errorf(cvm.Unavailable, "asking the simulated TEE hardware: %w", err)
	}
	out.DeviceID = info.DeviceID
	if d.cfg.SNP {
		if info.SNP == nil {
			return out, cvm.Errorf(cvm.Precondition, "simulate is snp, and the simulated hardware has no SEV-SNP").WithReason("no-sev-snp").
				WithFix("start the simulated hardware with SEV-SNP, or set simulate to tdx")
		}
		out.DeviceID, out.Accel = info.SNP.DeviceID, accelSNP
	}
	if _, err := d.cli.Ping(ctx); err != nil {
		return out, engineError("docker engine", err)
	}
	return out, nil
}

func dial(host string) (*client.Client, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "docker host %q: %w", host, err)
	}
	return cli, nil
}

// engineError gives an engine's error a code.
func engineError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case client.IsErrConnectionFailed(err):
		return cvm.Errorf(cvm.Unavailable, "%s: %w", what, err).WithReason("docker-unreachable").
			WithFix("start the Docker engine and make sure this user may use its socket")
	case errdefs.IsNotFound(err):
		return cvm.Errorf(cvm.NotFound, "%s: %w", what, err)
	}
	return cvm.Errorf(cvm.Internal, "%s: %w", what, err).WithReason("docker-error")
}

// discard reads an engine's progress stream to its end; the engine works while it
// is read.
func discard(rc io.ReadCloser) error {
	_, err := io.Copy(io.Discard, rc)
	return errors.Join(err, rc.Close())
}

func (d *Driver) name(id string) string { return d.cfg.Prefix + id }

// tdName names the TD at the hardware.
func (d *Driver) tdName(id string) string { return fmt.Sprintf("vm-%s", id) }
