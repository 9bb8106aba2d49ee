package fetch

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

// floors keeps what must never go back, on disk too. Who can roll the directory
// back can lower them: where that is the host (a KMS outside a sealed disk), they
// hold for the life of the process.
type floors struct {
	path string // "": memory only
	on   bool

	mu    sync.Mutex
	floor collateral.Floor
}

const (
	floorsFile = "floors.json"
	maxFloors  = 1 << 20 // bytes of the file; about 8000 processor models
)

func openFloors(dir string, roots map[[32]byte]bool) (*floors, error) {
	f := &floors{on: roots != nil}
	if !f.on || dir == "" {
		return f, nil
	}
	f.path = filepath.Join(dir, floorsFile)
	return f, f.load()
}

// load takes in the file. One that cannot be read is not ignored, as that would
// forget that older statements were superseded.
func (f *floors) load() error {
	b, err := readBounded(f.path, maxFloors)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var stored collateral.Floor
	if err == nil {
		err = json.Unmarshal(b, &stored)
	}
	if err != nil {
		return cvm.Errorf(cvm.Precondition, "collateral floors %s: %w", f.path, err).WithReason("collateral-floors").
			WithFix("restore the file; removing it forgets which collateral was superseded")
	}
	f.floor = f.floor.Raise(stored)
	return nil
}

func (f *floors) check(marks collateral.Floor) error {
	if !f.on {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.floor.Check(marks)
}

// raise lifts the floors to what a verified statement says.
func (f *floors) raise(marks collateral.Floor) error {
	if !f.on {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !lifts(f.floor, marks) {
		return nil
	}
	f.floor = f.floor.Raise(marks)
	if f.path == "" {
		return nil
	}
	if err := f.load(); err != nil { // another process may have been here
		return err
	}
	b, err := json.Marshal(f.floor)
	if err != nil {
		return err
	}
	if len(b) > maxFloors {
		return cvm.Errorf(cvm.Exhausted, "collateral floors: over %d bytes", maxFloors)
	}
	return writeFile(f.path, b)
}

func lifts(floor, marks collateral.Floor) bool {
	for k, n := range marks {
		if least := floor[k]; least == nil || n.Cmp(least) > 0 {
			return true
		}
	}
	return false
}

// Floor is what has been seen: for attest.Policy. It is empty without Config.Roots.
func (c *Client) Floor() collateral.Floor {
	c.floors.mu.Lock()
	defer c.floors.mu.Unlock()
	return maps.Clone(c.floors.floor)
}

// writeFile replaces a private file at once: after a crash it is the old or the new
// one.
func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
