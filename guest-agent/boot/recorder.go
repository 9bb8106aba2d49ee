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

// TEE is TDX hardware as a guest sees it. attest/tdxguest.Device and
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

// SNP is SEV-SNP hardware as a guest sees it: it has no register to extend.
// attest/sevguest.Device implements it.
type SNP interface {
	// Report signs 64 bytes of report data, and gives the certificates that the host
	// offers with it (often none).
	Report(ctx context.Context, reportData [64]byte) (report []byte, certs [][]byte, err error)
	// SealKey derives 32 bytes that only this app, image and guest policy on this machine gets.
	SealKey(ctx context.Context, context []byte) ([]byte, error)
}

// Files of the runtime event log (dstack-core A.4).
const (
	runtimeLog     = "runtime_events.log"
	runtimeVersion = "runtime_event_version"
)

// Recorder extends RTMR3 and keeps the log that explains it. Evidence and events
// never overlap, so that every quote matches the log beside it. On SEV-SNP the log is
// kept and bound to nothing: its lines say so, and identity is HOST_DATA's.
type Recorder struct {
	tee     TEE // nil on SEV-SNP
	snp     SNP
	chain   func(context.Context, attest.Evidence) ([][]byte, error)
	launch  string // SEV-SNP: the document behind HOST_DATA, once it was checked
	dir     string // "" keeps no file
	mu      sync.Mutex
	version int
	config  string
	boot    []eventlog.Event
	events  []eventlog.Runtime
}

// NewRecorder starts an empty log in dir; a log of an earlier boot is replaced.
func NewRecorder(tee TEE, dir string) (*Recorder, error) {
	return newRecorder(&Recorder{tee: tee, dir: dir, version: 1})
}

// NewSNPRecorder is NewRecorder on SEV-SNP.
func NewSNPRecorder(snp SNP, dir string) (*Recorder, error) {
	return newRecorder(&Recorder{snp: snp, dir: dir, version: 1})
}

func newRecorder(r *Recorder) (*Recorder, error) {
	dir := r.dir
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("event log: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, runtimeLog), nil, 0o600); err != nil {
			return nil, fmt.Errorf("event log: %w", err)
		}
	}
	return r, nil
}

// Variant is the kind of TEE: cvm.VariantTDX or cvm.VariantSNP.
func (r *Recorder) Variant() string {
	if r.snp != nil {
		return cvm.VariantSNP
	}
	return cvm.VariantTDX
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
	if r.tee != nil { // SEV-SNP's firmware keeps no log
		b, err := r.tee.CCEL(ctx)
		if err != nil {
			return fmt.Errorf("reading the firmware's event log: %w", err)
		}
		if r.boot, err = eventlog.ParseCCEL(b); err != nil {
			return fmt.Errorf("firmware's event log: %w", err)
		}
	}
	if r.dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(r.dir, runtimeVersion), fmt.Appendf(nil, "%d\n", r.version), 0o600)
}

// Emit measures one event: the register first, then the log. Without a register the
// event is in the log alone.
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
	if r.tee != nil {
		if err := r.tee.Extend(ctx, int(eventlog.RuntimeIMR), e.Digest()); err != nil {
			return fmt.Errorf("extending RTMR3 with %s: %w", name, err)
		}
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
		Unbound bool   `json:"unbound,omitempty"` // no hardware stands behind it (SEV-SNP)
	}{e.Name, append([]byte{}, e.Payload...), e.Version, r.snp != nil})
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
	if r.snp != nil {
		return r.snpEvidence(ctx, reportData)
	}
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
