package vm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The reserve is made smaller, never larger, and never less than the kernel's own
// measure; huge pages are for who asks only where memory is short.
func TestLean(t *testing.T) {
	for _, c := range []struct{ name, meminfo, has, want, huge string }{
		{"2 GiB", "MemTotal:        2013460 kB\nMemFree:         1700000 kB\n", "67584\n", "8192", "madvise"},
		{"64 GiB", "MemTotal:       67108864 kB\n", "67584\n", "32768", "[always] madvise never\n"},
		{"less already", "MemTotal:        2013460 kB\n", "5674\n", "5674\n", "madvise"},
		{"a kernel that says something else", "MemFree: 1 kB\n", "67584\n", "", ""},
	} {
		root := t.TempDir()
		for name, text := range map[string]string{"proc/meminfo": c.meminfo, minFreeFile: c.has, lowReserveFile: "256\t256\t32\t0\t0\n", hugePagesFile: "[always] madvise never\n"} {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := lean(root)
		if (err != nil) != (c.want == "") {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want == "" {
			continue
		}
		for file, want := range map[string]string{minFreeFile: c.want, lowReserveFile: "0 0 0 0", hugePagesFile: c.huge} {
			if got, err := os.ReadFile(filepath.Join(root, file)); err != nil || string(got) != want {
				t.Errorf("%s: %s: %q %v, want %q", c.name, file, got, err, want)
			}
		}
	}
}

// A kernel without huge pages has no setting for them, and none is made.
func TestLeanMakesNoFiles(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"proc/meminfo": "MemTotal: 2013460 kB\n", minFreeFile: "67584\n"} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := lean(root); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "sys")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a setting was made up: %v", err)
	}
}

// A kernel that is told of huge pages makes its reserve large again, so that the reserve
// comes last. Here telling of huge pages spoils the reserve's file.
func TestLeanReserveComesLast(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"proc/meminfo": "MemTotal: 2013460 kB\n", minFreeFile: "67584\n", hugePagesFile: ""} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if text == "" {
			if err := os.Symlink(filepath.Join(root, minFreeFile), filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := lean(root); err == nil {
		t.Error("the reserve was set before huge pages were")
	}
}
