package compose

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/confidential-cloud/phala/internal/composefile"
)

// shapes are the apps that the corpus stands for: the templates and examples of the
// public catalogue, and what the linter must say.
var shapes = []string{
	"eliza", "jupyter", "n8n-automation", "open-webui", "postgres", "vllm", "training", "agents", "blinko", "bytebot", "chatnio", "maybe-ai",
	"evm-mcp", "demap-defillama", "solana-mcp", "context7-mcp", "figma-mcp", "supabase-db", "elevenlabs-mcp", "near-mcp",
	"mcp-swarms-agent", "armor-crypto", "moof-mcp", "mcp-server-fetch", "sequential-thinking", "moralis-mcp", "zep-graphiti-mcp",
	"near-shade-agent", "vrf", "tor-hidden-service", "lightclient", "webshell", "nextjs", "bun", "node", "python", "python-malformed",
	"node-oracle", "coinbase-x402-tee", "anyone-anon-relay", "msft-presidio-app", "anyone-anon-service", "akave-link",
	"dstack-ingress", "dstack-ingress-multi", "k3s", "launcher", "tsm-shim", "ssh-over-gateway", "prelaunch-script", "private-docker-image",
	"timelock-nts", "configid", "tutorial", "private-log-viewer",
	"lint-arm", "lint-lock", "lint-secrets", "lint-unknown-key",
}

// TestShapes: every shape has a file, and no file claims one that is not known.
func TestShapes(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Load(t, "corpus") {
		if len(f.Shapes) == 0 || f.About == "" {
			t.Errorf("%s stands for nothing", f.Name)
		}
		for _, s := range f.Shapes {
			if !slices.Contains(shapes, s) {
				t.Errorf("%s: %q is no shape", f.Name, s)
			}
			seen[s] = true
		}
	}
	for _, s := range shapes {
		if !seen[s] {
			t.Errorf("no file has the shape %q", s)
		}
	}
}

// TestFeatures: every feature of the compose language that people use is in a file,
// as the file's own model says.
func TestFeatures(t *testing.T) {
	missing := map[string]func(model) bool{}
	for name, has := range features {
		missing[name] = has
	}
	for _, f := range Load(t, "corpus") {
		var m model
		if err := yaml.Load([]byte(f.Text), &m.top); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		m.text = f.Text
		for name, has := range missing {
			if f.Refused == "" && has(m) {
				delete(missing, name)
			}
		}
	}
	for name := range missing {
		t.Errorf("no file uses %s", name)
	}
}

// TestRead: what we take out of a file is what its header says.
func TestRead(t *testing.T) {
	for _, f := range Load(t, "corpus") {
		t.Run(f.Name, func(t *testing.T) {
			p, err := composefile.Parse([]byte(f.Text))
			if err == nil {
				err = p.Check()
			}
			if f.Refused != "" {
				if err == nil || !strings.Contains(err.Error(), f.Refused) {
					t.Errorf("got %v, want %s", err, f.Refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.EnvNames(); f.GPU == "" && !slices.Equal(slices.DeleteFunc(got, func(n string) bool { return hasDefault(p, n) && !slices.Contains(f.Env, n) }), slices.Sorted(slices.Values(f.Env))) {
				t.Errorf("variables %q, want %q", p.EnvNames(), f.Env)
			}
			compareLints(t, f, p.Lint())
		})
	}
}

func hasDefault(p *composefile.File, name string) bool {
	return slices.ContainsFunc(p.Envs(), func(e composefile.Env) bool { return e.Name == name && e.HasValue })
}

// compareLints: each expected text is in exactly one finding, and the others are
// images without a digest.
func compareLints(t *testing.T, f File, got []composefile.Finding) {
	t.Helper()
	left, unpinned := slices.Clone(f.Lints), 0
	for _, x := range got {
		i := slices.IndexFunc(left, func(l string) bool { return strings.Contains(x.Message, l) })
		switch {
		case i >= 0:
			left = slices.Delete(left, i, i+1)
			if x.Fix == "" && x.Line != 0 && !strings.Contains(x.Message, "namespace") && !strings.Contains(x.Message, "TCP only") {
				t.Errorf("%s: it does not say what to do", x)
			}
		case strings.Contains(x.Message, "is not pinned by digest"):
			unpinned++
		case f.GPU == "":
			t.Errorf("unexpected: %s", x)
		}
	}
	if len(left) > 0 {
		t.Errorf("nothing says %q", left)
	}
	if f.GPU == "" && unpinned != f.Unpinned {
		t.Errorf("%d images without a digest, want %d", unpinned, f.Unpinned)
	}
}

// model is a compose file as YAML has it.
type model struct {
	top  map[string]any
	text string
}

func (m model) services() []map[string]any {
	all, _ := m.top["services"].(map[string]any)
	var out []map[string]any
	for _, s := range all {
		if v, ok := s.(map[string]any); ok {
			out = append(out, v)
		}
	}
	return out
}

// any tells whether one service has a value at a path that fn likes.
func (m model) any(fn func(v any) bool, path ...string) bool {
	return slices.ContainsFunc(m.services(), func(s map[string]any) bool {
		var v any = s
		for _, p := range path {
			next, _ := v.(map[string]any)
			v = next[p]
		}
		return v != nil && fn(v)
	})
}

func is[T any](v any) bool { _, ok := v.(T); return ok }

// item tells whether a list has a text that contains s.
func item(s string) func(any) bool {
	return func(v any) bool {
		l, _ := v.([]any)
		return slices.ContainsFunc(l, func(x any) bool { t, _ := x.(string); return strings.Contains(t, s) })
	}
}

func present(any) bool { return true }

func service(path ...string) func(model) bool {
	return func(m model) bool { return m.any(present, path...) }
}

func volume(s string) func(model) bool {
	return func(m model) bool { return m.any(item(s), "volumes") }
}
func top(key string) func(model) bool { return func(m model) bool { return m.top[key] != nil } }
func text(s string) func(model) bool {
	return func(m model) bool { return strings.Contains(m.text, s) }
}

func condition(c string) func(model) bool {
	return func(m model) bool {
		return m.any(func(v any) bool { b, _ := yaml.Dump(v); return bytes.Contains(b, []byte("condition: "+c)) }, "depends_on")
	}
}

func typed[T any](path ...string) func(model) bool {
	return func(m model) bool { return m.any(is[T], path...) }
}

// features is what compose files of the public catalogue use.
var features = map[string]func(model) bool{
	"a named volume": func(m model) bool {
		v, ok := m.top["volumes"].(map[string]any)
		if !ok {
			return false
		}
		_, bare := v["postgres_data"]
		return bare && v["postgres_data"] == nil
	},
	"a named volume as {}":    func(m model) bool { v, _ := m.top["volumes"].(map[string]any); return is[map[string]any](v["config"]) },
	"a relative directory":    volume("./"),
	"a directory of the home": volume("~/"),
	"/":                       volume("/:/host"),
	"/tmp":                    volume("/tmp:"),
	"/tapp":                   volume("/tapp:"),
	"/root/data":              volume("/root/data:"),
	"dstack.sock":             volume("/var/run/dstack.sock:"),
	"tappd.sock":              volume("/var/run/tappd.sock:"),
	"docker.sock":             volume("/var/run/docker.sock:"),
	"an image by digest":      text("@sha256:"),
	"an image by tag":         text("app:1"),
	"an image by name only":   text("image: phala-corpus/app\n"),
	"an image by variable":    text("image: ${"),
	"ports in quotes":         func(m model) bool { return m.any(item("80:80"), "ports") },
	"ports on one address":    func(m model) bool { return m.any(item("127.0.0.1:"), "ports") },
	"ports in the long form": func(m model) bool {
		return m.any(func(v any) bool { l, _ := v.([]any); return len(l) > 0 && is[map[string]any](l[0]) }, "ports")
	},
	"environment as a list":   typed[[]any]("environment"),
	"environment as a map":    typed[map[string]any]("environment"),
	"a variable by name only": func(m model) bool { return m.any(item("HF_TOKEN"), "environment") },
	"${V}":                    text("${DB_PASSWORD}"), "${V:-d}": text(":-"), "$V": text("$FIGMA_TOKEN"), "$$": text("$$"),
	"restart: no": text("restart: no\n"), "restart: always": text("restart: always"), "restart: unless-stopped": text("restart: unless-stopped"),
	"depends_on as a list": typed[[]any]("depends_on"), "service_healthy": condition("service_healthy"),
	"service_completed_successfully": condition("service_completed_successfully"),
	"networks":                       service("networks"), "a bridge": text("driver: bridge"),
	"configs inline": text("content: |"), "configs with a mode": text("mode: 0755"), "a relative target of a config": text("target: run.sh"),
	"command as text": typed[string]("command"), "command as a list": typed[[]any]("command"),
	"entrypoint as text": typed[string]("entrypoint"), "entrypoint as a list": typed[[]any]("entrypoint"),
	"an emptied entrypoint": func(m model) bool {
		return m.any(func(v any) bool { l, ok := v.([]any); return ok && len(l) == 0 }, "entrypoint")
	},
	"build, inline": service("build", "dockerfile_inline"), "build with a context": service("build", "context"), "pull_policy": service("pull_policy"),
	"container_name": service("container_name"), "platform": service("platform"), "version": top("version"), "name": top("name"),
	"healthcheck CMD":       func(m model) bool { return m.any(item("CMD"), "healthcheck", "test") },
	"healthcheck CMD-SHELL": func(m model) bool { return m.any(item("CMD-SHELL"), "healthcheck", "test") },
	"start_period":          service("healthcheck", "start_period"),
	"privileged":            service("privileged"), "pid: host": service("pid"), "network_mode: host": service("network_mode"),
	"a GPU by deploy": service("deploy", "resources", "reservations", "devices"), "a GPU by runtime": service("runtime"),
	"logging": service("logging"), "hostname": service("hostname"), "shm_size": service("shm_size"), "ulimits": service("ulimits"), "tmpfs": service("tmpfs"),
	"links": service("links"), "expose": service("expose"), "working_dir": service("working_dir"), "x-": text("\nx-"), "anchors": text(": &"), "merge keys": text("<<: *"),
	"init": service("init"), "user": service("user"), "extra_hosts": service("extra_hosts"), "limits": service("deploy", "resources", "limits"),
}
