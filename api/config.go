package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/attest/fetch"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/sqldb"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// Config is the API's configuration file.
type Config struct {
	// Listen is the address of the public API.
	Listen string `toml:"listen"`
	// Dir holds the database (api.db), unless DatabaseURL names another.
	Dir string `toml:"dir"`
	// DatabaseURL is postgres://user@host/database, for more than one API process. A
	// password in it is refused: DatabasePasswordFile, or PGPASSFILE.
	DatabaseURL          string `toml:"database_url"`
	DatabasePasswordFile string `toml:"database_password_file"`
	// AdminKeyFile receives the first admin key (mode 0600) when the file does not
	// exist yet. Empty: no file; call NewAdminKey.
	AdminKeyFile string `toml:"admin_key_file"`
	// PublicURL is where people reach this API (https://cloud.example.com); "" is what
	// the request says. With https, cookies are for https only.
	PublicURL string `toml:"public_url"`
	// SecretsKeyFile holds the key that seals what must not lie in the database in
	// clear (second factors): 64 hex digits, the same for all API processes on one
	// database. Default secrets.key in Dir, made when missing.
	SecretsKeyFile string `toml:"secrets_key_file"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []string `toml:"trusted_proxies"`
	// SSHKeysURL is where a profile's SSH keys are read, with {username} in it; "" is
	// nowhere.
	SSHKeysURL string `toml:"ssh_keys_url"`
	// OIDC is another provider that people sign in with.
	OIDC OIDCConfig `toml:"oidc"`
	// TrustProfile is the file that GET /trust-profile serves, as it is.
	TrustProfile string `toml:"trust_profile"`
	// Image is the guest image of CVMs that name none; "" is each node's default.
	Image string `toml:"image"`
	// WebhooksAnywhere lets webhooks be plain http and on private addresses: for
	// development, where whoever may make a webhook may reach everything anyway.
	WebhooksAnywhere bool `toml:"webhooks_anywhere"`

	Nodes         []NodeConfig   `toml:"node"`
	KMS           KMSConfig      `toml:"kms"`
	Chain         ChainConfig    `toml:"chain"`
	Gateway       GatewayConfig  `toml:"gateway"`
	Disk          DiskConfig     `toml:"disk"`
	InstanceTypes []InstanceType `toml:"instance_type"`
	// Attestation says how quotes are judged that anybody sends.
	Attestation AttestationConfig `toml:"attestation"`
	// DNSResolver (address:port) is who is asked about people's domains; "" is the
	// first of the system's.
	DNSResolver string        `toml:"dns_resolver"`
	Billing     BillingConfig `toml:"billing"`

	Log *slog.Logger `toml:"-"`
	// Notice receives the admin's one-time password when the admin has none yet; nil:
	// none is made.
	Notice io.Writer `toml:"-" json:"-"`
	// Now overrides the clock.
	Now func() time.Time `toml:"-" json:"-"`
	// Keys overrides the KMS client that is made from KMS.URLs and KMS.RootSPKI.
	Keys KMSClient `toml:"-"`
	// Apps overrides the reader of app contracts that is made from Chain.RPCURL.
	Apps AppReader `toml:"-" json:"-"`
	// Poll and Sync override the jobs' intervals (see jobs.Config).
	Poll time.Duration `toml:"-"`
	Sync time.Duration `toml:"-"`
	// PeerTimeout overrides how long another API process may be silent.
	PeerTimeout time.Duration `toml:"-"`
}

// OIDCConfig is an OpenID Connect provider.
type OIDCConfig struct {
	Issuer           string `toml:"issuer"` // "" is none
	Name             string `toml:"name"`   // what the sign-in page calls it
	ClientID         string `toml:"client_id"`
	ClientSecretFile string `toml:"client_secret_file"`
	// CreateFrom are the domains whose verified addresses get an account when they
	// sign in first; nobody else does, unless linked.
	CreateFrom []string `toml:"create_from"`
}

// KMSClient is what the API asks of the KMS.
type KMSClient interface {
	EnvKey(ctx context.Context, app cvm.AppID) (kmsapi.EnvKey, error)
	Meta(ctx context.Context) (kmsapi.Meta, error)
}

// NodeConfig is one VMM.
type NodeConfig struct {
	URL       string `toml:"url"`        // http://127.0.0.1:8720
	TokenFile string `toml:"token_file"` // the VMM's bearer token
	Region    string `toml:"region"`     // "" takes what the VMM says
	// CAFile holds the CA certificate of a VMM with TLS (PEM); "" is the system's.
	CAFile string `toml:"ca_file"`
}

// KMSConfig is the key management service of this cloud.
type KMSConfig struct {
	ID       string   `toml:"id"`        // what clients call it; default "kms"
	URLs     []string `toml:"urls"`      // of the members, as the API reaches them
	RootSPKI string   `toml:"root_spki"` // hex DER: the pinned identity, and app-compose's key_provider_id
	// GuestURLs are the same members as guests reach them; default URLs.
	GuestURLs []string `toml:"guest_urls"`
}

// ChainConfig is the chain that governs. A zero ID means none: app ids then come
// from the compose hash and the KMS's own allow-list decides.
type ChainConfig struct {
	ID       uint64 `toml:"id"`
	Name     string `toml:"name"` // anvil, base, ethereum, ...
	RPCURL   string `toml:"rpc_url"`
	Contract string `toml:"kms_contract"` // 0x-address of DstackKms
}

// GatewayConfig is where apps are reached.
type GatewayConfig struct {
	Domain string `toml:"domain"` // base domain, for example dev.localhost
	Port   int    `toml:"port"`   // of HTTPS; 443 is left out of URLs
	AppID  string `toml:"app_id"` // of the gateway app, for display
	// GuestURLs are the tunnel APIs as guests reach them.
	GuestURLs []string `toml:"guest_urls"`
}

// DiskConfig bounds disks, in GB.
type DiskConfig struct {
	MinGB     int `toml:"min_gb"`
	DefaultGB int `toml:"default_gb"`
	MaxGB     int `toml:"max_gb"`
}

// InstanceType is a size that CVMs can have.
type InstanceType struct {
	ID          string `toml:"id"`
	Name        string `toml:"name"`
	Description string `toml:"description"`
	Family      string `toml:"family"` // cpu, gpu
	VCPU        int    `toml:"vcpu"`
	MemoryMB    int    `toml:"memory_mb"`
	HourlyRate  string `toml:"hourly_rate"` // decimal, in the cloud's currency
	DiskGB      int    `toml:"default_disk_gb"`
	// GPUs is how many cards of the product GPU a CVM has for itself; they are part of
	// the hourly rate.
	GPUs    int    `toml:"gpus"`
	GPU     string `toml:"gpu"`      // vendor:device, as "10de:2335": what nodes say of their cards
	GPUName string `toml:"gpu_name"` // for people
}

// DefaultConfig is a config with every number filled in, and no node or KMS. The
// sizes and the one published price (tdx.large) are the public cloud's.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:8730",
		Disk:   DiskConfig{MinGB: 20, DefaultGB: 40, MaxGB: 2048},
		KMS:    KMSConfig{ID: "kms"}, Billing: DefaultBilling(),
		Attestation: AttestationConfig{CollateralURLs: []string{fetch.IntelPCS}},
		InstanceTypes: []InstanceType{
			{ID: "tdx.small", Name: "Small TDX", Description: "1 vCPU, 2 GB memory", Family: "cpu", VCPU: 1, MemoryMB: 2048, HourlyRate: "0.058", DiskGB: 20},
			{ID: "tdx.medium", Name: "Medium TDX", Description: "2 vCPU, 4 GB memory", Family: "cpu", VCPU: 2, MemoryMB: 4096, HourlyRate: "0.116", DiskGB: 20},
			{ID: "tdx.large", Name: "Large TDX", Description: "4 vCPU, 8 GB memory", Family: "cpu", VCPU: 4, MemoryMB: 8192, HourlyRate: "0.232", DiskGB: 20},
			{ID: "tdx.xlarge", Name: "Extra large TDX", Description: "8 vCPU, 16 GB memory", Family: "cpu", VCPU: 8, MemoryMB: 16384, HourlyRate: "0.464", DiskGB: 20},
		},
	}
}

// Validate returns all problems.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.Listen == "" {
		bad("listen is missing")
	}
	if c.Dir == "" {
		bad("dir is missing")
	}
	seen := map[string]bool{}
	for i, n := range c.Nodes {
		if u, err := url.Parse(n.URL); err != nil || u.Host == "" {
			bad("node[%d].url: %q is not a URL", i, n.URL)
		}
		if n.TokenFile == "" {
			bad("node[%d].token_file is missing", i)
		}
		if seen[n.URL] {
			bad("node[%d].url: %s appears twice", i, n.URL)
		}
		seen[n.URL] = true
	}
	if len(c.KMS.URLs) == 0 && c.Keys == nil {
		bad("kms.urls is empty")
	}
	if _, err := hex.DecodeString(c.KMS.RootSPKI); err != nil || c.KMS.RootSPKI == "" {
		bad("kms.root_spki: want the hex DER of the KMS root key (apps pin it)")
	}
	if c.Chain.ID > math.MaxInt32 || (c.Chain.ID == 0) != (c.Chain.Contract == "") {
		bad("chain: id and kms_contract go together")
	}
	if c.Gateway.Domain == "" {
		bad("gateway.domain is missing")
	}
	if c.Disk.MinGB < 1 || c.Disk.DefaultGB < c.Disk.MinGB || c.Disk.MaxGB < c.Disk.DefaultGB {
		bad("disk: want 1 <= min_gb <= default_gb <= max_gb")
	}
	errs = append(errs, c.validateTypes()...)
	errs = append(errs, c.validateAccounts()...)
	errs = append(errs, c.Attestation.validate()...)
	if _, err := netip.ParseAddrPort(c.DNSResolver); c.DNSResolver != "" && err != nil {
		bad("dns_resolver: %q is not address:port", c.DNSResolver)
	}
	errs = append(errs, c.validateBilling()...)
	if c.Log == nil {
		bad("no logger")
	}
	return errors.Join(errs...)
}

func (c Config) validateAccounts() (errs []error) {
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "") {
		bad("public_url: %q is not https://host", c.PublicURL)
	}
	for i, p := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(p); err != nil {
			bad("trusted_proxies[%d]: %q is not a network (192.0.2.0/24)", i, p)
		}
	}
	if u, err := url.Parse(c.SSHKeysURL); c.SSHKeysURL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || !strings.Contains(c.SSHKeysURL, "{username}")) {
		bad("ssh_keys_url: %q is not a URL with {username} in it", c.SSHKeysURL)
	}
	if o := c.OIDC; o.Issuer != "" && (o.ClientID == "" || c.PublicURL == "") {
		bad("oidc: client_id and public_url are needed")
	}
	return errs
}

// gpuForm is a product as nodes write it.
var gpuForm = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{4}$`)

func (c Config) validateTypes() (errs []error) {
	seen := map[string]bool{}
	for i, t := range c.InstanceTypes {
		if t.ID == "" || t.VCPU < 1 || t.MemoryMB < 1 || t.Family == "" || t.HourlyRate == "" {
			errs = append(errs, fmt.Errorf("instance_type[%d]: id, family, vcpu, memory_mb and hourly_rate are needed", i))
		}
		if has := t.GPUs != 0; t.GPUs < 0 || t.GPUs > 64 || has && !gpuForm.MatchString(t.GPU) || !has && t.GPU != "" || has != (t.Family == "gpu") {
			errs = append(errs, fmt.Errorf("instance_type[%d]: want family \"gpu\", gpus (1 to 64) and gpu (vendor:device in lower-case hex, like 10de:2335) together, or none of them", i))
		}
		if seen[t.ID] {
			errs = append(errs, fmt.Errorf("instance_type[%d]: %q appears twice", i, t.ID))
		}
		seen[t.ID] = true
	}
	if len(c.InstanceTypes) == 0 {
		errs = append(errs, errors.New("no instance_type"))
	}
	return errs
}

// Database says where the database is.
func (c Config) Database() sqldb.Source {
	if c.DatabaseURL != "" {
		return sqldb.Source{URL: c.DatabaseURL, PasswordFile: c.DatabasePasswordFile}
	}
	return sqldb.Source{Path: filepath.Join(c.Dir, "api.db")}
}

func (c Config) instanceType(id string) (InstanceType, bool) {
	for _, t := range c.InstanceTypes {
		if t.ID == id {
			return t, true
		}
	}
	return InstanceType{}, false
}

func (c Config) guestKMS() []string {
	if len(c.KMS.GuestURLs) > 0 {
		return c.KMS.GuestURLs
	}
	return c.KMS.URLs
}

// baseDomain is the gateway's domain with its port, as clients want it.
func (c Config) baseDomain() string {
	if c.Gateway.Port == 0 || c.Gateway.Port == 443 {
		return c.Gateway.Domain
	}
	return fmt.Sprintf("%s:%d", c.Gateway.Domain, c.Gateway.Port)
}

// kms is the public description of the KMS.
func (c Config) kms() cloudapi.KMS {
	k := cloudapi.KMS{ID: c.KMS.ID, Slug: ptr(c.KMS.ID), Version: "1"}
	if len(c.KMS.URLs) > 0 {
		k.URL = c.KMS.URLs[0]
	}
	if c.Chain.ID != 0 {
		k.ChainID, k.KMSContractAddress = ptr(c.Chain.ID), ptr(c.Chain.Contract)
	}
	k.GatewayAppID = opt(c.Gateway.AppID)
	return k
}

// kmsType is the word clients use for the kind of KMS.
func (c Config) kmsType() string {
	switch c.Chain.ID {
	case 0:
		return "phala"
	case 1:
		return "ethereum"
	}
	return "base" // the clients know no other chain
}

// isKMS tells whether a client's word means this cloud's KMS.
func (c Config) isKMS(word string) bool {
	switch w := strings.ToLower(word); w {
	case "", strings.ToLower(c.KMS.ID), c.kmsType(), strings.ToLower(c.Chain.Name), "phala", "eth", "ethereum", "base":
		return true
	}
	return false
}

func ptr[T any](v T) *T { return &v }

// opt is nil for the zero value: present and null on the wire.
func opt[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
