package initramfs

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/verity"
)

func TestTwoDisksOfOneNameAreRefused(t *testing.T) {
	sys := t.TempDir()
	for _, d := range []string{"vda", "vdb"} {
		if err := os.MkdirAll(filepath.Join(sys, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, d, "serial"), []byte(Serial), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := findDisk(sys, Serial, time.Millisecond); cvm.ReasonOf(err) != ReasonMissing || !strings.Contains(err.Error(), "vda vdb") {
		t.Errorf("%q, %v", d, err)
	}
}

func TestTheTopOfTheTreeIsCompared(t *testing.T) {
	disk := bytes.Repeat([]byte{7}, 4*verity.BlockSize)
	s := verity.Superblock{DataBlocks: 2, Salt: []byte("salt")}
	root := verity.Root{Size: 2 * verity.BlockSize, Hash: sha256.Sum256(append([]byte("salt"), disk[:verity.BlockSize]...))}
	if err := checkTop(bytes.NewReader(disk), root, s); err != nil {
		t.Fatal(err)
	}
	disk[3*verity.BlockSize+9]++
	if err := checkTop(bytes.NewReader(disk), root, s); cvm.ReasonOf(err) != "rootfs-hash-mismatch" {
		t.Errorf("another image's tree: %v", err)
	}
}
