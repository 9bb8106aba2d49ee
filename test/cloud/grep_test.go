package cloud

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
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
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			where = append(where, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return where
}
