// Package templates is the catalogue of apps that come with the cloud: a compose
// file and a description each, embedded. Images of templates that are built from
// this repository are made by templates/builder.
package templates

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"

	"github.com/confidential-cloud/phala/cvm"
)

//go:embed */template.json */docker-compose.yml
var files embed.FS

// Template is one entry: the reference catalogue's fields, and the compose file.
type Template struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	Description     string    `json:"description,omitempty"`
	Repo            string    `json:"repo"`
	Author          string    `json:"author"`
	Icon            string    `json:"icon,omitempty"`
	Tags            []string  `json:"tags,omitempty"`
	Envs            []Env     `json:"envs,omitempty"`
	DefaultResource *Resource `json:"defaultResource,omitempty"`
	// Compose is ours: the docker-compose.yml, verbatim.
	Compose string `json:"-"`
}

// Env is a value the person deploying may or must give.
type Env struct {
	Key         string `json:"key"`
	Required    bool   `json:"required"`
	Default     string `json:"default,omitempty"`
	Description string `json:"description,omitempty"`
}

// Resource is what the app wants at least.
type Resource struct {
	VCPU     int `json:"vCPU"`
	Memory   int `json:"memory"`   // MB
	DiskSize int `json:"diskSize"` // GB
}

// Catalogue is a directory of templates: ID/template.json and ID/docker-compose.yml.
type Catalogue struct{ files fs.FS }

// Builtin is the catalogue that is part of the programs.
func Builtin() Catalogue { return Catalogue{files} }

// Dir is somebody's own catalogue.
func Dir(f fs.FS) Catalogue { return Catalogue{f} }

// All returns the catalogue that comes with the cloud, sorted by id.
func All() ([]Template, error) { return Builtin().All() }

// Get returns one template that comes with the cloud, or code not_found.
func Get(id string) (Template, error) { return Builtin().Get(id) }

// All returns the catalogue, sorted by id. One bad template is an error: what is
// wrong with it is found where it is made.
func (c Catalogue) All() ([]Template, error) {
	dirs, err := fs.Glob(c.files, "*/template.json")
	if err != nil {
		return nil, fmt.Errorf("template catalogue: %w", err)
	}
	var out []Template
	for _, p := range dirs {
		t, err := c.Get(p[:len(p)-len("/template.json")])
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// maxFile bounds a file of a template, in bytes.
const maxFile = 256 << 10

var (
	idRE  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	envRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// Get returns one template: code not_found for none, invalid for one that breaks the
// catalogue's rules.
func (c Catalogue) Get(id string) (t Template, err error) {
	none := cvm.Errorf(cvm.NotFound, "no template %q", id).WithFix("phala templates lists them")
	if !idRE.MatchString(id) {
		return t, none
	}
	b, err := c.read(id + "/template.json")
	if errors.Is(err, fs.ErrNotExist) {
		return t, none
	} else if err != nil {
		return t, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return Template{}, cvm.Errorf(cvm.Invalid, "template %s: template.json: %w", id, err)
	}
	compose, err := c.read(id + "/docker-compose.yml")
	if err != nil {
		return Template{}, cvm.Errorf(cvm.Invalid, "template %s: %w", id, err)
	}
	t.Compose = string(compose)
	if why := t.problem(id); why != "" {
		return Template{}, cvm.Errorf(cvm.Invalid, "template %s: %s", id, why)
	}
	return t, nil
}

func (c Catalogue) read(path string) ([]byte, error) {
	f, err := c.files.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = cvm.Errorf(cvm.Invalid, "%s is larger than %d bytes", path, maxFile)
	}
	return b, err
}

// problem is the first rule of the catalogue that a template breaks.
func (t Template) problem(dir string) string {
	switch r := t.DefaultResource; {
	case t.ID != dir:
		return fmt.Sprintf("its id is %q, its directory %q", t.ID, dir)
	case t.Name == "" || t.Repo == "" || t.Author == "":
		return "name, repo and author are needed"
	case t.Compose == "":
		return "docker-compose.yml is empty"
	case r != nil && (r.VCPU < 1 || r.Memory < 1024 || r.DiskSize < 10):
		return "defaultResource begins with 1 vCPU, 1024 MB memory and 10 GB disk"
	}
	seen := map[string]bool{}
	for _, e := range t.Envs {
		switch {
		case !envRE.MatchString(e.Key):
			return fmt.Sprintf("%q cannot name an environment variable", e.Key)
		case seen[e.Key]:
			return e.Key + " is there twice"
		case e.Required && e.Default != "":
			return e.Key + " is required and has a default"
		}
		seen[e.Key] = true
	}
	return ""
}
