package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
	"github.com/confidential-cloud/phala/keys"
)

// ReasonGPU is of an app that needs a GPU in a guest without one.
const ReasonGPU = "gpu-not-available"

// maxExports bounds the environment that a script leaves, in bytes.
const maxExports = 4 << 20

// Builtin are the variables that every app is given: DSTACK_APP_ID and, where a
// gateway serves the app, DSTACK_GATEWAY_DOMAIN and DSTACK_APP_DOMAIN. A gateway
// domain in the app's own environment wins.
func Builtin(app, domain string, env []keys.EnvVar) []keys.EnvVar {
	const id, gateway, own = "DSTACK_APP_ID", "DSTACK_GATEWAY_DOMAIN", "DSTACK_APP_DOMAIN"
	for _, v := range env {
		if v.Key == gateway {
			domain = v.Value
		}
	}
	out := slices.DeleteFunc(slices.Clone(env), func(v keys.EnvVar) bool { return v.Key == id || v.Key == gateway || v.Key == own })
	if app == "" {
		return out
	}
	out = append(out, keys.EnvVar{Key: id, Value: app})
	if domain != "" {
		out = append(out, keys.EnvVar{Key: gateway, Value: domain}, keys.EnvVar{Key: own, Value: app + "." + domain})
	}
	return out
}

// preLaunch runs the script as the reference does, in the shell that starts Compose
// next: what it exports or unsets holds for the compose file. It returns the
// environment as the script left it.
func (e *Engine) preLaunch(ctx context.Context, text string, env []keys.EnvVar) ([]keys.EnvVar, error) {
	path := filepath.Join(e.cfg.WorkDir, "pre_launch_script.sh")
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		return nil, fmt.Errorf("writing pre_launch_script: %w", err)
	}
	// A pipe, not a file: the environment is secret.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := &run.Tail{Max: 4 << 10}
	cmd := e.process(ctx, env, "bash", "-c", `trap '/usr/bin/env -0 >&3' EXIT; . "$0"`, path)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, []*os.File{w}
	left := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(r, maxExports+1)) // what is missing shows
		_ = r.Close()
		left <- b
	}()
	err = finish(ctx, cmd)
	_ = w.Close()
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "pre_launch_script failed: %w: %s", err, redact(out.String(), env)).WithReason(ReasonScript).
			WithFix("the script is part of the app-compose; its last lines of output are above")
	}
	select {
	case b := <-left:
		return exports(b)
	case <-ctx.Done(): // a process that it left behind holds the pipe
		return nil, ctx.Err()
	}
}

// exports reads what env -0 printed, without what every process of ours is given.
func exports(b []byte) ([]keys.EnvVar, error) {
	if len(b) > maxExports || len(b) == 0 || b[len(b)-1] != 0 {
		return nil, cvm.Errorf(cvm.Invalid, "pre_launch_script left an environment of more than %d bytes, or none", maxExports).WithReason(ReasonScript)
	}
	var out []keys.EnvVar
	for line := range bytes.SplitSeq(b[:len(b)-1], []byte{0}) {
		k, v, _ := strings.Cut(string(line), "=")
		if appcompose.EnvName.MatchString(k) && !ours(k) {
			out = append(out, keys.EnvVar{Key: k, Value: v})
		}
	}
	return out, nil
}

func ours(name string) bool {
	switch name {
	case "PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_", "DOCKER_HOST", "DOCKER_CONFIG", "COMPOSE_EXPERIMENTAL_GIT_REMOTE", "COMPOSE_EXPERIMENTAL_OCI_REMOTE":
		return true
	}
	return false
}

// builds reports whether Compose makes an image here.
func (m *model) builds() bool {
	return slices.ContainsFunc(m.names(), func(s string) bool { _, b := m.Services[s]["build"]; return b })
}

// gpu is the first service that asks for a GPU; "" when none does.
func (m *model) gpu() string {
	for _, s := range m.names() {
		var d struct {
			Resources struct {
				Reservations struct {
					Devices []struct {
						Driver       string   `json:"driver"`
						Capabilities []string `json:"capabilities"`
					} `json:"devices"`
				} `json:"reservations"`
			} `json:"resources"`
		}
		_ = json.Unmarshal(m.Services[s]["deploy"], &d) // Compose wrote it
		if m.text(s, "runtime") == "nvidia" {
			return s
		}
		for _, v := range d.Resources.Reservations.Devices {
			if v.Driver == "nvidia" || slices.Contains(v.Capabilities, "gpu") {
				return s
			}
		}
	}
	return ""
}

// hasGPU refuses, before gigabytes are pulled, what the engine could not start.
func (e *Engine) hasGPU(ctx context.Context, m *model) error {
	s := m.gpu()
	if s == "" {
		return nil
	}
	info, err := e.cli.Info(ctx)
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "docker engine: %w", err).WithReason(ReasonDaemon)
	}
	if _, ok := info.Runtimes["nvidia"]; ok {
		return nil
	}
	return cvm.Errorf(cvm.Unsupported, "service %s needs a GPU, and this guest has none", s).WithReason(ReasonGPU).
		WithFix("leave the GPU out of the compose file, or deploy it where CVMs have GPUs")
}
