package eventlog

import (
	"github.com/confidential-cloud/phala/attest/claim"
	"github.com/confidential-cloud/phala/cvm"
)

// Launch is the identity that the runtime events before system-ready state.
type Launch struct {
	Phase         claim.Phase
	AppID         cvm.AppID
	ComposeHash   cvm.ComposeHash
	InstanceID    cvm.InstanceID // zero: no_instance_id
	InitScripts   [][32]byte
	GPUPolicyHash []byte // nil: images before 0.6
	OSImageHash   []byte // what the KMS told the guest; the measured one is elsewhere
	KeyProvider   []byte // payload, JSON; nil before the event
	StorageFS     string
	BootEvents    int // number of events up to and including boot-mr-done; 0 in phase early
}

// ReadLaunch applies the launch rules to a (replayed) list of runtime events:
// the reference's order, each identity event exactly once before system-ready and
// none after. Any breach refuses.
func ReadLaunch(events []Runtime) (Launch, error) {
	return Launch{}, cvm.Errorf(cvm.Unsupported, "being built")
}
