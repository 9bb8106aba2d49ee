package devcloud

import (
	"context"
	"strconv"

	"github.com/confidential-cloud/phala/internal/registry"
)

// startRegistry serves locally built images: to this host, and read-only to guests
// as their mirror of docker.io.
func (c *Cloud) startRegistry(ctx context.Context, note func(string, ...any)) error {
	log, err := c.logger("registry")
	if err != nil {
		return err
	}
	port := strconv.Itoa(c.cfg.Ports.Registry)
	r, err := registry.New(registry.Config{
		Dir: c.state.Path("registry"), Addrs: c.addrs(port), Log: log,
	})
	if err != nil {
		return err
	}
	c.group.Go(ctx, "registry", r.Run)
	select {
	case <-r.Ready():
	case err := <-c.group.Failed():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	c.registry = r
	return nil
}

// Registry is where a person or a test pushes images that guests can pull.
func (c *Cloud) Registry() *registry.Registry { return c.registry }
