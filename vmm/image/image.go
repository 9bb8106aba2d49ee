// Package image opens guest images: directories of files named by sha256sum.txt,
// whose own digest (digest.txt) is the image's identity, os_image_hash.
//
// Open reads the metadata only; Verify hashes every file and must have succeeded
// before anything of the image is used.
package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Files of an image directory.
const (
	SumsFile     = "sha256sum.txt" // "<hex>  <name>\n" per file, as sha256sum writes it
	DigestFile   = "digest.txt"    // hex sha256 of SumsFile
	MetadataFile = "metadata.json"
	maxText      = 1 << 20
)

// Metadata is metadata.json: the reference's keys, and ours for images that run
// as a container.
type Metadata struct {
	BIOS        string `json:"bios"`
	BIOSSEV     string `json:"bios-sev"` // firmware for SEV-SNP; "": BIOS serves both
	Kernel      string `json:"kernel"`
	Cmdline     string `json:"cmdline"`
	Initrd      string `json:"initrd"`
	Rootfs      string `json:"rootfs"` // a tar for images of the container driver
	Version     string `json:"version"`
	GitRevision string `json:"git_revision"`
	SharedRO    bool   `json:"shared_ro"`
	IsDev       bool   `json:"is_dev"`
	// Overlay is ours: a tar on top of Rootfs (the guest agent), kept apart so that a
	// new agent does not mean a new root filesystem.
	Overlay string `json:"overlay,omitempty"`
	// Driver is ours: which driver can run it, "container" or "" (a virtual machine).
	Driver string `json:"driver,omitempty"`
}

// Image is an image directory.
type Image struct {
	Name string
	Dir  string
	Hash cvm.ImageHash
	Meta Metadata
	Sums []Sum
}

// Sum is one line of SumsFile.
type Sum struct {
	SHA256 [32]byte
	Name   string
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// ValidName reports whether s may name an image or a file in one.
func ValidName(s string) bool { return nameRE.MatchString(s) && !strings.Contains(s, "..") }

// ParseSums reads SumsFile strictly: one file per line, plain names, none twice.
func ParseSums(b []byte) ([]Sum, error) {
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return nil, cvm.Errorf(cvm.Invalid, "%s: does not end with a newline", SumsFile)
	}
	var sums []Sum
	seen := map[string]bool{}
	for i, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		digest, name, ok := strings.Cut(line, "  ")
		var s Sum
		n, err := hex.Decode(s.SHA256[:], []byte(digest[:min(len(digest), 64)]))
		if !ok || len(digest) != 64 || n != 32 || err != nil || digest != strings.ToLower(digest) {
			return nil, cvm.Errorf(cvm.Invalid, "%s line %d: want 64 lowercase hex digits, two spaces and a file name", SumsFile, i+1)
		}
		if !ValidName(name) || seen[name] {
			return nil, cvm.Errorf(cvm.Invalid, "%s line %d: file name %q is not allowed or there twice", SumsFile, i+1, name)
		}
		seen[name] = true
		s.Name = name
		sums = append(sums, s)
	}
	return sums, nil
}

// Open reads an image's identity and metadata. The files are not hashed yet.
func Open(dir string) (*Image, error) {
	name := filepath.Base(dir)
	fail := func(format string, args ...any) (*Image, error) {
		return nil, cvm.Errorf(cvm.Precondition, "guest image %s: "+format, append([]any{dir}, args...)...).
			WithReason("image-broken").WithFix("run `make image`, or copy the image again")
	}
	if !ValidName(name) {
		return fail("the directory's name is not a valid image name")
	}
	sums, err := readText(filepath.Join(dir, SumsFile))
	if err != nil {
		return fail("%w", err)
	}
	im := &Image{Name: name, Dir: dir, Hash: sha256.Sum256(sums)}
	digest, err := readText(filepath.Join(dir, DigestFile))
	if err != nil {
		return fail("%w", err)
	}
	if got := strings.TrimSpace(string(digest)); got != im.Hash.String() {
		return fail("%s says %s, but the sha256 of %s is %s", DigestFile, got, SumsFile, im.Hash)
	}
	if im.Sums, err = ParseSums(sums); err != nil {
		return fail("%w", err)
	}
	meta, err := readText(filepath.Join(dir, MetadataFile))
	if err != nil {
		return fail("%w", err)
	}
	// The metadata decides what is run, so it is checked here and not in Verify.
	if s, ok := im.sum(MetadataFile); !ok || s != sha256.Sum256(meta) {
		return fail("%s is not the one that %s names", MetadataFile, SumsFile)
	}
	if err := json.Unmarshal(meta, &im.Meta); err != nil {
		return fail("%s: %w", MetadataFile, err)
	}
	for _, f := range []string{im.Meta.BIOS, im.Meta.BIOSSEV, im.Meta.Kernel, im.Meta.Initrd, im.Meta.Overlay} {
		if _, ok := im.sum(f); f != "" && !ok {
			return fail("%s names %q, which %s does not list", MetadataFile, f, SumsFile)
		}
	}
	return im, nil
}

func (im *Image) sum(name string) ([32]byte, bool) {
	for _, s := range im.Sums {
		if s.Name == name {
			return s.SHA256, true
		}
	}
	return [32]byte{}, false
}

// SHA256 is the digest of one of the image's files as hex, or "".
func (im *Image) SHA256(name string) string {
	if s, ok := im.sum(name); ok {
		return hex.EncodeToString(s[:])
	}
	return ""
}

// Verify hashes every file that the image's identity covers.
func (im *Image) Verify() error {
	for _, s := range im.Sums {
		got, err := hashFile(filepath.Join(im.Dir, s.Name))
		if err != nil {
			return cvm.Errorf(cvm.Precondition, "guest image %s: %w", im.Name, err).WithReason("image-broken").WithFix("run `make image`")
		}
		if got != s.SHA256 {
			return cvm.Errorf(cvm.Precondition, "guest image %s: %s has sha256 %x, %s wants %x", im.Name, s.Name, got, SumsFile, s.SHA256).
				WithReason("image-broken").WithFix("the file was changed after the image was built: run `make image`, or copy the image again")
		}
	}
	return nil
}

// List opens every image below dir, sorted by name. Broken ones are returned as
// errors beside the good ones.
func List(dir string) ([]*Image, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "reading the image directory: %w", err)
	}
	var images []*Image
	var errs []error
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		if _, err := os.Stat(filepath.Join(sub, SumsFile)); err != nil {
			continue // not an image: a cache, a half-made build
		}
		im, err := Open(sub)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		images = append(images, im)
	}
	sort.Slice(images, func(i, j int) bool { return images[i].Name < images[j].Name })
	return images, errors.Join(errs...)
}

func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxText || bytes.IndexByte(b, 0) >= 0 {
		return nil, cvm.Errorf(cvm.Invalid, "%s: not a text file of at most %d bytes", filepath.Base(path), maxText)
	}
	return b, nil
}

func hashFile(path string) (sum [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}
