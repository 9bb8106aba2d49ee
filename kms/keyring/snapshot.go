package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/confidential-cloud/phala/ledger"
)

var errNotRecorded = errors.New("keyring: the lease's leaf is not its allow") // a broken state, never a request's fault

const snapshotTag = "phala-keyring-snapshot:v1"

type snapshot struct {
	Applied uint64   `json:"applied"`
	State   state    `json:"state"`
	Leaves  [][]byte `json:"leaves"`
}

// Snapshot writes the whole state: a tag, the hex sha256 of the rest, and JSON.
func (m *Machine) Snapshot() ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	leaves, err := m.tree.Leaves(0, m.tree.Size())
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(snapshot{m.applied, m.st, leaves})
	if err != nil {
		return nil, fmt.Errorf("encoding a snapshot: %w", err)
	}
	sum := sha256.Sum256(body)
	return append(fmt.Appendf(nil, "%s\n%x\n", snapshotTag, sum), body...), nil
}

// Restore replaces the state. It refuses bytes that are not exactly what Snapshot
// wrote.
func (m *Machine) Restore(b []byte) error {
	parts := bytes.SplitN(b, []byte("\n"), 3)
	if len(parts) != 3 || string(parts[0]) != snapshotTag {
		return errors.New("snapshot: not one of this version")
	}
	if sum := sha256.Sum256(parts[2]); hex.EncodeToString(sum[:]) != string(parts[1]) {
		return errors.New("snapshot: its digest does not match: the file was damaged or changed")
	}
	s := snapshot{State: emptyState()}
	d := json.NewDecoder(bytes.NewReader(parts[2]))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	var tree ledger.Tree
	for i, l := range s.Leaves {
		if _, err := ledger.ParseLeaf(l); err != nil {
			return fmt.Errorf("snapshot: leaf %d: %w", i, err)
		}
		if _, err := tree.Append(l); err != nil {
			return fmt.Errorf("snapshot: leaf %d: %w", i, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st, m.tree, m.applied = s.State, tree, s.Applied
	m.signal()
	return nil
}
