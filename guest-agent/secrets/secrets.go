// Package secrets opens the app's encrypted environment and turns it into what the
// containers see. Values live in memory and on tmpfs only.
package secrets

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Reasons of an environment that cannot be used.
const (
	ReasonEnv       = "environment-invalid"
	ReasonSignature = kmsapi.ReasonEnvSwapped
)

// Open decrypts the environment with the app's key and keeps the variables that
// the measured app-compose allows, the last one where a name occurs twice. dropped
// are the names it does not allow (safe to log).
func Open(key keys.Secret, blob []byte, allowed []string) (vars []keys.EnvVar, dropped []string, err error) {
	all, err := keys.DecryptEnv(key, blob)
	if err != nil {
		return nil, nil, bad("%w", err)
	}
	at := map[string]int{}
	for _, v := range all {
		switch {
		case v.Key == "": // clients pad with empty names
			continue
		case !appcompose.EnvName.MatchString(v.Key) || !slices.Contains(allowed, v.Key):
			dropped = append(dropped, printable(v.Key))
			continue
		case strings.ContainsRune(v.Value, 0):
			return nil, nil, bad("the value of %q contains a zero byte", v.Key)
		}
		if i, ok := at[v.Key]; ok {
			vars[i] = v
			continue
		}
		at[v.Key] = len(vars)
		vars = append(vars, v)
	}
	return vars, dropped, nil
}

// CheckSignature holds the environment to the signers that the measured
// app-compose names (T11). The KMS has checked it too, and alone knows the
// counter's high-water mark; here a KMS that did not look is caught.
func CheckSignature(signers []string, sig *vmmapi.EnvSignature, app cvm.AppID, blob []byte) error {
	if len(signers) == 0 || len(blob) == 0 {
		return nil
	}
	no := func(text string) error {
		return cvm.Errorf(cvm.Denied, "environment: %s", text).WithReason(ReasonSignature).
			WithFix("send the environment again with `phala envs update`, signed by one of the app's env_signers")
	}
	if sig == nil {
		return no("the app asks for a signed environment, and this one has no signature")
	}
	raw, err := hex.DecodeString(strings.TrimPrefix(sig.Signature, "0x"))
	if err != nil {
		return no("the signature is not hex")
	}
	who, err := keys.RecoverEnvSigner(raw, app, sig.Counter, sha256.Sum256(blob))
	if err != nil {
		return no("the signature does not cover this environment")
	}
	for _, s := range signers {
		if keys.SameAddress(s, who) {
			return nil
		}
	}
	return no("it is signed by " + who + ", which the app does not name (or it was changed after signing)")
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
func Environ(vars []keys.EnvVar) []string {
	out := make([]string, 0, len(vars))
	for _, v := range vars {
		out = append(out, v.Key+"="+v.Value)
	}
	return out
}

// ShellFile is the reference's .decrypted-env: one shell-quoted KEY=value per line.
func ShellFile(vars []keys.EnvVar) []byte {
	var b strings.Builder
	for _, v := range vars {
		b.WriteString(v.Key + "='" + strings.ReplaceAll(v.Value, "'", `'\''`) + "'\n")
	}
	return []byte(b.String())
}

// JSONFile is the reference's .decrypted-env.json: an object of strings.
func JSONFile(vars []keys.EnvVar) ([]byte, error) {
	m := map[string]string{}
	for _, v := range vars {
		m[v.Key] = v.Value
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
func LoginOf(vars []keys.EnvVar) (*Login, error) {
	var l Login
	for _, v := range vars {
		switch v.Key {
		case EnvUsername:
			l.Username = v.Value
		case EnvPassword:
			l.password = v.Value
		case EnvRegistry:
			l.Registry = v.Value
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
