package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/confidential-cloud/phala/kms/keyring"
)

// A member that comes back must know whom to speak raft with before the log has
// told it: it keeps the members' RA-TLS keys in a sealed file.

func (m *Member) loadMembers() error {
	b, err := m.box.read(membersFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var spkis [][]byte
	if err := json.Unmarshal(b, &spkis); err != nil {
		return fmt.Errorf("the sealed list of members: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range spkis {
		m.sponsors[string(k)] = true
	}
	return nil
}

// sponsor believes a list of members that an allowed member gave (or the state
// has): until the replicated state arrives, raft is spoken with them alone. The
// file only grows. A member that comes back replays its log and meets the lists of
// long ago first: were one of those to replace the file, and the member to stop
// then, it would refuse the members who joined later, the leader perhaps among
// them, for ever.
func (m *Member) sponsor(members []keyring.Member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := maps.Clone(m.sponsors)
	for _, mb := range members {
		all[string(mb.TLSKey)] = true
	}
	if len(all) == len(m.sponsors) {
		return nil
	}
	var spkis [][]byte
	for _, k := range slices.Sorted(maps.Keys(all)) {
		spkis = append(spkis, []byte(k))
	}
	b, err := json.Marshal(spkis)
	if err == nil {
		err = m.box.write(membersFile, b)
	}
	if err == nil {
		m.sponsors = all
	}
	return err
}

// keepMembers writes the keys that the state has and the file has not.
func (m *Member) keepMembers(ctx context.Context) error {
	var kept []string
	ids := func(k *keyring.Machine) (out []string) {
		for _, mb := range k.Members() {
			out = append(out, mb.ID+string(mb.TLSKey))
		}
		return out
	}
	for {
		if err := m.machine.Wait(ctx, func(k *keyring.Machine) bool { return !slices.Equal(ids(k), kept) }); err != nil {
			return err
		}
		members := m.machine.Members()
		kept = ids(m.machine)
		if err := m.sponsor(members); err != nil {
			return err
		}
	}
}
