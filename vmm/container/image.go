package container

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	ctypes "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	itypes "github.com/docker/docker/api/types/image"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/machine"
)

// ensureImage verifies the image's files and imports them into the engine once.
// The root filesystem and the agent are separate layers: after a change of the
// agent only the small one is imported again.
func (d *Driver) ensureImage(ctx context.Context, m machine.Image) (string, error) {
	d.importing.Lock()
	defer d.importing.Unlock()
	ref := d.cfg.ImageRepo + ":" + m.Hash.String()
	if ok, err := d.haveImage(ctx, ref); ok || err != nil {
		return ref, err
	}
	im, err := image.Open(m.Dir)
	if err != nil {
		return "", err
	}
	if im.Hash != m.Hash {
		return "", cvm.Errorf(cvm.Precondition, "guest image %s changed: it was %s, it is %s", m.Name, m.Hash, im.Hash).WithReason("image-changed")
	}
	if im.Meta.Driver != "container" || im.Meta.Rootfs == "" {
		return "", cvm.Errorf(cvm.Invalid, "guest image %s is not made for the container driver", m.Name).WithReason("image-wrong-driver")
	}
	if err := im.Verify(); err != nil {
		return "", err
	}
	d.log.Info("importing guest image", "image", im.Name, "hash", im.Hash)
	base := d.cfg.ImageRepo + "-base:" + im.SHA256(im.Meta.Rootfs)
	if ok, err := d.haveImage(ctx, base); err != nil {
		return "", err
	} else if !ok {
		if err := d.importBase(ctx, filepath.Join(im.Dir, im.Meta.Rootfs), base); err != nil {
			return "", err
		}
	}
	if im.Meta.Overlay == "" {
		err = engineError("tagging the guest image", d.cli.ImageTag(ctx, base, ref))
	} else {
		err = d.addLayer(ctx, base, filepath.Join(im.Dir, im.Meta.Overlay), ref)
	}
	if err == nil {
		d.prune(ctx, base, ref)
	}
	return ref, err
}

// prune removes images of earlier builds that no guest uses; the engine refuses
// the others. One that is still wanted later is imported again.
func (d *Driver) prune(ctx context.Context, keep ...string) {
	for _, repo := range []string{d.cfg.ImageRepo, d.cfg.ImageRepo + "-base"} { // children first
		old, err := d.cli.ImageList(ctx, itypes.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", repo))})
		if err != nil {
			return
		}
		for _, im := range old {
			for _, tag := range im.RepoTags {
				if !slices.Contains(keep, tag) {
					_, _ = d.cli.ImageRemove(ctx, tag, itypes.RemoveOptions{PruneChildren: true})
				}
			}
		}
	}
}

func (d *Driver) haveImage(ctx context.Context, ref string) (bool, error) {
	_, err := d.cli.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, engineError("image "+ref, err)
}

func (d *Driver) importBase(ctx context.Context, tar, ref string) error {
	f, err := os.Open(tar)
	if err != nil {
		return cvm.Errorf(cvm.Precondition, "guest image: %w", err)
	}
	defer f.Close()
	rc, err := d.cli.ImageImport(ctx, itypes.ImportSource{Source: f, SourceName: "-"}, ref, itypes.ImportOptions{})
	if err != nil {
		return engineError("importing the guest's root filesystem", err)
	}
	if err := discard(rc); err != nil {
		return engineError("importing the guest's root filesystem", err)
	}
	if ok, err := d.haveImage(ctx, ref); err != nil || !ok {
		return cvm.Errorf(cvm.Internal, "the engine did not import the guest's root filesystem").WithFix("see the docker engine's log; is its disk full?")
	}
	return nil
}

// addLayer commits a tar on top of an image without running anything in it.
func (d *Driver) addLayer(ctx context.Context, base, tar, ref string) error {
	const what = "adding the guest agent to the image"
	f, err := os.Open(tar)
	if err != nil {
		return cvm.Errorf(cvm.Precondition, "guest image: %w", err)
	}
	defer f.Close()
	c, err := d.cli.ContainerCreate(ctx, &ctypes.Config{Image: base, Cmd: []string{"/bin/true"}, Labels: map[string]string{labelOwner: "phala"}}, nil, nil, nil, "")
	if err != nil {
		return engineError(what, err)
	}
	defer func() {
		_ = d.cli.ContainerRemove(context.WithoutCancel(ctx), c.ID, ctypes.RemoveOptions{Force: true, RemoveVolumes: true})
	}()
	if err := d.cli.CopyToContainer(ctx, c.ID, "/", f, ctypes.CopyToContainerOptions{}); err != nil {
		return engineError(what, err)
	}
	_, err = d.cli.ContainerCommit(ctx, c.ID, ctypes.CommitOptions{Reference: ref, Config: &ctypes.Config{}})
	return engineError(what, err)
}
