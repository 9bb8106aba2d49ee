package compose

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// list is every container of the project; with all unset, of the whole engine when
// the engine is the guest's own.
func (e *Engine) list(ctx context.Context, projectOnly bool) ([]container.Summary, error) {
	o := container.ListOptions{All: true}
	if projectOnly || e.cfg.Daemon == "" {
		o.Filters = filters.NewArgs(filters.Arg("label", "com.docker.compose.project="+e.cfg.Project))
	}
	l, err := e.cli.ContainerList(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	return l, nil
}

// Containers lists the guest's containers, those that the app started itself
// included.
func (e *Engine) Containers(ctx context.Context) ([]guestapi.Container, error) {
	l, err := e.list(ctx, false)
	if err != nil {
		return nil, err
	}
	out := make([]guestapi.Container, 0, len(l))
	for _, c := range l {
		g := guestapi.Container{ID: c.ID, Names: c.Names, Image: c.Image, ImageID: c.ImageID, Created: c.Created, State: c.State, Status: c.Status}
		seen := map[int]bool{}
		for _, p := range c.Ports {
			if n := int(p.PublicPort); n != 0 && !seen[n] {
				seen[n] = true
				g.Ports = append(g.Ports, n)
			}
		}
		out = append(out, g)
	}
	return out, nil
}
