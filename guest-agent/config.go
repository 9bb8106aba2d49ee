// Package guestagent is the first program of a confidential VM: it measures what
// it was given, asks the KMS for the app's keys, opens the disk, starts the
// containers, keeps the lease alive, joins the gateway, and serves dstack.sock.
//
// Call New with a Config and Run it. A VM uses Default(); a service that boots the
// guest's stages itself (the gateway, runner "none") sets its own paths and no
// Init. Nothing the host wrote is believed: it is measured, or checked against
// something measured, or ignored.
package guestagent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/guest-agent/vm"
	"github.com/confidential-cloud/phala/internal/config"
)

// Config of a guest agent. In a VM it is part of the measured image.
type Config struct {
	Log *slog.Logger `toml:"-"`

	// SharedDir holds the host-written files, RunDir the sockets shared with the host.
	SharedDir string `toml:"shared_dir"`
	RunDir    string `toml:"run_dir"`
	// WorkDir is volatile (tmpfs): compose file, environment, registry credentials.
	WorkDir string `toml:"work_dir"`
	// DataDir is the data volume: what outlives a stop.
	DataDir string `toml:"data_dir"`
	// EventDir holds the runtime event log (dstack-core A.4).
	EventDir string `toml:"event_dir"`

	DstackSock string `toml:"dstack_sock"`
	TappdSock  string `toml:"tappd_sock"` // "" turns it off
	GuestSock  string `toml:"guest_sock"` // "" turns it off
	HostSock   string `toml:"host_sock"`  // "" turns notifications off
	TEESock    string `toml:"tee_sock"`   // simulated TEE; when the file is absent the real devices are used
	// ExternalAddr serves the dashboard and /evidence; "" turns it off.
	ExternalAddr string `toml:"external_addr"`

	// WireGuardListen is the guest's UDP address; the gateway learns the port from
	// the first packet.
	WireGuardListen string `toml:"wireguard_listen"`
	// ForwardHost is where streams from the gateway are dialled. "" is the guest's own
	// address, not loopback: what an app binds to 127.0.0.1 it means to keep private.
	ForwardHost string `toml:"forward_host"`

	// Init takes the duties of PID 1 in a container guest: mounts, cgroups.
	Init bool `toml:"init"`
	// Machine takes the duties of a real machine: mounts, network, clock, the link to the
	// host, power. PID 1 of the image sets it.
	Machine bool `toml:"machine"`
	// TimeServers authenticate themselves with NTS; a machine sets its clock by them.
	TimeServers []string `toml:"time_servers"`
	// Docker says how containers are run. It is ignored for runner "none".
	Docker DockerConfig `toml:"docker"`

	// AllowUnpinned admits an app-compose with key provider kms and no
	// key_provider_id: the KMS is then not authenticated. Never for real apps.
	AllowUnpinned bool `toml:"allow_unpinned"`
	// KeysTimeout bounds the retries while the KMS cannot answer.
	KeysTimeout config.Duration `toml:"keys_timeout"`
	// StopTimeout bounds the graceful stop of the containers.
	StopTimeout config.Duration `toml:"stop_timeout"`
}

// DockerConfig says how containers are run.
type DockerConfig struct {
	// Daemon is the dockerd to start; "" uses an engine that runs already at Sock.
	Daemon string `toml:"daemon"`
	// Containerd is the containerd that Daemon uses.
	Containerd string `toml:"containerd"`
	Compose    string `toml:"compose"` // docker-compose, version 2 or later
	Sock       string `toml:"sock"`    // unix socket of the engine
	Project    string `toml:"project"`
}

// Default is the configuration of a guest image.
func Default() Config {
	return Config{
		SharedDir: guestapi.SharedDir, RunDir: guestapi.RunDir,
		WorkDir: "/dstack", DataDir: guestapi.DataDir, EventDir: "/run/log/dstack",
		DstackSock: guestapi.DstackSock, TappdSock: guestapi.TappdSock,
		GuestSock: guestapi.GuestSock, HostSock: guestapi.HostSock, TEESock: guestapi.TEESock,
		ExternalAddr: ":8090", WireGuardListen: "0.0.0.0:9182", Init: true,
		Docker:      DockerConfig{Daemon: "dockerd", Containerd: "containerd", Compose: "docker-compose", Sock: "/var/run/docker.sock", Project: "dstack"},
		TimeServers: []string{"time.cloudflare.com", "nts.netnod.se", "ptbtime1.ptb.de"},
		KeysTimeout: config.Duration(time.Minute), StopTimeout: config.Duration(20 * time.Second),
	}
}

// Under is a configuration for the host: every path below dir, no TCP listener, no
// PID 1 duties, no host notifications. The shared files are in dir/shared, the
// simulated TEE at dir/tee.sock, dstack.sock at dir/dstack.sock.
func Under(dir string) Config {
	c := Default()
	c.SharedDir, c.RunDir = filepath.Join(dir, "shared"), dir
	c.WorkDir, c.DataDir, c.EventDir = filepath.Join(dir, "work"), filepath.Join(dir, "data"), filepath.Join(dir, "events")
	c.DstackSock, c.TappdSock = filepath.Join(dir, "dstack.sock"), filepath.Join(dir, "tappd.sock")
	c.GuestSock, c.HostSock, c.TEESock = filepath.Join(dir, "guest.sock"), "", filepath.Join(dir, "tee.sock")
	c.ExternalAddr, c.Init = "", false
	c.WireGuardListen, c.ForwardHost = "127.0.0.1:0", "127.0.0.1"
	c.Docker.Daemon = ""
	return c
}

// Validate returns all problems at once.
func (c *Config) Validate() error {
	var errs []error
	for _, p := range []struct{ key, val string }{
		{"shared_dir", c.SharedDir}, {"work_dir", c.WorkDir}, {"data_dir", c.DataDir},
		{"event_dir", c.EventDir}, {"dstack_sock", c.DstackSock},
	} {
		if !filepath.IsAbs(p.val) {
			errs = append(errs, errors.New(p.key+": want an absolute path"))
		}
	}
	if _, err := netip.ParseAddrPort(c.WireGuardListen); err != nil {
		errs = append(errs, errors.New("wireguard_listen: want address:port"))
	}
	if err := vm.ValidServers(c.TimeServers); err != nil {
		errs = append(errs, fmt.Errorf("time_servers: %w", err))
	}
	if c.Docker.Daemon != "" && c.Docker.Containerd == "" {
		errs = append(errs, errors.New("docker.containerd: needed with docker.daemon"))
	}
	if c.KeysTimeout <= 0 {
		errs = append(errs, errors.New("keys_timeout: want a positive duration"))
	}
	if c.StopTimeout <= 0 {
		errs = append(errs, errors.New("stop_timeout: want a positive duration"))
	}
	return errors.Join(errs...)
}
