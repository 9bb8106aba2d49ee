// Package imagevolume is the format of a verity volume that holds a container image
// (docs/spec/image-volume.md): what the tool that makes one and the guest that mounts
// one agree on. Check a Manifest before anything is done with it.
package imagevolume

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"regexp"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// What is at the top of the volume's squashfs.
const (
	File   = "phala-image.json" // a Manifest
	Rootfs = "rootfs"           // the image's files
)

// Bounds of a manifest.
const (
	MaxManifest = 1 << 20 // bytes
	maxNames    = 16
)

// Reasons of a volume that cannot be used.
const (
	ReasonVolume = "volume-invalid"
)

// Manifest describes the image in a volume.
type Manifest struct {
	Version int             `json:"version"` // 1
	DiffID  string          `json:"diff_id"` // of the one layer, sha256:<hex>; names the content, is not checked
	Config  json.RawMessage `json:"config"`  // OCI image configuration; its sha256 is the image's id
	// Names by which a compose file may call it, as docker stores them: repo:tag, repo@sha256:<hex>.
	Names []string `json:"names"`
}

// nameForm is host[:port]/path:tag or ...@sha256:digest, without dots that climb.
var nameForm = regexp.MustCompile(`^[a-z0-9]+([._:/-]{1,2}[a-zA-Z0-9_]+)*(:[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}|@sha256:[0-9a-f]{64})$`)

// Parse reads a manifest strictly.
func Parse(b []byte) (m Manifest, err error) {
	if len(b) > MaxManifest {
		return m, bad("%d bytes, the limit is %d", len(b), MaxManifest)
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, bad("%v", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return m, bad("data after the object")
	}
	_, err = m.Check()
	return m, err
}

// Check holds a manifest to its form and returns the image's id, 64 hex digits.
func (m Manifest) Check() (id string, err error) {
	if m.Version != 1 {
		return "", bad("version %d, want 1", m.Version)
	}
	if _, err := Digest(m.DiffID); err != nil {
		return "", err
	}
	var c struct {
		RootFS struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
		OS string `json:"os"`
	}
	if err := json.Unmarshal(m.Config, &c); err != nil {
		return "", bad("config: %v", err)
	}
	if c.OS != "linux" || c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) != 1 || c.RootFS.DiffIDs[0] != m.DiffID {
		return "", bad("config: want os linux and the one layer %s", m.DiffID)
	}
	if len(m.Names) == 0 || len(m.Names) > maxNames {
		return "", bad("%d names, want 1 to %d", len(m.Names), maxNames)
	}
	for _, n := range m.Names {
		if len(n) > 400 || !nameForm.MatchString(n) {
			return "", bad("name %q is not repository:tag or repository@sha256:...", n)
		}
	}
	h := sha256.Sum256(m.Config)
	return hex.EncodeToString(h[:]), nil
}

// Digest is the hex part of sha256:<hex>.
func Digest(s string) (string, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(h)
	if !ok || err != nil || len(b) != 32 || strings.ToLower(h) != h {
		return "", bad("%q is not sha256:<64 hex digits>", s)
	}
	return h, nil
}

// Repository is the part of a name before tag or digest.
func Repository(n string) string {
	if repo, _, ok := strings.Cut(n, "@"); ok {
		return repo
	}
	return n[:strings.LastIndexByte(n, ':')]
}

// DataSize reads, from the first bytes of a squashfs, where its hash tree begins. The
// bytes are not verified yet: a wrong size only leads to a tree that the root hash
// does not fit.
func DataSize(head []byte, device int64) (int64, error) {
	if len(head) < 48 || string(head[:4]) != "hsqs" {
		return 0, bad("no squashfs")
	}
	used := binary.LittleEndian.Uint64(head[40:48])
	if used == 0 || used > uint64(max(device, 0)) {
		return 0, bad("a squashfs of %d bytes on a disk of %d", used, device)
	}
	return (int64(used) + 4095) / 4096 * 4096, nil //nolint:gosec // at most device
}

func bad(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, "image volume: "+format, args...).WithReason(ReasonVolume).WithFix("make it again with `phala volume make`")
}
