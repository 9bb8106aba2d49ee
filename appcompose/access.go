package appcompose

import (
	"encoding/hex"
	"encoding/json"
	"path"
	"regexp"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Defaults of a socket policy: what services that it does not name get.
const (
	SocketsReference = "reference" // all of dstack.sock, as without a policy
	SocketsNone      = "none"      // a socket that refuses
)

// Bounds of a socket policy: each service costs two sockets and a row of counters
// per rule.
const (
	maxSocketServices = 64
	maxSocketRules    = 32
	maxSocketRule     = 256 // bytes
)

// SocketPolicy is ours: which service of the compose file may ask dstack.sock for
// what. Without one every service may ask for everything, as in the reference.
type SocketPolicy struct {
	Default    string                  `json:"default"`    // reference or none; there is no default of the default
	Containers map[string]SocketAccess `json:"containers"` // by service of the compose file
}

// SocketAccess is what one service may ask for; what is left out is refused.
type SocketAccess struct {
	// Keys are paths of GetKey: exact, or a prefix that ends in '*'.
	Keys []string `json:"keys,omitempty"`
	// Purposes of those keys; none means any.
	Purposes []string `json:"purposes,omitempty"`
	Quote    bool     `json:"quote,omitempty"` // GetQuote, Attest, and quotes in certificates
	TLS      bool     `json:"tls,omitempty"`   // GetTlsKey
	Sign     bool     `json:"sign,omitempty"`  // Sign, with the app's signing key
}

var serviceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// UnmarshalJSON refuses unknown keys: a rule that is misspelt would be no rule.
func (p *SocketPolicy) UnmarshalJSON(b []byte) error {
	type plain SocketPolicy
	return strict("socket_policy", b, (*plain)(p))
}

func strict(where string, b []byte, v any) error {
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return cvm.Errorf(cvm.Invalid, "%s: %w", where, err)
	}
	return nil
}

func (p *SocketPolicy) validate() error {
	bad := func(format string, args ...any) error {
		return cvm.Errorf(cvm.Invalid, "app-compose: socket_policy: "+format, args...)
	}
	if p.Default != SocketsReference && p.Default != SocketsNone {
		return bad("default: %q is not reference or none", p.Default)
	}
	if len(p.Containers) > maxSocketServices {
		return bad("%d services, the limit is %d", len(p.Containers), maxSocketServices)
	}
	for name, a := range p.Containers {
		if !serviceName.MatchString(name) {
			return bad("containers: %q is not the name of a service", name)
		}
		if len(a.Keys) > maxSocketRules || len(a.Purposes) > maxSocketRules {
			return bad("containers.%s: more than %d keys or purposes", name, maxSocketRules)
		}
		if len(a.Purposes) > 0 && len(a.Keys) == 0 {
			return bad("containers.%s: purposes without keys mean nothing", name)
		}
		for _, k := range a.Keys {
			if k == "" || len(k) > maxSocketRule || strings.Contains(strings.TrimSuffix(k, "*"), "*") || !plainText(k) {
				return bad("containers.%s: key %q: want a path, or a prefix with one * at its end", name, k)
			}
		}
		for _, k := range a.Purposes {
			if len(k) > maxSocketRule || !plainText(k) {
				return bad("containers.%s: purpose %q is too long or not printable ASCII", name, k)
			}
		}
	}
	return nil
}

func plainText(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

// For is what a service may ask for; limited is false where it may ask for everything.
func (p *SocketPolicy) For(service string) (a SocketAccess, limited bool) {
	if p == nil {
		return a, false
	}
	if a, ok := p.Containers[service]; ok {
		return a, true
	}
	return SocketAccess{}, p.Default != SocketsReference
}

// Rule is the entry of Keys that covers a path. The empty path is covered by "*" alone.
func (a SocketAccess) Rule(keyPath string) (rule string, ok bool) {
	for _, k := range a.Keys {
		prefix, open := strings.CutSuffix(k, "*")
		if k == keyPath || (open && strings.HasPrefix(keyPath, prefix)) {
			return k, true
		}
	}
	return "", false
}

// Allows reports whether keys of a purpose may be asked for.
func (a SocketAccess) Allows(purpose string) bool {
	for _, p := range a.Purposes {
		if p == purpose {
			return true
		}
	}
	return len(a.Purposes) == 0
}

// MaxVolumes bounds verity_volumes: each is a disk of the machine.
const MaxVolumes = 8

// VerityVolume is a read-only disk whose content is part of the measurement.
type VerityVolume struct {
	Source string `json:"source"`      // the file's name at the host
	Root   string `json:"verity_root"` // hex, 32 bytes
	Target string `json:"target"`      // absolute path in the guest
}

var volumeSource = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}$`)

// Volumes reads verity_volumes. What is accepted has distinct targets that contain
// no other target, so that the order of mounts does not matter.
func (d *Document) Volumes() ([]VerityVolume, error) {
	if len(d.VerityVolumes) == 0 || string(d.VerityVolumes) == "null" {
		return nil, nil
	}
	var vols []VerityVolume
	if err := strict("app-compose: verity_volumes", d.VerityVolumes, &vols); err != nil {
		return nil, err
	}
	bad := func(i int, format string, args ...any) error {
		return cvm.Errorf(cvm.Invalid, "app-compose: verity_volumes[%d]: "+format, append([]any{i}, args...)...)
	}
	if len(vols) > MaxVolumes {
		return nil, bad(MaxVolumes, "the limit is %d volumes", MaxVolumes)
	}
	for i, v := range vols {
		if !volumeSource.MatchString(v.Source) {
			return nil, bad(i, "source: %q is not a file name", v.Source)
		}
		if b, err := hex.DecodeString(v.Root); err != nil || len(b) != 32 {
			return nil, bad(i, "verity_root: want 64 hex digits")
		}
		if !path.IsAbs(v.Target) || path.Clean(v.Target) != v.Target || v.Target == "/" || !plainText(v.Target) || len(v.Target) > maxSocketRule {
			return nil, bad(i, "target: %q is not a clean absolute path", v.Target)
		}
		for _, w := range vols[:i] {
			if strings.HasPrefix(v.Target+"/", w.Target+"/") || strings.HasPrefix(w.Target+"/", v.Target+"/") {
				return nil, bad(i, "target %s and %s overlap", v.Target, w.Target)
			}
		}
	}
	return vols, nil
}
