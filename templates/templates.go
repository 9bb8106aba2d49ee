// Package templates is the catalogue of apps that come with the cloud: a compose
// file and a description each, embedded. Images of templates that are built from
// this repository are made by templates/builder.
package templates

import (
	"embed"
	"encoding/json"
	"fmt"
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
	Compose string `json:"compose"`
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

// All returns the catalogue, sorted by id.
func All() ([]Template, error) {
	dirs, err := fs.Glob(files, "*/template.json")
	if err != nil {
		return nil, fmt.Errorf("template catalogue: %w", err)
	}
	var out []Template
	for _, p := range dirs {
		t, err := Get(p[:len(p)-len("/template.json")])
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

var idRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Get returns one template, or code not_found.
func Get(id string) (t Template, err error) {
	if !idRE.MatchString(id) {
		return t, cvm.Errorf(cvm.NotFound, "no template %q", id)
	}
	b, err := files.ReadFile(id + "/template.json")
	if err != nil {
		return t, cvm.Errorf(cvm.NotFound, "no template %q", id)
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fmt.Errorf("template %s: %w", id, err)
	}
	compose, err := files.ReadFile(id + "/docker-compose.yml")
	if err != nil {
		return t, fmt.Errorf("template %s: %w", id, err)
	}
	t.Compose = string(compose)
	return t, nil
}
