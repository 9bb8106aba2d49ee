package compose

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/internal/config"
)

// containerdConfig is the part of containerd's config.toml that we set.
type containerdConfig struct {
	Version int      `toml:"version"`
	Root    string   `toml:"root"`
	State   string   `toml:"state"`
	Without []string `toml:"disabled_plugins"`
	GRPC    struct {
		Address string `toml:"address"`
	} `toml:"grpc"`
}

// unused plugins: dockerd keeps its images in its own store, and there is no Kubernetes.
// Some of them start programs or look for disks.
func unused() []string {
	return []string{
		"io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile",
		"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
	}
}

// containerdDir holds what containerd has in memory, where dockerd would have put it.
func (e *Engine) containerdDir() string  { return filepath.Join(e.cfg.ExecDir, "containerd") }
func (e *Engine) containerdSock() string { return filepath.Join(e.containerdDir(), "containerd.sock") }

// startContainerd starts dockerd's containerd before it. dockerd could do that, but
// looks for it a second later than it is there, and gives it up after 15 s, which a
// busy emulated machine exceeds.
func (e *Engine) startContainerd(ctx context.Context, root string) (*daemon, error) {
	c := containerdConfig{Version: 2, Root: filepath.Join(root, "containerd", "daemon"), State: filepath.Join(e.containerdDir(), "daemon"), Without: unused()}
	c.GRPC.Address = e.containerdSock()
	for _, d := range []string{c.Root, c.State} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("containerd's directory: %w", err)
		}
	}
	path := filepath.Join(e.cfg.WorkDir, "containerd.toml")
	if err := config.Save(path, &c); err != nil {
		return nil, err
	}
	_ = os.Remove(c.GRPC.Address) // of a process that was killed: nobody must be found there
	d, err := spawn("containerd", e.cfg.Containerd, "--config", path)
	if err != nil {
		return nil, err
	}
	e.procs = append(e.procs, d)
	return d, d.await(ctx, c.GRPC.Address, func() error {
		var n net.Dialer
		conn, err := n.DialContext(ctx, "unix", c.GRPC.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
