package composefile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4" // the parser Compose itself uses, so that we read what it will read
)

// unknown stands for a variable that gets its value only in the guest. "0" is
// valid wherever Compose casts (numbers, sizes, durations) and no usable port.
const unknown = "0"

// Parse reads a compose file the way Compose will. The error is a *cvm.Error
// (code invalid, reason ReasonInvalid) that wraps a *Position.
func Parse(b []byte) (*File, error) {
	if len(b) > MaxSize {
		return nil, invalid(&Position{Msg: fmt.Sprintf("%d bytes, the limit is %d", len(b), MaxSize)})
	}
	root, err := parseYAML(b)
	if err != nil {
		return nil, invalid(err)
	}
	model, err := toModel(root)
	if err != nil {
		return nil, invalid(err)
	}
	if err := refuse(root, model); err != nil {
		return nil, invalid(err)
	}
	written, err := toModel(root) // the loader changes its own
	if err != nil {
		return nil, invalid(err)
	}
	vars := variables(root)
	if err := boundPorts(root, model, lookupOf(vars)); err != nil {
		return nil, invalid(err)
	}
	if err := checkPorts(root); err != nil {
		return nil, invalid(err)
	}
	project, lerr := load(model, vars)
	if lerr != nil {
		return nil, invalid(locate(root, lerr))
	}
	if len(project.Services) == 0 {
		p := position(root, "services")
		p.Msg = "no service would start"
		if len(project.DisabledServices) > 0 {
			p.Msg = "every service has a profile, so none would start"
		}
		return nil, invalid(p)
	}
	f := &File{envs: withoutBuiltin(vars)}
	f.fill(root, project)
	f.lint(root, written, project)
	return f, nil
}

// parseYAML reads exactly one document.
func parseYAML(b []byte) (*yaml.Node, *Position) {
	if !printable(b) {
		return nil, &Position{Msg: "it is not text (a zero byte or broken UTF-8)"}
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &Position{Line: 1, Msg: "the file is empty"}
	} else if err != nil {
		return nil, yamlPosition(err)
	}
	var next yaml.Node
	if err := dec.Decode(&next); err == nil {
		return nil, &Position{Line: next.Line, Msg: "a second YAML document (---): a compose file has one"}
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlPosition(err)
	}
	if len(doc.Content) != 1 {
		return nil, &Position{Line: 1, Msg: "the file is empty"}
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, &Position{Line: root.Line, Column: root.Column, Msg: "the top level must be a mapping (services: ...)"}
	}
	return root, nil
}

func printable(b []byte) bool {
	return bytes.IndexByte(b, 0) < 0 && bytes.Equal(b, bytes.ToValidUTF8(b, nil))
}

var (
	atLineColumn = regexp.MustCompile(`line (\d+), column (\d+)`)
	atLine       = regexp.MustCompile(`line (\d+)`)
	marks        = regexp.MustCompile(` ?(at )?line \d+(, column \d+)?:?`)
)

// yamlPosition takes the place out of a YAML error. Where an error names two, the
// parser's is the second (where it gave up) and the scanner's the first (where
// the thing it could not end began).
func yamlPosition(err error) *Position {
	text := strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "construct errors:"))
	p := &Position{}
	if m := atLineColumn.FindAllStringSubmatch(text, -1); m != nil {
		p.Line, _ = strconv.Atoi(m[len(m)-1][1])
		p.Column, _ = strconv.Atoi(m[len(m)-1][2])
	} else if m := atLine.FindStringSubmatch(text); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Column = 1
	}
	if strings.HasPrefix(text, "while parsing") && p.Line > 0 {
		p.Line++ // the library counts these lines from 0
	}
	text = strings.ReplaceAll(text, " at <unknown position>", "")
	p.Msg = strings.Join(strings.Fields(marks.ReplaceAllString(text, "")), " ")
	return p
}

// toModel decodes the document into plain maps; aliases and merge keys are
// resolved (the decoder bounds their expansion).
func toModel(root *yaml.Node) (map[string]any, *Position) {
	var model map[string]any
	if err := root.Decode(&model); err != nil {
		return nil, yamlPosition(err)
	}
	// Compose ignores version and would warn on the process's stderr.
	delete(model, "version")
	return model, nil
}

// refuse stops what would make the loader (or Compose in the guest) open other
// files: there are none, and on our side it must not happen.
func refuse(root *yaml.Node, model map[string]any) *Position {
	at := func(msg string, path ...string) *Position {
		p := position(root, path...)
		p.Msg = msg
		return p
	}
	if _, ok := model["include"]; ok {
		return at("include: a CVM receives one compose file and no others", "include")
	}
	services, ok := model["services"].(map[string]any)
	if !ok && model["services"] != nil {
		return at("services must be a mapping of names to services", "services")
	}
	if len(services) == 0 {
		return at("no services: there is nothing to run", "services")
	}
	if p := notServices(root, services); p != nil {
		return p
	}
	for _, name := range sortedKeys(services) {
		s, _ := services[name].(map[string]any)
		if e, ok := s["extends"].(map[string]any); ok {
			if _, ok := e["file"]; ok {
				return at(fmt.Sprintf("service %q extends another file: a CVM receives one compose file and no others", name),
					"services", name, "extends")
			}
		}
	}
	if n := findTag(root, "!reset", "!override"); n != nil {
		return &Position{Line: n.Line, Column: n.Column, Msg: n.Tag + " has a meaning only in a second compose file"}
	}
	return nil
}

// notServices finds the first entry that cannot be a service.
func notServices(root *yaml.Node, services map[string]any) *Position {
	var first *Position
	for _, name := range sortedKeys(services) {
		if _, isMap := services[name].(map[string]any); isMap {
			continue
		}
		p := position(root, "services", name)
		p.Msg = fmt.Sprintf("services.%s is not a service", name)
		if serviceKeys[name] {
			p.Msg += ": the line with the service's name is missing above it"
		}
		if first == nil || p.Line < first.Line {
			first = p
		}
	}
	return first
}

// serviceKeys are what people write directly below services when they forget the
// service's name.
var serviceKeys = map[string]bool{"image": true, "build": true, "ports": true, "environment": true, "volumes": true, "command": true,
	"container_name": true, "restart": true, "depends_on": true, "entrypoint": true, "networks": true, "configs": true, "healthcheck": true}

// noFiles is a resource loader that answers for every path, with a refusal.
type noFiles struct{}

func (noFiles) Accept(string) bool { return true }
func (noFiles) Load(_ context.Context, path string) (string, error) {
	return "", fmt.Errorf("%s: other files are not read", path)
}
func (noFiles) Dir(string) string { return "/" }

func load(model map[string]any, vars []Env) (*types.Project, error) {
	lookup := lookupOf(vars)
	return loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  "/",
		ConfigFiles: []types.ConfigFile{{Filename: "docker-compose.yml", Config: model}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) {
		o.SetProjectName("cvm", true)
		o.SkipInclude = true
		o.SkipResolveEnvironment = true
		o.SkipResolveLabels = true
		o.ResolvePaths = false
		o.ResourceLoaders = []loader.ResourceLoader{noFiles{}}
		o.Interpolate = &interpolation.Options{
			LookupValue:     interpolation.LookupValue(lookup),
			TypeCastMapping: o.Interpolate.TypeCastMapping,
			Substitute:      substitute,
		}
	})
}

func substitute(s string, m template.Mapping) (string, error) {
	return template.SubstituteWithOptions(s, m, template.WithoutLogging)
}

// lookupOf answers for a guest whose values we cannot see: variables with a
// default take it, the others are unknown.
func lookupOf(vars []Env) func(string) (string, bool) {
	return func(name string) (string, bool) {
		i := slices.IndexFunc(vars, func(e Env) bool { return e.Name == name })
		if i >= 0 && vars[i].HasValue {
			return "", false
		}
		return unknown, true
	}
}

// fill takes services and ports out of the loaded project.
func (f *File) fill(root *yaml.Node, p *types.Project) {
	for _, name := range sortedKeys(p.Services) {
		s := p.Services[name]
		line := position(root, "services", name).Line
		image := s.Image
		if n := lookupNode(root, "services", name, "image"); n != nil {
			image = n.Value
		}
		f.services = append(f.services, Service{Name: name, Image: image, Line: line})
		for _, sp := range s.Ports {
			f.addPort(root, name, sp)
		}
		if n, key := gpusOf(s); n > f.gpus {
			f.gpus, f.gpu = n, position(root, append([]string{"services", name}, key...)...)
			f.gpu.Msg = fmt.Sprintf("service %q needs a GPU", name)
			if n > 1 {
				f.gpu.Msg = fmt.Sprintf("service %q needs %d GPUs", name, n)
			}
		}
	}
	slices.SortFunc(f.ports, func(a, b Port) int { return a.Published - b.Published })
}

// gpusOf is how many GPUs a service needs at least, and where it asks for the most, in
// one of the three ways of writing it.
func gpusOf(s types.ServiceConfig) (n int, key []string) {
	more := func(m int, path ...string) {
		if m > n {
			n, key = m, path
		}
	}
	if s.Deploy != nil && s.Deploy.Resources.Reservations != nil {
		for _, d := range s.Deploy.Resources.Reservations.Devices {
			if d.Driver == "nvidia" || slices.Contains(d.Capabilities, "gpu") {
				more(cardsOf(d), "deploy", "resources", "reservations", "devices")
			}
		}
	}
	for _, d := range s.Gpus {
		more(cardsOf(d), "gpus")
	}
	if s.Runtime == "nvidia" {
		more(1, "runtime")
	}
	return n, key
}

// cardsOf is how many cards there must be for a request: at least one, also for "all"
// (-1). An id is a card's number, counted from 0, or a name of its own, which counts as
// one card.
func cardsOf(d types.DeviceRequest) int {
	n := max(1, int(d.Count), len(d.IDs)) // no id stands there twice
	for _, id := range d.IDs {
		if i, err := strconv.Atoi(id); err == nil && i < math.MaxInt32 {
			n = max(n, i+1)
		}
	}
	return n
}

func (f *File) addPort(root *yaml.Node, service string, sp types.ServicePortConfig) {
	line := portLine(root, service, sp)
	published, err := strconv.Atoi(sp.Published)
	if err != nil || published == 0 || sp.Target == 0 {
		f.add(Warning, line, "service %q: the CVM's port is known only at run time, so no URL can be shown for it", service).
			Fix = "write a number, or a default: \"${PORT:-8080}:80\""
		return
	}
	f.ports = append(f.ports, Port{
		Service: service, Published: published, Target: int(sp.Target),
		Protocol: sp.Protocol, HostIP: sp.HostIP, Line: line,
	})
}
