package compose

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

// ReasonPolicy is of a compose file that would let a service around its own limits.
const ReasonPolicy = "socket-policy-void"

// Sockets gives each limited service sockets of its own.
type Sockets struct {
	// Dstack and Tappd are all paths under which a compose file may name the shared
	// sockets.
	Dstack, Tappd []string
	// Open serves a service's own sockets and returns their paths.
	Open func(service string) (dstack, tappd string, err error)
}

// harmless are the keys of a service that cannot lead to another service's socket.
// What is not here is refused for a limited service: a list of what is dangerous
// would be out of date with the next Compose.
func harmless(key string) bool {
	switch key {
	case "image", "build", "platform", "pull_policy", "command", "entrypoint", "environment", "env_file", "working_dir", "user", "group_add",
		"ports", "expose", "networks", "links", "dns", "dns_search", "dns_opt", "extra_hosts", "hostname", "domainname", "mac_address",
		"depends_on", "restart", "healthcheck", "deploy", "scale", "profiles", "labels", "annotations", "logging", "attach", "container_name",
		"volumes", "tmpfs", "configs", "secrets", "read_only", "cap_drop", "init", "stop_signal", "stop_grace_period", "stdin_open", "tty", "ulimits",
		"mem_limit", "mem_reservation", "memswap_limit", "mem_swappiness", "shm_size", "cpus", "cpu_shares", "cpu_quota", "cpu_period", "cpuset",
		"pids_limit", "oom_score_adj", "oom_kill_disable", "blkio_config", "sysctls":
		return true
	}
	return false
}

// isolate checks every limited service of the model and returns the override file
// that gives it its own sockets; "" when no service is limited.
func (e *Engine) isolate(m *model, p *appcompose.SocketPolicy, socks Sockets) ([]byte, error) {
	if p == nil {
		return nil, nil
	}
	for name := range p.Containers {
		if _, ok := m.Services[name]; !ok {
			return nil, void("it names service %s, which the compose file does not have", name)
		}
	}
	services := map[string]any{}
	for _, s := range m.names() {
		if _, limited := p.For(s); !limited {
			continue
		}
		vols, err := e.limit(m, s, socks)
		if err != nil {
			return nil, err
		}
		if len(vols) > 0 {
			services[s] = map[string]any{"volumes": vols}
		}
	}
	if len(services) == 0 {
		return nil, nil
	}
	return json.Marshal(map[string]any{"services": services})
}

func void(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "socket_policy: "+format, args...).WithReason(ReasonPolicy).
		WithFix("change the compose file, or give the service everything by leaving it out of socket_policy with default reference")
}

type mount struct {
	Type     string `json:"type"`
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// limit checks one service and returns the mounts of its own sockets.
func (e *Engine) limit(m *model, s string, socks Sockets) ([]mount, error) {
	for key, raw := range m.Services[s] {
		if !harmless(key) && string(raw) != "null" && string(raw) != "false" && !strings.HasPrefix(key, "x-") && !(key == "network_mode" && lonely(raw)) {
			return nil, void("service %s is limited and uses %q, with which it might reach the sockets of others", s, key)
		}
	}
	var vols []mount
	if raw := m.Services[s]["volumes"]; raw != nil {
		if err := json.Unmarshal(raw, &vols); err != nil {
			return nil, void("service %s: its volumes cannot be read", s)
		}
	}
	for _, kind := range []string{"secrets", "configs"} {
		if err := m.ownFiles(s, kind, e.cfg.WorkDir); err != nil {
			return nil, err
		}
	}
	var out []mount
	for _, v := range vols {
		which, err := e.mountOf(m, s, v, socks)
		if err != nil {
			return nil, err
		}
		if which == "" {
			continue
		}
		dstack, tappd, err := socks.Open(s)
		if err != nil {
			return nil, err
		}
		own := mount{Type: "bind", Source: dstack, Target: v.Target}
		if which == "tappd" {
			own.Source = tappd
		}
		out = append(out, own)
	}
	return out, nil
}

// lonely is a network_mode that joins nobody's namespace but at most the guest's;
// socket files are not reached through it.
func lonely(raw json.RawMessage) bool {
	s := string(raw)
	return s == `"none"` || s == `"bridge"` || s == `"host"` || s == `"default"`
}

// mountOf checks one mount of a limited service; which is "dstack" or "tappd" for a
// shared socket.
func (e *Engine) mountOf(m *model, s string, v mount, socks Sockets) (which string, err error) {
	switch v.Type {
	case "tmpfs":
		return "", nil
	case "volume":
		d := m.Volumes[v.Source]
		if v.Source != "" && (d.External || len(d.DriverOpts) > 0 || (d.Driver != "" && d.Driver != "local")) {
			return "", void("service %s is limited and mounts volume %s, whose driver options may name any directory", s, v.Source)
		}
		return "", nil
	case "bind":
		if slices.Contains(socks.Dstack, filepath.Clean(v.Source)) {
			return "dstack", nil
		}
		if slices.Contains(socks.Tappd, filepath.Clean(v.Source)) {
			return "tappd", nil
		}
		if ownDirectory(e.cfg.WorkDir, v.Source) {
			return "", nil
		}
		return "", void("service %s is limited and mounts %s: only the guest agent's sockets, named volumes and ./name are allowed", s, v.Source)
	}
	return "", void("service %s is limited and has a mount of type %q", s, v.Type)
}

// ownDirectory is ./name and no deeper: below a directory that a container writes,
// it could put a link to anywhere for the next mount. The agent's own files are not
// for containers.
func ownDirectory(workDir, source string) bool {
	rel, err := filepath.Rel(workDir, filepath.Clean(source))
	if err != nil || strings.ContainsRune(rel, '/') || strings.HasPrefix(rel, ".") || strings.HasSuffix(rel, ".sh") {
		return false
	}
	switch rel {
	case "docker-compose.yaml", overrideName, "daemon.json", "app-compose.json":
		return false
	}
	return true
}

// ownFiles holds a service's secrets and configs, which are mounts too when they
// come from files.
func (m *model) ownFiles(s, kind, workDir string) error {
	raw := m.Services[s][kind]
	if raw == nil {
		return nil
	}
	defs := m.Secrets
	if kind == "configs" {
		defs = m.Configs
	}
	var uses []struct{ Source string }
	if err := json.Unmarshal(raw, &uses); err != nil {
		return void("service %s: its %s cannot be read", s, kind)
	}
	for _, u := range uses {
		if f := defs[u.Source].File; f != "" && !ownDirectory(workDir, f) {
			return void("service %s is limited and takes %s %s from %s", s, kind, u.Source, f)
		}
	}
	return nil
}
