package initramfs

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// findDisk waits until the block device with a serial number is there and returns its
// name ("vda"). Two of them are refused: which one is meant would be the host's choice
// at every read.
func findDisk(sys, serial string, wait time.Duration) (string, error) {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		names, seen := disksWith(sys, serial)
		switch {
		case len(names) == 1:
			return names[0], nil
		case len(names) > 1:
			return "", cvm.Errorf(cvm.Invalid, "the disks %s all have the serial number %s", strings.Join(names, " "), serial).WithReason(ReasonMissing)
		}
		select {
		case <-deadline.C:
			return "", cvm.Errorf(cvm.NotFound, "no disk has the serial number %s (disks here: %s)", serial, strings.Join(seen, " ")).WithReason(ReasonMissing)
		case <-tick.C:
		}
	}
}

func disksWith(sys, serial string) (names, seen []string) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(sys, e.Name(), "serial"))
		if err != nil {
			continue // no such attribute: not a virtio disk
		}
		s := strings.TrimRight(string(b), "\x00\n")
		seen = append(seen, e.Name()+"="+s)
		if s == serial {
			names = append(names, e.Name())
		}
	}
	return names, seen
}
