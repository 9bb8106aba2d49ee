// Package config reads one strict TOML file per service: an unknown key is an
// error with its line. Order: the caller's defaults, then the file, then
// Validate, which returns all problems at once.
package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Validator is implemented by configs that can check themselves.
type Validator interface{ Validate() error }

// Load reads path into c, which holds the defaults, and validates it.
func Load(path string, c Validator) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading config: %w", err)
	}
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields().EnableUnmarshalerInterface()
	if err := d.Decode(c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return fmt.Errorf("config %s: unknown keys:\n%s", path, strict.String())
		}
		var de *toml.DecodeError
		if errors.As(err, &de) {
			row, col := de.Position()
			return fmt.Errorf("config %s:%d:%d: %w", path, row, col, err)
		}
		return fmt.Errorf("config %s: %w", path, err)
	}
	if err := c.Validate(); err != nil {
		return fmt.Errorf("config %s: %w", path, err)
	}
	return nil
}

// Save writes c as TOML with mode 0600 (configs name where secrets are).
func Save(path string, c any) error {
	b, err := toml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding config: %w", err)
	}
	return os.WriteFile(path, b, 0o600)
}

// Duration is a time.Duration that TOML writes as "1m30s". A bare number is an
// error: nobody means nanoseconds.
type Duration time.Duration

// UnmarshalTOML admits strings only (without it, numbers never reach UnmarshalText).
func (d *Duration) UnmarshalTOML(b []byte) error {
	var v struct{ D any }
	if err := toml.Unmarshal(append([]byte("D = "), b...), &v); err != nil {
		return err
	}
	s, ok := v.D.(string)
	if !ok {
		return fmt.Errorf("%s is not a duration such as \"30s\"", bytes.TrimSpace(b))
	}
	return d.UnmarshalText([]byte(s))
}

// UnmarshalText reads Go's duration syntax.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as \"30s\"", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes Go's duration syntax.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is Go's duration syntax.
func (d Duration) String() string { return time.Duration(d).String() }

// PathFlag registers -c and -config, which every service takes.
func PathFlag(fs *flag.FlagSet, def string) *string {
	path := fs.String("config", def, "configuration `file` (TOML)")
	fs.StringVar(path, "c", def, "configuration `file` (TOML)")
	return path
}
