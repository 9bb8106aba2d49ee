package vm

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// Clock keeps the machine's time with chrony. At power-on the time is the host's word.
type Clock struct {
	Log *slog.Logger
	// Servers are time servers with NTS: they authenticate themselves, so that neither
	// the host nor the network can move the clock.
	Servers []string
	// Dir is a volatile directory for chrony's files.
	Dir string
}

// Config is chrony's configuration. secure: nothing but NTS servers is believed.
// Otherwise the host's own clock helps where the machine can read it.
func (c *Clock) Config(secure bool, ptp string) string {
	var b strings.Builder
	for _, s := range c.Servers {
		fmt.Fprintf(&b, "server %s iburst nts\n", s)
	}
	if !secure && ptp != "" {
		fmt.Fprintf(&b, "refclock PHC %s poll 4 dpoll -2\n", ptp)
	}
	fmt.Fprintf(&b, "driftfile %s/drift\nntsdumpdir %s\npidfile %s/chronyd.pid\nbindcmdaddress %s/chronyd.sock\n", c.Dir, c.Dir, c.Dir, c.Dir)
	// A clock that is far off is set at once, at any time before the first agreement.
	b.WriteString("makestep 1.0 3\nmaxupdateskew 100.0\nport 0\ncmdport 0\n")
	if secure {
		b.WriteString("authselectmode require\n")
	}
	return b.String()
}

// ValidServers checks the names of the servers: they are lines of a configuration file.
func ValidServers(names []string) error {
	for _, n := range names {
		ok := n != "" && len(n) < 254 && strings.Trim(n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:") == ""
		if !ok {
			return cvm.Errorf(cvm.Invalid, "time server %.80q is not a host name", n)
		}
	}
	return nil
}

// Run keeps chronyd running until ctx ends.
func (c *Clock) Run(ctx context.Context, secure bool) error {
	ptp := ""
	if _, err := os.Stat("/dev/ptp0"); err == nil {
		ptp = "/dev/ptp0"
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return cvm.Errorf(cvm.Internal, "clock: %w", err)
	}
	file := filepath.Join(c.Dir, "chrony.conf")
	if err := os.WriteFile(file, []byte(c.Config(secure, ptp)), 0o600); err != nil {
		return cvm.Errorf(cvm.Internal, "clock: %w", err)
	}
	cmd := exec.CommandContext(ctx, "chronyd", "-d", "-u", "root", "-f", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out := &run.Tail{Max: 4 << 10} // it may say something for years
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() == nil {
		c.Log.Warn("chronyd ended; the clock is not kept", "err", err, "says", lastLine(out.String()))
		<-ctx.Done()
	}
	return nil
}

// Wait waits until the clock agrees with an authenticated server (0.1 s), at most 150 s
// as the reference does, and refuses otherwise.
func (c *Clock) Wait(ctx context.Context) error {
	if len(c.Servers) == 0 {
		return cvm.Errorf(cvm.Precondition, "the app wants secure_time, and this image names no time server").WithReason(ReasonTime).
			WithFix("use an image with time servers, or set secure_time to false in the app-compose")
	}
	sock := filepath.Join(c.Dir, "chronyd.sock")
	for range 300 { // chronyd was started a moment ago; chronyc does not wait for it
		if _, err := os.Stat(sock); err == nil || run.Pause(ctx, 100*time.Millisecond) != nil {
			break
		}
	}
	cmd := exec.CommandContext(ctx, "chronyc", "-h", sock, "waitsync", "30", "0.1", "0", "5")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return cvm.Errorf(cvm.Unavailable, "the app wants secure_time, and the clock agrees with none of %s: %s", strings.Join(c.Servers, ", "), lastLine(string(out))).
			WithReason(ReasonTime).WithFix("let the VM reach a time server (NTS: TCP 4460 and UDP 123), or set secure_time to false in the app-compose")
	}
	return nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	l := lines[len(lines)-1]
	return l[:min(len(l), 200)]
}
