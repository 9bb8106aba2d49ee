package cli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/profile"
)

const updateText = `This program does not replace itself: a program that fetches its own successor makes
whoever serves it the owner of this machine. Build the next one from source you checked:

  git -C PATH/TO/CLONE pull && make -C PATH/TO/CLONE build
`

func (a *app) selfCmd() *cobra.Command {
	var yes, dry bool
	var pm, channel string
	c := &cobra.Command{Use: "update", Short: "Say how this program is updated (nothing is fetched)", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]any{"version": a.Version, "updated": false, "how": updateText})
			}
			a.printf("phala %s\n\n%s", a.Version, updateText)
			return nil
		}}
	f := c.Flags()
	f.BoolVarP(&yes, "yes", "y", false, "")
	f.BoolVar(&dry, "dry-run", false, "")
	f.StringVar(&pm, "package-manager", "", "")
	f.StringVar(&pm, "pm", "", "")
	f.StringVar(&channel, "channel", "", "")
	for _, n := range []string{"yes", "dry-run", "package-manager", "pm", "channel"} {
		_ = f.MarkHidden(n)
	}
	return a.group("self", "About this program", c)
}

// configFile holds settings of the public CLI beside its update check.
const configFile = "state.json"

var configKey = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

func (a *app) configCmd() *cobra.Command {
	get := &cobra.Command{Use: "get <key>", Short: "Show a setting", Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, as []string) error {
			m, _, err := a.config()
			if err != nil {
				return err
			}
			v, ok := m[as[0]]
			if !ok {
				return cvm.Errorf(cvm.NotFound, "no setting %q", as[0]).WithFix("phala config list shows them")
			}
			if a.json {
				return a.printJSON(map[string]any{"key": as[0], "value": v})
			}
			a.printf("%s\n", settingText(v))
			return nil
		}}
	list := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List settings", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			m, _, err := a.config()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"config": m})
			}
			for _, k := range slices.Sorted(maps.Keys(m)) {
				a.printf("%s = %s\n", k, settingText(m[k]))
			}
			return nil
		}}
	set := &cobra.Command{Use: "set <key> <value>", Short: "Change a setting", Args: args(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, as []string) error {
			if !configKey.MatchString(as[0]) {
				return usage("%q cannot name a setting", as[0])
			}
			if k := strings.ToLower(as[0]); strings.Contains(k, "key") || strings.Contains(k, "token") || strings.Contains(k, "secret") {
				return usage("%q looks like a secret: logins are kept by phala login", as[0])
			}
			m, path, err := a.config()
			if err != nil {
				return err
			}
			b, err := json.Marshal(as[1])
			if err != nil {
				return err
			}
			if json.Valid([]byte(as[1])) {
				b = []byte(as[1]) // numbers and booleans stay what they are
			}
			m[as[0]] = b
			if b, err = json.MarshalIndent(m, "", "  "); err != nil {
				return err
			}
			if err := profile.WriteFile(path, append(b, '\n')); err != nil {
				return err
			}
			return a.done(map[string]any{"key": as[0]}, "set "+as[0])
		}}
	return a.group("config", "Settings shared with the public CLI", get, list, set)
}

func settingText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

func (a *app) config() (m map[string]json.RawMessage, path string, err error) {
	dir, err := profile.Dir(a.Getenv)
	if err != nil {
		return nil, "", err
	}
	path = filepath.Join(dir, configFile)
	m = map[string]json.RawMessage{}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, path, os.MkdirAll(dir, 0o700)
	} else if err != nil {
		return nil, "", err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, "", cvm.Errorf(cvm.Invalid, "%s is damaged", path).WithFix("move it away")
	}
	return m, path, nil
}
