package cloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/confidential-cloud/phala/attest/measure"
	"github.com/confidential-cloud/phala/vmm/image"
)

// edits of an image's files, by name.
type edits map[string]func([]byte) []byte

// imageLike makes an image of the cloud's own with some files changed; its checksum
// file and digest are right again, its measurement document is the old one.
func imageLike(t *testing.T, dir string, change edits) *image.Image {
	t.Helper()
	base := theCloud.Image()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	names := []string{base.Meta.Rootfs}
	for _, s := range base.Sums {
		names = append(names, s.Name)
	}
	var sums bytes.Buffer
	for i, name := range names {
		from, to := filepath.Join(base.Dir, name), filepath.Join(dir, name)
		edit := change[name]
		if edit == nil {
			if err := os.Symlink(from, to); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				fmt.Fprintf(&sums, "%s  %s\n", base.SHA256(name), name)
			}
			continue
		}
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		b = edit(b)
		if err := os.WriteFile(to, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if i > 0 { // the root filesystem is not listed
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), name)
		}
	}
	digest := fmt.Appendf(nil, "%x\n", sha256.Sum256(sums.Bytes()))
	err := errors.Join(os.WriteFile(filepath.Join(dir, image.SumsFile), sums.Bytes(), 0o644), os.WriteFile(filepath.Join(dir, image.DigestFile), digest, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	im, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// nextVersion is another release of the image: another command line, measured.
func nextVersion(t *testing.T) *image.Image {
	t.Helper()
	base := theCloud.Image()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(base.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cmdline := base.Meta.Cmdline + " phala.next=1"
	m, err := measure.New(measure.Files{Firmware: read(base.Meta.BIOS), Kernel: read(base.Meta.Kernel), Initrd: read(base.Meta.Initrd), Cmdline: cmdline})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := m.Document()
	if err != nil {
		t.Fatal(err)
	}
	return imageLike(t, filepath.Join(filepath.Dir(base.Dir), fmt.Sprintf("next-%d", os.Getpid())), edits{
		image.MetadataFile:   withCmdline(t, cmdline),
		measure.DocumentFile: func([]byte) []byte { return doc },
	})
}

func withCmdline(t *testing.T, cmdline string) func([]byte) []byte {
	return func(b []byte) []byte {
		var meta map[string]any
		if err := json.Unmarshal(b, &meta); err != nil {
			t.Fatal(err)
		}
		meta["cmdline"] = cmdline
		out, err := json.Marshal(meta)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// bit flips one bit of a file's content.
func bit(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 1; return b }
}
