package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// drain is whether the node is out of service; drain.json in the VMM's directory.
// Its lock is taken last: a VM's or the VMM's own may be held.
type drain struct {
	path string
	poke chan struct{}

	mu sync.Mutex
	s  drainRecord
}

// drainRecord is the file.
type drainRecord struct {
	Version  int       `json:"version"` // 1
	Draining bool      `json:"draining"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	StopAt   time.Time `json:"stop_at,omitzero"`
	Stopped  []string  `json:"stopped,omitempty"`
}

// openDrain reads the state; a broken file is an error: guessing could put a node
// back into service while someone works on it.
func openDrain(dir string) (*drain, error) {
	d := &drain{path: filepath.Join(dir, "drain.json"), poke: make(chan struct{}, 1)}
	b, err := os.ReadFile(d.path)
	if errors.Is(err, os.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &d.s)
	}
	if err == nil && d.s.Version != 1 {
		err = cvm.Errorf(cvm.Invalid, "version %d, want 1", d.s.Version)
	}
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "%s: %w", d.path, err).WithFix("if nobody drains this node, remove the file")
	}
	return d, nil
}

// change saves the state that fn makes, then holds to it.
func (d *drain) change(fn func(*drainRecord)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.s
	next.Stopped = slices.Clone(next.Stopped)
	fn(&next)
	next.Version = 1
	b, err := json.Marshal(next)
	if err == nil {
		err = writeDurably(d.path, b)
	}
	if err != nil {
		return cvm.Errorf(cvm.Internal, "saving the node's state: %w", err)
	}
	d.s = next
	select {
	case d.poke <- struct{}{}:
	default:
	}
	return nil
}

func (d *drain) state() drainRecord {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.s
}

const drainFix = "use another node, or put this one back into service: phala node undrain"

// admits refuses new VMs while the node is drained.
func (d *drain) admits() error {
	if s := d.state(); s.Draining {
		return cvm.Errorf(cvm.Conflict, "this node is being drained%s", because(s)).WithReason("node-draining").WithFix(drainFix)
	}
	return nil
}

// mayStart refuses to start what the drain stopped, or would stop at once.
func (d *drain) mayStart(now time.Time) error {
	if s := d.state(); s.Draining && !s.StopAt.IsZero() && !now.Before(s.StopAt) {
		return cvm.Errorf(cvm.Conflict, "this node is drained: its VMs are stopped%s", because(s)).WithReason("node-draining").WithFix(drainFix)
	}
	return nil
}

func because(s drainRecord) string {
	if s.Reason == "" {
		return ""
	}
	return " (" + s.Reason + ")"
}

// drainRoutes are the operations on the node itself.
func (m *VMM) drainRoutes(r chi.Router) {
	r.Get("/v1/node/drain", rpc.Handle(func(*http.Request, none) (vmmapi.DrainState, error) { return m.drainState(), nil }))
	r.Post("/v1/node/drain", rpc.Handle(func(_ *http.Request, q vmmapi.DrainRequest) (vmmapi.DrainState, error) { return m.startDrain(q) }))
	r.Post("/v1/node/undrain", rpc.Handle(func(r *http.Request, q vmmapi.UndrainRequest) (vmmapi.DrainState, error) {
		return m.undrain(r.Context(), q)
	}))
}

// maxStopAfter bounds the time to stop, in seconds.
const maxStopAfter = 30 * 24 * 3600

func (m *VMM) startDrain(q vmmapi.DrainRequest) (vmmapi.DrainState, error) {
	if n := q.StopAfterSeconds; n != nil && (*n < 0 || *n > maxStopAfter) {
		return vmmapi.DrainState{}, cvm.Errorf(cvm.Invalid, "stop_after_seconds %d: want 0 to %d", *n, maxStopAfter)
	}
	if len(q.Reason) > 200 {
		return vmmapi.DrainState{}, cvm.Errorf(cvm.Invalid, "reason: %d bytes, at most 200", len(q.Reason))
	}
	now := m.now()
	// Held, so that a VM that is being defined is either there or refused.
	m.mu.Lock()
	err := m.drain.change(func(s *drainRecord) {
		if !s.Draining {
			s.Since, s.Stopped = now, nil
		}
		s.Draining, s.Reason, s.StopAt = true, q.Reason, time.Time{}
		if q.StopAfterSeconds != nil {
			s.StopAt = now.Add(time.Duration(*q.StopAfterSeconds) * time.Second)
		}
	})
	m.mu.Unlock()
	if err != nil {
		return vmmapi.DrainState{}, err
	}
	return m.drainState(), nil
}

func (m *VMM) undrain(ctx context.Context, q vmmapi.UndrainRequest) (vmmapi.DrainState, error) {
	stopped := m.drain.state().Stopped
	if err := m.drain.change(func(s *drainRecord) { *s = drainRecord{} }); err != nil {
		return vmmapi.DrainState{}, err
	}
	var errs []error
	for _, id := range stopped {
		if !q.Start {
			break
		}
		if _, err := m.start(ctx, target{id: id}); err != nil && cvm.CodeOf(err) != cvm.NotFound {
			errs = append(errs, err)
		}
	}
	return m.drainState(), errors.Join(errs...)
}

// drainState adds what runs.
func (m *VMM) drainState() vmmapi.DrainState {
	s := m.drain.state()
	out := vmmapi.DrainState{Draining: s.Draining, Reason: s.Reason, Since: s.Since, StopAt: s.StopAt, Running: []string{}, Stopped: append([]string{}, s.Stopped...)}
	for _, v := range m.list() {
		if v.Desired == running || v.State == vmmapi.StateStopping {
			out.Running = append(out.Running, v.Spec.ID)
		}
	}
	return out
}

// maintenance is what GET /v1/node says of a drain.
func (d *drain) maintenance() *vmmapi.Maintenance {
	s := d.state()
	if !s.Draining {
		return nil
	}
	return &vmmapi.Maintenance{Reason: s.Reason, Since: s.Since, StopAt: s.StopAt}
}

// drainAgain is how often a drained node looks for VMs that are to run after all.
const drainAgain = 5 * time.Second

// drainLoop stops the VMs when their time has come, also after a restart of the VMM.
func (m *VMM) drainLoop(ctx context.Context) {
	due := time.NewTimer(drainAgain)
	defer due.Stop()
	for {
		wait := time.Duration(1<<63 - 1)
		if s := m.drain.state(); s.Draining && !s.StopAt.IsZero() {
			if wait = s.StopAt.Sub(m.now()); wait <= 0 {
				m.stopDrained(ctx)
				wait = drainAgain
			}
		}
		due.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-m.drain.poke:
		case <-due.C:
		}
	}
}

// stopDrained stops what is to run, and remembers it first.
func (m *VMM) stopDrained(ctx context.Context) {
	for _, v := range m.list() {
		id := v.Spec.ID
		if v.Desired != running || v.Deleting {
			continue
		}
		s, err := m.drain.state(), error(nil)
		if !slices.Contains(s.Stopped, id) {
			err = m.drain.change(func(r *drainRecord) {
				if s = *r; s.Draining {
					r.Stopped = append(r.Stopped, id)
				}
			})
		}
		if !s.Draining { // somebody undrained it meanwhile
			return
		}
		if err == nil {
			_, err = m.stopVM(ctx, target{id: id})
		}
		if err != nil {
			m.log.Warn("draining: stopping a VM", "vm", id, "error", err)
		}
	}
}
