package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/devcloud"
)

// round is one deploy and what it is compared with.
type round struct {
	line *timeline
	bare time.Duration
}

// TestContainer deploys on the driver container and, in turn, brings the same compose
// file up on this host's own engine.
func TestContainer(t *testing.T) {
	if *rounds == 0 {
		t.Skip("SKIPPED: a measurement (make bench-deploy)")
	}
	b := start(t, devcloud.DriverContainer, "")
	up := newCompose(t, b)
	file := b.composeFile()
	var all []round
	var mem memory
	for i := range *rounds + 1 {
		name := fmt.Sprintf("bench-%d", i)
		bare := up.once()
		line, vm := b.deploy(name, file, 4*time.Minute)
		if i > 0 { // the first one imports the guest image and warms caches
			all = append(all, round{line, bare})
		}
		if i == *rounds {
			mem = b.memory(vm)
		}
		b.remove(name)
	}
	publish(t, "container", containerText(all)+"\n"+mem.processes())
}

func containerText(all []round) string {
	var out strings.Builder
	fmt.Fprintf(&out, "Driver `container`, %d deploys, each after a `docker compose up` of the same file on the host's engine; images are pulled from the same registry.\n\n", len(all))
	out.WriteString(table(lineOf(all)))
	bare := func(r round) time.Duration { return r.bare }
	of := func(pick func(string) bool) func(round) time.Duration {
		return func(r round) time.Duration { return r.line.sum(pick) }
	}
	fmt.Fprintf(&out, "\n| sum | median ms | least | most | ratio |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&out, "| `docker compose up` to the first HTTP answer | %s | 1 |\n", each(all, bare).cells())
	for _, s := range []struct {
		name string
		pick func(string) bool
	}{
		{"from `phala deploy` to the first HTTPS answer", unverified},
		{"the same, verified", func(string) bool { return true }},
		{"from the VMM's start to the first HTTPS answer", launched},
		{"agent, attestation, keys, gateway (guest's stages without the containers)", ours},
	} {
		fmt.Fprintf(&out, "| %s | %s | %.2f |\n", s.name, each(all, of(s.pick)).cells(), ratios(all, of(s.pick), bare))
	}
	more := each(all, func(r round) time.Duration { return r.line.sum(launched) - r.bare })
	fmt.Fprintf(&out, "| VMM's start to answer, beyond `docker compose up` | %s | |\n", more.cells())
	return out.String()
}

func lineOf(all []round) (out []*timeline) {
	for _, r := range all {
		out = append(out, r.line)
	}
	return out
}

// composeUp is the guest's own docker and Compose, on this host's engine.
type composeUp struct {
	b    *cloud
	dir  string
	file string
	url  string
	ref  string
}

const project = "phala-bench-reference"

func newCompose(t *testing.T, b *cloud) *composeUp {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(b.c.Image().Dir, "rootfs.tar")
	out, err := exec.CommandContext(t.Context(), "tar", "-xf", root, "-C", dir, "./usr/bin/docker", "./usr/libexec/docker/cli-plugins/docker-compose").CombinedOutput()
	if err != nil {
		t.Fatalf("taking docker and Compose out of %s: %v\n%s", root, err, out)
	}
	registry := fmt.Sprintf("127.0.0.1:%d/%s", b.cfg.Ports.Registry, repo)
	port := b.cfg.Ports.Registry + 9
	u := &composeUp{b: b, dir: dir, file: filepath.Join(dir, "docker-compose.yml"), url: fmt.Sprintf("http://127.0.0.1:%d/", port), ref: registry + "@" + b.digest}
	if err := os.WriteFile(u.file, []byte(b.compose(registry, port)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "usr/libexec/docker/cli-plugins"), filepath.Join(dir, "cli-plugins")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.docker(context.Background(), true, "image", "rm", "-f", u.ref) })
	return u
}

func (u *composeUp) docker(ctx context.Context, mayFail bool, args ...string) {
	u.b.t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(u.dir, "usr/bin/docker"), args...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+u.dir)
	if out, err := cmd.CombinedOutput(); err != nil && !mayFail {
		u.b.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// once is the time from the command to the first answer, with nothing of it there
// before.
func (u *composeUp) once() time.Duration {
	t := u.b.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	u.docker(ctx, true, "image", "rm", "-f", u.ref)
	began := time.Now()
	u.docker(ctx, false, "compose", "--project-name", project, "--file", u.file, "up", "-d", "--quiet-pull")
	err := answered(ctx, 5*time.Millisecond, func() error { _, err := get(ctx, http.DefaultClient, u.url); return err })
	took := time.Since(began)
	u.docker(ctx, false, "compose", "--project-name", project, "--file", u.file, "down", "--timeout", "1")
	if err != nil {
		t.Fatal(errors.Join(errors.New("docker compose up: no answer"), err))
	}
	return took
}
