package replica

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// maxSnapshot bounds a snapshot, in bytes.
const maxSnapshot = 4 << 30

// fsm gives committed entries to the machine, and stops for good at the first one
// that the machine does not understand.
type fsm struct {
	machine Machine
	mu      sync.Mutex
	err     error
	applied atomic.Uint64 // index of the last command that the machine has taken
	halted  chan struct{}
}

var errHalted = errors.New("the state machine halted")

func (f *fsm) cause() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return errHalted
	}
	out, err := f.machine.Apply(l.Index, l.Data)
	if err != nil {
		f.err = fmt.Errorf("log entry %d: %w", l.Index, err)
		close(f.halted)
		return f.err
	}
	f.applied.Store(l.Index)
	return out
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.cause(); err != nil {
		return nil, errHalted
	}
	b, err := f.machine.Snapshot()
	return snapshot(b), err
}

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshot))
	if err != nil {
		return fmt.Errorf("reading a snapshot: %w", err)
	}
	return f.machine.Restore(b)
}

type snapshot []byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s snapshot) Release() {}
