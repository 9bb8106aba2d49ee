package storetest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Postgres is a PostgreSQL server of a test's own: Debian's programs on a
// directory and a unix socket that go away with the test.
type Postgres struct {
	dir  string
	bin  string
	cred *syscall.Credential // initdb and postgres refuse root
	n    int
}

// StartPostgres starts a server with settings (name=value) beside a test's usual ones,
// or skips the test where PostgreSQL is not installed.
func StartPostgres(t *testing.T, settings ...string) *Postgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed (apt-get install postgresql)")
	}
	slices.Sort(found)
	dir, err := os.MkdirTemp("", "pg") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	p := &Postgres{dir: dir, bin: filepath.Dir(found[len(found)-1])}
	if os.Getuid() == 0 {
		p.cred = unprivileged(t)
		if err := os.Chown(dir, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.run(t, "initdb", "-D", dir+"/data", "-U", "phala", "-A", "trust", "-N", "--no-instructions")
	args := []string{"-D", dir + "/data", "-k", dir}
	for _, s := range append([]string{"listen_addresses=", "fsync=off", "max_connections=100"}, settings...) {
		args = append(args, "-c", s)
	}
	server := p.command("postgres", args...)
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // fast shutdown
		_ = server.Wait()
	})
	for begin := time.Now(); ; {
		if p.command("pg_isready", "-h", dir).Run() == nil {
			return p
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("PostgreSQL does not answer:\n%s", log.String())
		}
	}
}

func unprivileged(t *testing.T) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Skip("PostgreSQL does not run as root, and there is no user to run it as")
	return nil
}

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...) //nolint:noctx // ends with the test
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if p.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	}
	return cmd
}

func (p *Postgres) run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := p.command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// NewDatabase makes an empty database and returns its URL.
func (p *Postgres) NewDatabase(t *testing.T) string {
	t.Helper()
	p.n++
	name := fmt.Sprintf("test%d", p.n)
	p.run(t, "createdb", "-h", p.dir, "-U", "phala", name)
	return fmt.Sprintf("postgres://phala@/%s?host=%s", name, p.dir)
}
