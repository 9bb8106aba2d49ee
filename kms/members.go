package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// sponsor believes a list of members that an allowed member gave (or the sealed
// file): until the replicated state arrives, raft is spoken with them alone.
func (m *Member) sponsor(members []keyring.Member) error {
	var spkis [][]byte
	m.mu.Lock()
	for _, mb := range members {
		m.sponsors[string(mb.TLSKey)] = true
		spkis = append(spkis, mb.TLSKey)
	}
	m.mu.Unlock()
	b, err := json.Marshal(spkis)
	if err != nil {
		return err
	}
	return m.box.write(membersFile, b)
}

// keepMembers writes the list whenever the state has another one.
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
