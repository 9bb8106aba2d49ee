// Package volumes opens the app's verity volumes: read-only disks that the host hands
// over and whose content the app-compose measures by its root hash. A volume that
// holds a container image is put under docker's image store, so that containers start
// from it without a pull or a copy.
//
// Open before dockerd starts. Nothing of a disk is believed before dm-verity stands
// between it and the reader, but the size at which the hash tree begins.
package volumes

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/imagevolume"
)

// Reasons of volumes that do not open, beside imagevolume.ReasonVolume.
const (
	ReasonMissing = "volume-missing"
	ReasonCorrupt = "volume-corrupt"
)

// openTimeout bounds all volumes together.
const openTimeout = 2 * time.Minute

// Verifier puts the check between a disk and its readers: it returns a block device
// that gives nothing but what the root hash commits to.
type Verifier func(ctx context.Context, name, disk string, dataSize int64, root [32]byte) (device string, err error)

// Config of Open.
type Config struct {
	// Find is the disk of volume i, by its place in verity_volumes.
	Find   func(i int) (disk string, err error)
	Verify Verifier
	// DockerRoot is where dockerd keeps its images; "" leaves images alone.
	DockerRoot string
}

// Open opens and mounts every volume, and registers the images among them. What an
// earlier boot registered is forgotten first: only the measured list counts.
func Open(ctx context.Context, c Config, vols []appcompose.VerityVolume) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var images []image
	for i, v := range vols {
		if err := c.open(ctx, i, v); err != nil {
			return err
		}
		im, err := readImage(v)
		if err != nil {
			return err
		}
		if im != nil {
			images = append(images, *im)
		}
	}
	if c.DockerRoot == "" {
		return nil
	}
	return register(c.DockerRoot, images)
}

func (c Config) open(ctx context.Context, i int, v appcompose.VerityVolume) error {
	root, err := hex.DecodeString(v.Root)
	if err != nil || len(root) != 32 {
		return fail(imagevolume.ReasonVolume, v, "verity_root is not 32 bytes of hex")
	}
	disk, err := c.Find(i)
	if err != nil {
		return fail(ReasonMissing, v, "the host attached no disk for it: %w", err)
	}
	size, err := dataSize(disk)
	if err != nil {
		return fail(imagevolume.ReasonVolume, v, "%w", err)
	}
	device, err := c.Verify(ctx, fmt.Sprintf("phala-vol%d", i), disk, size, [32]byte(root))
	if err != nil {
		return fail(ReasonCorrupt, v, "%w", err)
	}
	if err := os.MkdirAll(v.Target, 0o755); err != nil {
		return fail(imagevolume.ReasonVolume, v, "its target: %w", err)
	}
	if err := unix.Mount(device, v.Target, "squashfs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fail(ReasonCorrupt, v, "mounting it: %w", err)
	}
	return nil
}

func fail(reason string, v appcompose.VerityVolume, format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "verity volume %s at %s: "+format, append([]any{v.Source, v.Target}, args...)...).WithReason(reason).
		WithFix("put the file that `phala volume make` wrote into the host's volume directory, under the name in verity_volumes")
}

func dataSize(disk string) (int64, error) {
	f, err := os.Open(disk)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	head := make([]byte, 96)
	if _, err := f.ReadAt(head, 0); err != nil {
		return 0, err
	}
	return imagevolume.DataSize(head, size)
}

// Veritysetup is the Verifier of a machine: the kernel's dm-verity.
func Veritysetup(ctx context.Context, name, disk string, dataSize int64, root [32]byte) (string, error) {
	out, err := exec.CommandContext(ctx, "veritysetup", "open", disk, name, disk, hex.EncodeToString(root[:]), "--hash-offset", fmt.Sprint(dataSize)).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("dm-verity: %w: %.200s", err, strings.TrimSpace(string(out)))
	}
	return "/dev/mapper/" + name, nil
}

// image is an image volume that is mounted.
type image struct {
	imagevolume.Manifest
	id     string // of the image, hex
	layer  string // diff id, hex; with one layer also the chain id
	rootfs string // where its files are
}

// readImage is nil for a volume of other data.
func readImage(v appcompose.VerityVolume) (*image, error) {
	f, err := os.Open(filepath.Join(v.Target, imagevolume.File))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fail(ReasonCorrupt, v, "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, imagevolume.MaxManifest+1))
	if err != nil {
		return nil, fail(ReasonCorrupt, v, "%w", err)
	}
	m, err := imagevolume.Parse(b)
	if err != nil {
		return nil, fail(imagevolume.ReasonVolume, v, "%w", err)
	}
	im := &image{Manifest: m, rootfs: filepath.Join(v.Target, imagevolume.Rootfs)}
	if im.id, err = m.Check(); err != nil {
		return nil, err
	}
	im.layer, err = imagevolume.Digest(m.DiffID)
	return im, err
}
