package routes

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Memory is a Store for one process, or for several gateways in a test.
type Memory struct {
	mu sync.Mutex
	m  map[string]memoryTicket
}

type memoryTicket struct {
	signed  []byte
	expires time.Time
}

// NewMemory makes an empty store.
func NewMemory() *Memory { return &Memory{m: map[string]memoryTicket{}} }

// Save implements Store.
func (s *Memory) Save(_ context.Context, instance string, signed []byte, expires time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[instance] = memoryTicket{slices.Clone(signed), expires}
	return nil
}

// Load implements Store.
func (s *Memory) Load(_ context.Context, at time.Time) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]byte
	for k, t := range s.m {
		if !t.expires.After(at) {
			delete(s.m, k)
			continue
		}
		out = append(out, t.signed)
	}
	return out, nil
}
