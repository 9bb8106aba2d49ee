// Package builder makes the images of templates whose source is in this
// repository, so that the first deploy needs no download.
package builder

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/registry"
)

// Repository and tag under which hello's compose file asks for its image: a
// docker.io name, which guests resolve through their registry mirror.
const (
	HelloRepo = "phala-templates/hello"
	HelloTag  = "latest"
)

// BuildHello compiles templates/hello/app of the repository at root and stores its
// image in the registry's open realm. It returns the image's digest. It needs the
// Go toolchain; the same source and toolchain give the same digest.
func BuildHello(ctx context.Context, root string, r *registry.Registry) (digest string, err error) {
	img, err := HelloImage(ctx, root)
	if err != nil {
		return "", err
	}
	return r.Push(ctx, HelloRepo, HelloTag, img)
}

// HelloImage is BuildHello without storing.
func HelloImage(ctx context.Context, root string) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "phala-hello-")
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "building hello: %w", err)
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "hello")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", bin, "./templates/hello/app")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, cvm.Errorf(cvm.Precondition, "building hello: %w: %s", err, strings.TrimSpace(string(out))).
			WithFix("Go must be installed, and this must run in a clone of the repository")
	}
	return registry.FromBinary(bin, "hello", registry.ImageConfig{Ports: []string{"80/tcp"}, Labels: map[string]string{"org.opencontainers.image.title": "hello"}})
}
