package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type conf struct {
	Listen string `toml:"listen"`
	Limits struct {
		Max int `toml:"max"`
	} `toml:"limits"`
}

func (c *conf) Validate() error {
	if c.Listen == "" {
		return errors.New("listen is empty")
	}
	return nil
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	for _, tc := range []struct{ name, text, want string }{
		{"good", "listen = 'a'\n[limits]\nmax = 3\n", ""},
		{"unknown key with its line", "listen = 'a'\n\nlistne = 'b'\n", "3|"},
		{"broken, with line and column", "listen = 'a'\nmax = = 3\n", "c.toml:2:"},
		{"invalid", "[limits]\nmax = 3\n", "listen is empty"},
	} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &conf{}
		err := Load(path, c)
		if tc.want == "" {
			if err != nil || c.Limits.Max != 3 {
				t.Errorf("%s: %v %+v", tc.name, err, c)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want it to hold %q", tc.name, err, tc.want)
		}
	}
}

func TestSaveIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := Save(path, &conf{Listen: "x"}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	c := &conf{}
	if err := Load(path, c); err != nil || c.Listen != "x" {
		t.Errorf("%v %+v", err, c)
	}
}
