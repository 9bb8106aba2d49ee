package vm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	minFreeFile    = "proc/sys/vm/min_free_kbytes"
	lowReserveFile = "proc/sys/vm/lowmem_reserve_ratio"
	hugePagesFile  = "sys/kernel/mm/transparent_hugepage/enabled"
)

// What the kernel is left to hold free at least, and below which size a machine is small;
// both in KiB.
const (
	leastReserve = 8 << 10
	small        = 8 << 20
)

// lean gives apps the memory that the kernel and its guesses would take. What a kernel
// does not know is left as it is.
func lean(root string) error {
	info, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return err
	}
	var total int
	if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &total); err != nil {
		return fmt.Errorf("/proc/meminfo: %w", err)
	}
	// The lowest 16 MiB are held back for devices that reach no other: there are none.
	errs := []error{replace(root, lowReserveFile, "0 0 0 0")}
	if total < small {
		// Huge pages for who asks for them: otherwise the heaps of a machine's own programs
		// take 2 MiB wherever they touch a page.
		errs = append(errs, replace(root, hugePagesFile, "madvise"))
	}
	errs = append(errs, smallReserve(root, total)) // last: a kernel that is told of huge pages makes it large again
	return errors.Join(errs...)
}

// replace writes a setting that is there.
func replace(root, file, text string) error {
	f, err := os.OpenFile(filepath.Join(root, file), os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	return err
}

// smallReserve takes back what the kernel holds free for the making of huge pages: 44 MiB
// of a machine of 2 GiB, and half as much again as its upper mark, of which no app ever
// gets anything. What is left is what a kernel without huge pages holds for allocations
// that cannot wait, and leastReserve at least. total: the machine's memory in KiB.
func smallReserve(root string, total int) error {
	text, err := os.ReadFile(filepath.Join(root, minFreeFile))
	if err != nil {
		return err
	}
	has, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", minFreeFile, err)
	}
	want := max(leastReserve, int(math.Sqrt(16*float64(total)))) // the kernel's own formula
	if has <= want {
		return nil
	}
	return replace(root, minFreeFile, strconv.Itoa(want))
}
