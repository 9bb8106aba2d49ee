package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/internal/verity"
)

// entry is one file of the root filesystem: a header, and its content in memory or in
// the base tar.
type entry struct {
	header  *tar.Header
	content []byte
	at      int64 // in the base tar, when content is nil
}

type rootTar struct {
	base    *os.File
	entries map[string]entry // by name, no slashes at the ends
	epoch   time.Time
}

// osRelease is where every report finds version and flavour.
const osRelease = "usr/lib/os-release"

// rootfs writes rootfs.img: a squashfs of everything, padded to the block size, and its
// hash tree.
func (c config) rootfs(ctx context.Context, mods modules) (root verity.Root, err error) {
	t, err := readBase(c.base, time.Unix(c.epoch, 0))
	if err != nil {
		return root, err
	}
	defer t.base.Close()
	if err := t.ours(c, mods); err != nil {
		return root, err
	}
	path := filepath.Join(c.out, rootfsFile)
	if err := t.squash(ctx, c, path); err != nil {
		return root, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return root, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return root, err
	}
	root.Size = (size + verity.BlockSize - 1) / verity.BlockSize * verity.BlockSize
	if err := f.Truncate(root.Size); err != nil {
		return root, err
	}
	// A fixed salt and UUID: the same root filesystem has the same root hash.
	salt := sha256.Sum256([]byte("phala root filesystem " + c.version))
	s := verity.Superblock{DataBlocks: uint64(root.Size / verity.BlockSize), Salt: salt[:], UUID: [16]byte(salt[:16])} //nolint:gosec // a size
	if root.Hash, err = verity.Build(ctx, f, s, f, root.Size); err != nil {
		return root, err
	}
	return root, errors.Join(f.Chmod(0o644), f.Close())
}

// readBase reads the names of the Debian tar; contents stay in the file.
func readBase(name string, epoch time.Time) (*rootTar, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t := &rootTar{base: f, entries: map[string]entry{}, epoch: epoch}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if n := clean(h.Name); n != "" {
			t.entries[n] = entry{header: h, at: at}
		}
	}
}

func clean(name string) string { return strings.Trim(strings.TrimPrefix(name, "./"), "/") }

func (t *rootTar) file(name string, mode int64, content []byte) {
	t.entries[name] = entry{header: &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content: content}
}

func (t *rootTar) dir(name string, mode int64) {
	if _, there := t.entries[name]; !there {
		t.entries[name] = entry{header: &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
	}
}

// ours adds what Debian does not give: the agent, kernel modules, mount points, and
// the image's name in os-release.
func (t *rootTar) ours(c config, mods modules) error {
	agent, err := os.ReadFile(c.agent)
	if err != nil {
		return err
	}
	t.file("usr/bin/phala-guest-agent", 0o755, agent)
	for name, mode := range map[string]int64{"dstack": 0o700, "var/lib/phala": 0o700, "usr/lib/modules": 0o755} {
		t.dir(name, mode)
	}
	tree := "usr/lib/modules/" + mods.release
	for _, m := range mods.all {
		t.parents(tree + "/" + m.path)
		t.file(tree+"/"+m.path, 0o644, m.content)
	}
	for name, content := range mods.indices() {
		t.file(tree+"/"+name, 0o644, content)
	}
	release, err := t.content(osRelease)
	if err != nil {
		return err
	}
	flavour := "prod"
	if c.dev {
		flavour = "dev"
	}
	t.file(osRelease, 0o644, fmt.Appendf(release, "IMAGE_ID=phala\nIMAGE_VERSION=%q\nVARIANT_ID=%s\n", c.version, flavour))
	return nil
}

func (t *rootTar) parents(name string) {
	for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
		t.dir(d, 0o755)
	}
}

func (t *rootTar) content(name string) ([]byte, error) {
	e, ok := t.entries[name]
	if !ok {
		return nil, fmt.Errorf("the root filesystem has no %s", name)
	}
	if e.content != nil {
		return bytes.Clone(e.content), nil
	}
	b := make([]byte, e.header.Size)
	_, err := t.base.ReadAt(b, e.at)
	return b, err
}

// squash streams the sorted entries into a squashfs.
func (t *rootTar) squash(ctx context.Context, c config, out string) error {
	if err := os.Remove(out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	epoch := strconv.FormatInt(t.epoch.Unix(), 10)
	cmd := exec.CommandContext(ctx, "mksquashfs", "-", out, "-tar", "-comp", "zstd", "-Xcompression-level", strconv.Itoa(c.level), "-b", "256K", "-no-xattrs", "-quiet",
		"-no-progress", "-noappend", "-mkfs-time", epoch, "-all-time", epoch, "-root-mode", "0755", "-root-uid", "0", "-root-gid", "0", "-root-time", epoch)
	// SOURCE_DATE_EPOCH and -mkfs-time together are an error of mksquashfs's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "SOURCE_DATE_EPOCH=") })
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("mksquashfs (package squashfs-tools): %w", err)
	}
	err = t.stream(in)
	in.Close()
	if werr := cmd.Wait(); werr != nil {
		err = fmt.Errorf("mksquashfs: %w", werr)
	}
	return err
}

// stream writes the tar: hard links become copies of what they name, nothing but name,
// type, mode, owner and content survives.
func (t *rootTar) stream(out io.Writer) error {
	w := tar.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[name]
		h := &tar.Header{Typeflag: e.header.Typeflag, Name: name, Linkname: e.header.Linkname, Mode: e.header.Mode & 0o7777, Size: e.header.Size,
			Uid: e.header.Uid, Gid: e.header.Gid, Devmajor: e.header.Devmajor, Devminor: e.header.Devminor, ModTime: t.epoch, Format: tar.FormatGNU}
		if h.Typeflag == tar.TypeLink {
			target, ok := t.entries[clean(h.Linkname)]
			if !ok || target.header.Typeflag != tar.TypeReg {
				return fmt.Errorf("%s is a hard link to %s, which is not there", name, h.Linkname)
			}
			h.Typeflag, h.Linkname, h.Size, e = tar.TypeReg, "", target.header.Size, target
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		var r io.Reader = bytes.NewReader(e.content)
		if e.content == nil {
			r = io.NewSectionReader(t.base, e.at, h.Size)
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
	return w.Close()
}
