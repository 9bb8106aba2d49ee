package oci

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
)

// PushConfig says where an image goes.
type PushConfig struct {
	Ref    string        // host/repo:tag
	Login  Login         // for Ref's registry, whatever its Registry says
	Signer crypto.Signer // nil: not signed
	// Transport is for tests; nil is the default one.
	Transport http.RoundTripper
	Progress  func(file string, bytes int64) // before each file; may be nil
}

// Pushed is what a push stored.
type Pushed struct {
	Ref    string        `json:"ref"` // by digest
	Digest string        `json:"digest"`
	Hash   cvm.ImageHash `json:"os_image_hash"`
	Bytes  int64         `json:"bytes"`
	Signed bool          `json:"signed"`
}

// Push checks the image directory and stores it. The same directory gives the same
// digest; what the registry has is not sent again.
func Push(ctx context.Context, dir string, c PushConfig) (p Pushed, err error) {
	ref, err := parseRef(c.Ref)
	if err != nil {
		return p, err
	}
	if _, ok := ref.(name.Tag); !ok {
		return p, cvm.Errorf(cvm.Invalid, "image reference %q: name a tag to push to; the digest follows from the files", c.Ref).WithReason("image-reference")
	}
	im, err := Check(ctx, dir, cvm.ImageHash{})
	if err != nil {
		return p, err
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.Login.Registry = ref.Context().RegistryStr()
	// No image of ours is streamed through a redirect: uploads go where the registry says,
	// under the same rules as downloads.
	opts := []remote.Option{remote.WithContext(ctx), remote.WithAuth(c.Login.authenticator(c.Login.Registry)), remote.WithTransport(guard{ref.Context().RegistryStr(), c.Transport})}
	files := []string{image.SumsFile, image.DigestFile}
	for _, s := range im.Sums {
		files = append(files, s.Name)
	}
	if r := im.Meta.Rootfs; r != "" && im.SHA256(r) == "" {
		files = append(files, r)
	}
	slices.Sort(files)
	m := manifest{SchemaVersion: 2, MediaType: manifestType, ArtifactType: ArtifactType, Annotations: map[string]string{HashKey: im.Hash.String(), versionKey: im.Meta.Version}}
	if m.Config, err = pushBytes(ref, emptyType, []byte("{}"), opts); err != nil {
		return p, err
	}
	for _, f := range files {
		d, err := pushFile(ref, filepath.Join(im.Dir, f), c.Progress, opts)
		if err != nil {
			return p, err
		}
		m.Layers = append(m.Layers, d)
		p.Bytes += d.Size
	}
	sum, err := pushManifest(ref, m, opts)
	if err != nil {
		return p, err
	}
	p.Digest, p.Hash, p.Ref = digestText(sum), im.Hash, ref.Context().Name()+"@"+digestText(sum)
	if c.Signer != nil {
		err = pushSignature(ref.Context(), sum, im.Hash, c.Signer, opts)
		p.Signed = err == nil
	}
	return p, err
}

// fileLayer is a file as a registry's blob: stored as it is.
type fileLayer struct {
	path, mediaType string
	content         []byte // instead of path
	sum             [32]byte
	size            int64
}

func (l *fileLayer) Digest() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(l.sum[:])}, nil
}
func (l *fileLayer) DiffID() (v1.Hash, error)            { return l.Digest() }
func (l *fileLayer) Size() (int64, error)                { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error) { return types.MediaType(l.mediaType), nil }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) {
	return l.Compressed()
}
func (l *fileLayer) Compressed() (io.ReadCloser, error) {
	if l.content != nil {
		return io.NopCloser(bytes.NewReader(l.content)), nil
	}
	return os.Open(l.path)
}

func (l *fileLayer) push(ref name.Reference, opts []remote.Option) (descriptor, error) {
	if err := remote.WriteLayer(ref.Context(), l, opts...); err != nil {
		return descriptor{}, unreachable(ref.Context().RegistryStr(), err)
	}
	return descriptor{MediaType: l.mediaType, Digest: digestText(l.sum), Size: l.size}, nil
}

func pushFile(ref name.Reference, path string, progress func(string, int64), opts []remote.Option) (d descriptor, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, cvm.Errorf(cvm.Invalid, "image file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	l := &fileLayer{path: path, mediaType: FileType}
	if l.size, err = io.Copy(h, f); err != nil {
		return d, cvm.Errorf(cvm.Invalid, "image file: %w", err)
	}
	h.Sum(l.sum[:0])
	if progress != nil {
		progress(filepath.Base(path), l.size)
	}
	d, err = l.push(ref, opts)
	d.Annotations = map[string]string{titleKey: filepath.Base(path)}
	return d, err
}

func pushBytes(ref name.Reference, mediaType string, b []byte, opts []remote.Option) (descriptor, error) {
	l := &fileLayer{mediaType: mediaType, content: b, sum: sha256.Sum256(b), size: int64(len(b))}
	return l.push(ref, opts)
}

// rawManifest is remote's Taggable.
type rawManifest []byte

func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func pushManifest(ref name.Reference, m manifest, opts []remote.Option) ([32]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return [32]byte{}, cvm.Errorf(cvm.Internal, "encoding a manifest: %w", err)
	}
	if err := remote.Put(ref, rawManifest(b), opts...); err != nil {
		return [32]byte{}, unreachable(ref.Context().RegistryStr(), err)
	}
	return sha256.Sum256(b), nil
}

// pushSignature signs the manifest's digest; it takes the place of earlier signatures.
func pushSignature(repo name.Repository, digest [32]byte, hash cvm.ImageHash, s crypto.Signer, opts []remote.Option) error {
	var st statement
	st.Critical.Identity.Reference, st.Critical.Image.Digest, st.Critical.Type = repo.Name(), digestText(digest), statementType
	st.Optional = map[string]any{"os_image_hash": hash.String()}
	message, err := json.Marshal(st)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "encoding a statement: %w", err)
	}
	sig, err := sign(s, message)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "signing an image: %w", err)
	}
	tag := repo.Tag(signatureTag(digest))
	d, err := pushBytes(tag, signatureType, message, opts)
	if err != nil {
		return err
	}
	d.Annotations = map[string]string{signatureKey: base64.StdEncoding.EncodeToString(sig)}
	m := manifest{SchemaVersion: 2, MediaType: manifestType, Layers: []descriptor{d}}
	if m.Config, err = pushBytes(tag, "application/vnd.oci.image.config.v1+json", []byte(`{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":["`+d.Digest+`"]}}`), opts); err != nil {
		return err
	}
	_, err = pushManifest(tag, m, opts)
	return err
}
