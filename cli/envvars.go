package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/composefile"
	"github.com/confidential-cloud/phala/keys"
)

// readEnv collects -e values (KEY=VALUE or files) in order; a later value of the
// same name wins. Values never appear in an error.
func (a *app) readEnv(values []string) ([]keys.EnvVar, error) {
	var out []keys.EnvVar
	at := map[string]int{}
	add := func(k, v, where string) error {
		if !appcompose.EnvName.MatchString(k) {
			return cvm.Errorf(cvm.Invalid, "%s: %q is not a name for an environment variable", where, k).
				WithFix("letters, digits and _, not beginning with a digit")
		}
		if i, ok := at[k]; ok {
			out[i].Value = v
			return nil
		}
		at[k] = len(out)
		out = append(out, keys.EnvVar{Key: k, Value: v})
		return nil
	}
	for _, val := range values {
		k, v, isPair := strings.Cut(val, "=")
		if isPair {
			if err := add(k, v, "-e"); err != nil {
				return nil, err
			}
			continue
		}
		if err := readEnvFile(a.path(val), add); err != nil {
			return nil, err
		}
	}
	return out, keys.CheckEnv(out)
}

func (a *app) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(a.Workdir, p)
}

// readEnvFile reads KEY=VALUE lines: # comments, an optional "export ", and one
// pair of quotes around a value; nothing is expanded.
func readEnvFile(path string, add func(k, v, where string) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cvm.Errorf(cvm.Invalid, "-e %s: neither KEY=VALUE nor a file that exists", filepath.Base(path)).
			WithFix("-e NAME=value, or -e path/to/.env")
	} else if err != nil {
		return cvm.Errorf(cvm.Invalid, "reading the env file: %w", err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 64<<10), keys.MaxEnvTotal+1024)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		where := fmt.Sprintf("%s:%d", filepath.Base(path), n)
		k, v, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return cvm.Errorf(cvm.Invalid, "%s: no = in this line", where).WithFix("write NAME=value")
		}
		if err := add(strings.TrimSpace(k), unquote(strings.TrimSpace(v)), where); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return cvm.Errorf(cvm.Invalid, "%s: a line is longer than the limit of an environment", filepath.Base(path))
	}
	return nil
}

func unquote(v string) string {
	if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
		return v[1 : len(v)-1]
	}
	return v
}

// checkEnvUse compares what the compose file reads with what was given. have is
// nil when the environment stays as it is (an update without -e).
func checkEnvUse(f *composefile.File, have []keys.EnvVar) (warnings []string, err error) {
	given := map[string]bool{}
	for _, v := range have {
		given[v.Key] = true
	}
	used := map[string]bool{}
	var missing []string
	for _, e := range f.Envs() {
		used[e.Name] = true
		switch {
		case given[e.Name]:
		case e.Required:
			missing = append(missing, e.Name)
		case !e.HasValue:
			warnings = append(warnings, fmt.Sprintf("line %d: ${%s} has no value and no default: it will be empty", e.Line, e.Name))
		}
	}
	if len(missing) > 0 {
		return nil, cvm.Errorf(cvm.Invalid, "the compose file requires %s, and no value was given", strings.Join(missing, ", ")).
			WithFix("-e " + missing[0] + "=...")
	}
	for _, v := range have {
		if !used[v.Key] && !strings.HasPrefix(v.Key, "DSTACK_") {
			warnings = append(warnings, v.Key+" was given, and the compose file does not read it")
		}
	}
	return warnings, nil
}

func envNames(env []keys.EnvVar) []string {
	names := make([]string, 0, len(env))
	for _, v := range env {
		names = append(names, v.Key)
	}
	return names
}
