// Package devcloud runs the whole cloud on one machine: a chain, the simulated TEE,
// three KMS members, a VMM with the container driver, a gateway, the cloud API and
// a registry, each the same code as its own binary. It is for development and says
// SIMULATED wherever that matters.
//
// Call Up; it returns when the context ends and everything has stopped. State lives
// in one directory (OpenState) and outlives restarts: same apps, same keys.
package devcloud

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/kms"
	"github.com/confidential-cloud/phala/vmm"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// Config of a one-machine cloud. Default fills everything in.
type Config struct {
	// StateDir holds what is remembered; see docs/ops/one-machine.md for its layout.
	StateDir string `toml:"state_dir"`
	// RunDir holds sockets; it must be short (unix socket paths end at 108 bytes).
	RunDir string `toml:"run_dir"`
	// Source is a checkout of this repository: the guest image and hello are built from it.
	Source string `toml:"source"`
	// Driver runs the guests: "container", or "qemu": virtual machines.
	Driver string `toml:"driver"`
	// Simulate is the TEE that guests of the container driver get: "tdx", or "snp". The
	// services of the cloud always live in TDs.
	Simulate string `toml:"simulate"`
	// ImageDir holds a built guest image; "" is the driver's below Source/build/images.
	ImageDir string `toml:"image_dir"`
	// BaseDomain of the gateway. Browsers and curl resolve *.dev.localhost to loopback.
	BaseDomain string `toml:"base_domain"`
	ChainID    uint64 `toml:"chain_id"`
	// Network is the docker network of the guests, Subnet its addresses.
	Network string `toml:"network"`
	Subnet  string `toml:"subnet"`
	Ports   Ports  `toml:"ports"`
	// CLIDir is where the CLI keeps its login; "" is ~/.phala-cloud (or $PHALA_CLOUD_DIR).
	CLIDir string `toml:"cli_dir"`
	// BinDir holds the programs (phala, and the services with Processes).
	BinDir string `toml:"bin_dir"`
	// Processes runs every service as a process of its own.
	Processes bool `toml:"processes"`
	// RestartDelay is how long a process that ended stays down.
	RestartDelay config.Duration `toml:"restart_delay"`
	// MaxStaleness of the chain view that the KMS admits; 0 is its default, 60 s.
	MaxStaleness time.Duration `toml:"-"`
	// LeaseTTL of what the KMS releases; 0 is its default, 30 s.
	LeaseTTL time.Duration `toml:"-"`
	// Members of the KMS.
	Members int `toml:"members"`

	// Machines wraps the driver; for tests of hosts that cheat.
	Machines func(machine.Driver) machine.Driver `toml:"-"`
	// KMS changes a member's configuration before it starts; for tests of policies.
	KMS func(*kms.Config) `toml:"-"`

	Out io.Writer    `toml:"-"` // progress, for a person
	Log *slog.Logger `toml:"-"` // everything else; nil: StateDir/logs/devcloud.log
}

// Drivers of guests.
const (
	DriverContainer = "container"
	DriverQEMU      = "qemu"
)

// Ports on loopback. The KMS and the tunnel also listen on the guests' bridge.
type Ports struct {
	Chain      int `toml:"chain"`
	KMS        int `toml:"kms"`      // and the next Members-1
	KMSRaft    int `toml:"kms_raft"` // and the next Members-1
	VMM        int `toml:"vmm"`
	API        int `toml:"api"`
	Gateway    int `toml:"gateway"`
	Tunnel     int `toml:"tunnel"`    // gateway's registration API, on the bridge
	WireGuard  int `toml:"wireguard"` // UDP, on the bridge
	GatewayAdm int `toml:"gateway_admin"`
	Collateral int `toml:"collateral"`
	Registry   int `toml:"registry"`
	Private    int `toml:"private_registry"` // a registry of your own on the bridge that guests may reach over HTTP; 0: none
}

// Default is the configuration of `make up`.
func Default() (Config, error) {
	dir, err := DefaultStateDir()
	if err != nil {
		return Config{}, err
	}
	return Config{
		StateDir: dir, RunDir: defaultRunDir(dir), Driver: DriverContainer, Simulate: vmm.SimulateTDX, BaseDomain: "dev.localhost", ChainID: 31337,
		Network: "phala-guests", Subnet: "172.31.77.0/24", Members: 3, Ports: PortsFrom(8700),
		RestartDelay: config.Duration(time.Second),
	}, nil
}

// PortsFrom lays all ports out from base (40 of them); the gateway's is base+43
// (8743 by default) and the chain's base+45.
func PortsFrom(base int) Ports {
	return Ports{
		KMS: base + 1, KMSRaft: base + 11, VMM: base + 20, API: base + 30, Tunnel: base + 40, WireGuard: base + 41,
		GatewayAdm: base + 42, Gateway: base + 43, Chain: base + 45, Collateral: base + 50, Registry: base + 60, Private: base + 61,
	}
}

type namedAddr struct{ what, addr string }

func (p Ports) list() []namedAddr {
	var l []namedAddr
	for _, n := range []struct {
		what string
		port int
	}{{"chain", p.Chain}, {"KMS", p.KMS}, {"KMS raft", p.KMSRaft}, {"VMM", p.VMM}, {"cloud API", p.API},
		{"gateway", p.Gateway}, {"gateway admin", p.GatewayAdm}, {"collateral", p.Collateral}, {"registry", p.Registry}} {
		l = append(l, namedAddr{n.what, loopback(n.port)})
	}
	return l
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Validate returns all problems at once.
func (c *Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.StateDir) {
		errs = append(errs, errors.New("state_dir: want an absolute path"))
	}
	if len(c.RunDir) > 60 || !filepath.IsAbs(c.RunDir) {
		errs = append(errs, fmt.Errorf("run_dir: want a short absolute path (unix socket paths end at 108 bytes), got %q", c.RunDir))
	}
	if c.Driver != DriverContainer && c.Driver != DriverQEMU {
		errs = append(errs, fmt.Errorf("driver: %q: want %s or %s", c.Driver, DriverContainer, DriverQEMU))
	}
	switch {
	case c.Simulate != vmm.SimulateTDX && c.Simulate != vmm.SimulateSNP:
		errs = append(errs, fmt.Errorf("simulate: %q: want %s or %s", c.Simulate, vmm.SimulateTDX, vmm.SimulateSNP))
	case c.Simulate == vmm.SimulateSNP && c.Driver != DriverContainer:
		errs = append(errs, fmt.Errorf("simulate: %s needs driver %s: machines of driver %s attest with this host's own hardware, or as TDs where it has none", c.Simulate, DriverContainer, c.Driver))
	}
	if c.BaseDomain == "" {
		errs = append(errs, errors.New("base_domain: empty"))
	}
	if _, _, err := net.ParseCIDR(c.Subnet); err != nil {
		errs = append(errs, fmt.Errorf("subnet: %w", err))
	}
	if c.Members < 1 || c.Members > 7 || c.Members%2 == 0 {
		errs = append(errs, fmt.Errorf("members: want 1, 3, 5 or 7, got %d", c.Members))
	}
	if c.RestartDelay <= 0 {
		errs = append(errs, errors.New("restart_delay: want a positive duration"))
	}
	if c.ChainID == 0 {
		errs = append(errs, errors.New("chain_id: want a positive number"))
	}
	return errors.Join(errs...)
}

func (c *Config) imageDir() string {
	if c.ImageDir != "" {
		return c.ImageDir
	}
	name := "phala-container"
	if c.Driver == DriverQEMU {
		version, _ := os.ReadFile(filepath.Join(c.Source, "os", "VERSION")) // a wrong source shows when the image is opened
		name = "phala-" + strings.TrimSpace(string(version))
	}
	return filepath.Join(c.Source, "build", "images", name)
}
