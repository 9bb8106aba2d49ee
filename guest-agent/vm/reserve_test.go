package vm

import (
	"os"
	"path/filepath"
	"testing"
)

// The reserve is made smaller, never larger, and never less than the kernel's own
// measure.
func TestSmallReserve(t *testing.T) {
	for _, c := range []struct{ name, meminfo, has, want string }{
		{"2 GiB", "MemTotal:        2013460 kB\nMemFree:         1700000 kB\n", "67584\n", "16384"},
		{"64 GiB", "MemTotal:       67108864 kB\n", "67584\n", "32768"},
		{"less already", "MemTotal:        2013460 kB\n", "5674\n", "5674\n"},
		{"a kernel that says something else", "MemFree: 1 kB\n", "67584\n", ""},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(minFreeFile)), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"proc/meminfo": c.meminfo, minFreeFile: c.has} {
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := smallReserve(root); (err != nil) != (c.want == "") {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, err := os.ReadFile(filepath.Join(root, minFreeFile)); err != nil || c.want != "" && string(got) != c.want {
			t.Errorf("%s: %q %v, want %q", c.name, got, err, c.want)
		}
	}
}
