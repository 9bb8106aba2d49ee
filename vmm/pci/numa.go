package pci

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Node is a NUMA node of the host.
type Node struct {
	ID        int
	CPUs      []int // ascending
	MemoryMiB int
	HugeMiB   int // memory set aside as huge pages of the size that was asked for
}

var nodeDir = regexp.MustCompile(`^node(\d{1,4})$`)

// Topology lists the host's NUMA nodes by id; hugeKiB is the huge page size that
// counts. A kernel that knows no nodes has none.
func Topology(root string, hugeKiB int) ([]Node, error) {
	entries, err := os.ReadDir(filepath.Join(root, "devices/system/node"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("NUMA nodes: %w", err)
	}
	var out []Node
	for _, e := range entries {
		f := nodeDir.FindStringSubmatch(e.Name())
		if f == nil {
			continue
		}
		id, _ := strconv.Atoi(f[1]) // digits
		n, err := readNode(filepath.Join(root, "devices/system/node", e.Name()), hugeKiB)
		if err != nil {
			return nil, fmt.Errorf("NUMA node %d: %w", id, err)
		}
		n.ID = id
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func readNode(dir string, hugeKiB int) (n Node, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "cpulist"))
	if err != nil {
		return n, err
	}
	if n.CPUs, err = ParseCPUList(strings.TrimSpace(string(b))); err != nil {
		return n, err
	}
	if b, err = os.ReadFile(filepath.Join(dir, "meminfo")); err != nil {
		return n, err
	}
	for line := range strings.Lines(string(b)) { // "Node 0 MemTotal:  16383 kB"
		if f := strings.Fields(line); len(f) >= 4 && f[2] == "MemTotal:" {
			kib, err := strconv.Atoi(f[3])
			if err != nil {
				return n, err
			}
			n.MemoryMiB = kib >> 10
		}
	}
	b, err = os.ReadFile(filepath.Join(dir, "hugepages", fmt.Sprintf("hugepages-%dkB", hugeKiB), "nr_hugepages"))
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	pages, err := strconv.Atoi(strings.TrimSpace(string(b)))
	n.HugeMiB = pages * hugeKiB >> 10
	return n, err
}

// maxCPU bounds a CPU's number in a list.
const maxCPU = 1 << 16

// ParseCPUList reads the kernel's list form, "0-3,8,10-11"; "" is empty.
func ParseCPUList(s string) ([]int, error) {
	if s == "" {
		return nil, nil
	}
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(part, "-")
		lo, err := strconv.ParseUint(a, 10, 16)
		hi := lo
		if err == nil && isRange {
			hi, err = strconv.ParseUint(b, 10, 16)
		}
		if err != nil || hi < lo || (len(out) > 0 && int(lo) <= out[len(out)-1]) { //nolint:gosec // 16 bits
			return nil, cvm.Errorf(cvm.Invalid, "CPU list %q: want ascending numbers and ranges like 0-3,8 below %d", s, maxCPU)
		}
		for c := lo; c <= hi; c++ {
			out = append(out, int(c)) //nolint:gosec // 16 bits
		}
	}
	return out, nil
}
