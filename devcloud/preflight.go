package devcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/confidential-cloud/phala/vmm/qemu"
)

// minFree is what a first start needs on the disks of the state and the engine,
// in bytes: the guest image three times (tar, engine, first guest) and some room.
const minFree = 5 << 30

// preflight looks before anything is changed and returns all problems at once.
func preflight(ctx context.Context, cfg Config) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("this runs on Linux only (here: %s)", runtime.GOOS)
	}
	var problems []error
	disks := []string{cfg.StateDir}
	if cfg.Driver == DriverQEMU {
		if _, err := exec.LookPath(qemu.DefaultOptions().Binary); err != nil {
			problems = append(problems, fmt.Errorf("virtual machines need QEMU: %w (apt-get install qemu-system-x86), or leave --driver qemu out", err))
		}
	} else {
		disks = append(disks, "/var/lib/docker")
		if err := engineAnswers(ctx); err != nil {
			problems = append(problems, err)
		}
	}
	for _, dir := range disks {
		if err := freeSpace(dir); err != nil {
			problems = append(problems, err)
		}
	}
	problems = append(problems, preflightPorts(cfg))
	return errors.Join(problems...)
}

func preflightPorts(cfg Config) error {
	var problems []error
	for _, p := range cfg.Ports.list() {
		if err := portFree(p.addr); err != nil {
			problems = append(problems, fmt.Errorf("port %s (%s) is taken: %w; stop what holds it (ss -ltnp shows it), or move all ports with --port-base", p.addr, p.what, err))
		}
	}
	return errors.Join(problems...)
}

// engineAnswers asks the Docker engine for its version; an installed engine that
// is not running is started the way this system starts services.
func engineAnswers(ctx context.Context) error {
	ask := func() error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput()
		if err != nil {
			return errors.New(strings.TrimSpace(string(out)))
		}
		return nil
	}
	first := ask()
	if first == nil {
		return nil
	}
	if strings.Contains(first.Error(), "permission denied") {
		return fmt.Errorf("the Docker engine refuses this user: run with sudo, or add yourself to the group docker (%w)", first)
	}
	if os.Getuid() == 0 && os.Getenv("DOCKER_HOST") == "" {
		for _, start := range [][]string{{"systemctl", "start", "docker"}, {"service", "docker", "start"}} {
			if exec.CommandContext(ctx, start[0], start[1:]...).Run() == nil && ask() == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("no Docker engine answers: install it (apt-get install docker.io) or start it (systemctl start docker, or run dockerd) and try again (%w)", first)
}

func freeSpace(dir string) error {
	for d := dir; ; d = filepath.Dir(d) {
		var st syscall.Statfs_t
		err := syscall.Statfs(d, &st)
		if errors.Is(err, syscall.ENOENT) && d != "/" {
			continue
		} else if err != nil {
			return nil //nolint:nilerr // a disk that cannot be asked is not a reason to refuse
		}
		if free := st.Bavail * uint64(st.Bsize); free < minFree {
			return fmt.Errorf("%s has %.1f GiB free, at least %.0f GiB are needed: make room, or put the state elsewhere with PHALA_STATE", dir, float64(free)/(1<<30), float64(minFree)/(1<<30))
		}
		return nil
	}
}

func portFree(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}
