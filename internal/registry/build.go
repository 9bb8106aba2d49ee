package registry

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/confidential-cloud/phala/cvm"
)

// ImageConfig says how an image runs.
type ImageConfig struct {
	Entrypoint []string
	Env        []string // "NAME=value"; no secrets: everyone who pulls reads them
	Ports      []string // "80/tcp"
	User       string
	Labels     map[string]string
}

// FromBinary makes an image that holds one static binary at /<name>, and nothing
// else. Equal binaries give equal digests.
func FromBinary(path, name string, c ImageConfig) (v1.Image, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "image from a binary: %w", err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	// A fixed time and owner: the layer is a function of the binary alone.
	h := tar.Header{Name: name, Mode: 0o755, Size: int64(len(b)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := w.WriteHeader(&h); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "image from a binary: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "image from a binary: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "image from a binary: %w", err)
	}
	if len(c.Entrypoint) == 0 {
		c.Entrypoint = []string{"/" + name}
	}
	return build(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }, c)
}

// FromRootfs makes an image of one layer from a tar of a root filesystem.
func FromRootfs(tarPath string, c ImageConfig) (v1.Image, error) {
	return build(func() (io.ReadCloser, error) { return os.Open(tarPath) }, c)
}

func build(open tarball.Opener, c ImageConfig) (v1.Image, error) {
	layer, err := tarball.LayerFromOpener(open)
	if err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "image layer: %w", err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "image: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "image: %w", err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config.Entrypoint, cf.Config.Env, cf.Config.User, cf.Config.Labels = c.Entrypoint, c.Env, c.User, c.Labels
	for _, p := range c.Ports {
		if cf.Config.ExposedPorts == nil {
			cf.Config.ExposedPorts = map[string]struct{}{}
		}
		cf.Config.ExposedPorts[p] = struct{}{}
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "image: %w", err)
	}
	return img, nil
}
