package vmm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// record is what is remembered of a VM: record.json in its directory, replaced
// whole. Nothing in it is secret: the environment is encrypted to the app.
type record struct {
	Version int       `json:"version"` // 1
	VM      vmmapi.VM `json:"vm"`
	// Created is the digest of the spec as first sent, so that a repeated PUT is
	// recognised after the app was updated.
	Created string `json:"created"`
	// Instance is .instance_info as the guest last gave it.
	Instance string `json:"instance,omitempty"`
	// Attempts since the last healthy run or the last order from outside; NextTry is
	// when the machine is started again.
	Attempts int       `json:"attempts,omitempty"`
	NextTry  time.Time `json:"next_try,omitzero"`
	// BootFailed: the guest of this boot said boot.error.
	BootFailed bool `json:"boot_failed,omitempty"`
	// Served: this app, as it is now, was ready once.
	Served    bool  `json:"served,omitempty"`
	Restart   bool  `json:"restart,omitempty"` // stop, then start
	Deleting  bool  `json:"deleting,omitempty"`
	KeepState bool  `json:"keep_state,omitempty"`
	EventSeq  int64 `json:"event_seq"`
	Place     place `json:"place,omitzero"`
	// Update is set while an update is under way: what it changes, and what to go back to.
	Update *pendingUpdate `json:"update,omitempty"`
	// History holds the newest boots, oldest first.
	History []vmmapi.Boot `json:"history,omitempty"`
}

// store is the directory of records.
type store struct {
	dir string
	// write replaces a file durably; nil is writeDurably (tests stop the disk with it).
	write func(path string, b []byte) error
}

func (s store) replace(path string, b []byte) error {
	if s.write != nil {
		return s.write(path, b)
	}
	return writeDurably(path, b)
}

func (s store) vmDir(id string) string  { return filepath.Join(s.dir, "vms", id) }
func (s store) shared(id string) string { return filepath.Join(s.vmDir(id), "shared") }

// load reads all records. A broken one is an error: guessing would lose a VM.
func (s store) load() ([]record, error) {
	dir := filepath.Join(s.dir, "vms")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the record directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the records: %w", err)
	}
	var out []record
	for _, e := range entries {
		r, found, err := s.read(e.Name())
		if err != nil {
			return nil, err
		}
		if found {
			out = append(out, r)
		}
	}
	return out, nil
}

// read reads one record. found is false for a VM whose VMM was killed between mkdir
// and the first save: nothing was answered.
func (s store) read(id string) (r record, found bool, err error) {
	path := filepath.Join(s.vmDir(id), "record.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Version != 1 || r.VM.Spec.ID != id) {
		err = fmt.Errorf("version %d, id %q", r.Version, r.VM.Spec.ID)
	}
	if err != nil {
		return r, false, cvm.Errorf(cvm.Internal, "record of VM %s: %w", id, err).WithFix("restore " + path + " or move that directory away")
	}
	return r, true, nil
}

// save replaces the record durably.
func (s store) save(r *record) error {
	r.Version = 1
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding a record: %w", err)
	}
	dir := s.vmDir(r.VM.Spec.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("saving a record: %w", err)
	}
	return s.replace(filepath.Join(dir, "record.json"), b)
}

// writeDurably writes beside the file, syncs and renames.
func writeDurably(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing after the rename
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func (s store) remove(id string) error { return os.RemoveAll(s.vmDir(id)) }
