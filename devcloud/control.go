package devcloud

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/qemu"
)

// startVMM starts the machines' side.
func (c *Cloud) startVMM(ctx context.Context) error {
	conf := vmm.Default()
	conf.Listen, conf.TokenFile = loopback(c.cfg.Ports.VMM), c.state.Path("vmm", "token")
	conf.Dir, conf.RunDir = c.state.Path("vmm"), c.cfg.RunDir+"/vm"
	conf.ImagesDir, conf.DefaultImage = filepath.Dir(c.image.Dir), c.image.Name
	conf.Driver, conf.Wrap, conf.QEMU = c.cfg.Driver, c.cfg.Machines, qemuOptions()
	conf.Network, conf.TEESocket, conf.Simulate = c.network(), c.teeSock(), c.cfg.Simulate
	conf.VolumesDir = c.state.Path("vmm", "volumes") // `phala volume make -o` there
	conf.DockerRegistry = "http://" + net.JoinHostPort(c.guestHost, strconv.Itoa(c.cfg.Ports.Registry))
	if c.cfg.Ports.Private != 0 {
		conf.InsecureRegistries = []string{c.PrivateRegistry()}
	}
	// Volumes take what they hold, not what was asked for: a development machine may
	// promise more disk than it has.
	conf.Capacity.DiskMiB = 4 << 20
	conf.OverCommit = 4    // nor do its apps use what they ask for
	conf.StopOnExit = true // a VMM that is killed (not asked to stop) leaves its machines running
	log, err := c.logger("vmm")
	if err != nil {
		return err
	}
	conf.Log = log
	m, err := vmm.New(conf)
	if err != nil {
		return fmt.Errorf("VMM: %w", err)
	}
	return c.start(ctx, service{
		name: "vmm", binary: "phala-vmm", config: &conf, run: m.Run, stop: stopTimeout - time.Second,
		ready: func(ctx context.Context) error { return portAnswers(ctx, conf.Listen) },
	})
}

// qemuOptions take what the host has; without a TEE it is simulated.
func qemuOptions() qemu.Options {
	o := qemu.DefaultOptions()
	o.AllowSimulated = true
	return o
}

// PrivateRegistry is the address of the registry that asks for credentials.
func (c *Cloud) PrivateRegistry() string {
	return net.JoinHostPort(c.guestHost, strconv.Itoa(c.cfg.Ports.Private))
}

// startAPI starts the cloud API.
func (c *Cloud) startAPI(ctx context.Context) error {
	conf := api.DefaultConfig()
	conf.Listen, conf.Dir = loopback(c.cfg.Ports.API), c.state.Path("api")
	conf.AdminKeyFile = c.state.Path("api", "admin-key")
	conf.TrustProfile = c.TrustPath()
	conf.Attestation = api.AttestationConfig{CollateralURLs: []string{c.collateralURL()}, SimulatedRoots: c.simRoots()}
	conf.Nodes = []api.NodeConfig{{URL: "http://" + loopback(c.cfg.Ports.VMM), TokenFile: c.state.Path("vmm", "token")}}
	conf.KMS.URLs, conf.KMS.GuestURLs, conf.KMS.RootSPKI = c.memberURLs("127.0.0.1"), c.memberURLs(c.guestHost), c.facts.KMSRoot
	conf.Chain = api.ChainConfig{ID: c.cfg.ChainID, Name: "devchain", RPCURL: c.rpcURL(), Contract: c.contracts.KMS.Hex()}
	conf.Gateway = api.GatewayConfig{
		Domain: c.cfg.BaseDomain, Port: c.cfg.Ports.Gateway, AppID: c.facts.GatewayAppID,
		GuestURLs: []string{"https://" + net.JoinHostPort(c.guestHost, strconv.Itoa(c.cfg.Ports.Tunnel))},
	}
	log, err := c.logger("api")
	if err != nil {
		return err
	}
	conf.Log = log
	a, err := api.New(conf)
	if err != nil {
		return fmt.Errorf("cloud API: %w", err)
	}
	return c.start(ctx, service{
		name: "api", binary: "phala-api", config: &conf, run: a.Run,
		ready: func(ctx context.Context) error { return portAnswers(ctx, conf.Listen) },
	})
}

// APIURL is the prefix that clients use.
func (c *Cloud) APIURL() string { return "http://" + loopback(c.cfg.Ports.API) + "/api/v1" }

// TrustPath is the trust profile that `phala verify --trust` reads.
func (c *Cloud) TrustPath() string { return c.state.Path("trust.toml") }

func portAnswers(ctx context.Context, addr string) error {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
