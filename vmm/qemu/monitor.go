package qemu

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/run"
)

// monitor keeps a connection to one QEMU and knows whether its guest has ended.
type monitor struct {
	sock string
	log  *slog.Logger

	mu      sync.Mutex
	client  *client
	changed chan struct{} // closed when client is set
	reason  string        // why the guest ended
	down    chan struct{} // closed when it did
}

func newMonitor(sock string, log *slog.Logger) *monitor {
	return &monitor{sock: sock, log: log, changed: make(chan struct{}), down: make(chan struct{})}
}

// States in which a guest does not come back by itself. The first of them is also
// the word for a guest whose end nobody watched.
const (
	statusShutdown = "shutdown"
	statusPanicked = "guest-panicked"
	statusInternal = "internal-error"
)

func ended(status string) bool {
	return slices.Contains([]string{statusShutdown, statusPanicked, statusInternal}, status)
}

// run keeps the connection until ctx ends.
func (m *monitor) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := m.once(ctx); err != nil && ctx.Err() == nil {
			m.log.Debug("QEMU's monitor", "error", err)
		}
		if run.Pause(ctx, 300*time.Millisecond) != nil {
			return
		}
	}
}

func (m *monitor) once(ctx context.Context) error {
	q, err := dialQMP(ctx, m.sock, m.event)
	if err != nil {
		return err
	}
	defer func() { _ = q.close() }()
	var s struct {
		Status string `json:"status"`
	}
	if err := q.execute(ctx, "query-status", nil, &s); err != nil {
		return err
	}
	if ended(s.Status) {
		m.end(s.Status)
	}
	m.mu.Lock()
	m.client = q
	close(m.changed)
	m.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	m.mu.Lock()
	m.client, m.changed = nil, make(chan struct{})
	m.mu.Unlock()
	return nil
}

// event is called for each event of QEMU.
func (m *monitor) event(name string, data json.RawMessage) {
	var d struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(data, &d) // events without a reason have none
	switch name {
	case "SHUTDOWN":
		m.end(d.Reason)
	case "GUEST_PANICKED":
		m.end(statusPanicked)
	case "BLOCK_IO_ERROR":
		m.log.Warn("a disk of a VM fails; without space its guest waits", "event", string(data))
	}
}

func (m *monitor) end(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.down:
	default:
		m.reason = reason
		close(m.down)
	}
}

// ended is the reason of the guest's end, or "".
func (m *monitor) ended() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reason
}

// execute waits for the connection, as long as ctx allows, and runs a command.
func (m *monitor) execute(ctx context.Context, command string) error {
	for {
		m.mu.Lock()
		q, changed := m.client, m.changed
		m.mu.Unlock()
		if q != nil {
			return q.execute(ctx, command, nil, nil)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return cvm.Errorf(cvm.Unavailable, "QEMU's monitor does not answer: %w", ctx.Err()).WithReason("monitor")
		}
	}
}
