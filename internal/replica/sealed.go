package replica

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"

	"github.com/hashicorp/raft"

	"github.com/confidential-cloud/phala/cvm"
)

// The disk belongs to the host. A log entry or a snapshot that it wrote itself would
// become this member's state (a lease for its own key, a member of its choice, a
// cluster of one), so each carries a MAC under a key that only the member has. That
// all of it is old is not seen here: the other members are there for that.

// ReasonTampered is the machine word for a log or snapshot that this member did not write.
const ReasonTampered = "kms-state-tampered"

// MinKey is the least length of Config.Key, in bytes.
const MinKey = 32

func tampered(what string) error {
	return cvm.Errorf(cvm.Denied, "%s was not written by this member on this machine, or was changed", what).WithReason(ReasonTampered).
		WithFix("remove the member's directory and join again under a new id; the other members have the state")
}

func newMAC(key []byte, kind string) hash.Hash {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("phala-raft-" + kind + ":v1:"))
	return h
}

// sealedLogs appends a MAC to the data of each entry.
type sealedLogs struct {
	raft.LogStore
	key []byte
}

func (s sealedLogs) mac(l *raft.Log, data []byte) []byte {
	h := newMAC(s.key, "log")
	var b []byte
	for _, n := range []uint64{l.Index, l.Term, uint64(l.Type), uint64(len(l.Extensions))} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	h.Write(b)
	h.Write(l.Extensions)
	h.Write(data)
	return h.Sum(nil)
}

// GetLog implements raft.LogStore.
func (s sealedLogs) GetLog(index uint64, out *raft.Log) error {
	var l raft.Log
	if err := s.LogStore.GetLog(index, &l); err != nil {
		return err
	}
	n := len(l.Data) - sha256.Size
	if n < 0 || l.Index != index || !hmac.Equal(s.mac(&l, l.Data[:n]), l.Data[n:]) {
		return tampered(fmt.Sprintf("raft log entry %d", index))
	}
	l.Data = l.Data[:n:n]
	*out = l
	return nil
}

// StoreLog implements raft.LogStore.
func (s sealedLogs) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s sealedLogs) StoreLogs(logs []*raft.Log) error {
	out := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l // raft goes on using the entry
		c.Data = append(bytes.Clone(l.Data), s.mac(l, l.Data)...)
		out[i] = &c
	}
	return s.LogStore.StoreLogs(out)
}

// IsMonotonic implements raft.MonotonicLogStore, as the store below does.
func (s sealedLogs) IsMonotonic() bool {
	m, ok := s.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// check reads everything once: raft itself panics over an entry it cannot read.
func (s sealedLogs) check() error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	for i := first; i != 0 && i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			return err
		}
	}
	return nil
}

// sealedSnapshots appends a MAC over its description and its bytes to each snapshot.
type sealedSnapshots struct {
	raft.SnapshotStore
	key []byte
}

func (s sealedSnapshots) mac(m raft.SnapshotMeta) (hash.Hash, error) {
	h := newMAC(s.key, "snapshot")
	b, err := json.Marshal([]any{m.Version, m.Index, m.Term, m.Configuration, m.ConfigurationIndex})
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
	return h, err
}

// Create implements raft.SnapshotStore.
func (s sealedSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	h, err := s.mac(raft.SnapshotMeta{Version: v, Index: index, Term: term, Configuration: c, ConfigurationIndex: ci})
	if err != nil {
		return nil, err
	}
	sink, err := s.SnapshotStore.Create(v, index, term, c, ci, t)
	return &sealedSink{SnapshotSink: sink, mac: h}, err
}

// List implements raft.SnapshotStore. Raft acts on the descriptions, so they are
// given only with what proves them.
func (s sealedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	if err != nil {
		return nil, err
	}
	for i, m := range all {
		var rc io.ReadCloser
		if all[i], rc, err = s.Open(m.ID); err != nil {
			return nil, err
		}
		_ = rc.Close() // in memory
	}
	return all, nil
}

// Open implements raft.SnapshotStore.
func (s sealedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, rc, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, maxSnapshot))
	if err != nil {
		return nil, nil, fmt.Errorf("reading snapshot %s: %w", id, err)
	}
	h, err := s.mac(*m)
	if err != nil {
		return nil, nil, err
	}
	n := len(b) - sha256.Size
	if n >= 0 {
		h.Write(b[:n])
	}
	if n < 0 || !hmac.Equal(h.Sum(nil), b[n:]) {
		return nil, nil, tampered("snapshot " + id)
	}
	m.Size = int64(n)
	return m, io.NopCloser(bytes.NewReader(b[:n])), nil
}

type sealedSink struct {
	raft.SnapshotSink
	mac hash.Hash
}

// Write implements io.Writer.
func (s *sealedSink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	s.mac.Write(b[:n])
	return n, err
}

// Close ends the snapshot with its MAC.
func (s *sealedSink) Close() error {
	if _, err := s.SnapshotSink.Write(s.mac.Sum(nil)); err != nil {
		_ = s.SnapshotSink.Cancel()
		return fmt.Errorf("sealing a snapshot: %w", err)
	}
	return s.SnapshotSink.Close()
}
