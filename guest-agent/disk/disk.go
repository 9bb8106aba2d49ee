// Package disk opens the app's data volume with the key that the KMS released.
//
// This is the place of LUKS2 and of disk generations (T7); what is here is the
// container driver's volume: a directory of the host, which the simulated platform
// does not encrypt. A report on it says SIMULATED TEE.
package disk

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/keys"
)

// FSDirectory is the storage-fs event's payload for a directory of the host: the
// truth, where the reference has zfs or ext4.
const FSDirectory = "directory"

// Directory opens the data volume of a container guest. The key is checked and not
// used: there is no block device below.
func Directory(path string, key keys.Secret) (fs string, err error) {
	if key.Len() != keys.Size {
		return "", cvm.Errorf(cvm.Internal, "disk key: want %d bytes, got %d", keys.Size, key.Len())
	}
	if err := os.MkdirAll(path, 0o711); err != nil {
		return "", fmt.Errorf("data volume: %w", err)
	}
	probe := filepath.Join(path, ".phala-probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return "", cvm.Errorf(cvm.Precondition, "data volume %s cannot be written: %w", path, err).WithReason(ReasonNotWritable)
	}
	return FSDirectory, os.Remove(probe)
}

// Usage is the size and the free space of the file system at path, in bytes.
func Usage(path string) (total, free uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("disk usage of %s: %w", path, err)
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}
