package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/keys"
)

// Bounds of a compose file as Compose resolved it.
const (
	maxModel    = 16 << 20 // bytes of `docker compose config`
	maxServices = 128
)

// model is a compose file as Compose itself resolved it: what it will do, not what
// we think the file says.
type model struct {
	Services map[string]map[string]json.RawMessage `json:"services"`
	Volumes  map[string]definition                 `json:"volumes"`
	Secrets  map[string]definition                 `json:"secrets"`
	Configs  map[string]definition                 `json:"configs"`
	Networks map[string]network                    `json:"networks"`
}

// definition is a top-level volume, secret or config.
type definition struct {
	Driver     string            `json:"driver"`
	DriverOpts map[string]string `json:"driver_opts"`
	External   bool              `json:"external"`
	File       string            `json:"file"`
}

func (m *model) text(service, key string) string {
	var s string
	_ = json.Unmarshal(m.Services[service][key], &s) // another type is no text
	return s
}

func (m *model) names() []string {
	var out []string
	for n := range m.Services {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// resolve asks Compose. Values of the environment are in the result: it stays in
// memory.
func (e *Engine) resolve(ctx context.Context, env []keys.EnvVar, dir, file string, extra ...string) (*model, error) {
	args := append([]string{"--ansi", "never", "--project-name", e.cfg.Project, "--project-directory", dir, "--file", file, "config", "--format", "json"}, extra...)
	out, errs := &capped{max: maxModel}, &run.Tail{Max: 4 << 10}
	if err := e.run(ctx, env, out, errs, e.cfg.Compose, args...); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "docker compose config: %w: %s", err, redact(errs.String(), env)).WithReason(ReasonUp)
	}
	if out.over {
		return nil, cvm.Errorf(cvm.Invalid, "the compose file is over %d bytes once resolved", maxModel).WithReason(ReasonUp)
	}
	var m model
	if err := json.Unmarshal(out.b.Bytes(), &m); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "docker compose config: its answer cannot be read").WithReason(ReasonUp)
	}
	if len(m.Services) > maxServices {
		return nil, cvm.Errorf(cvm.Invalid, "the compose file has %d services, the limit is %d", len(m.Services), maxServices).WithReason(ReasonUp)
	}
	return &m, nil
}

// capped keeps the first max bytes and remembers that there were more.
type capped struct {
	b    bytes.Buffer
	max  int
	over bool
}

func (c *capped) Write(p []byte) (int, error) {
	if c.b.Len()+len(p) > c.max {
		c.over = true
		return 0, errors.New("too long")
	}
	return c.b.Write(p)
}

// wanted is one image that services ask for.
type wanted struct {
	ref      string
	platform string
	policy   string // pull_policy
	services []string
}

// images are the distinct images of the services that Compose does not build.
func (m *model) images() []wanted {
	var out []wanted
	for _, s := range m.names() {
		w := wanted{ref: m.text(s, "image"), platform: m.text(s, "platform"), policy: m.text(s, "pull_policy"), services: []string{s}}
		if _, builds := m.Services[s]["build"]; builds || w.ref == "" {
			continue
		}
		i := slices.IndexFunc(out, func(o wanted) bool { return o.ref == w.ref && o.platform == w.platform && o.policy == w.policy })
		if i < 0 {
			out = append(out, w)
			continue
		}
		out[i].services = append(out[i].services, s)
	}
	return out
}

// pinned reports whether a reference names its content.
func pinned(ref string) bool {
	_, digest, ok := strings.Cut(ref, "@sha256:")
	return ok && len(digest) == 64
}

// report says of each image how it is named; images that are built here are named
// by nothing that anyone measured.
func (m *model) report() []guestapi.ImageUse {
	out := []guestapi.ImageUse{}
	for _, s := range m.names() {
		_, builds := m.Services[s]["build"]
		u := guestapi.ImageUse{Service: s, Image: m.text(s, "image"), Built: builds}
		u.Pinned = !builds && pinned(u.Image)
		out = append(out, u)
	}
	return out
}

// Unpinned are the services whose image a registry may exchange.
func Unpinned(uses []guestapi.ImageUse) []string {
	var out []string
	for _, u := range uses {
		if !u.Pinned {
			out = append(out, fmt.Sprintf("%s (%s)", u.Service, u.Image))
		}
	}
	return out
}
