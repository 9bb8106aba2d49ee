package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

// shown is a node as GET /nodes shows it, in JSON, and what that was made of. The
// list has all nodes, by its contract: most of them are as they were the last time.
type shown struct {
	info    *vmmapi.Node
	image   *vmmapi.Image // the first of its images: another list has another
	proof   *cloudapi.NodeProof
	expired bool
	err     string
	room    store.Room
	json    []byte
}

// showing is what a node would be shown by now; without JSON.
func (s *Server) showing(n *node, room store.Room) shown {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := shown{info: n.info, proof: n.proof, expired: n.proof != nil && !s.now().Before(n.proof.ExpiresAt), room: room}
	if len(n.images) > 0 {
		v.image = &n.images[0]
	}
	if n.err != nil {
		v.err = n.err.Error()
	}
	return v
}

func (v shown) same(o shown) bool {
	return v.info == o.info && v.image == o.image && v.proof == o.proof && v.expired == o.expired && v.err == o.err && v.room == o.room
}

// show is a node in JSON.
func (s *Server) show(n *node, room store.Room) ([]byte, error) {
	is := s.showing(n, room)
	n.mu.Lock()
	was := n.shown
	n.mu.Unlock()
	if was.json != nil && was.same(is) {
		return was.json, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // as all other answers
	if err := enc.Encode(s.availableNode(n.placement(room, s.now()))); err != nil {
		return nil, fmt.Errorf("encoding node %d: %w", n.id, err)
	}
	is.json = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	n.mu.Lock()
	n.shown = is
	n.mu.Unlock()
	return is.json, nil
}

// availableNodes is a cloudapi.AvailableNodes, in JSON.
func (s *Server) availableNodes(ctx context.Context, _ *none) (any, error) {
	s.nodes.refresh(ctx, fresh)
	promised, err := s.store.PromisedRoom(ctx, 0)
	if err != nil {
		return nil, err
	}
	name, limits, err := s.tierOf(ctx, who(ctx).WorkspaceID)
	if err != nil {
		return nil, err
	}
	most := func(n int) *int {
		if n == billing.Unlimited {
			return nil
		}
		return &n
	}
	head := cloudapi.AvailableNodes{Tier: name, Capacity: cloudapi.Capacity{MaxInstances: most(limits.CVMs), MaxVCPU: most(limits.VCPU), MaxMemory: most(limits.MemoryMB), MaxDisk: most(limits.DiskGB)},
		Nodes: []cloudapi.AvailableNode{}, KMSList: []cloudapi.KMS{s.cfg.kms()}}
	b, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encoding nodes: %w", err)
	}
	const list = `"nodes":[`
	at := bytes.Index(b, []byte(list+"]")) // a name would have its quotes escaped
	if at < 0 {
		return nil, fmt.Errorf("encoding nodes: %s", b)
	}
	before, after := b[:at+len(list)], b[at+len(list):]
	all, size := make([][]byte, len(s.nodes.list)), len(b)+1
	for i, n := range s.nodes.list {
		if all[i], err = s.show(n, promised.Rooms[n.id]); err != nil {
			return nil, err
		}
		size += len(all[i]) + 1
	}
	out := append(make([]byte, 0, size), before...) // some MB, of 10,000 nodes
	for i, one := range all {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, one...)
	}
	if hc := requestOf(ctx); hc != nil {
		hc.SetHeader("Content-Type", "application/json") // nobody says so of bytes
	}
	return append(append(out, after...), '\n'), nil
}
