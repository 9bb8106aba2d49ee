package cloud

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// secretForms are the secret as such, in hex, and the inside of its base64.
func secretForms(s string) []string {
	b64 := base64.StdEncoding.EncodeToString([]byte(s))
	return []string{s, hex.EncodeToString([]byte(s)), b64[:len(b64)-4]}
}

// grep lists the files below dir that hold text.
func grep(t *testing.T, dir, text string) (where []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // files come and go while services run
		}
		if holds(path, []byte(text)) {
			where = append(where, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return where
}

// holds reads a file part by part, without its holes: a machine's disk has 40 GB, of
// which little is written. A file that is gone meanwhile holds nothing.
func holds(path string, text []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		if data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); err == nil {
			at = data
		} else if err == unix.ENXIO {
			return false // nothing but a hole is left
		}
		n, err := io.ReadFull(io.NewSectionReader(f, at, int64(len(buf))), buf)
		if bytes.Contains(buf[:n], text) {
			return true
		}
		if err != nil {
			return false
		}
		at += int64(n - len(text) + 1)
	}
}

// TestGrepAcrossParts: what lies across two parts, or behind a hole, is found.
func TestGrepAcrossParts(t *testing.T) {
	dir := t.TempDir()
	for _, at := range []int64{0, 1<<20 - 3, 5<<20 + 1, 1 << 33} {
		path := filepath.Join(dir, "f")
		f, err := os.Create(path)
		if err == nil {
			_, err = f.WriteAt([]byte(theSecret), at)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(grep(t, dir, theSecret)) != 1 || len(grep(t, dir, theSecret+"x")) != 0 {
			t.Errorf("at %d", at)
		}
	}
}
