package oci

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/verity"
	"github.com/confidential-cloud/phala/vmm/image"
)

// Check opens the image directory and checks everything that its identity covers:
// os_image_hash against want (zero: not pinned), every file, and the root filesystem
// against the command line. Nothing is mounted and nothing is run.
func Check(ctx context.Context, dir string, want cvm.ImageHash) (*image.Image, error) {
	im, err := image.Open(dir)
	if err != nil {
		return nil, err
	}
	if want != (cvm.ImageHash{}) && im.Hash != want {
		return nil, cvm.Errorf(cvm.Denied, "the image has os_image_hash %s, wanted is %s", im.Hash, want).WithReason("image-hash").
			WithFix("this is another image: check the reference, or who moved the tag")
	}
	if err := im.Verify(); err != nil {
		return nil, err
	}
	return im, checkRootfs(ctx, im)
}

// checkRootfs makes sure that the identity commits to the root filesystem: by
// sha256sum.txt, or by the root hash of the command line (which metadata.json holds).
func checkRootfs(ctx context.Context, im *image.Image) error {
	name := im.Meta.Rootfs
	if name == "" {
		return nil
	}
	if !image.ValidName(name) {
		return refuse("%s names the root filesystem %q: want a plain file name", image.MetadataFile, name)
	}
	hashed := strings.Contains(im.Meta.Cmdline, verity.HashKey)
	if !hashed && im.SHA256(name) != "" {
		return nil
	}
	if !hashed {
		return refuse("nothing commits to %s: it is not in %s, and the command line has no %s", name, image.SumsFile, verity.HashKey)
	}
	root, err := verity.ParseCmdline(im.Meta.Cmdline)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(im.Dir, name))
	if err != nil {
		return refuse("the root filesystem: %v", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return cvm.Errorf(cvm.Internal, "the root filesystem: %w", err)
	}
	part, size, err := partition(f, st.Size())
	if err != nil {
		return err
	}
	return verity.Verify(ctx, part, size, root)
}

// rootLabel names the partition of the reference's images.
const rootLabel = "dstack-rootfs"

// partition finds the root filesystem in a file: the whole file, or the partition
// rootLabel when the file begins with a GPT.
func partition(r io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	const sector = 512
	head := make([]byte, sector)
	if _, err := r.ReadAt(head, sector); err != nil || string(head[:8]) != "EFI PART" {
		return r, size, nil //nolint:nilerr // not a disk with partitions
	}
	at, n, each := binary.LittleEndian.Uint64(head[72:]), binary.LittleEndian.Uint32(head[80:]), binary.LittleEndian.Uint32(head[84:])
	if each != 128 || n > 128 || at > 1<<20 {
		return nil, 0, refuse("the partition table has %d entries of %d bytes at sector %d", n, each, at)
	}
	table := make([]byte, int(n)*128)
	if _, err := r.ReadAt(table, int64(at)*sector); err != nil { //nolint:gosec // bounded
		return nil, 0, refuse("the partition table: %v", err)
	}
	label := utf16.Encode([]rune(rootLabel))
	want := make([]byte, 72)
	for i, c := range label {
		binary.LittleEndian.PutUint16(want[2*i:], c)
	}
	for e := table; len(e) >= 128; e = e[128:] {
		if !bytes.Equal(e[56:128], want) {
			continue
		}
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		if first > last || last >= uint64(size)/sector { //nolint:gosec // a file's size
			return nil, 0, refuse("the partition %s is of sectors %d to %d, past the file's end", rootLabel, first, last)
		}
		length := int64(last-first+1) * sector                                  //nolint:gosec // within the file
		return io.NewSectionReader(r, int64(first)*sector, length), length, nil //nolint:gosec // within the file
	}
	return nil, 0, refuse("there is no partition %s", rootLabel)
}

// onlyKnown removes files that the image's identity does not cover (drop), or
// refuses them.
func onlyKnown(im *image.Image, drop bool) error {
	entries, err := os.ReadDir(im.Dir)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "reading the image: %w", err)
	}
	for _, e := range entries {
		n := e.Name()
		if n == image.SumsFile || n == image.DigestFile || n == im.Meta.Rootfs || im.SHA256(n) != "" {
			continue
		}
		if !drop {
			return refuse("the image holds %s, which %s does not list", n, image.SumsFile)
		}
		if err := os.Remove(filepath.Join(im.Dir, n)); err != nil {
			return cvm.Errorf(cvm.Internal, "removing %s: %w", n, err)
		}
	}
	return nil
}
