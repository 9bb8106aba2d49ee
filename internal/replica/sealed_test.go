package replica

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/confidential-cloud/phala/cvm"
)

// What the disk's owner writes does not become state.
func TestDiskOfAMaliciousHost(t *testing.T) {
	key := bytes.Repeat([]byte{7}, MinKey)
	open := func(dir string, key []byte) (*Replica, error) {
		_, tr := raft.NewInmemTransport("a")
		return New(Config{ID: "a", Address: "a", Dir: dir, Key: key, Machine: &list{}, transport: tr, heartbeat: 50 * time.Millisecond})
	}
	made := func(t *testing.T, snapshot bool) string {
		dir := t.TempDir()
		r, err := open(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Bootstrap(); err != nil {
			t.Fatal(err)
		}
		applySoon(t, r, "mine")
		if snapshot {
			err = r.Snapshot()
		}
		if err = errors.Join(err, r.Stop()); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	forgeLog := func(t *testing.T, dir string) {
		w, err := openLog(dir)
		if err != nil {
			t.Fatal(err)
		}
		last, err := w.LastIndex()
		if err == nil {
			err = w.StoreLog(&raft.Log{Index: last + 1, Term: 9, Type: raft.LogCommand, Data: bytes.Repeat([]byte("x"), 64)})
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	// The members' list is in the description, which no checksum of the file covers:
	// changing it would make this member a cluster of its own.
	forgeConfig := func(t *testing.T, dir string) {
		files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "meta.json"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		forged := bytes.Replace(b, []byte(`"Address":"a"`), []byte(`"Address":"b"`), 1)
		if bytes.Equal(forged, b) {
			t.Fatalf("no member in %s", b)
		}
		if err := os.WriteFile(files[0], forged, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		snapshot bool
		forge    func(t *testing.T, dir string)
		key      []byte
	}{
		"a log entry":               {false, forgeLog, key},
		"the list of members":       {true, forgeConfig, key},
		"the log of another member": {false, func(*testing.T, string) {}, bytes.Repeat([]byte{8}, MinKey)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t, tc.snapshot)
			if r, err := open(dir, key); err != nil {
				t.Fatal(err)
			} else if err := r.Stop(); err != nil {
				t.Fatal(err)
			}
			tc.forge(t, dir)
			r, err := open(dir, tc.key)
			if err == nil {
				_ = r.Stop()
			}
			if cvm.ReasonOf(err) != ReasonTampered {
				t.Errorf("believed: %v", err)
			}
		})
	}
	if _, err := open(t.TempDir(), nil); err == nil {
		t.Error("a log without a key")
	}
}
