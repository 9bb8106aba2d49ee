package image

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/confidential-cloud/phala/cvm"
)

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var sums bytes.Buffer
	for _, n := range []string{"rootfs.tar", "agent.tar", MetadataFile} {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(files[n])), n)
		files[n] += ""
	}
	files[SumsFile] = sums.String()
	files[DigestFile] = fmt.Sprintf("%x\n", sha256.Sum256(sums.Bytes()))
	for n, c := range files {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func good() map[string]string {
	return map[string]string{"rootfs.tar": "root", "agent.tar": "agent",
		MetadataFile: `{"rootfs":"rootfs.tar","overlay":"agent.tar","version":"1.2","is_dev":true,"driver":"container"}`}
}

func TestOpenVerify(t *testing.T) {
	root := t.TempDir()
	dir := write(t, filepath.Join(root, "img-1"), good())
	im, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := im.Verify(); err != nil {
		t.Fatal(err)
	}
	if im.Name != "img-1" || im.Meta.Version != "1.2" || !im.Meta.IsDev || im.SHA256("rootfs.tar") == "" {
		t.Fatalf("%+v", im)
	}
	if err := os.MkdirAll(filepath.Join(root, "cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	all, err := List(root)
	if err != nil || len(all) != 1 || all[0].Hash != im.Hash {
		t.Fatalf("%v %v", all, err)
	}
	if none, err := List(filepath.Join(root, "absent")); err != nil || none != nil {
		t.Fatalf("%v %v", none, err)
	}
}

func TestChangedImageIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, file, content, want string
		verify                    bool // refused by Verify, not by Open
	}{
		{"rootfs changed", "rootfs.tar", "evil", "rootfs.tar has sha256", true},
		{"overlay changed", "agent.tar", "evil", "agent.tar has sha256", true},
		{"metadata changed", MetadataFile, `{"rootfs":"rootfs.tar","is_dev":false}`, "is not the one", false},
		{"digest changed", DigestFile, strings.Repeat("0", 64), "digest.txt says", false},
		{"sums changed", SumsFile, strings.Repeat("0", 64) + "  rootfs.tar\n", "digest.txt says", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, filepath.Join(t.TempDir(), "img"), good())
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			im, err := Open(dir)
			if c.verify {
				if err != nil {
					t.Fatal(err)
				}
				err = im.Verify()
			}
			if cvm.ReasonOf(err) != "image-broken" || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
	for _, f := range []string{"rootfs.tar", MetadataFile, SumsFile, DigestFile} {
		dir := write(t, filepath.Join(t.TempDir(), "img"), good())
		_ = os.Remove(filepath.Join(dir, f))
		im, err := Open(dir)
		if err == nil {
			err = im.Verify()
		}
		if cvm.ReasonOf(err) != "image-broken" {
			t.Errorf("%s missing: %v", f, err)
		}
	}
	files := good()
	files[MetadataFile] = `{"rootfs":"rootfs.tar","overlay":"other.tar"}`
	if _, err := Open(write(t, filepath.Join(t.TempDir(), "img"), files)); cvm.ReasonOf(err) != "image-broken" {
		t.Errorf("overlay outside of the sums: %v", err)
	}
}

func TestParseSums(t *testing.T) {
	h := strings.Repeat("ab", 32)
	for name, in := range map[string]string{
		"empty": "", "no newline": h + "  a", "one space": h + " a\n", "upper": strings.ToUpper(h) + "  a\n",
		"short": h[:62] + "  a\n", "path": h + "  ../a\n", "slash": h + "  a/b\n", "twice": h + "  a\n" + h + "  a\n",
		"blank line": h + "  a\n\n", "crlf": h + "  a\r\n", "dots": h + "  a..b\n",
	} {
		if _, err := ParseSums([]byte(in)); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: want invalid, got %v", name, err)
		}
	}
	if s, err := ParseSums([]byte(h + "  a\n" + h + "  b.txt\n")); err != nil || len(s) != 2 || s[1].Name != "b.txt" {
		t.Fatalf("%v %v", s, err)
	}
}

func FuzzParseSums(f *testing.F) {
	f.Add([]byte(strings.Repeat("ab", 32) + "  a\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sums, err := ParseSums(b)
		if err != nil {
			return
		}
		var out bytes.Buffer
		for _, s := range sums {
			fmt.Fprintf(&out, "%x  %s\n", s.SHA256, s.Name)
		}
		if !bytes.Equal(out.Bytes(), b) {
			t.Fatalf("accepted, but re-encodes differently: %q", b)
		}
	})
}
