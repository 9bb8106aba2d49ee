package vmm

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/config"
	"github.com/confidential-cloud/phala/vmm/confine"
	"github.com/confidential-cloud/phala/vmm/container"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
	"github.com/confidential-cloud/phala/vmm/netplane"
	"github.com/confidential-cloud/phala/vmm/pci"
	"github.com/confidential-cloud/phala/vmm/qemu"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Config of a VMM, one TOML file.
type Config struct {
	// Listen is the API's address. Without TLS it must be loopback: a token would cross
	// the network in clear.
	Listen string `toml:"listen"`
	// TokenFile holds the bearer token; made with mode 0600 when missing.
	TokenFile string `toml:"token_file"`
	// Tokens is a file, or a directory of files, of mode 0600 with more tokens: lines
	// "read NAME TOKEN" or "operate NAME TOKEN". "" is none.
	Tokens string `toml:"tokens"`
	TLS    TLS    `toml:"tls"`
	// KMS and Gateway are what the reference's API answers with and defaults to.
	KMS     KMS     `toml:"kms"`
	Gateway Gateway `toml:"gateway"`
	// Dir holds the records of the VMs and the files shared with them.
	Dir string `toml:"dir"`
	// RunDir holds the sockets, one short directory per VM. Unix socket paths are at
	// most 107 bytes, so keep it under 80.
	RunDir string `toml:"run_dir"`
	// ImagesDir holds one directory per guest image.
	ImagesDir string `toml:"images_dir"`
	// DefaultImage is used by specs that name none; "" is the only image there is.
	DefaultImage string `toml:"default_image"`
	// Driver runs the machines: "qemu" (virtual machines), "container", or "dry" (no
	// machines; for API tests).
	Driver string `toml:"driver"`
	// QEMU is for driver "qemu".
	QEMU qemu.Options `toml:"qemu"`

	DockerHost string            `toml:"docker_host"` // "" is the default socket
	Network    container.Network `toml:"network"`
	TEESocket  string            `toml:"tee_socket"` // control socket of the simulated TEE hardware
	// Simulate is the kind of TEE that the container driver's guests get: "tdx" (also when
	// "") or "snp". Machines of QEMU have the host's own.
	Simulate string `toml:"simulate,omitempty"`

	// DockerRegistry is a mirror of docker.io for guests, "http://ip:port" or
	// https; InsecureRegistries are "ip:port" of private addresses.
	DockerRegistry     string   `toml:"docker_registry"`
	InsecureRegistries []string `toml:"insecure_registries"`
	PCCSURL            string   `toml:"pccs_url"`
	// AMDKDSURL is AMD's key distribution service or a cache of it, for SEV-SNP guests
	// whose host offers no certificates with its reports.
	AMDKDSURL string `toml:"amd_kds_url,omitempty"`
	// ImageRegistry says which guest images may be pulled.
	ImageRegistry ImageRegistry `toml:"image_registry"`

	Logs Logs `toml:"logs"`

	Node   Node   `toml:"node"`
	Limits Limits `toml:"limits"`
	// Capacity that VMs may hold together; 0 means derived from the machine:
	// its cores (see OverCommit), 80 % of its memory, 80 % of the free disk below Dir at start.
	Capacity Capacity `toml:"capacity"`

	// OverCommit is how many virtual CPUs stand for one core where capacity.vcpu is not
	// set; 0 is 1: none. Memory and disk are never promised twice.
	OverCommit float64 `toml:"over_commit"`

	Ports    Ports           `toml:"ports"`
	Networks netplane.Config `toml:"networks"`
	GPUs     pci.Selection   `toml:"gpus"`
	Confine  confine.Config  `toml:"confine"`
	// HugepageKiB is the size of the huge pages that /dev/hugepages gives.
	HugepageKiB int `toml:"hugepage_kib"`
	// VolumesDir holds the files that specs, or the verity_volumes of apps, name.
	VolumesDir string `toml:"volumes_dir"`

	// StopGrace is how long a guest may take to stop its containers
	// (guestapi.StopWithin); then it is killed.
	StopGrace config.Duration `toml:"stop_grace"`
	// BackOff before the first try after a crash; it doubles up to BackOffMax.
	BackOff    config.Duration `toml:"back_off"`
	BackOffMax config.Duration `toml:"back_off_max"`
	// PrepareWithin bounds how long a running guest may pull for an update.
	PrepareWithin config.Duration `toml:"prepare_within"`
	// UpdateWithin bounds how long a new version may take until it is ready, if the
	// update says nothing else; then the old one comes back.
	UpdateWithin config.Duration `toml:"update_within"`
	// StopOnExit stops the machines when Run ends (their wanted state stays, so the
	// next start brings them back). Otherwise they run on and are adopted again.
	StopOnExit bool `toml:"stop_on_exit"`

	Log *slog.Logger `toml:"-"`
	// Machines overrides Driver with a ready one (tests, an in-process TEE).
	Machines machine.Driver `toml:"-"`
	// Sysfs is where the host shows its devices; another place is for tests.
	Sysfs string `toml:"-"`
	// Wrap puts something around the driver (tests of hosts that cheat).
	Wrap func(machine.Driver) machine.Driver `toml:"-"`
}

// Kinds of TEE that the container driver simulates.
const (
	SimulateTDX = "tdx"
	SimulateSNP = "snp"
)

// Logs bounds what is kept of each channel of a machine's output.
type Logs struct {
	MaxBytes int `toml:"max_bytes"` // of the present file; default 4 MiB
	Keep     int `toml:"keep"`      // older files of that size; default 3
}

// Node says which host this is.
type Node struct {
	ID     string `toml:"id"` // default: the name
	Name   string `toml:"name"`
	Region string `toml:"region"`
}

// Capacity in virtual CPUs and MiB.
type Capacity struct {
	VCPU      int `toml:"vcpu"`
	MemoryMiB int `toml:"memory_mib"`
	DiskMiB   int `toml:"disk_mib"`
}

// Limits of one VM.
type Limits struct {
	MinMemoryMiB int `toml:"min_memory_mib"`
	MinDiskMiB   int `toml:"min_disk_mib"`
	MaxVMs       int `toml:"max_vms"`
}

// Default is a development node; Dir, RunDir, ImagesDir, TokenFile and TEESocket
// still have to be set.
func Default() Config {
	return Config{
		Listen: "127.0.0.1:8720", Driver: "container", Network: container.DefaultNetwork(), QEMU: qemu.DefaultOptions(),
		Node:      Node{Name: "local", Region: "local"},
		Limits:    Limits{MinMemoryMiB: 256, MinDiskMiB: 1024, MaxVMs: 1000},
		StopGrace: config.Duration(guestapi.StopWithin), BackOff: config.Duration(3 * time.Second), BackOffMax: config.Duration(5 * time.Minute),
		PrepareWithin: config.Duration(30 * time.Minute), UpdateWithin: config.Duration(10 * time.Minute),
		Networks: netplane.Default(), Confine: confine.Default(), HugepageKiB: 2048, Sysfs: "/sys",
	}
}

// Validate returns all problems at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, format, args...)) }
	if host, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		bad("listen %q: want host:port", c.Listen)
	} else if ip, err := netip.ParseAddr(host); c.TLS.CertFile == "" && host != "localhost" && (err != nil || !ip.IsLoopback()) {
		bad("listen %s: not loopback; without [tls] the token would cross the network in clear", c.Listen)
	}
	for _, p := range [][2]string{{"token_file", c.TokenFile}, {"dir", c.Dir}, {"run_dir", c.RunDir}, {"images_dir", c.ImagesDir}} {
		if p[1] == "" || !filepath.IsAbs(p[1]) {
			bad("%s %q: want an absolute path", p[0], p[1])
		}
	}
	if len(c.RunDir) > 80 {
		bad("run_dir %s: %d bytes; unix socket paths below it must fit into 107, so at most 80", c.RunDir, len(c.RunDir))
	}
	if c.DefaultImage != "" && !image.ValidName(c.DefaultImage) {
		bad("default_image %q: not an image name", c.DefaultImage)
	}
	switch c.Driver {
	case "container":
		if c.TEESocket == "" && c.Machines == nil {
			bad("tee_socket: needed by the container driver")
		}
	case "qemu":
		errs = append(errs, c.QEMU.Validate())
		if c.QEMU.AllowSimulated && c.TEESocket == "" && c.Machines == nil {
			bad("tee_socket: needed when qemu.allow_simulated")
		}
	case "dry":
	default:
		bad("driver %q: want qemu, container or dry", c.Driver)
	}
	switch {
	case c.Simulate != "" && c.Simulate != SimulateTDX && c.Simulate != SimulateSNP:
		bad("simulate %q: want %s or %s", c.Simulate, SimulateTDX, SimulateSNP)
	case c.Simulate == SimulateSNP && c.Driver != "container":
		bad("simulate %s: only the container driver simulates it; driver %s attests with the host's own hardware", c.Simulate, c.Driver)
	}
	errs = append(errs, c.validateRegistries()...)
	errs = append(errs, c.validateHost()...)
	errs = append(errs, c.ImageRegistry.validate()...)
	errs = append(errs, c.TLS.validate()...)
	errs = append(errs, c.KMS.validate()...)
	errs = append(errs, checkURLs("gateway.urls", c.Gateway.URLs))
	if c.AMDKDSURL != "" {
		if u, err := url.Parse(c.AMDKDSURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			bad("amd_kds_url %q: want https://host", c.AMDKDSURL)
		}
	}
	if c.StopGrace <= 0 || c.BackOff <= 0 || c.BackOffMax < c.BackOff {
		bad("stop_grace and back_off must be positive, back_off_max not below back_off")
	}
	if c.Logs.MaxBytes < 0 || c.Logs.Keep < 0 || c.Logs.MaxBytes > 1<<30 || c.Logs.Keep > 1000 {
		bad("logs: max_bytes %d, keep %d: out of range", c.Logs.MaxBytes, c.Logs.Keep)
	}
	if c.PrepareWithin <= 0 || c.UpdateWithin <= 0 {
		bad("prepare_within and update_within must be positive")
	}
	if c.Capacity.VCPU < 0 || c.Capacity.MemoryMiB < 0 || c.Capacity.DiskMiB < 0 {
		bad("capacity: negative")
	}
	if c.Limits.MinMemoryMiB < 1 || c.Limits.MinDiskMiB < 1 || c.Limits.MaxVMs < 1 {
		bad("limits: must be positive")
	}
	if c.Node.Name == "" {
		bad("node.name: empty")
	}
	return errors.Join(errs...)
}

func (c *Config) validateRegistries() (errs []error) {
	if c.DockerRegistry != "" {
		if u, err := url.Parse(c.DockerRegistry); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.Path != "" || u.User != nil {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "docker_registry %q: want http://ip:port or https://host", c.DockerRegistry))
		} else if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.IsPrivate()) {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "docker_registry %s: plain http only to a private IP address", c.DockerRegistry))
		}
	}
	for _, r := range c.InsecureRegistries {
		if ap, err := netip.ParseAddrPort(r); err != nil || !ap.Addr().IsPrivate() {
			errs = append(errs, cvm.Errorf(cvm.Invalid, "insecure_registries %q: want ip:port of a private address", r))
		}
	}
	return errs
}

// capacity fills what the configuration leaves open from the machine.
func (c *Config) capacity() vmmapi.Resources {
	r := vmmapi.Resources{VCPU: c.Capacity.VCPU, MemoryMiB: c.Capacity.MemoryMiB, DiskMiB: c.Capacity.DiskMiB}
	if r.VCPU == 0 {
		r.VCPU = int(float64(runtime.NumCPU()) * max(c.OverCommit, 1))
	}
	if r.MemoryMiB == 0 {
		r.MemoryMiB = totalMemoryMiB() * 8 / 10
	}
	if r.DiskMiB == 0 {
		var st unix.Statfs_t
		if unix.Statfs(c.Dir, &st) == nil {
			r.DiskMiB = int(st.Bavail * uint64(st.Bsize) >> 20 * 8 / 10)
		}
	}
	return r
}

func totalMemoryMiB() int {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kb, _ := strconv.Atoi(f[1])
			return kb >> 10
		}
	}
	return 0
}
