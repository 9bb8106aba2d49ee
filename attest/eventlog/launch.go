package eventlog

import (
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
)

// Launch is the identity that the runtime events before system-ready state.
type Launch struct {
	Phase          claim.Phase
	AppID          cvm.AppID
	ComposeHash    cvm.ComposeHash
	InstanceID     cvm.InstanceID // zero: no_instance_id
	InitScripts    [][32]byte
	GPUPolicyHash  []byte // nil: images before 0.6
	GPUAttestation []byte // nil: no GPU
	OSImageHash    []byte // what the KMS told the guest; the measured one is elsewhere
	KeyProvider    []byte // payload, JSON; nil before the event
	StorageFS      string
	BootEvents     int // events up to and including boot-mr-done; 0 in phase early
}

// step is one kind of event in the order of the reference (dstack-core A.4).
type step struct {
	name     string
	min, max int // how often it may occur, in a row
	sizes    []int
	store    func(*Launch, []byte)
}

const anySize = -1

// maxInitScripts is the reference's limit on init_script.
const maxInitScripts = 5

func steps() []step {
	return []step{
		{SystemPreparing, 1, 1, []int{0}, nil},
		{AppID, 1, 1, []int{20}, func(l *Launch, p []byte) { l.AppID = cvm.AppID(p) }},
		{ComposeHash, 1, 1, []int{32}, func(l *Launch, p []byte) { l.ComposeHash = cvm.ComposeHash(p) }},
		{InitScriptHash, 0, maxInitScripts, []int{32}, func(l *Launch, p []byte) { l.InitScripts = append(l.InitScripts, [32]byte(p)) }},
		{GPUPolicyHash, 0, 1, []int{32}, func(l *Launch, p []byte) { l.GPUPolicyHash = p }},
		{GPUAttestation, 0, 1, []int{anySize}, func(l *Launch, p []byte) { l.GPUAttestation = p }},
		{InstanceID, 1, 1, []int{20, 0}, storeInstance},
		{BootMRDone, 1, 1, []int{0}, nil},
		{OSImageHash, 0, 1, []int{32}, func(l *Launch, p []byte) { l.OSImageHash = p }},
		{KeyProvider, 1, 1, []int{anySize}, func(l *Launch, p []byte) { l.KeyProvider = p }},
		{StorageFS, 1, 1, []int{anySize}, func(l *Launch, p []byte) { l.StorageFS = string(p) }},
		{SystemReady, 1, 1, []int{0}, nil},
	}
}

func storeInstance(l *Launch, p []byte) {
	if len(p) != 0 {
		l.InstanceID = cvm.InstanceID(p)
	}
}

// ReadLaunch applies the launch rules to a replayed list of runtime events: the
// reference's order, each identity event as often as it must and no more, no
// other event before system-ready, and none of these names after it. Any breach
// refuses. A log may end anywhere; Phase says how far it came.
func ReadLaunch(events []Runtime) (Launch, error) {
	l := Launch{Phase: claim.PhaseEarly}
	order := steps()
	at, seen := 0, 0
	for i, e := range events {
		if l.Phase == claim.PhaseRunning {
			if reserved(order, e.Name) {
				return l, cvm.Errorf(cvm.Invalid, "event %d: %s after system-ready", i, e.Name)
			}
			continue
		}
		for at < len(order) && order[at].name != e.Name {
			if seen < order[at].min {
				return l, cvm.Errorf(cvm.Invalid, "event %d is %q, but %s must come first", i, trunc(e.Name), order[at].name)
			}
			at, seen = at+1, 0
		}
		if at == len(order) {
			return l, cvm.Errorf(cvm.Invalid, "event %d: %q is unknown, out of order or repeated before system-ready", i, trunc(e.Name))
		}
		if err := apply(&l, order[at], seen, i, e); err != nil {
			return l, err
		}
		seen++
	}
	return l, nil
}

// apply takes one event of the right kind.
func apply(l *Launch, s step, seen, i int, e Runtime) error {
	if seen >= s.max {
		return cvm.Errorf(cvm.Invalid, "event %d: %s occurs more than %d times", i, s.name, s.max)
	}
	ok := false
	for _, n := range s.sizes {
		ok = ok || n == len(e.Payload) || n == anySize && len(e.Payload) > 0
	}
	if !ok {
		return cvm.Errorf(cvm.Invalid, "event %d: %s with a payload of %d bytes", i, s.name, len(e.Payload))
	}
	if s.store != nil {
		s.store(l, e.Payload)
	}
	switch {
	case s.name == BootMRDone:
		l.Phase, l.BootEvents = claim.PhaseRelease, i+1
	case s.name == SystemReady:
		l.Phase = claim.PhaseRunning
	case l.Phase == claim.PhaseRelease:
		l.Phase = claim.PhaseBooting
	}
	return nil
}

func reserved(order []step, name string) bool {
	for _, s := range order {
		if s.name == name {
			return true
		}
	}
	return false
}
