// Package appcompose reads and writes app-compose.json, the measured description
// of an app. The exact bytes are the identity: they are kept as given, never
// re-encoded, and their sha256 is the compose hash.
package appcompose

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// MaxSize bounds an app-compose document, in bytes (the reference's limit is 50 MB;
// real ones are a few kB).
const MaxSize = 4 << 20

// Document is a parsed app-compose.json together with its exact bytes.
// Field names and defaults follow the reference (app-compose.json of dstack 0.6).
type Document struct {
	raw []byte

	ManifestVersion         Version      `json:"manifest_version"`
	Name                    string       `json:"name"`
	Runner                  string       `json:"runner"`
	DockerComposeFile       string       `json:"docker_compose_file,omitempty"`
	BashScript              string       `json:"bash_script,omitempty"`
	PreLaunchScript         string       `json:"pre_launch_script,omitempty"`
	InitScript              Scripts      `json:"init_script,omitempty"`
	PublicLogs              bool         `json:"public_logs"`
	PublicSysinfo           bool         `json:"public_sysinfo"`
	PublicTCBInfo           *bool        `json:"public_tcbinfo,omitempty"`
	KMSEnabled              bool         `json:"kms_enabled"`
	GatewayEnabled          bool         `json:"gateway_enabled"`
	TproxyEnabled           bool         `json:"tproxy_enabled,omitempty"` // old name of gateway_enabled
	LocalKeyProviderEnabled bool         `json:"local_key_provider_enabled"`
	KeyProvider             string       `json:"key_provider,omitempty"`    // none, kms, local, tpm
	KeyProviderID           string       `json:"key_provider_id,omitempty"` // hex DER SPKI of the KMS root CA
	AllowedEnvs             []string     `json:"allowed_envs"`
	EnvSigners              []string     `json:"env_signers,omitempty"` // ours (T11): 0x-addresses that may sign the environment
	NoInstanceID            bool         `json:"no_instance_id"`
	SecureTime              *bool        `json:"secure_time,omitempty"`
	StorageFS               string       `json:"storage_fs,omitempty"`
	SwapSize                any          `json:"swap_size,omitempty"`
	EventLogVersion         int          `json:"event_log_version,omitempty"`
	PortPolicy              *PortPolicy  `json:"port_policy,omitempty"`
	Requirements            *Requirement `json:"requirements,omitempty"`
	OnStale                 string       `json:"on_stale,omitempty"` // ours (T5): "" = stop, "serve(<duration>)"

	SocketPolicy *SocketPolicy `json:"socket_policy,omitempty"` // ours: which service may ask dstack.sock for what

	Features        []string        `json:"features,omitempty"` // deprecated, still sent by SDKs
	Snapshotter     string          `json:"snapshotter,omitempty"`
	VerityVolumes   json.RawMessage `json:"verity_volumes,omitempty"`
	DockerConfig    json.RawMessage `json:"docker_config,omitempty"` // removed upstream, still accepted
	Salt            string          `json:"salt,omitempty"`
	GPUPolicyLegacy json.RawMessage `json:"gpu_policy,omitempty"`

	// Unknown lists top-level keys this package does not know. Manifests 1 and 2
	// may carry them (existing SDKs send some); manifest 3 may not.
	Unknown []string `json:"-"`
}

// PortPolicy says what the gateway may do with the app's ports.
type PortPolicy struct {
	Ports        []Port `json:"ports"`
	RestrictMode bool   `json:"restrict_mode"` // only the listed ports are reachable
}

// Port is one port of a policy. PP sends a PROXY protocol header; Proto is ours:
// "" (http/1.1 and raw TCP), "h2" (HTTP/2 is offered to clients).
type Port struct {
	Port  int    `json:"port"`
	PP    bool   `json:"pp"`
	Proto string `json:"proto,omitempty"`
}

// Requirement is what the app asks of its platform (manifest 3).
type Requirement struct {
	OSVersion            string          `json:"os_version,omitempty"`
	Platforms            []string        `json:"platforms,omitempty"`
	TDXMeasureACPITables *bool           `json:"tdx_measure_acpi_tables,omitempty"`
	LaunchTokenHash      string          `json:"launch_token_hash,omitempty"`
	GPUPolicy            json.RawMessage `json:"gpu_policy,omitempty"`
}

// Version is manifest_version: the numbers 1 and 2, or the strings "1", "2", "3".
type Version int

// UnmarshalJSON takes the canonical forms only: 3 as a number, "03", "+3" are errors.
func (v *Version) UnmarshalJSON(b []byte) error {
	s := string(b)
	switch s {
	case "1", "2":
		*v = Version(s[0] - '0')
		return nil
	case `"1"`, `"2"`, `"3"`:
		*v = Version(s[1] - '0')
		return nil
	}
	return cvm.Errorf(cvm.Invalid, "manifest_version: want 1, 2 or \"3\", got %s", s)
}

// MarshalJSON writes 1 and 2 as numbers and 3 as a string.
func (v Version) MarshalJSON() ([]byte, error) {
	if v >= 3 {
		return []byte(strconv.Quote(strconv.Itoa(int(v)))), nil
	}
	return []byte(strconv.Itoa(int(v))), nil
}

// Scripts is init_script: one string or up to five.
type Scripts []string

// UnmarshalJSON takes a string or an array of at most five.
func (s *Scripts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*s = Scripts{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil || len(many) > 5 {
		return cvm.Errorf(cvm.Invalid, "init_script: want a string or at most five strings")
	}
	*s = many
	return nil
}

// Runners and key providers as the reference names them.
const (
	RunnerDockerCompose = "docker-compose"
	RunnerNerdctl       = "nerdctl-compose"
	RunnerBash          = "bash"
	RunnerNone          = "none" // ours: a service that boots the guest's stages itself (the gateway)

	ProviderNone  = "none"
	ProviderKMS   = "kms"
	ProviderLocal = "local"
	ProviderTPM   = "tpm"
)

// EnvName is what an environment variable may be called.
var EnvName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// Parse reads a document strictly: valid JSON, no duplicate or case-variant
// keys, known values, canonical version. The bytes are kept.
func Parse(b []byte) (*Document, error) {
	if len(b) > MaxSize {
		return nil, cvm.Errorf(cvm.Invalid, "app-compose: %d bytes, the limit is %d", len(b), MaxSize)
	}
	keys, err := topLevelKeys(b)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "app-compose: %w", err)
	}
	d := &Document{raw: bytes.Clone(b)}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "app-compose: %w", err)
	}
	for _, k := range keys {
		if !known[k] {
			d.Unknown = append(d.Unknown, k)
		}
	}
	if err := d.validate(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Document) validate() error {
	bad := func(format string, args ...any) error {
		return cvm.Errorf(cvm.Invalid, "app-compose: "+format, args...)
	}
	if d.ManifestVersion == 0 {
		return bad("manifest_version is missing")
	}
	if d.ManifestVersion >= 3 && len(d.Unknown) > 0 {
		return bad("unknown keys %s (manifest 3 allows none)", strings.Join(d.Unknown, ", "))
	}
	switch d.Runner {
	case RunnerDockerCompose, RunnerNerdctl, RunnerBash, RunnerNone:
	default:
		return bad("runner: %q is not one of docker-compose, nerdctl-compose, bash", d.Runner)
	}
	switch d.KeyProvider {
	case "", ProviderNone, ProviderKMS, ProviderLocal, ProviderTPM:
	default:
		return bad("key_provider: %q is not one of none, kms, local, tpm", d.KeyProvider)
	}
	if d.EventLogVersion < 0 || d.EventLogVersion > 2 {
		return bad("event_log_version: %d is not 1 or 2", d.EventLogVersion)
	}
	if d.Requirements != nil && d.ManifestVersion < 3 {
		return bad("requirements needs manifest_version \"3\"")
	}
	for _, e := range d.AllowedEnvs {
		if !EnvName.MatchString(e) {
			return bad("allowed_envs: %q is not a variable name", e)
		}
	}
	if d.PortPolicy != nil {
		for _, p := range d.PortPolicy.Ports {
			if p.Port < 1 || p.Port > 65535 {
				return bad("port_policy: port %d is outside 1..65535", p.Port)
			}
		}
	}
	if d.SocketPolicy != nil {
		return d.SocketPolicy.validate()
	}
	return nil
}

// Raw returns the exact bytes that were parsed. Do not change them.
func (d *Document) Raw() []byte { return d.raw }

// Hash is sha256 over the exact bytes.
func (d *Document) Hash() cvm.ComposeHash { return sha256.Sum256(d.raw) }

// Provider resolves key_provider and its two deprecated booleans.
func (d *Document) Provider() string {
	switch {
	case d.KeyProvider != "":
		return d.KeyProvider
	case d.KMSEnabled:
		return ProviderKMS
	case d.LocalKeyProviderEnabled:
		return ProviderLocal
	}
	return ProviderNone
}

// WantsGateway reports whether the app joins the gateway.
func (d *Document) WantsGateway() bool { return d.GatewayEnabled || d.TproxyEnabled }

// TCBInfoPublic is public_tcbinfo with its default, true.
func (d *Document) TCBInfoPublic() bool { return d.PublicTCBInfo == nil || *d.PublicTCBInfo }

// GPUPolicyHash is the payload of the gpu-policy-hash event: sha256 over the
// canonical JSON of requirements.gpu_policy, or of {}.
func (d *Document) GPUPolicyHash() ([32]byte, error) {
	raw := []byte("{}")
	if d.Requirements != nil && len(d.Requirements.GPUPolicy) > 0 {
		raw = d.Requirements.GPUPolicy
	}
	c, err := Canonical(raw)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(c), nil
}

// Encode writes a new document: compact JSON with sorted keys, as the reference's
// SDKs do, so that hash(Encode(d)) is what getComposeHash gives for the same object.
func Encode(d *Document) ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return Canonical(b)
}
