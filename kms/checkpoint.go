package kms

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/replica"
	"github.com/confidential-cloud/phala/kms/keyring"
	"github.com/confidential-cloud/phala/ledger"
)

// cosignTimeout bounds the wait for one member's signature.
const cosignTimeout = 4 * time.Second

// signCheckpoint signs this member's own tree of a size, once it has that size.
func (m *Member) signCheckpoint(ctx context.Context, size int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cosignTimeout)
	defer cancel()
	if err := m.machine.Wait(ctx, func(k *keyring.Machine) bool { return k.Size() >= size }); err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "this member's ledger has not %d leaves yet", size)
	}
	cp, err := m.machine.Checkpoint(size)
	if err != nil {
		return nil, err
	}
	return ledger.SignCheckpoint(cp, ledger.MemberKeyName(cp.Origin, m.cfg.ID), m.id.note)
}

// checkpoints holds the newest checkpoint that a majority has signed.
type checkpoints struct {
	mu   sync.Mutex
	note []byte
	size int64
	keys int // number of members it was gathered from
}

// checkpoint returns a checkpoint of at least size leaves, signed by a majority.
// Callers that wait for each other share one.
func (m *Member) checkpoint(ctx context.Context, size int64) ([]byte, int64, error) {
	m.cp.mu.Lock()
	defer m.cp.mu.Unlock()
	ks := m.machine.CheckpointKeys()
	if m.cp.note != nil && m.cp.size >= size && m.cp.keys == len(ks.Keys) {
		return m.cp.note, m.cp.size, nil
	}
	n := m.machine.Size()
	if n < size {
		return nil, 0, replica.NoQuorum(errors.New("this member has not caught up"))
	}
	note, err := m.gather(ctx, ks, n)
	if err != nil {
		return nil, 0, err
	}
	m.cp.note, m.cp.size, m.cp.keys = note, n, len(ks.Keys)
	return note, n, nil
}

func (m *Member) gather(ctx context.Context, ks ledger.Keys, size int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cosignTimeout)
	defer cancel()
	own, err := m.signCheckpoint(ctx, size)
	if err != nil {
		return nil, err
	}
	members := m.machine.Members()
	answers := make(chan []byte, len(members))
	waiting := 0
	for _, mb := range members {
		if mb.ID == m.cfg.ID {
			continue
		}
		waiting++
		go func() {
			var out cosignResponse
			if err := m.peer(mb.Raft).Call(ctx, http.MethodPost, pathCosign, cosignRequest{size}, &out); err != nil {
				m.log.Debug("no signature on a checkpoint", "member", mb.ID, "err", err)
			}
			answers <- out.Note
		}()
	}
	notes := [][]byte{own}
	for {
		note, err := ledger.MergeCheckpoints(ks.Keys, notes...)
		if err != nil {
			return nil, err
		}
		if _, err := ks.Open(note); err == nil {
			return note, nil
		} else if waiting == 0 {
			return nil, replica.NoQuorum(err)
		}
		n := <-answers // each ends with ctx at the latest
		waiting--
		if n != nil {
			notes = append(notes, n)
		}
	}
}

// receipt proves one leaf under a majority's checkpoint.
func (m *Member) receipt(ctx context.Context, index int64) (ledger.Receipt, error) {
	note, size, err := m.checkpoint(ctx, index+1)
	if err != nil {
		return ledger.Receipt{}, err
	}
	r := ledger.Receipt{Index: index, TreeSize: size, Checkpoint: note}
	err = m.machine.Ledger(func(t *ledger.Tree) error {
		if r.Leaf, err = t.Leaf(index); err != nil {
			return err
		}
		r.Proof, err = t.Inclusion(index, size)
		return err
	})
	return r, err
}
