package oci

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
)

// unpack writes the regular files of a tar.gz into dir: plain names at the top, none
// twice, at most maxFiles and maxBytes together (also what is only skipped counts).
// room is asked before each file.
func unpack(ctx context.Context, archive io.Reader, dir string, maxBytes int64, room func(need int64) error) error {
	z, err := gzip.NewReader(archive)
	if err != nil {
		return refuse("the layer is not gzip: %v", err)
	}
	bounded := &io.LimitedReader{R: z, N: maxBytes + maxFiles*1024 + 1<<20}
	t := tar.NewReader(bounded)
	var total int64
	for files := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if bounded.N <= 0 {
			return refuse("unpacked, the image is over the %d bytes that this node takes", maxBytes)
		}
		if err != nil {
			return refuse("the layer is not a tar: %v", err)
		}
		name := strings.TrimPrefix(h.Name, "./")
		if h.Typeflag == tar.TypeDir && (name == "" || name == ".") {
			continue
		}
		if files++; files > maxFiles {
			return refuse("the layer has over %d entries", maxFiles)
		}
		if h.Typeflag != tar.TypeReg || !image.ValidName(name) {
			return refuse("the layer holds %q of type %q: only regular files with plain names at the top are allowed", h.Name, h.Typeflag)
		}
		if total += h.Size; total > maxBytes || h.Size < 0 {
			return refuse("unpacked, the image is over the %d bytes that this node takes", maxBytes)
		}
		if err := room(h.Size); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, name), io.LimitReader(t, h.Size), h.Size); err != nil {
			return err
		}
	}
}

func writeFile(path string, r io.Reader, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return refuse("the layer holds %q twice", filepath.Base(path))
	}
	if err != nil {
		return cvm.Errorf(cvm.Internal, "unpacking: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, r)
	if err != nil || n != size {
		return cvm.Errorf(cvm.Invalid, "unpacking %s: %d of %d bytes: %w", filepath.Base(path), n, size, err).WithReason("image-refused")
	}
	return f.Sync()
}
