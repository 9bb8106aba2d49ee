package cloud

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/guest-agent/volumes"
	"github.com/confidential-cloud/phala/internal/registry/volume"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// envVolumeMiB is the size of the image in TestMachineVolume; with it, the same image
// is also pulled, to compare (docs/spec/image-volume.md has the numbers of 1400).
const envVolumeMiB = "PHALA_TEST_VOLUME_MIB"

const volumeCompose = "services:\n  web:\n    image: %s\n    command: [\"web\"]\n    ports: [\"8080:8080\"]\n"

// TestMachineVolume: an image that no registry has is served from a verity volume that
// the app measures, without a pull; a host that changes a byte of it is refused.
func TestMachineVolume(t *testing.T) {
	virtual(t)
	size := 8
	text, long := os.LookupEnv(envVolumeMiB)
	if n, err := strconv.Atoi(text); err == nil {
		size = n
	}
	img := withBallast(t, kvImage(t), size)
	const ref = "phala-tests/large:1"
	file := filepath.Join(theCfg.StateDir, "vmm", "volumes", "large.img")
	made := volumeOf(t, img, ref, file)
	vm := define(t, "volume-app", fmt.Sprintf(volumeCompose, ref), func(d *appcompose.Document) {
		d.VerityVolumes, _ = json.Marshal([]appcompose.VerityVolume{{Source: filepath.Base(file), Root: made.Root, Target: "/run/volumes/large"}})
	})
	serves(t, vm, fmt.Sprintf("an image volume of %d MiB", size))
	halt(t, vm.Spec.ID)
	flip := func() { flipByte(t, file, 8) } // of the time in the squashfs's superblock: only dm-verity notices
	flip()
	refusedBoot(t, vm.Spec.ID, volumes.ReasonCorrupt)
	flip()
	if !long {
		return
	}
	push(t, "phala-tests/large", "1", img)
	serves(t, define(t, "pull-app", fmt.Sprintf(volumeCompose, ref), nil), fmt.Sprintf("a pulled image of %d MiB", size))
}

// serves boots a new machine and says how long its containers took.
func serves(t *testing.T, vm vmmapi.VM, what string) {
	t.Helper()
	start := time.Now()
	b := boots(t, vm.Spec.ID)
	if b.Error != nil {
		t.Fatalf("%s: %+v", what, b.Error)
	}
	getOK(t, appURL(vm.Spec.AppID.String(), 8080))
	t.Logf("%s: served %s after the machine's start", what, time.Since(start).Round(time.Second))
	for _, s := range b.Stages {
		t.Logf("  %-60s at %6.1f s, took %6.1f s", s.Name, s.At, s.Duration)
	}
}

func volumeOf(t *testing.T, img v1.Image, ref, file string) volume.Made {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	made, err := volume.Make(t.Context(), img, r, file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	t.Logf("a volume of %d MiB made in %s", made.Size>>20, time.Since(start).Round(time.Second))
	return made
}

// withBallast adds files of together mib MiB to an image, half of which compress well.
func withBallast(t *testing.T, img v1.Image, mib int) v1.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layer.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	w, noise := tar.NewWriter(buf), rand.NewChaCha8([32]byte{1})
	for i := range mib {
		block := make([]byte, 1<<20)
		if _, err := io.ReadFull(noise, block[:1<<19]); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("ballast/%04d", i), Mode: 0o644, Size: int64(len(block))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := buf.Flush(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromFile(path)
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, at); err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b, at)
	}
	if cerr := f.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
}
