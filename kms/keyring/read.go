package keyring

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
	"github.com/confidential-cloud/phala/ledger"
)

// Members lists the members by id.
func (m *Machine) Members() []Member {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := slices.Collect(maps.Values(m.st.Members))
	slices.SortFunc(out, func(a, b Member) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
	return out
}

// Member finds a member by id.
func (m *Machine) Member(id string) (Member, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	mb, ok := m.st.Members[id]
	return mb, ok
}

// MemberByKey finds the member with an RA-TLS key (DER SubjectPublicKeyInfo).
func (m *Machine) MemberByKey(spki []byte) (Member, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, mb := range m.st.Members {
		if bytes.Equal(mb.TLSKey, spki) {
			return mb, true
		}
	}
	return Member{}, false
}

// CheckpointKeys are the keys whose majority makes a checkpoint.
func (m *Machine) CheckpointKeys() ledger.Keys {
	var ks []string
	for _, mb := range m.Members() {
		ks = append(ks, mb.VerifierKey)
	}
	return ledger.Majority(m.Origin(), ks)
}

// Epochs returns the public parts of all epochs and this member's ciphertexts.
func (m *Machine) Epochs() []Epoch {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]Epoch, len(m.st.Epochs))
	for i, e := range m.st.Epochs {
		e.Wrapped = maps.Clone(e.Wrapped)
		out[i] = e
	}
	return out
}

// EnvCounter is the highest environment counter an app has used.
func (m *Machine) EnvCounter(app string) uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.st.Env[app].Counter
}

// NonceUsed reports whether a nonce (hex sha256) was redeemed. Only Apply decides;
// this spares work for an obvious replay.
func (m *Machine) NonceUsed(hash string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, used := m.st.Nonces[hash]
	return used
}

// Redeemed reports whether o would be refused. Only Apply decides.
func (m *Machine) Redeemed(o Once) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	by, used := m.st.Once[o.ID]
	return used && (o.By == "" || by != o.By)
}

// Applied is the raft index of the last command that changed the state.
func (m *Machine) Applied() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.applied
}

// Size is the number of ledger leaves.
func (m *Machine) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tree.Size()
}

// Ledger runs fn with the tree, which fn must neither keep nor change.
func (m *Machine) Ledger(fn func(t *ledger.Tree) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return fn(&m.tree)
}

// Checkpoint is the unsigned checkpoint of a size.
func (m *Machine) Checkpoint(size int64) (ledger.Checkpoint, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	root, err := m.tree.Root(size)
	return ledger.Checkpoint{Origin: m.st.Origin, Size: size, Root: root}, err
}

// Wait returns when ok holds of the state, or when ctx ends.
func (m *Machine) Wait(ctx context.Context, ok func(*Machine) bool) error {
	for {
		m.mu.RLock()
		ch := m.changed
		m.mu.RUnlock()
		if ok(m) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ch:
		}
	}
}

// Recorded is a decision to allow that this member has applied: a quorum has
// committed it and the ledger holds it. Only Machine makes one; the zero value
// opens nothing.
type Recorded struct {
	ok    bool
	lease Lease
}

// Lease is what was granted.
func (r Recorded) Lease() Lease { return r.lease }

// Recorded finds the applied decision behind a lease.
func (m *Machine) Recorded(leaseID, clientKey string) (Recorded, error) {
	l, err := m.LeaseOf(leaseID, clientKey)
	if err != nil {
		return Recorded{}, err
	}
	return m.recorded(l)
}

// Nonceless finds the applied decision of a release without a nonce to this boot of
// this instance.
func (m *Machine) Nonceless(c claim.Claims) (Recorded, error) {
	m.mu.RLock()
	var newest *Lease
	for _, l := range m.st.Leases {
		if l.NoNonce && l.AppID == c.AppID && l.InstanceID == c.InstanceID && l.ComposeHash == c.ComposeHash && bytes.Equal(l.MRBoot, c.MRBoot[:]) &&
			l.Launch == c.LaunchID() && (newest == nil || l.Leaf > newest.Leaf) {
			newest = &l
		}
	}
	m.mu.RUnlock()
	if newest == nil {
		return Recorded{}, cvm.Errorf(cvm.Denied, "no keys were released to this boot of the instance").
			WithReason(kmsapi.ReasonLeaseUnknown).WithFix("restart the instance: it asks for its keys again")
	}
	return m.recorded(*newest)
}

func (m *Machine) recorded(l Lease) (Recorded, error) {
	var leaf ledger.Leaf
	err := m.Ledger(func(t *ledger.Tree) error {
		b, err := t.Leaf(l.Leaf)
		if err != nil {
			return err
		}
		leaf, err = ledger.ParseLeaf(b)
		return err
	})
	if err != nil {
		return Recorded{}, err
	}
	if leaf.Kind != ledger.KindAllow || leaf.LeaseID != l.ID || leaf.ClientKey != l.ClientKey || leaf.AppID != l.AppID.String() {
		return Recorded{}, errNotRecorded
	}
	return Recorded{ok: true, lease: l}, nil
}
