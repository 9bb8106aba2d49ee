package composefile

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"
)

// maxPorts bounds the published ports of a file, ranges expanded. Compose expands
// them one by one and compares each with each: one line could keep us busy for
// minutes.
const maxPorts = 256

// boundPorts counts before anything expands. It looks at the decoded model, where
// aliases and merge keys cannot hide an entry; each extends may copy them once more.
func boundPorts(root *yaml.Node, model map[string]any, lookup func(string) (string, bool)) *Position {
	services, _ := model["services"].(map[string]any)
	total, extends := 0, 0
	for _, name := range sortedKeys(services) {
		s, _ := services[name].(map[string]any)
		if s["extends"] != nil {
			extends++
		}
		ports, _ := s["ports"].([]any)
		for i, p := range ports {
			total += entrySize(p, lookup)
			if total*(extends+1) > maxPorts {
				at := position(root, "services", name, "ports", strconv.Itoa(i))
				at.Msg = fmt.Sprintf("service %q: more than %d published ports in this file", name, maxPorts)
				return at
			}
		}
	}
	if total*(extends+1) > maxPorts {
		at := position(root, "services")
		at.Msg = fmt.Sprintf("more than %d published ports in this file", maxPorts)
		return at
	}
	return nil
}

var portRange = regexp.MustCompile(`(\d+)\s*-\s*(\d+)`)

func entrySize(entry any, lookup func(string) (string, bool)) int {
	if m, ok := entry.(map[string]any); ok {
		return max(entrySize(m["published"], lookup), entrySize(m["target"], lookup))
	}
	text := fmt.Sprint(entry)
	if s, err := substitute(text, template.Mapping(lookup)); err == nil {
		text = s
	}
	size := 1
	for _, m := range portRange.FindAllStringSubmatch(text, -1) {
		from, err1 := strconv.Atoi(m[1])
		to, err2 := strconv.Atoi(m[2])
		if err1 != nil || err2 != nil || to-from > maxPorts {
			return maxPorts + 1
		}
		size = max(size, to-from+1)
	}
	return size
}
