// Package oci moves guest images to and from container registries.
//
// An image is an OCI artifact: one layer of type FileType per file of the image
// directory, named by its title annotation. The reference's form, one tar.gz layer,
// is read as well. Push writes the first form; a Puller brings either into a
// directory of images, where nothing appears before it is checked:
//
//  1. the manifest against the digest that the caller named, and its signature,
//     when the node has image keys, before anything else is fetched;
//  2. every blob against the manifest while it is written;
//  3. every file against sha256sum.txt, that against digest.txt, and that against
//     the os_image_hash that the caller named;
//  4. the root filesystem against the root hash of the command line.
//
// A pull that nothing pins (no digest, no os_image_hash, no keys) is refused.
package oci

import (
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/image"
)

// Media types.
const (
	ArtifactType = "application/vnd.phala.guest-image.v1"
	FileType     = "application/vnd.phala.guest-image.file.v1"

	manifestType = "application/vnd.oci.image.manifest.v1+json"
	dockerType   = "application/vnd.docker.distribution.manifest.v2+json"
	emptyType    = "application/vnd.oci.empty.v1+json"
	titleKey     = "org.opencontainers.image.title"
	versionKey   = "org.opencontainers.image.version"
	// HashKey annotates a manifest with its os_image_hash, for people; it is checked,
	// but it proves nothing.
	HashKey = "dev.phala.os-image-hash"
)

const (
	maxManifest = 1 << 20
	maxFiles    = 32
)

// descriptor is OCI's.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// manifest is OCI's image manifest, and Docker's.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// blob is a file to fetch.
type blob struct {
	Name   string // of the file; "" for an archive
	SHA256 [32]byte
	Size   int64 // bytes
}

// contents is what a manifest says an image is made of.
type contents struct {
	Blobs   []blob
	Archive bool   // one tar.gz, instead of one blob per file
	Hash    string // HashKey's value or ""
}

func (c contents) size() (n int64) {
	for _, b := range c.Blobs {
		n += b.Size
	}
	return n
}

func refuse(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, format, args...).WithReason("image-refused").WithFix("this is not a guest image as `phala image push` makes it: check the reference")
}

// parseManifest reads a manifest; maxBytes bounds what the image may hold together.
func parseManifest(b []byte, maxBytes int64) (c contents, err error) {
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return c, refuse("the manifest is not JSON: %v", err)
	}
	switch {
	case m.SchemaVersion != 2 || m.MediaType != "" && m.MediaType != manifestType && m.MediaType != dockerType:
		return c, refuse("the manifest is of type %q, schema %d: want an image manifest (for an index, name one of its manifests by digest)", m.MediaType, m.SchemaVersion)
	case len(m.Layers) == 0 || len(m.Layers) > maxFiles:
		return c, refuse("the manifest has %d layers, want 1 to %d", len(m.Layers), maxFiles)
	}
	c.Hash = m.Annotations[HashKey]
	c.Archive = m.ArtifactType != ArtifactType
	if c.Archive && (len(m.Layers) != 1 || !gzipped(m.Layers[0].MediaType)) {
		return c, refuse("the manifest is neither of artifact type %s nor one tar.gz layer", ArtifactType)
	}
	seen := map[string]bool{}
	for i, l := range m.Layers {
		sum, err := parseDigest(l.Digest)
		if err != nil {
			return c, refuse("layer %d: %v", i, err)
		}
		if l.Size < 0 || l.Size > maxBytes || c.size()+l.Size > maxBytes {
			return c, refuse("layer %d: with its %d bytes the image is over the %d that this node takes", i, l.Size, maxBytes)
		}
		name := ""
		if !c.Archive {
			name = l.Annotations[titleKey]
			if l.MediaType != FileType || !image.ValidName(name) || seen[name] {
				return c, refuse("layer %d: type %q, file name %q: want type %s and a plain name, none twice", i, l.MediaType, name, FileType)
			}
		}
		seen[name] = true
		c.Blobs = append(c.Blobs, blob{Name: name, SHA256: sum, Size: l.Size})
	}
	return c, nil
}

func gzipped(mediaType string) bool {
	return mediaType == "application/vnd.oci.image.layer.v1.tar+gzip" || mediaType == "application/vnd.docker.image.rootfs.diff.tar.gzip"
}

func parseDigest(s string) (sum [32]byte, err error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	n, err := hex.Decode(sum[:], []byte(h[:min(len(h), 64)]))
	if !ok || len(h) != 64 || n != 32 || err != nil || h != strings.ToLower(h) {
		return sum, cvm.Errorf(cvm.Invalid, "digest %q: want sha256: and 64 lowercase hex digits", s)
	}
	return sum, nil
}

func digestText(sum [32]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }
