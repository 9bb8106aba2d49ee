package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type conf struct {
	Listen string `toml:"listen"`
	Limits struct {
		Max  int      `toml:"max"`
		Wait Duration `toml:"wait"`
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
		{"good", "listen = 'a'\n[limits]\nmax = 3\nwait = '1m30s'\n", ""},
		{"unknown key with its line", "listen = 'a'\n\nlistne = 'b'\n", "3|"},
		{"broken, with line and column", "listen = 'a'\nmax = = 3\n", "c.toml:2:"},
		{"a bare number is no duration", "listen = 'a'\n[limits]\nwait = 90\n", "90 is not a duration"},
		{"not a duration", "listen = 'a'\n[limits]\nwait = 'soon'\n", `"soon" is not a duration`},
		{"invalid", "[limits]\nmax = 3\n", "listen is empty"},
	} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &conf{}
		err := Load(path, c)
		if tc.want == "" {
			if err != nil || c.Limits.Max != 3 || time.Duration(c.Limits.Wait) != 90*time.Second {
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
	saved := &conf{Listen: "x"}
	saved.Limits.Wait = Duration(90 * time.Second)
	if err := Save(path, saved); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	c := &conf{}
	if err := Load(path, c); err != nil || *c != *saved {
		t.Errorf("%v %+v", err, c)
	}
}
