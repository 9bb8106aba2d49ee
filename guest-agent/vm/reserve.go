package vm

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const minFreeFile = "proc/sys/vm/min_free_kbytes"

// leastReserve is the least that the kernel is left to hold free, in KiB.
const leastReserve = 16 << 10

// smallReserve takes back what the kernel holds free for the making of huge pages: 44 MiB
// of a machine of 2 GiB, and half as much again as its upper mark, of which no app ever
// gets anything (MemAvailable grows by 42 MiB there). What is left is what a kernel without huge pages holds for allocations that cannot
// wait, and leastReserve at least.
func smallReserve(root string) error {
	text, err := os.ReadFile(filepath.Join(root, minFreeFile))
	if err != nil {
		return err
	}
	has, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", minFreeFile, err)
	}
	info, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return err
	}
	var total int
	if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &total); err != nil {
		return fmt.Errorf("/proc/meminfo: %w", err)
	}
	want := max(leastReserve, int(math.Sqrt(16*float64(total)))) // the kernel's own formula
	if has <= want {
		return nil
	}
	return os.WriteFile(filepath.Join(root, minFreeFile), []byte(strconv.Itoa(want)), 0o644) //nolint:gosec // the kernel's file
}
