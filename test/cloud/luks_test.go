package cloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// diskHeader is how much of a data disk is header: LUKS2's two copies and keyslots.
const diskHeader = 16 << 20

// dataDisk is the file of a machine's data disk.
func dataDisk(id string) string {
	return filepath.Join(theCfg.StateDir, "vmm", "machines", id, "data.img")
}

// editLUKS changes the JSON of both header copies of a disk and makes them valid again,
// as whoever holds the disk can. What was there comes back when the test has ended.
func editLUKS(t *testing.T, path string, change func(doc map[string]any)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := make([]byte, diskHeader)
	if _, err := f.ReadAt(before, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writeAt(t, path, before, 0) })
	const json0, sumAt, sumLen = 4096, 448, 64
	size := int(binary.BigEndian.Uint64(before[8:]))
	for i := range 2 {
		c := bytes.Clone(before[i*size:][:size])
		var doc map[string]any
		if err := json.Unmarshal(bytes.TrimRight(c[json0:], "\x00"), &doc); err != nil {
			t.Fatal(err)
		}
		change(doc)
		b, err := json.Marshal(doc)
		if err != nil || len(b) >= size-json0 {
			t.Fatal(err, len(b))
		}
		clear(c[json0:])
		copy(c[json0:], b)
		clear(c[sumAt:][:sumLen])
		sum := sha256.Sum256(c)
		copy(c[sumAt:], sum[:])
		if _, err := f.WriteAt(c, int64(i*size)); err != nil {
			t.Fatal(err)
		}
	}
}

func writeAt(t *testing.T, path string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}
