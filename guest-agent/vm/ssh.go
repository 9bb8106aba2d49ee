package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"github.com/confidential-cloud/phala/cvm"
)

// SSHPort of a development image.
const SSHPort = 22

// EnvAuthorizedKeys is the variable of the encrypted environment that holds public keys,
// one per line.
const EnvAuthorizedKeys = "DSTACK_AUTHORIZED_KEYS"

const (
	sshd    = "/usr/sbin/sshd"
	maxKeys = 64
)

// HasSSH reports whether this is a development image. The root filesystem is
// measured, so the host has no say in it.
func HasSSH() bool {
	_, err := os.Stat(sshd)
	return err == nil
}

// AuthorizedKeys gathers the public keys of the encrypted environment and of the
// user's configuration (ssh_authorized_keys), without options, and counts the lines
// that are none. Only development images read them.
func AuthorizedKeys(env string, userConfig []byte) (keys []string, bad int) {
	lines := strings.Split(env, "\n")
	var user struct {
		Keys []string `json:"ssh_authorized_keys"`
	}
	if json.Unmarshal(userConfig, &user) == nil {
		lines = append(lines, user.Keys...)
	}
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		k, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(l))
		if err != nil || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 || len(keys) == maxKeys {
			bad++
			continue
		}
		line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
		if comment != "" {
			line += " " + comment
		}
		keys = append(keys, line)
	}
	return keys, bad
}

const sshdConfig = `Port 22
HostKey /run/ssh/host_key
AuthorizedKeysFile /run/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
`

// ServeSSH runs sshd with fresh host keys until ctx ends.
func ServeSSH(ctx context.Context, log *slog.Logger, keys []string) error {
	const dir = "/run/ssh"
	for _, d := range []string{dir, "/run/sshd"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return cvm.Errorf(cvm.Internal, "ssh: %w", err)
		}
	}
	for name, text := range map[string]string{"authorized_keys": strings.Join(keys, "\n") + "\n", "sshd_config": sshdConfig} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return cvm.Errorf(cvm.Internal, "ssh: %w", err)
		}
	}
	_ = os.Remove(dir + "/host_key")
	if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/host_key").CombinedOutput(); err != nil {
		return cvm.Errorf(cvm.Internal, "ssh: host key: %w: %s", err, lastLine(string(out)))
	}
	cmd := exec.CommandContext(ctx, sshd, "-D", "-e", "-f", dir+"/sshd_config")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err := cmd.Run()
	if ctx.Err() == nil {
		log.Warn("sshd ended", "err", err)
		<-ctx.Done()
	}
	return nil
}
