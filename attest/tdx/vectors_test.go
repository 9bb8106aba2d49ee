package tdx_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// recordedQuote reads a genuine quote that is not part of the repository: from
// $PHALA_VECTORS, or ../shared/vectors beside some parent directory.
func recordedQuote(t testing.TB) []byte {
	t.Helper()
	dirs := []string{os.Getenv("PHALA_VECTORS")}
	if dirs[0] == "" {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		dirs = nil
		for d := wd; d != filepath.Dir(d); d = filepath.Dir(d) {
			dirs = append(dirs, filepath.Join(filepath.Dir(d), "shared", "vectors"))
		}
	}
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "tdx_quote.bin"))
		if err == nil {
			return b
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Skip("SKIPPED: the recorded vector tdx_quote.bin is not here (set PHALA_VECTORS)")
	return nil
}
