package gateway

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/certs"
	"github.com/confidential-cloud/phala/gateway/routes"
	"github.com/confidential-cloud/phala/internal/config"
)

// Config of a gateway; the TOML file of cmd/phala-gateway has the same keys.
type Config struct {
	// Domain is the base domain: apps are <app id>.<domain>. Lower case.
	Domain string `toml:"domain"`
	// Listen is the TLS address for clients.
	Listen string `toml:"listen"`
	// ExternalPort is the port that clients see, when it differs from Listen's.
	ExternalPort int `toml:"external_port"`
	// DstackSock is the gateway's own guest agent.
	DstackSock string `toml:"dstack_sock"`
	// StateDir holds the encrypted certificate store.
	StateDir string `toml:"state_dir"`

	Tunnel Tunnel `toml:"tunnel"`
	Admin  Admin  `toml:"admin"`
	Certs  Certs  `toml:"certs"`
	Limits Limits `toml:"limits"`

	// Log and Store are set by the program. Store nil: in memory.
	Log   *slog.Logger `toml:"-"`
	Store routes.Store `toml:"-"`
}

// Tunnel is the guests' side.
type Tunnel struct {
	// API is the HTTPS address for registrations.
	API string `toml:"api"`
	// WireGuard is the UDP address that is bound, and no other.
	WireGuard string `toml:"wireguard"`
	// Endpoint is what guests send to, when it differs from WireGuard.
	Endpoint string `toml:"endpoint"`
	// Network is the tunnel's IPv4 range; the gateway has its first address.
	Network string `toml:"network"`
	// MTU of the tunnel, bytes.
	MTU int `toml:"mtu"`
	// RegistrationsPerSecond bounds each source address; RegistrationBurst at once.
	RegistrationsPerSecond float64 `toml:"registrations_per_second"`
	RegistrationBurst      int     `toml:"registration_burst"`
}

// Admin is the operator's listener: /healthz open, /metrics and /routes with the token.
type Admin struct {
	// Listen address; empty for none.
	Listen string `toml:"listen"`
	// TokenFile holds the bearer token. Without one only /healthz answers.
	TokenFile string `toml:"token_file"`
}

// Certs says who issues.
type Certs struct {
	// Issuer is "file-ca" or "acme".
	Issuer string `toml:"issuer"`
	// CACert and CAKey are the local CA's PEM files (see certs.EnsureCA).
	CACert string     `toml:"ca_cert"`
	CAKey  string     `toml:"ca_key"`
	ACME   certs.ACME `toml:"acme"`
}

// Limits bound what strangers can hold. Durations are Go's ("90s", "10m").
type Limits struct {
	// Connections open at once, in all and per app.
	Connections       int `toml:"connections"`
	ConnectionsPerApp int `toml:"connections_per_app"`
	// Handshake is the time to the end of the TLS handshake.
	Handshake config.Duration `toml:"handshake"`
	// Connect is the time for one instance to accept.
	Connect config.Duration `toml:"connect"`
	// Idle ends a stream that moves nothing. There is no limit on a stream's length.
	Idle config.Duration `toml:"idle"`
	// Drain is the time that streams get when the gateway stops.
	Drain config.Duration `toml:"drain"`
}

// Default is the configuration that a file starts from. Domain, StateDir,
// DstackSock, the tunnel's addresses and the certificates have no default.
func Default() Config {
	return Config{
		Listen: "127.0.0.1:8443",
		Tunnel: Tunnel{Network: "10.88.0.0/16", MTU: 1420, RegistrationsPerSecond: 5, RegistrationBurst: 50},
		Admin:  Admin{Listen: "127.0.0.1:8742"},
		Certs:  Certs{Issuer: certs.IssuerFileCA},
		Limits: Limits{
			Connections: 20000, ConnectionsPerApp: 2000,
			Handshake: config.Duration(10 * time.Second), Connect: config.Duration(5 * time.Second),
			Idle: config.Duration(10 * time.Minute), Drain: config.Duration(5 * time.Second),
		},
	}
}

// Validate returns all problems at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(f string, a ...any) { errs = append(errs, cvm.Errorf(cvm.Invalid, f, a...)) }
	if c.Domain == "" || c.Domain != strings.ToLower(c.Domain) || strings.Trim(c.Domain, ".") != c.Domain || strings.ContainsAny(c.Domain, " /:*") {
		bad("domain %q: want a lower-case base domain such as dev.localhost", c.Domain)
	}
	if c.DstackSock == "" {
		bad("dstack_sock is missing: the gateway gets its identity and keys from its guest agent")
	}
	if c.StateDir == "" {
		bad("state_dir is missing")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen %q: want host:port", c.Listen)
	}
	if _, _, err := net.SplitHostPort(c.Tunnel.API); err != nil {
		bad("tunnel.api %q: want host:port", c.Tunnel.API)
	}
	if _, err := netip.ParseAddrPort(c.Tunnel.WireGuard); err != nil {
		bad("tunnel.wireguard %q: want ip:port", c.Tunnel.WireGuard)
	}
	if p, err := netip.ParsePrefix(c.Tunnel.Network); err != nil || !p.Addr().Is4() {
		bad("tunnel.network %q: want an IPv4 prefix such as 10.88.0.0/16", c.Tunnel.Network)
	}
	if c.Tunnel.MTU < 1280 || c.Tunnel.MTU > 9000 {
		bad("tunnel.mtu %d is outside 1280..9000", c.Tunnel.MTU)
	}
	if c.Tunnel.RegistrationsPerSecond <= 0 || c.Tunnel.RegistrationBurst <= 0 {
		bad("tunnel.registrations_per_second and registration_burst must be above 0")
	}
	switch c.Certs.Issuer {
	case certs.IssuerFileCA:
		if c.Certs.CACert == "" || c.Certs.CAKey == "" {
			bad("certs.ca_cert and certs.ca_key are missing (issuer file-ca)")
		}
	case certs.IssuerACME:
		if err := c.Certs.ACME.Validate(); err != nil {
			errs = append(errs, err)
		}
	default:
		bad("certs.issuer %q is not file-ca or acme", c.Certs.Issuer)
	}
	l := c.Limits
	if l.Connections <= 0 || l.ConnectionsPerApp <= 0 || l.Handshake <= 0 || l.Connect <= 0 || l.Idle <= 0 || l.Drain < 0 {
		bad("limits: all must be above 0 (drain may be 0)")
	}
	return errors.Join(errs...)
}
