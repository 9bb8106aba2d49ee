package composefile

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Everybody can read a compose file: it is measured, and part of the evidence.

// secretName is how people name what must stay secret.
var secretName = regexp.MustCompile(`(?i)(password|passwd|passphrase|secret|token|api_?key|private_?key|secret_?key|access_?key|encryption_?key|mnemonic|seed_phrase|credentials)$`)

// secretValue is what keys of well-known services look like, a private key, and a
// URL with a password.
var secretValue = regexp.MustCompile(`^(sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{12,})|-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^/\s:@]+:[^/\s:@$]+@`)

// plain reports a value that is written out: not empty, and nothing of it comes from
// the environment.
func plain(v string) bool {
	return v != "" && len(variablesOf(v)) == 0
}

// lintSecrets looks at values as they are written.
func (f *File) lintSecrets(root *yaml.Node, model map[string]any) {
	services, _ := model["services"].(map[string]any)
	for _, name := range sortedKeys(services) {
		s, _ := services[name].(map[string]any)
		for key, value := range environment(s["environment"]) {
			if plain(value) && (secretName.MatchString(key) || secretValue.MatchString(value)) {
				f.secret(root, name, key)
			}
		}
	}
	configs, _ := model["configs"].(map[string]any)
	for _, name := range sortedKeys(configs) {
		c, _ := configs[name].(map[string]any)
		if text, _ := c["content"].(string); secretValue.MatchString(text) {
			f.add(Warning, position(root, "configs", name, "content").Line, "config %q has a secret in it, and everybody can read the compose file", name).
				Fix = "write ${NAME} there and give the value with -e NAME=..."
		}
	}
}

func (f *File) secret(root *yaml.Node, service, key string) {
	at := position(root, "services", service, "environment")
	if n := lookupNode(root, "services", service, "environment"); n != nil && n.Kind == yaml.SequenceNode {
		for _, e := range n.Content {
			if k, _, _ := strings.Cut(e.Value, "="); k == key {
				at.Line = e.Line
			}
		}
	} else if k := position(root, "services", service, "environment", key); k.Line > 0 {
		at = k
	}
	f.add(Warning, at.Line, "service %q: %s is written out, and everybody can read the compose file", service, key).
		Fix = fmt.Sprintf("write %s: ${%s} and give the value with -e %s=... (it is encrypted to the app)", key, key, key)
}

// environment reads both forms: a mapping, and a list of NAME=value.
func environment(v any) map[string]string {
	out := map[string]string{}
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if s, ok := x.(string); ok { // numbers and truth values are no secrets
				out[k] = s
			}
		}
	case []any:
		for _, x := range v {
			if s, ok := x.(string); ok {
				k, val, _ := strings.Cut(s, "=")
				out[k] = val
			}
		}
	}
	return out
}
