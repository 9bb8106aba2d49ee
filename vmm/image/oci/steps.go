package oci

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// wanted is a resolved pull.
type wanted struct {
	contents
	src    *source
	digest [32]byte
	hash   cvm.ImageHash // what it must be; zero: pinned by digest or signature alone
}

// pull is the whole of it, in the order of the package comment.
func (p *Puller) pull(ctx context.Context, j *job) error {
	w, err := p.resolve(ctx, j)
	if err != nil {
		return err
	}
	release, err := p.claim(ctx, digestText(w.digest))
	if err != nil {
		return err
	}
	defer release()
	if w.hash != (cvm.ImageHash{}) {
		if there, err := p.present(ctx, j, w.hash, ""); there || err != nil {
			return err
		}
	}
	if err := p.download(ctx, j, w); err != nil {
		return err
	}
	stage := p.work("stage", j.p.ID)
	defer os.RemoveAll(stage)
	im, err := p.stage(ctx, j, w, stage)
	if err != nil {
		if verdict(err) { // these bytes are worth nothing: the next pull starts over
			p.discard(w)
		}
		return err
	}
	if err := p.publish(ctx, j, im); err != nil {
		return err
	}
	p.discard(w)
	return nil
}

// verdict tells a refusal of the content from an accident.
func verdict(err error) bool {
	return cvm.CodeOf(err) == cvm.Invalid || cvm.CodeOf(err) == cvm.Denied || cvm.CodeOf(err) == cvm.Precondition
}

func (p *Puller) discard(w wanted) {
	for _, b := range w.Blobs {
		_ = os.Remove(p.work("blobs", blobName(b.SHA256)))
	}
}

// resolve fetches the manifest and settles what the image must be.
func (p *Puller) resolve(ctx context.Context, j *job) (w wanted, err error) {
	ref, err := parseRef(j.req.Ref)
	if err != nil {
		return w, err
	}
	_, byDigest := ref.(name.Digest)
	if w.hash = j.req.Hash; !byDigest && w.hash == (cvm.ImageHash{}) && len(p.cfg.Keys) == 0 {
		return w, cvm.Errorf(cvm.Denied, "nothing says which image %s is: a tag can be moved by whoever runs the registry", j.req.Ref).WithReason("image-unpinned").
			WithFix("name it by digest (@sha256:...), pin its os_image_hash, or configure image keys")
	}
	if w.src, err = connect(ctx, ref.Context(), p.cfg.Login, p.cfg.Transport, "pull"); err != nil {
		return w, err
	}
	b, digest, err := w.src.manifest(ctx, ref.Identifier())
	if err != nil {
		return w, err
	}
	w.digest = digest
	j.set(func(s *vmmapi.Pull) { s.Digest = digestText(digest) })
	hints := []string{}
	if len(p.cfg.Keys) > 0 {
		by, hash, err := w.src.verifySignature(ctx, digest, p.cfg.Keys)
		if err != nil {
			return w, err
		}
		j.set(func(s *vmmapi.Pull) { s.SignedBy = by })
		hints = append(hints, hash)
	}
	if w.contents, err = parseManifest(b, p.cfg.MaxBytes); err != nil {
		return w, err
	}
	// Who says an os_image_hash, be it the signer or the manifest, must be right.
	for _, text := range append(hints, w.Hash) {
		var h cvm.ImageHash
		if text == "" {
			continue
		}
		if err := h.UnmarshalText([]byte(text)); err != nil {
			return w, refuse("the os_image_hash beside the image: %v", err)
		}
		if w.hash != (cvm.ImageHash{}) && h != w.hash {
			return w, cvm.Errorf(cvm.Denied, "the registry names os_image_hash %s, wanted is %s", h, w.hash).WithReason("image-hash").
				WithFix("this is another image: check the reference, or who moved the tag")
		}
		w.hash = h
	}
	return w, nil
}

// present reports whether an image of this hash (and name, unless it is "") is there
// already, whole.
func (p *Puller) present(ctx context.Context, j *job, hash cvm.ImageHash, as string) (bool, error) {
	as = orWord(as, j.req.Name)
	images, _ := image.List(p.cfg.Dir) // broken ones are not it
	for _, im := range images {
		if im.Hash != hash || as != "" && im.Name != as {
			continue
		}
		j.set(func(s *vmmapi.Pull) { s.Phase = vmmapi.PullChecking })
		if _, err := Check(ctx, im.Dir, hash); err != nil {
			return false, cvm.Errorf(cvm.Conflict, "image %s is on this node, but: %w", im.Name, err).WithReason("image-broken").WithFix("delete it, then pull again")
		}
		j.set(func(s *vmmapi.Pull) { s.Name, s.Hash = im.Name, im.Hash })
		return true, nil
	}
	return false, nil
}

func orWord(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// room refuses what would not fit.
func (p *Puller) room(need int64) error {
	have, err := p.cfg.Free(p.cfg.Dir)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "asking for free disk space: %w", err)
	}
	if have-p.cfg.KeepFree < need {
		return cvm.Errorf(cvm.Exhausted, "the image needs %d MiB on %s; %d MiB are free, of which %d stay free", need>>20, p.cfg.Dir, have>>20, p.cfg.KeepFree>>20).
			WithReason("disk-full").WithFix("remove unused images (POST /v1/images/gc) or make room")
	}
	return nil
}

// download brings the blobs to disk, going on where an earlier pull stopped.
func (p *Puller) download(ctx context.Context, j *job, w wanted) error {
	if err := os.MkdirAll(p.work("blobs"), 0o700); err != nil {
		return cvm.Errorf(cvm.Internal, "image directory: %w", err)
	}
	var have int64
	for _, b := range w.Blobs {
		if st, err := os.Stat(p.work("blobs", blobName(b.SHA256))); err == nil {
			have += min(st.Size(), b.Size)
		}
	}
	if err := p.room(w.size() - have); err != nil {
		return err
	}
	j.set(func(s *vmmapi.Pull) { s.Phase, s.TotalBytes, s.DoneBytes = vmmapi.PullDownloading, w.size(), 0 })
	f := fetcher{src: w.src, stall: p.cfg.Stall, pause: p.cfg.Pause, got: func(n int64) { j.set(func(s *vmmapi.Pull) { s.DoneBytes += n }) }}
	for _, b := range w.Blobs {
		// Other images may hold the same file (a kernel): one download at a time writes it.
		release, err := p.claim(ctx, "blob "+blobName(b.SHA256))
		if err != nil {
			return err
		}
		err = f.fetch(ctx, b, p.work("blobs", blobName(b.SHA256)))
		release()
		if err != nil {
			return err
		}
	}
	return nil
}

// stage makes the image's directory out of the blobs and checks it.
func (p *Puller) stage(ctx context.Context, j *job, w wanted, stage string) (*image.Image, error) {
	j.set(func(s *vmmapi.Pull) { s.Phase = vmmapi.PullUnpacking })
	dir := filepath.Join(stage, orWord(j.req.Name, "image"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, cvm.Errorf(cvm.Internal, "image directory: %w", err)
	}
	for _, b := range w.Blobs {
		path := p.work("blobs", blobName(b.SHA256))
		if w.Archive {
			if err := p.unpackFile(ctx, path, dir); err != nil {
				return nil, err
			}
			continue
		}
		if err := os.Link(path, filepath.Join(dir, b.Name)); err != nil { // another image's pull discarded it
			return nil, cvm.Errorf(cvm.Unavailable, "image blob: %w", err).WithReason("image-blob").WithFix("pull again")
		}
	}
	j.set(func(s *vmmapi.Pull) { s.Phase = vmmapi.PullChecking })
	im, err := Check(ctx, dir, w.hash)
	if err != nil {
		return nil, err
	}
	if err := onlyKnown(im, w.Archive); err != nil {
		return nil, err
	}
	return im, finish(dir)
}

func (p *Puller) unpackFile(ctx context.Context, path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "image blob: %w", err)
	}
	defer f.Close()
	return unpack(ctx, io.Reader(f), dir, p.cfg.MaxBytes, p.room)
}

// finish makes the files readable (they are public) and the directory durable.
func finish(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "image directory: %w", err)
	}
	for _, e := range entries {
		if err := os.Chmod(filepath.Join(dir, e.Name()), 0o444); err != nil { //nolint:gosec // public
			return cvm.Errorf(cvm.Internal, "image directory: %w", err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // public
		return cvm.Errorf(cvm.Internal, "image directory: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return cvm.Errorf(cvm.Internal, "image directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// publish gives the checked directory its name, at once and whole.
func (p *Puller) publish(ctx context.Context, j *job, im *image.Image) error {
	as := j.req.Name
	if as == "" {
		as = "phala-" + im.Meta.Version
		if im.Meta.IsDev {
			as = "phala-dev-" + im.Meta.Version
		}
	}
	if !image.ValidName(as) || im.Meta.Version == "" && j.req.Name == "" {
		return refuse("the image's version %q gives no name: name it in the request", im.Meta.Version)
	}
	if there, err := p.present(ctx, j, im.Hash, as); there || err != nil {
		return err
	}
	err := os.Rename(im.Dir, filepath.Join(p.cfg.Dir, as))
	if errors.Is(err, os.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return cvm.Errorf(cvm.Conflict, "there is another image %s on this node", as).WithReason("image-differs").WithFix("choose another name, or delete it first")
	}
	if err != nil {
		return cvm.Errorf(cvm.Internal, "publishing the image: %w", err)
	}
	j.set(func(s *vmmapi.Pull) { s.Name, s.Hash = as, im.Hash })
	return syncDir(p.cfg.Dir)
}
