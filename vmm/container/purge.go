package container

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
)

// Purge removes the containers and the volumes of machines that no VMM runs any
// more, and then their network when nobody else uses it. TDs went with their hardware.
func Purge(ctx context.Context, n Network, prefix string, ids []string) error {
	cli, err := dial(n.DockerHost)
	if err != nil {
		return err
	}
	defer cli.Close()
	if prefix == "" {
		prefix = DefaultPrefix
	}
	for _, id := range ids {
		err := cli.ContainerRemove(ctx, prefix+id, container.RemoveOptions{Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return engineError("removing the guest "+id, err)
		}
		if err := cli.VolumeRemove(ctx, prefix+id, true); err != nil && !errdefs.IsNotFound(err) {
			return engineError("removing the volume of "+id, err)
		}
	}
	if err := cli.NetworkRemove(ctx, n.Name); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsPermissionDenied(err) {
		return engineError("removing the network "+n.Name, err)
	}
	return nil
}

// DefaultPrefix begins the names of guest containers and volumes.
const DefaultPrefix = "phala-vm-"
