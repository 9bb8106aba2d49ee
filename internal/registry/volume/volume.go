// Package volume makes a verity volume of a container image: its unpacked root file
// system as a squashfs with a dm-verity tree behind it, in one file. A guest whose
// app-compose names the root hash mounts it and runs containers from it without
// pulling or unpacking: what is read is checked when it is read.
//
// Equal images give equal files (of one version of mksquashfs).
package volume

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/imagevolume"
	"github.com/confidential-cloud/phala/internal/verity"
)

// Made is what came of an image.
type Made struct {
	Root     string               `json:"verity_root"` // hex, for verity_volumes of the app-compose
	Size     int64                `json:"size"`        // of the file, in bytes
	DataSize int64                `json:"data_size"`   // of the squashfs in it
	Manifest imagevolume.Manifest `json:"manifest"`
}

// Pull opens an image of a registry for linux/amd64, with the user's own docker
// credentials. Plain HTTP is spoken to loopback and private addresses only.
func Pull(ctx context.Context, ref string) (v1.Image, name.Reference, error) {
	var opts []name.Option
	host, _, _ := strings.Cut(ref, "/")
	if ap, err := netip.ParseAddrPort(host); err == nil && (ap.Addr().IsLoopback() || ap.Addr().IsPrivate()) {
		opts = append(opts, name.Insecure)
	}
	r, err := name.ParseReference(ref, opts...)
	if err != nil {
		return nil, nil, cvm.Errorf(cvm.Invalid, "image %q: %w", ref, err).WithFix("name it as in the compose file, best with @sha256:...")
	}
	img, err := remote.Image(r, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}))
	if err != nil {
		return nil, nil, cvm.Errorf(cvm.Unavailable, "pulling %s: %w", ref, err).WithFix("check the name and `docker login`")
	}
	return img, r, nil
}

// Make writes the volume to out, which must not exist.
func Make(ctx context.Context, img v1.Image, ref name.Reference, out string) (m Made, err error) {
	tool, err := exec.LookPath("mksquashfs")
	if err != nil {
		return m, cvm.Errorf(cvm.Precondition, "mksquashfs is not installed").WithFix("install squashfs-tools 4.5 or newer")
	}
	f, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return m, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(out)
		}
	}()
	if m.Manifest, err = squash(ctx, tool, img, ref, out); err != nil {
		return m, err
	}
	return m, seal(ctx, f, &m)
}

// seal puts the hash tree behind the data.
func seal(ctx context.Context, f *os.File, m *Made) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	m.DataSize = (st.Size() + verity.BlockSize - 1) / verity.BlockSize * verity.BlockSize
	if err := f.Truncate(m.DataSize); err != nil {
		return err
	}
	// Salt and UUID follow from the content: equal images give equal files.
	salt := sha256.Sum256([]byte("phala-volume:v1:" + m.Manifest.DiffID))
	s := verity.Superblock{DataBlocks: uint64(m.DataSize / verity.BlockSize), Salt: salt[:]} //nolint:gosec // a file's size
	copy(s.UUID[:], salt[:])
	root, err := verity.Build(ctx, f, s, f, m.DataSize)
	if err != nil {
		return err
	}
	m.Root, m.Size = hex.EncodeToString(root[:]), m.DataSize+s.Size()
	return f.Sync()
}

// squash streams the image's flattened files into mksquashfs.
func squash(ctx context.Context, tool string, img v1.Image, ref name.Reference, out string) (m imagevolume.Manifest, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "-", out, "-tar", "-noappend", "-no-progress", "-quiet", "-comp", "zstd", "-b", "131072")
	in, err := cmd.StdinPipe()
	if err != nil {
		return m, err
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", latest(img)))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return m, err
	}
	m, werr := writeTar(in, img, ref)
	if werr != nil {
		cancel()
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil && werr == nil {
		return m, cvm.Errorf(cvm.Internal, "mksquashfs: %w: %.500s", err, said.String())
	}
	return m, werr
}

// latest is the time that later ones become, the moment of making among them.
func latest(img v1.Image) int64 {
	if c, err := img.ConfigFile(); err == nil && c.Created.Unix() > 0 {
		return c.Created.Unix()
	}
	return 1767225600 // 2026-01-01: of images without a time of their own
}

// writeTar writes rootfs/... and, last, the manifest.
func writeTar(w io.Writer, img v1.Image, ref name.Reference) (m imagevolume.Manifest, err error) {
	flat := mutate.Extract(img)
	defer flat.Close()
	h := sha256.New()
	in := tar.NewReader(io.TeeReader(flat, h))
	out := tar.NewWriter(w)
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: imagevolume.Rootfs + "/", Mode: 0o755}); err != nil {
		return m, err
	}
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m, fmt.Errorf("reading the image: %w", err)
		}
		if !moved(e) {
			continue
		}
		if err := out.WriteHeader(e); err != nil {
			return m, fmt.Errorf("%s: %w", e.Name, err)
		}
		if _, err := io.Copy(out, in); err != nil { //nolint:gosec // an image that its user chose, onto his own disk
			return m, fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, io.TeeReader(flat, h)); err != nil { // the padding counts too
		return m, err
	}
	if m, err = describe(img, ref, "sha256:"+hex.EncodeToString(h.Sum(nil))); err != nil {
		return m, err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: imagevolume.File, Mode: 0o644, Size: int64(len(b))}); err != nil {
		return m, err
	}
	if _, err := out.Write(b); err != nil {
		return m, err
	}
	return m, out.Close()
}

// moved puts an entry below rootfs/; false for the root itself and for what would
// leave it.
func moved(e *tar.Header) bool {
	clean := strings.TrimPrefix(path.Clean("/"+e.Name), "/")
	if clean == "" {
		return false
	}
	e.Name = imagevolume.Rootfs + "/" + clean
	if e.Typeflag == tar.TypeDir {
		e.Name += "/"
	}
	if e.Typeflag == tar.TypeLink {
		e.Linkname = imagevolume.Rootfs + path.Clean("/"+e.Linkname)
	}
	e.Format = tar.FormatPAX
	return true
}

// describe is the image as an engine must know it: its own configuration over one
// layer instead of many.
func describe(img v1.Image, ref name.Reference, diffID string) (m imagevolume.Manifest, err error) {
	c, err := img.ConfigFile()
	if err != nil {
		return m, err
	}
	digest, err := img.Digest()
	if err != nil {
		return m, err
	}
	c = c.DeepCopy()
	layer, err := v1.NewHash(diffID)
	if err != nil {
		return m, err
	}
	c.RootFS, c.History = v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{layer}}, nil
	if m.Config, err = json.Marshal(c); err != nil {
		return m, err
	}
	m.Version, m.DiffID = 1, diffID
	repo := familiar(ref.Context())
	m.Names = []string{repo + "@" + digest.String()}
	if t, ok := ref.(name.Tag); ok {
		m.Names = append(m.Names, repo+":"+t.TagStr())
	} else if d, ok := ref.(name.Digest); ok && d.DigestStr() != digest.String() { // of an index: the compose file's name for it
		m.Names = append(m.Names, repo+"@"+d.DigestStr())
	}
	_, err = m.Check()
	return m, err
}

// familiar is a repository as docker stores its name.
func familiar(r name.Repository) string {
	if r.RegistryStr() == name.DefaultRegistry {
		return strings.TrimPrefix(r.RepositoryStr(), "library/")
	}
	return r.Name()
}
