package vm

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// The TSC is left only where the processor is emulated and no TEE is there.
func TestSteadyClock(t *testing.T) {
	for _, c := range []struct{ name, cpuinfo, want string }{
		{"emulated", "model name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu tsc\n", "acpi_pm"},
		{"a real processor", "model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu tsc\n", "tsc"},
		{"a TD that its host calls emulated", "model name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu tsc tdx_guest\n", "tsc"},
	} {
		root := t.TempDir()
		for name, text := range map[string]string{"proc/cpuinfo": c.cpuinfo, clockSource: "tsc"} {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := steadyClock(root, slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, err := os.ReadFile(filepath.Join(root, clockSource)); err != nil || string(got) != c.want {
			t.Errorf("%s: %q %v", c.name, got, err)
		}
	}
}
