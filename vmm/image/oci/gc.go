package oci

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Delete removes an image. The caller has made sure that nothing uses it. It vanishes
// at once, also when removing its files takes a while or is interrupted.
func (p *Puller) Delete(name string) error {
	dir := filepath.Join(p.cfg.Dir, name)
	if !image.ValidName(name) {
		return cvm.Errorf(cvm.Invalid, "image name %q: letters, digits, _ . and -, at most 64", name).WithReason("image-name")
	}
	if _, err := os.Stat(filepath.Join(dir, image.SumsFile)); err != nil {
		return cvm.Errorf(cvm.NotFound, "guest image %s is not on this node", name).WithReason("image-missing")
	}
	if err := os.MkdirAll(p.work("trash"), 0o700); err != nil {
		return cvm.Errorf(cvm.Internal, "deleting an image: %w", err)
	}
	trash, err := os.MkdirTemp(p.work("trash"), "")
	if err == nil {
		err = os.Rename(dir, filepath.Join(trash, name))
	}
	if err == nil {
		err = os.RemoveAll(trash)
	}
	if err != nil {
		return cvm.Errorf(cvm.Internal, "deleting image %s: %w", name, err)
	}
	return nil
}

// Collect removes images for which used is false, but for the newest req.Keep of
// them, and parts of blobs that no pull under way needs.
func (p *Puller) Collect(req vmmapi.GCRequest, used func(name string) bool) (r vmmapi.GCResult, err error) {
	r = vmmapi.GCResult{Removed: []string{}, Kept: []string{}, DryRun: req.DryRun}
	if req.Keep < 0 {
		return r, cvm.Errorf(cvm.Invalid, "keep %d: negative", req.Keep)
	}
	images, _ := image.List(p.cfg.Dir) // broken ones stay: someone should look at them
	newest(images)
	spared := 0
	for _, im := range images {
		switch {
		case used(im.Name):
			r.Kept = append(r.Kept, im.Name)
			continue
		case spared < req.Keep:
			spared++
			r.Kept = append(r.Kept, im.Name)
			continue
		}
		size := treeSize(im.Dir)
		if !req.DryRun {
			if err := p.Delete(im.Name); err != nil {
				return r, err
			}
		}
		r.Removed, r.Bytes = append(r.Removed, im.Name), r.Bytes+size
	}
	n, err := p.sweep(req.DryRun)
	r.Bytes += n
	return r, err
}

// newest sorts by the time of the directory: of its pull, or its copy.
func newest(images []*image.Image) {
	at := map[string]int64{}
	for _, im := range images {
		if st, err := os.Stat(im.Dir); err == nil {
			at[im.Name] = st.ModTime().UnixNano()
		}
	}
	slices.SortStableFunc(images, func(a, b *image.Image) int {
		switch x, y := at[a.Name], at[b.Name]; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// sweep removes downloaded parts, unless a pull is under way: it may need them.
func (p *Puller) sweep(dryRun bool) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range p.jobs {
		if !j.view().Ended() {
			return 0, nil
		}
	}
	n := treeSize(p.work("blobs"))
	if dryRun {
		return n, nil
	}
	if err := os.RemoveAll(p.work("blobs")); err != nil {
		return 0, cvm.Errorf(cvm.Internal, "removing parts of images: %w", err)
	}
	return n, nil
}

func treeSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read has no size
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
