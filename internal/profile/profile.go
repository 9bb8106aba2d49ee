// Package profile keeps what a person's CLI remembers: logins in
// credentials.json, in the format of the public Phala CLI so that both share a
// login, and beside it extras.toml with what only ours knows (trust profile,
// wallet, gateway address). The dev cloud writes both; the CLI reads them.
package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/pelletier/go-toml/v2"

	"github.com/confidential-cloud/phala/cvm"
)

// DefaultAPI is the API prefix when nothing else names one.
const DefaultAPI = "https://cloud-api.phala.com/api/v1"

// Dir is $PHALA_CLOUD_DIR, or ~/.phala-cloud.
func Dir(getenv func(string) string) (string, error) {
	if d := getenv("PHALA_CLOUD_DIR"); d != "" {
		return filepath.Abs(d)
	}
	home := getenv("HOME")
	if home == "" {
		return "", cvm.Errorf(cvm.Precondition, "no home directory to keep logins in").WithFix("set HOME or PHALA_CLOUD_DIR")
	}
	return filepath.Join(home, ".phala-cloud"), nil
}

// Credentials is credentials.json (schema_version 1).
type Credentials struct {
	SchemaVersion int              `json:"schema_version"`
	Current       string           `json:"current_profile"`
	Profiles      map[string]Login `json:"profiles"`
}

// Login is one profile. Token is an API key: do not print it.
type Login struct {
	Token     string    `json:"token"`
	APIPrefix string    `json:"api_prefix"` // whole, with /api/v1
	Workspace Workspace `json:"workspace"`
	User      User      `json:"user"`
	UpdatedAt string    `json:"updated_at"`
}

// Workspace names the login's workspace.
type Workspace struct {
	Name string `json:"name"`
	Slug string `json:"slug,omitempty"`
}

// User names the login's user.
type User struct {
	Username string `json:"username"`
	Email    string `json:"email"`
}

// String keeps the token out of prints.
func (l Login) String() string { return l.User.Username + " at " + l.APIPrefix }

// GoString keeps the token out of %#v.
func (l Login) GoString() string { return l.String() }

// Extras is extras.toml.
type Extras struct {
	Profiles map[string]Extra `toml:"profiles"`
}

// Extra is what ours knows about a profile. Paths are absolute.
type Extra struct {
	Trust      string `toml:"trust,omitempty" json:"trust,omitempty"`           // trust profile (TOML)
	Wallet     string `toml:"wallet,omitempty" json:"wallet,omitempty"`         // encrypted key file
	Passphrase string `toml:"passphrase,omitempty" json:"passphrase,omitempty"` // file with its passphrase; empty: ask
	Gateway    string `toml:"gateway,omitempty" json:"gateway,omitempty"`       // host:port to dial instead of resolving the app's name
	CA         string `toml:"ca,omitempty" json:"ca,omitempty"`                 // PEM file of a private CA the gateway uses
}

const (
	credentialsFile = "credentials.json"
	extrasFile      = "extras.toml"
)

// LoadCredentials reads credentials.json; a missing file is an empty one.
func LoadCredentials(dir string) (*Credentials, error) {
	c := &Credentials{SchemaVersion: 1, Profiles: map[string]Login{}}
	path := filepath.Join(dir, credentialsFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading logins: %w", err)
	}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "%s is damaged: %v", path, jsonPlace(err)).WithFix("move it away and run: phala login")
	}
	if c.SchemaVersion != 1 {
		return nil, cvm.Errorf(cvm.Unsupported, "%s has schema version %d; this CLI knows 1", path, c.SchemaVersion)
	}
	if c.Profiles == nil {
		c.Profiles = map[string]Login{}
	}
	return c, nil
}

// jsonPlace describes a JSON error without quoting the file, which holds tokens.
func jsonPlace(err error) string {
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return fmt.Sprintf("not JSON at byte %d", s.Offset)
	}
	return "a field has the wrong type"
}

// Save writes credentials.json, mode 0600, atomically.
func (c *Credentials) Save(dir string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, credentialsFile), append(b, '\n'))
}

// Find returns a profile by its name, else by workspace slug, else by workspace name.
func (c *Credentials) Find(name string) (string, Login, bool) {
	if l, ok := c.Profiles[name]; ok {
		return name, l, true
	}
	for n, l := range c.Profiles {
		if l.Workspace.Slug == name {
			return n, l, true
		}
	}
	for n, l := range c.Profiles {
		if l.Workspace.Name == name {
			return n, l, true
		}
	}
	return name, Login{}, false
}

// LoadExtras reads extras.toml strictly; a missing file is an empty one.
func LoadExtras(dir string) (*Extras, error) {
	x := &Extras{Profiles: map[string]Extra{}}
	path := filepath.Join(dir, extrasFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "%s: %w", path, err)
	}
	if x.Profiles == nil {
		x.Profiles = map[string]Extra{}
	}
	return x, nil
}

// Save writes extras.toml, mode 0600, atomically.
func (x *Extras) Save(dir string) error {
	b, err := toml.Marshal(x)
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, extrasFile), b)
}

// Put stores a login and its extras under a name and makes it the current
// profile. It is what the dev cloud calls when it is ready.
func Put(dir, name string, l Login, x Extra) error {
	c, err := LoadCredentials(dir)
	if err != nil {
		return err
	}
	e, err := LoadExtras(dir)
	if err != nil {
		return err
	}
	if l.UpdatedAt == "" {
		l.UpdatedAt = time.Now().UTC().Format(time.RFC3339)
	}
	c.Profiles[name], c.Current, e.Profiles[name] = l, name, x
	if err := e.Save(dir); err != nil {
		return err
	}
	return c.Save(dir)
}

// WriteFile replaces a private file atomically, making its directory (0700).
func WriteFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + "." + uuid.NewString()
	defer os.Remove(tmp)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
