// Package secrets opens the app's encrypted environment and turns it into what the
// containers see. Values live in memory and on tmpfs only; they have no String.
package secrets

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
)

// Limits of a decrypted environment (dstack-core E).
const (
	MaxVars  = 1024
	MaxName  = 255       // bytes
	MaxValue = 128 << 10 // bytes
	MaxTotal = 1 << 20   // bytes, names and values
)

// ReasonEnv is the reason of an environment that cannot be used.
const ReasonEnv = "environment-invalid"

// Var is one variable. Its value is secret: it prints as its name.
type Var struct {
	Name  string
	value string
}

// NewVar makes a variable.
func NewVar(name, value string) Var { return Var{Name: name, value: value} }

// Reveal returns the value. Do not log it.
func (v Var) Reveal() string             { return v.value }
func (v Var) String() string             { return v.Name + "=[redacted]" }
func (v Var) GoString() string           { return v.String() }
func (v Var) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }
func (v Var) LogValue() slog.Value       { return slog.StringValue(v.String()) }

// ParseEnv reads the decrypted document {"env":[{"key","value"}]} and keeps the
// names that the measured app-compose allows. dropped are the names it does not;
// empty names are dropped without a word (clients pad with them).
func ParseEnv(plain []byte, allowed []string) (vars []Var, dropped []string, err error) {
	var doc struct {
		Env []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"env"`
	}
	if err := json.Unmarshal(plain, &doc); err != nil {
		// The decoder's message may quote the plaintext: it is withheld.
		return nil, nil, bad("the decrypted environment is not the expected JSON")
	}
	if len(doc.Env) > MaxVars {
		return nil, nil, bad("the environment has %d variables, the limit is %d", len(doc.Env), MaxVars)
	}
	at, total := map[string]int{}, 0
	for _, e := range doc.Env {
		total += len(e.Key) + len(e.Value)
		switch {
		case len(e.Key) > MaxName:
			return nil, nil, bad("an environment name has %d bytes, the limit is %d", len(e.Key), MaxName)
		case len(e.Value) > MaxValue:
			return nil, nil, bad("the value of %q has %d bytes, the limit is %d", e.Key, len(e.Value), MaxValue)
		case total > MaxTotal:
			return nil, nil, bad("the environment is over %d bytes", MaxTotal)
		case e.Key == "":
			continue
		case !appcompose.EnvName.MatchString(e.Key) || !slices.Contains(allowed, e.Key):
			dropped = append(dropped, printable(e.Key))
			continue
		case strings.ContainsRune(e.Value, 0):
			return nil, nil, bad("the value of %q contains a zero byte", e.Key)
		}
		if i, ok := at[e.Key]; ok { // the last one counts, as in a shell
			vars[i] = NewVar(e.Key, e.Value)
			continue
		}
		at[e.Key] = len(vars)
		vars = append(vars, NewVar(e.Key, e.Value))
	}
	return vars, dropped, nil
}

// printable makes a foreign name safe for logs.
func printable(s string) string {
	if !utf8.ValidString(s) || len(s) > 64 {
		return fmt.Sprintf("(%d bytes)", len(s))
	}
	return s
}

func bad(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, format, args...).WithReason(ReasonEnv)
}

// Environ is the variables as a process environment.
func Environ(vars []Var) []string {
	out := make([]string, 0, len(vars))
	for _, v := range vars {
		out = append(out, v.Name+"="+v.value)
	}
	return out
}

// ShellFile is the reference's .decrypted-env: one shell-quoted KEY=value per line.
func ShellFile(vars []Var) []byte {
	var b strings.Builder
	for _, v := range vars {
		b.WriteString(v.Name + "='" + strings.ReplaceAll(v.value, "'", `'\''`) + "'\n")
	}
	return []byte(b.String())
}

// JSONFile is the reference's .decrypted-env.json: an object of strings.
func JSONFile(vars []Var) ([]byte, error) {
	m := map[string]string{}
	for _, v := range vars {
		m[v.Name] = v.value
	}
	return json.Marshal(m)
}

// Login is a registry's credentials, given by the app's environment.
type Login struct {
	Registry string // host[:port]; "" is Docker Hub
	Username string
	password string
}

// Names of the variables that carry registry credentials.
const (
	EnvUsername = "DSTACK_DOCKER_USERNAME"
	EnvPassword = "DSTACK_DOCKER_PASSWORD"
	EnvRegistry = "DSTACK_DOCKER_REGISTRY"
)

// dockerHub is the key under which docker looks for Docker Hub's credentials.
const dockerHub = "https://index.docker.io/v1/"

// LoginOf reads the credentials; nil when the environment has none. One half of a
// pair is an error: the pull would fail later with a text that misleads.
func LoginOf(vars []Var) (*Login, error) {
	var l Login
	for _, v := range vars {
		switch v.Name {
		case EnvUsername:
			l.Username = v.value
		case EnvPassword:
			l.password = v.value
		case EnvRegistry:
			l.Registry = v.value
		}
	}
	switch {
	case l.Username == "" && l.password == "":
		return nil, nil
	case l.Username == "" || l.password == "":
		return nil, bad("registry credentials need both %s and %s", EnvUsername, EnvPassword)
	}
	l.Registry = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(l.Registry, "https://"), "http://"), "/")
	if strings.ContainsAny(l.Registry, " \t\n@?#") {
		return nil, bad("%s is not a registry host", EnvRegistry)
	}
	return &l, nil
}

// DockerConfig is the config.json that gives the credentials to the docker client.
func (l *Login) DockerConfig() ([]byte, error) {
	key := l.Registry
	if key == "" || key == "docker.io" || key == "index.docker.io" {
		key = dockerHub
	}
	auth := base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.password))
	return json.Marshal(map[string]any{"auths": map[string]any{key: map[string]string{"auth": auth}}})
}

// Password returns the password. Do not log it.
func (l *Login) Password() string           { return l.password }
func (l *Login) String() string             { return l.Username + "@" + l.Registry }
func (l *Login) GoString() string           { return l.String() }
func (l *Login) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, l.String()) }
