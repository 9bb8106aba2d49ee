package composefile

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// sshPort is the development image's own.
const sshPort = 22

// agentPort is where the guest agent serves logs and evidence (dstack's port).
const agentPort = 8090

// sockets are the host paths that exist in every CVM on purpose.
var sockets = map[string]bool{
	"/var/run/dstack.sock": true, "/var/run/dstack": true,
	"/var/run/tappd.sock": true, "/var/run/docker.sock": true,
}

func (f *File) add(s Severity, line int, format string, args ...any) *Finding {
	f.findings = append(f.findings, Finding{Severity: s, Line: line, Message: fmt.Sprintf(format, args...)})
	return &f.findings[len(f.findings)-1]
}

func (f *File) lint(root *yaml.Node, model map[string]any, p *types.Project) {
	for _, name := range sortedKeys(p.Services) {
		l := linter{f: f, root: root, name: name, s: p.Services[name]}
		l.image()
		l.isolation()
		l.volumes()
		l.files()
	}
	f.lintSecrets(root, model)
	f.lintPorts()
	f.lintSources(root, p)
	rank := map[Severity]int{Error: 0, Warning: 1}
	slices.SortStableFunc(f.findings, func(a, b Finding) int {
		return cmp.Or(rank[a.Severity]-rank[b.Severity], a.Line-b.Line)
	})
}

type linter struct {
	f    *File
	root *yaml.Node
	name string
	s    types.ServiceConfig
}

func (l linter) line(path ...string) int {
	return position(l.root, append([]string{"services", l.name}, path...)...).Line
}

func (l linter) image() {
	l.platform()
	if l.s.Build != nil {
		l.build()
		return
	}
	image := l.s.Image
	if n := lookupNode(l.root, "services", l.name, "image"); n != nil {
		image = n.Value
	}
	switch {
	case image == "":
		return
	case strings.Contains(image, "$"):
		l.f.add(Warning, l.line("image"), "service %q: the image %q depends on the environment, so the measured compose file does not say what runs", l.name, image).
			Fix = "write the image in full, with its digest"
	case !strings.Contains(image, "@sha256:"):
		l.f.add(Warning, l.line("image"), "service %q: image %q is not pinned by digest: whoever controls its registry can change what runs", l.name, image).
			Fix = "pin it: " + untagged(image) + "@sha256:... (docker images --digests shows it)"
	}
}

// build looks at an image that is made in the CVM: from what the compose file says
// itself, or from what a URL names. Files of this machine are not there.
func (l linter) build() {
	b := l.s.Build
	const fix = "build and push the image, then name it: image: registry/name@sha256:..."
	switch {
	case remote(b.Context):
		l.f.add(Warning, l.line("build"), "service %q is built in the CVM from %s: the measured compose file does not say what it will find there", l.name, b.Context).Fix = fix
	case b.DockerfileInline == "" || path.Clean(b.Context) != ".":
		l.f.add(Error, l.line("build"), "service %q is built from source, and a CVM has no source tree", l.name).Fix = fix
	default:
		l.f.add(Warning, l.line("build"), "service %q is built in the CVM: what its Dockerfile downloads is not measured, and the first start takes as long as the build", l.name).Fix = fix
	}
}

func remote(context string) bool {
	for _, p := range []string{"https://", "http://", "git://", "git@", "github.com/"} {
		if strings.HasPrefix(context, p) {
			return true
		}
	}
	return false
}

// otherProcessor finds names under which images of other processors are published.
var otherProcessor = regexp.MustCompile(`(?i)(^|[/:._-])(arm64v8|arm32v[5-7]|arm64|aarch64|armv7|armhf|ppc64le|s390x|riscv64)([/:._@-]|$)`)

func (l linter) platform() {
	const fix = "build for linux/amd64: docker build --platform linux/amd64"
	switch p := l.s.Platform; {
	case strings.Contains(p, "$"), p == unknown: // known only in the guest
	case p != "" && p != "linux/amd64" && !strings.HasPrefix(p, "linux/amd64/") && p != "linux" && p != "amd64":
		l.f.add(Error, l.line("platform"), "service %q asks for platform %s, and a CVM is linux/amd64 (exec format error)", l.name, p).Fix = fix
	case otherProcessor.MatchString(l.s.Image):
		l.f.add(Warning, l.line("image"), "service %q: image %q looks like one for another processor; a CVM is linux/amd64 (exec format error)", l.name, l.s.Image).Fix = fix
	}
}

func untagged(image string) string {
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		return image[:i]
	}
	return image
}

func (l linter) isolation() {
	if l.s.Privileged {
		l.f.add(Warning, l.line("privileged"), "service %q is privileged: it can read everything in the CVM, the other services' secrets too", l.name).
			Fix = "name the capabilities it needs with cap_add"
	}
	if l.s.NetworkMode == "host" {
		l.f.add(Warning, l.line("network_mode"), "service %q uses the CVM's own network: its ports are not declared, so no URL is shown for them", l.name).
			Fix = "publish them with ports:"
	}
	for key, mode := range map[string]string{"pid": l.s.Pid, "ipc": l.s.Ipc} {
		if mode == "host" {
			l.f.add(Warning, l.line(key), "service %q shares the CVM's %s namespace with the guest agent", l.name, key)
		}
	}
}

func (l linter) volumes() {
	for i, v := range l.s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		src := path.Clean(v.Source)
		if sockets[src] {
			continue
		}
		line := l.line("volumes", fmt.Sprint(i))
		if s := strings.TrimSuffix(src, ".lock"); s != src && sockets[s] {
			l.f.add(Warning, line, "service %q mounts %s, which is not in a CVM: the lock file belongs to the simulator", l.name, v.Source).
				Fix = "mount the socket itself: " + s + ":" + s
			continue
		}
		if strings.HasPrefix(v.Source, "/") {
			l.f.add(Warning, line, "service %q mounts %s: that is the CVM's own path, not this machine's", l.name, v.Source).
				Fix = "use a named volume for data, or configs: with content: for files"
			continue
		}
		l.f.add(Warning, line, "service %q mounts %s: only the compose file is sent, so it will be an empty directory in the CVM", l.name, v.Source).
			Fix = "use a named volume for data, configs: with content: for files, or put the files into the image"
	}
}

func (l linter) files() {
	for i, e := range l.s.EnvFiles {
		if e.Required {
			l.f.add(Error, l.line("env_file", fmt.Sprint(i)), "service %q reads the file %s, which is not sent to the CVM", l.name, e.Path).
				Fix = "name the variables under environment: as NAME: ${NAME}, and give their values with -e " + path.Base(e.Path)
		}
	}
	for i, name := range l.s.LabelFiles {
		l.f.add(Error, l.line("label_file", fmt.Sprint(i)), "service %q reads the file %s, which is not sent to the CVM", l.name, name).
			Fix = "write the labels into the compose file"
	}
}

// lintSources checks configs and secrets that come from files.
func (f *File) lintSources(root *yaml.Node, p *types.Project) {
	for _, name := range sortedKeys(p.Configs) {
		if file := p.Configs[name].File; file != "" {
			f.add(Error, position(root, "configs", name, "file").Line, "config %q comes from the file %s, which is not sent to the CVM", name, file).
				Fix = "write it inline with content:"
		}
	}
	for _, name := range sortedKeys(p.Secrets) {
		if file := p.Secrets[name].File; file != "" && !strings.HasPrefix(file, "/") {
			f.add(Error, position(root, "secrets", name, "file").Line, "secret %q comes from the file %s, which is not sent to the CVM", name, file).
				Fix = "use environment: NAME under the secret, and give its value with -e NAME=..."
		}
	}
}

func (f *File) lintPorts() {
	type key struct {
		port  int
		proto string
	}
	seen := map[key]Port{}
	reachable := false
	for _, p := range f.ports {
		k := key{p.Published, p.Protocol}
		if old, dup := seen[k]; dup {
			f.add(Error, p.Line, "port %d is published twice (by %q and %q)", p.Published, old.Service, p.Service)
		}
		seen[k] = p
		reachable = reachable || p.Reachable()
		switch {
		case p.Published == agentPort && p.Protocol == "tcp":
			f.add(Error, p.Line, "port %d belongs to the guest agent (logs, evidence)", p.Published).Fix = "publish another one"
		case p.Published == sshPort && p.Protocol == "tcp":
			f.add(Warning, p.Line, "port %d is the CVM's own ssh in the development image: there the app will not start", p.Published).
				Fix = fmt.Sprintf("publish another one: \"2222:%d\"", p.Target)
		case p.Protocol != "tcp":
			f.add(Warning, p.Line, "port %d/%s: the gateway carries TCP only, so it is not reachable from outside", p.Published, p.Protocol)
		case !p.Reachable():
			f.add(Warning, p.Line, "port %d is bound to %s in the CVM, so the gateway cannot reach it", p.Published, p.HostIP).
				Fix = "leave the address out"
		}
	}
	if !reachable {
		f.add(Warning, 0, "no port is published: the app runs, and no URL leads to it").Fix = "publish one with ports:"
	}
}
