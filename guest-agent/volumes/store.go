package volumes

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/confidential-cloud/phala/internal/imagevolume"
)

// listName is, below the docker root, what we registered.
const listName = "phala-volumes.json"

// entry is one registered image.
type entry struct {
	ID    string   `json:"id"`
	Layer string   `json:"layer"`
	Cache string   `json:"cache"`
	Names []string `json:"names"`
}

// register puts images under docker's overlay2 store, as dockerd itself would have
// unpacked them, with the layer's directory being the mounted volume. dockerd must
// not be running.
func register(root string, images []image) error {
	if err := forget(root); err != nil {
		return fmt.Errorf("docker's image store: %w", err)
	}
	if len(images) == 0 {
		return nil
	}
	var list []entry
	for _, im := range images {
		h := sha256.Sum256([]byte("phala-volume-layer:" + im.layer))
		list = append(list, entry{ID: im.id, Layer: im.layer, Cache: hex.EncodeToString(h[:]), Names: im.Names})
	}
	// The list is written first: a crash in between leaves something to forget.
	if err := writeJSON(filepath.Join(root, listName), list); err != nil {
		return err
	}
	for i, im := range images {
		if err := addImage(root, list[i], im); err != nil {
			return fmt.Errorf("docker's image store: %s: %w", im.Names[0], err)
		}
	}
	return names(root, list, true)
}

func addImage(root string, e entry, im image) error {
	layer := filepath.Join(root, "overlay2", e.Cache)
	link := base32.StdEncoding.EncodeToString([]byte(e.Cache)[:17])[:26]
	db := layerDB(root, e)
	for _, d := range []string{layer, filepath.Join(root, "overlay2", "l"), db, filepath.Dir(content(root, e))} {
		if err := os.MkdirAll(d, 0o710); err != nil {
			return err
		}
	}
	// Links, no mounts: dockerd may mount its own directory over itself.
	for _, l := range []string{filepath.Join(layer, "diff"), filepath.Join(root, "overlay2", "l", link)} {
		if err := os.Symlink(im.rootfs, l); err != nil {
			return err
		}
	}
	for path, b := range map[string][]byte{
		filepath.Join(layer, "link"): []byte(link), filepath.Join(layer, "committed"): nil,
		filepath.Join(db, "diff"): []byte("sha256:" + e.Layer), filepath.Join(db, "cache-id"): []byte(e.Cache), filepath.Join(db, "size"): []byte("0"),
		content(root, e): im.Config,
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func layerDB(root string, e entry) string {
	return filepath.Join(root, "image", "overlay2", "layerdb", "sha256", e.Layer)
}

func content(root string, e entry) string {
	return filepath.Join(root, "image", "overlay2", "imagedb", "content", "sha256", e.ID)
}

// forget takes out what an earlier boot registered.
func forget(root string) error {
	b, err := os.ReadFile(filepath.Join(root, listName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var list []entry
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("%s: %w", listName, err)
	}
	if err := names(root, list, false); err != nil {
		return err
	}
	for _, e := range list {
		// They become parts of paths that are removed.
		for _, hexa := range []string{e.ID, e.Layer, e.Cache} {
			if _, err := imagevolume.Digest("sha256:" + hexa); err != nil {
				return fmt.Errorf("%s: %w", listName, err)
			}
		}
		layer := filepath.Join(root, "overlay2", e.Cache)
		if link, err := os.ReadFile(filepath.Join(layer, "link")); err == nil {
			_ = os.Remove(filepath.Join(root, "overlay2", "l", filepath.Base(string(link))))
		}
		for _, p := range []string{layer, layerDB(root, e), content(root, e)} {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	return os.Remove(filepath.Join(root, listName))
}

// names adds the images' names to docker's list, or takes them out.
func names(root string, list []entry, add bool) error {
	path := filepath.Join(root, "image", "overlay2", "repositories.json")
	doc := struct{ Repositories map[string]map[string]string }{map[string]map[string]string{}}
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("repositories.json: %w", err)
	}
	if doc.Repositories == nil {
		doc.Repositories = map[string]map[string]string{}
	}
	for _, e := range list {
		for _, n := range e.Names {
			repo := imagevolume.Repository(n)
			if add {
				if doc.Repositories[repo] == nil {
					doc.Repositories[repo] = map[string]string{}
				}
				doc.Repositories[repo][n] = "sha256:" + e.ID
				continue
			}
			if doc.Repositories[repo][n] == "sha256:"+e.ID {
				delete(doc.Repositories[repo], n)
			}
			if len(doc.Repositories[repo]) == 0 {
				delete(doc.Repositories, repo)
			}
		}
	}
	return writeJSON(path, doc)
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o710); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
