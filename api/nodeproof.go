package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// proofs is how far this process has read what the nodes proved.
type proofs struct {
	mu   sync.Mutex
	read bool
	seq  int64     // of the newest event then
	next time.Time // when the next of them ends; zero: never
}

// recall reads what the nodes proved, if any of it changed, and tells what has ended.
// Another process's joins count here after the next round of run at the latest.
func (ns *nodes) recall(ctx context.Context) error {
	if len(ns.list) == 0 {
		return nil
	}
	p := &ns.proofs
	p.mu.Lock()
	defer p.mu.Unlock()
	seq, err := ns.store.LastNodeEvent(ctx)
	if err != nil {
		return err
	}
	if !p.read || seq != p.seq {
		if err := ns.load(ctx); err != nil {
			return err
		}
		p.read, p.seq = true, seq
	}
	now := ns.now()
	if p.next.IsZero() || now.Before(p.next) {
		return nil
	}
	if err := ns.end(ctx, now); err != nil {
		return err
	}
	return ns.load(ctx)
}

// load takes over the stored proofs; the lock of proofs is held.
func (ns *nodes) load(ctx context.Context) error {
	all, err := ns.store.NodeProofs(ctx)
	if err != nil {
		return err
	}
	have := map[int64]*cloudapi.NodeProof{}
	ns.proofs.next = time.Time{}
	for i := range all {
		x := &all[i]
		have[int64(x.NodeID)] = &x.NodeProof
		if next := ns.proofs.next; !x.Told && ns.byID[int64(x.NodeID)] != nil && (next.IsZero() || x.ExpiresAt.Before(next)) {
			ns.proofs.next = x.ExpiresAt
		}
	}
	moved := false
	for _, n := range ns.list {
		proof, key := have[n.id], ""
		if proof != nil {
			key = proof.TLSKey
		}
		moved = ns.pins.set(n.address, key) || moved
		n.mu.Lock()
		n.proof = proof
		n.mu.Unlock()
	}
	if moved { // connections that were made before would be used on
		ns.transport.CloseIdleConnections()
	}
	return nil
}

// end records the proofs whose time is over: the nodes are unverified from then on.
func (ns *nodes) end(ctx context.Context, now time.Time) error {
	for _, n := range ns.list {
		p := n.proved()
		if p == nil || now.Before(p.ExpiresAt) {
			continue
		}
		e := cloudapi.NodeEvent{NodeID: n.id, Kind: cloudapi.NodeExpired,
			Message: "what the proof of its platform rests on has ended: it counts as unverified until it joins again (phala node join)"}
		ended, err := ns.store.EndNodeProof(store.WithAudit(ctx, nil), now, e)
		if err != nil {
			return err
		}
		if ended {
			ns.log.Warn("a node's proof of its platform has ended", "node", n.name(), "device", p.DeviceID)
		}
	}
	return nil
}

// tellKeyChanged records that a node's VMM is not the one that joined.
func (ns *nodes) tellKeyChanged(ctx context.Context, n *node) {
	e := cloudapi.NodeEvent{NodeID: n.id, Kind: cloudapi.NodeKeyChanged, Message: keyChangedText}
	if err := ns.store.AddNodeEvent(store.WithAudit(context.WithoutCancel(ctx), nil), e); err != nil {
		ns.log.Error("recording that a node's TLS key changed", "node", n.name(), "err", err)
	}
}

const keyChangedText = "its VMM answers with another TLS key than the one that joined: nothing is sent to it until it joins again"

// proved is what the node proved of its platform, perhaps long ago; nil is nothing.
func (n *node) proved() *cloudapi.NodeProof {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proof
}

// device is the node's: proved, or else as its driver says; zero where nobody does.
func (n *node) device() (d cvm.DeviceID) {
	info, _, _ := n.facts()
	if p := n.proved(); p != nil && info.DeviceID == d {
		if proved, err := cvm.ParseDeviceID(p.DeviceID); err == nil {
			return proved
		}
	}
	return info.DeviceID
}

// confidence is how sure it is that the node's VMs are confidential, and why not more.
func (n *node) confidence(info *vmmapi.Node, now time.Time) (scheduler.Confidence, string) {
	p := n.proved()
	switch {
	case info.Simulated:
		return scheduler.Simulated, "its VMs have no TEE"
	case p == nil:
		return scheduler.Unverified, "it has not proved its platform (phala node join)"
	case p.Simulated:
		return scheduler.Simulated, "it proved a simulated platform"
	case !now.Before(p.ExpiresAt):
		return scheduler.Unverified, "the proof of its platform ended at " + p.ExpiresAt.UTC().Format(time.RFC3339)
	case info.DeviceID != (cvm.DeviceID{}) && info.DeviceID.String() != p.DeviceID:
		return scheduler.Unverified, fmt.Sprintf("it says that it is device %s, and proved that it is %s", info.DeviceID, p.DeviceID)
	}
	switch cvm.Platform(p.Platform) {
	case cvm.PlatformTDX, cvm.PlatformSEVSNP:
		return scheduler.Genuine, ""
	}
	return scheduler.Unverified, "no processor's vendor stands behind the platform that it proved (" + p.Platform + ")"
}
