// Package boot is the guest's start as a list of numbered stages over a struct of
// dependencies, so that its order can be tested without a VM. Call Run; it stops
// at the first stage that fails, undoes what it started and tells the host why.
//
// What must not change: everything before stage 4 is measured into RTMR3, and the
// KMS is asked while the log ends exactly at boot-mr-done, before any container
// can exist. On SEV-SNP, which has no such register, stage 2 instead refuses whatever
// the launch was not bound to (HOST_DATA), and the first keys of a launch are its last.
package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/hostshare"
	"github.com/confidential-cloud/phala/keys"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// Reasons of a boot that ended, beside kmsapi's.
const (
	ReasonShared      = hostshare.Reason
	ReasonUnpinned    = "kms-not-pinned"
	ReasonUnsupported = "unsupported"
	ReasonHost        = "host-refused-instance-info"
)

// Keys is what a key provider gave.
type Keys struct {
	Provider    string // kms or none
	Disk        keys.Secret
	Env         keys.Secret // X25519 private key; empty: no environment can be sealed to this app
	App         keys.Secret // k256
	AppSig      []byte      // by the KMS root; empty without a KMS
	RootSPKI    []byte      // DER, of the KMS root CA; nil without a KMS
	OSImageHash *cvm.ImageHash
}

// State is what the stages learned.
type State struct {
	Shared      *Shared
	App         *appcompose.Document
	AppID       cvm.AppID
	InstanceID  cvm.InstanceID
	Keys        Keys
	KeyProvider []byte // payload of the key-provider event
	StorageFS   string
	// DiskGeneration is what a machine's data disk says of itself before it is open; 0 in
	// a container and for a new disk.
	DiskGeneration uint64
	Env            []keys.EnvVar
}

// EnvSigned reports whether the environment carries a signature.
func (s *State) EnvSigned() bool { return s.Shared.EnvSignature != nil }

// Deps is what the stages work with. Every field above AllowUnpinned but Rollback must
// be set.
type Deps struct {
	Log      *slog.Logger
	Now      func() time.Time
	Rand     io.Reader
	Read     func() (*Shared, error)
	Events   *Recorder
	Host     Notifier
	KMS      func(ctx context.Context, s *State, progress func(string)) (Keys, error) // provider kms
	Local    func(ctx context.Context, s *State) (Keys, error)                        // provider none
	Disk     func(ctx context.Context, s *State) (fs string, err error)
	Env      func(ctx context.Context, s *State) error // decrypts into s.Env
	Gateway  func(ctx context.Context, s *State) error
	Run      func(ctx context.Context, s *State) error // starts the containers
	Rollback func()                                    // undoes Disk, Gateway and Run when a stage fails
	// AllowUnpinned admits key provider kms without key_provider_id.
	AllowUnpinned bool
	// Volumes says that Run opens verity volumes; otherwise an app that has some is refused.
	Volumes bool
	// Network and Clock are stages of a real machine, after boot-mr-done and before the
	// keys; nil: what runs the guest has seen to them.
	Network func(ctx context.Context, s *State) error
	Clock   func(ctx context.Context, s *State) error
	// KeepInstance persists .instance_info where there is no host to do it.
	KeepInstance func(guestapi.InstanceInfo) error
}

// Notifier tells the host; nothing depends on the answer but instance.info.
type Notifier interface {
	Notify(ctx context.Context, n guestapi.Notify) error
}

// Error is a boot that ended: which stage, and why.
type Error struct {
	Stage string
	Err   error
}

func (e *Error) Error() string { return "boot stage " + e.Stage + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// VMError is the error as the host shows it.
func (e *Error) VMError() vmmapi.VMError {
	v := vmmapi.VMError{Stage: e.Stage, Message: e.Err.Error(), Reason: cvm.ReasonOf(e.Err)}
	var c *cvm.Error
	if errors.As(e.Err, &c) {
		v.Fix = c.Fix
	}
	if v.Reason == "" {
		v.Reason = string(cvm.CodeOf(e.Err))
	}
	return v
}

type stage struct {
	name string
	text string
	run  func(context.Context) error
}

// Stages are the names of the boot stages in order; stage n is Stages()[n-1].
func Stages() []string { return (&boot{}).names() }

// MachineStages are those of a real machine.
func MachineStages() []string {
	none := func(context.Context, *State) error { return nil }
	return (&boot{Deps: Deps{Network: none, Clock: none}}).names()
}

func (b *boot) names() []string {
	var names []string
	for _, s := range b.stages() {
		names = append(names, s.name)
	}
	return names
}

type boot struct {
	Deps
	s      *State
	number int
	of     int
}

func (b *boot) stages() []stage {
	first := []stage{
		{"host-shared", "reading what the host handed over", b.read},
		{"measure", "measuring the app", b.measure},
		{"boot-mr-done", "closing the boot measurements", b.bootDone},
	}
	// By now it is measured what the network may let in and whether the time counts.
	if b.Network != nil {
		first = append(first, stage{"network", "starting the network", func(ctx context.Context) error { return b.Network(ctx, b.s) }})
	}
	if b.Clock != nil {
		first = append(first, stage{"clock", "setting the clock", func(ctx context.Context) error { return b.Clock(ctx, b.s) }})
	}
	return append(first, []stage{
		{"keys", "requesting keys", b.keys},
		{"key-provider", "recording the key provider", b.keyProvider},
		{"disk", "opening the data disk", b.disk},
		{"system-ready", "closing the system measurements", b.systemReady},
		{"environment", "decrypting the environment", func(ctx context.Context) error { return b.Env(ctx, b.s) }},
		{"gateway", "joining the gateway", func(ctx context.Context) error { return b.Gateway(ctx, b.s) }},
		{"containers", "starting the containers", func(ctx context.Context) error { return b.Run(ctx, b.s) }},
	}...)
}

// Run boots. The error is an *Error, already told to the host.
func Run(ctx context.Context, d Deps) (*State, error) {
	b := &boot{Deps: d, s: &State{}}
	all := b.stages()
	b.of = len(all)
	for i, st := range all {
		b.number = i + 1
		b.progress(ctx, st.text)
		start := d.Now()
		err := context.Cause(ctx)
		if err == nil {
			err = st.run(ctx)
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx) // what ended the boot, not where it hit
			}
		}
		took := d.Now().Sub(start)
		if err == nil {
			d.Log.Info("boot stage done", "stage", st.name, "number", b.number, "of", b.of, "took", took)
			b.done(ctx, st, took)
			continue
		}
		if d.Rollback != nil {
			d.Rollback()
		}
		e := &Error{Stage: st.name, Err: err}
		Report(ctx, d.Host, d.Log, e.VMError())
		return b.s, e
	}
	return b.s, nil
}

// Report tells the host why the guest stops. It is tried even when ctx has ended.
func Report(ctx context.Context, h Notifier, log *slog.Logger, v vmmapi.VMError) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	p, err := json.Marshal(v)
	if err == nil {
		err = h.Notify(ctx, guestapi.Notify{Event: "boot.error", Payload: string(p)})
	}
	if err != nil {
		log.Warn("the host did not take the boot error", "err", err)
	}
}

// done tells the host how long a stage took.
func (b *boot) done(ctx context.Context, st stage, took time.Duration) {
	n := guestapi.Stage{Stage: st.name, Name: st.text, Number: b.number, Of: b.of, DurationMS: float64(took) / float64(time.Millisecond)}
	if err := b.Host.Notify(ctx, n.Notify()); err != nil {
		b.Log.Debug("the host did not take a stage", "err", err)
	}
}

func (b *boot) progress(ctx context.Context, text string) {
	text = fmt.Sprintf("%d/%d %s", b.number, b.of, text)
	if err := b.Host.Notify(ctx, guestapi.Notify{Event: "boot.progress", Payload: text}); err != nil {
		b.Log.Debug("the host did not take the progress", "err", err)
	}
}
