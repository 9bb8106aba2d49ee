package boot

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/confidential-cloud/phala/attest"
	"github.com/confidential-cloud/phala/attest/eventlog"
	"github.com/confidential-cloud/phala/cvm"
)

// TEE is the hardware as a guest sees it. attest/tdxguest.Device and
// attest/simtee.Device implement it.
type TEE interface {
	// Quote signs 64 bytes of report data.
	Quote(ctx context.Context, reportData [64]byte) ([]byte, error)
	// Extend extends a runtime register (2 or 3).
	Extend(ctx context.Context, index int, digest cvm.Measurement) error
	// CCEL is the firmware's event log.
	CCEL(ctx context.Context) ([]byte, error)
	// SealKey derives 32 bytes that only this image on this machine gets.
	SealKey(ctx context.Context, context []byte) ([]byte, error)
}

// Files of the runtime event log (dstack-core A.4).
const (
	runtimeLog     = "runtime_events.log"
	runtimeVersion = "runtime_event_version"
)

// Recorder extends RTMR3 and keeps the log that explains it. Evidence and events
// never overlap, so that every quote matches the log beside it.
type Recorder struct {
	tee     TEE
	dir     string // "" keeps no file
	mu      sync.Mutex
	version int
	config  string
	boot    []eventlog.Event
	events  []eventlog.Runtime
}

// NewRecorder starts an empty log in dir; a log of an earlier boot is replaced.
func NewRecorder(tee TEE, dir string) (*Recorder, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("event log: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, runtimeLog), nil, 0o600); err != nil {
			return nil, fmt.Errorf("event log: %w", err)
		}
	}
	return &Recorder{tee: tee, dir: dir, version: 1}, nil
}

// Begin sets what the app-compose decides: the digest version, and vm_config,
// which travels with every piece of evidence. It reads the firmware's log.
func (r *Recorder) Begin(ctx context.Context, version int, vmConfig string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if version == 2 {
		r.version = 2
	}
	r.config = vmConfig
	b, err := r.tee.CCEL(ctx)
	if err != nil {
		return fmt.Errorf("reading the firmware's event log: %w", err)
	}
	if r.boot, err = eventlog.ParseCCEL(b); err != nil {
		return fmt.Errorf("firmware's event log: %w", err)
	}
	if r.dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(r.dir, runtimeVersion), fmt.Appendf(nil, "%d\n", r.version), 0o600)
}

// Emit measures one event: the register first, then the log.
func (r *Recorder) Emit(ctx context.Context, name string, payload []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := eventlog.Runtime{Name: name, Payload: slices.Clone(payload)}
	if r.version == 2 {
		e.Version = 2
	}
	if err := e.Validate(); err != nil {
		return err
	}
	if err := r.tee.Extend(ctx, int(eventlog.RuntimeIMR), e.Digest()); err != nil {
		return fmt.Errorf("extending RTMR3 with %s: %w", name, err)
	}
	r.events = append(r.events, e)
	return r.append(e)
}

func (r *Recorder) append(e eventlog.Runtime) error {
	if r.dir == "" {
		return nil
	}
	line, err := json.Marshal(struct {
		Event   string `json:"event"`
		Payload []byte `json:"payload"` // base64
		Version int    `json:"version,omitempty"`
	}{e.Name, append([]byte{}, e.Payload...), e.Version})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(r.dir, runtimeLog), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	return nil
}

// Events is a copy of the runtime events so far.
func (r *Recorder) Events() []eventlog.Runtime {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Evidence quotes report data and puts the logs beside the quote.
func (r *Recorder) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q, err := r.tee.Quote(ctx, reportData)
	if err != nil {
		return attest.Evidence{}, cvm.Errorf(cvm.Unavailable, "quoting: %w", err).WithReason("tee-unavailable")
	}
	log := slices.Clone(r.boot)
	for _, e := range r.events {
		log = append(log, e.Event())
	}
	return attest.Evidence{Quote: q, EventLog: log, RuntimeEvents: slices.Clone(r.events), ReportData: reportData, Config: r.config}, nil
}
