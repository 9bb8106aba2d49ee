package composefile

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// child finds a key's value in a mapping (not through merge keys).
func child(n *yaml.Node, key string) (k, v *yaml.Node) {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], resolve(n.Content[i+1])
		}
	}
	return nil, nil
}

func resolve(n *yaml.Node) *yaml.Node {
	for range 8 {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// lookupNode follows keys and list indexes.
func lookupNode(n *yaml.Node, path ...string) *yaml.Node {
	for _, p := range path {
		if n = resolve(n); n == nil {
			return nil
		}
		if i, err := strconv.Atoi(p); err == nil && n.Kind == yaml.SequenceNode {
			if i < 0 || i >= len(n.Content) {
				return nil
			}
			n = n.Content[i]
			continue
		}
		_, n = child(n, p)
	}
	return resolve(n)
}

// position is where the deepest existing part of a path stands.
func position(root *yaml.Node, path ...string) *Position {
	p := &Position{Line: root.Line, Column: root.Column}
	n := root
	for _, key := range path {
		n = resolve(n)
		if n == nil {
			break
		}
		if i, err := strconv.Atoi(key); err == nil && n.Kind == yaml.SequenceNode && i >= 0 && i < len(n.Content) {
			n = n.Content[i]
			p.Line, p.Column = n.Line, n.Column
			continue
		}
		k, v := child(n, key)
		if k == nil {
			break
		}
		p.Line, p.Column, n = k.Line, k.Column, v
	}
	return p
}

func findTag(n *yaml.Node, tags ...string) *yaml.Node {
	if slices.Contains(tags, n.Tag) {
		return n
	}
	for _, c := range n.Content {
		if f := findTag(c, tags...); f != nil {
			return f
		}
	}
	return nil
}

// scalars calls fn for every scalar value (not for mapping keys) where it is written.
func scalars(n *yaml.Node, fn func(*yaml.Node)) {
	switch n.Kind {
	case yaml.ScalarNode:
		fn(n)
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			scalars(n.Content[i], fn)
		}
	case yaml.SequenceNode, yaml.DocumentNode:
		for _, c := range n.Content {
			scalars(c, fn)
		}
	}
}

// variables lists what ${...} reads anywhere in the file, and what services pass
// through by name alone (environment: [NAME]).
func variables(root *yaml.Node) []Env {
	found := map[string]Env{}
	add := func(e Env) {
		old, ok := found[e.Name]
		if !ok {
			found[e.Name] = e
			return
		}
		// One use without a default is enough to need a value.
		old.HasValue = old.HasValue && e.HasValue
		old.Required = old.Required || e.Required
		if old.Default == "" {
			old.Default = e.Default
		}
		found[e.Name] = old
	}
	scalars(root, func(n *yaml.Node) {
		for _, e := range variablesOf(n.Value) {
			e.Line = n.Line
			add(e)
		}
	})
	_, services := child(root, "services")
	if services != nil && services.Kind == yaml.MappingNode {
		for i := 1; i < len(services.Content); i += 2 {
			passedThrough(services.Content[i], add)
			// Without it there is no image, and Compose takes nothing of the file.
			if _, image := child(services.Content[i], "image"); image != nil && reference.FindString(image.Value+"}") == strings.TrimSuffix(image.Value, "}") {
				for _, e := range variablesOf(image.Value) {
					e.Required, e.Line = !e.HasValue, image.Line
					add(e)
				}
			}
		}
	}
	out := make([]Env, 0, len(found))
	for _, name := range sortedKeys(found) {
		out = append(out, found[name])
	}
	return out
}

// builtin are the variables that the guest agent gives to every app.
var builtin = []string{"DSTACK_APP_ID", "DSTACK_APP_DOMAIN", "DSTACK_GATEWAY_DOMAIN"}

func withoutBuiltin(vars []Env) []Env {
	return slices.DeleteFunc(slices.Clone(vars), func(e Env) bool { return slices.Contains(builtin, e.Name) })
}

func passedThrough(service *yaml.Node, add func(Env)) {
	_, env := child(service, "environment")
	if env == nil {
		return
	}
	switch env.Kind {
	case yaml.SequenceNode:
		for _, n := range env.Content {
			if n = resolve(n); n != nil && n.Kind == yaml.ScalarNode && envName.MatchString(n.Value) {
				add(Env{Name: n.Value, HasValue: true, Line: n.Line})
			}
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(env.Content); i += 2 {
			if v := resolve(env.Content[i+1]); v != nil && v.Tag == "!!null" && envName.MatchString(env.Content[i].Value) {
				add(Env{Name: env.Content[i].Value, HasValue: true, Line: v.Line})
			}
		}
	}
}

var envName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// reference matches $NAME and the start of ${NAME...}; $$ is an escaped dollar.
var reference = regexp.MustCompile(`\$(?:(\$)|([a-zA-Z_][a-zA-Z0-9_]*)|\{([a-zA-Z_][a-zA-Z0-9_]*)(:?[-+?])?)`)

// variablesOf finds the references in one string, nested defaults included
// (${A:-${B}}): the pattern is not anchored to closing braces.
func variablesOf(s string) []Env {
	var out []Env
	for _, m := range reference.FindAllStringSubmatchIndex(s, -1) {
		group := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return s[m[2*i]:m[2*i+1]]
		}
		switch {
		case group(1) != "":
		case group(2) != "":
			out = append(out, Env{Name: group(2)})
		default:
			e := Env{Name: group(3)}
			switch op := strings.TrimPrefix(group(4), ":"); op {
			case "-":
				e.HasValue, e.Default = true, untilClose(s[m[1]:])
			case "+":
				e.HasValue = true
			case "?":
				e.Required = true
			}
			out = append(out, e)
		}
	}
	return out
}

func untilClose(s string) string {
	depth := 0
	for i, r := range s {
		switch r {
		case '{':
			depth++
		case '}':
			if depth == 0 {
				return s[:i]
			}
			depth--
		}
	}
	return ""
}

// checkPorts reads every ports entry by itself, because the loader's error for a
// bad one names neither its line nor its service.
func checkPorts(root *yaml.Node) *Position {
	lookup := lookupOf(variables(root))
	_, services := child(root, "services")
	if services == nil || services.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(services.Content); i += 2 {
		_, ports := child(services.Content[i+1], "ports")
		if ports == nil || ports.Kind != yaml.SequenceNode {
			continue
		}
		for _, n := range ports.Content {
			msg := checkPort(resolve(n), lookup)
			if msg != "" {
				return &Position{Line: n.Line, Column: n.Column,
					Msg: fmt.Sprintf("service %q: %s", services.Content[i].Value, msg)}
			}
		}
	}
	return nil
}

func checkPort(n *yaml.Node, lookup func(string) (string, bool)) string {
	if n == nil {
		return ""
	}
	value := n.Value
	if _, v := child(n, "published"); v != nil {
		value = v.Value
	}
	value, err := substitute(value, template.Mapping(lookup))
	if err != nil {
		return fmt.Sprintf("port %q: %v", n.Value, err)
	}
	if n.Kind == yaml.ScalarNode {
		if _, err := types.ParsePortConfig(value); err != nil {
			return fmt.Sprintf("port %q is not valid: ports go from 1 to 65535, written \"CVM:CONTAINER\"", n.Value)
		}
		return ""
	}
	for _, key := range []string{"target", "published"} {
		_, v := child(n, key)
		if v == nil || v.Kind != yaml.ScalarNode {
			continue
		}
		if p, err := strconv.ParseInt(v.Value, 10, 64); err == nil && (p < 0 || p > 65535 || p == 0 && key == "target") {
			return fmt.Sprintf("%s port %s is not valid: ports go from 1 to 65535", key, v.Value)
		}
	}
	return ""
}

// portLine finds the line of the entry a loaded port came from.
func portLine(root *yaml.Node, service string, p types.ServicePortConfig) int {
	_, ports := child(lookupNode(root, "services", service), "ports")
	if ports == nil || ports.Kind != yaml.SequenceNode {
		return position(root, "services", service).Line
	}
	lookup := lookupOf(variables(root))
	for _, n := range ports.Content {
		r := resolve(n)
		if r == nil {
			continue
		}
		if r.Kind == yaml.MappingNode {
			if _, t := child(r, "target"); t != nil && t.Value == strconv.Itoa(int(p.Target)) {
				return n.Line
			}
			continue
		}
		s, err := substitute(r.Value, template.Mapping(lookup))
		if err != nil {
			continue
		}
		parsed, _ := types.ParsePortConfig(s)
		for _, q := range parsed {
			if q.Target == p.Target && q.Published == p.Published {
				return n.Line
			}
		}
	}
	return ports.Line
}

// dotted finds the path in a loader's message: "services.web.ports.0 must be ...".
var dotted = regexp.MustCompile(`\b(services|volumes|networks|configs|secrets|models)(\.[^\s:'"]+)+`)

var quoted = regexp.MustCompile(`["']([^"']+)["']`)

// locate gives a loader's error its place.
func locate(root *yaml.Node, err error) *Position {
	msg := strings.TrimPrefix(err.Error(), "validating docker-compose.yml: ")
	msg = strings.TrimPrefix(strings.TrimSpace(msg), "invalid compose project: ")
	p := &Position{Line: root.Line, Column: root.Column}
	if path := dotted.FindString(msg); path != "" {
		p = position(root, strings.Split(strings.ReplaceAll(strings.ReplaceAll(path, "[", "."), "]", ""), ".")...)
	} else {
		p = named(root, msg, p)
	}
	// "additional properties 'imagee' not allowed": the place is that key.
	if m := quoted.FindStringSubmatch(msg); m != nil && strings.Contains(msg, "additional propert") {
		if n := findKey(root, m[1], p.Line); n != nil {
			p.Line, p.Column = n.Line, n.Column
		}
		msg = strings.Replace(msg, "additional properties "+m[0]+" not allowed",
			fmt.Sprintf("%q is not a key that Compose knows here", m[1]), 1)
	}
	p.Msg = strings.TrimSpace(msg)
	return p
}

// named looks for a service whose name stands in quotes in the message.
func named(root *yaml.Node, msg string, or *Position) *Position {
	for _, m := range quoted.FindAllStringSubmatch(msg, -1) {
		if _, v := child(lookupNode(root, "services"), m[1]); v != nil {
			return position(root, "services", m[1])
		}
	}
	return or
}

// findKey finds a mapping key by name at or after a line.
func findKey(n *yaml.Node, key string, from int) *yaml.Node {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key && n.Content[i].Line >= from {
				return n.Content[i]
			}
		}
	}
	for _, c := range n.Content {
		if f := findKey(c, key, from); f != nil {
			return f
		}
	}
	return nil
}
