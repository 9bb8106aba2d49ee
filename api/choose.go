package api

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/api/store"
)

// chooser chooses nodes for CVMs that are made at the same time: each sees what was
// chosen before it, though it is not in the database yet, so that a thousand do not
// all choose the same node. What it knows may be old by viewAge: HoldRoom decides.
type chooser struct {
	mu      sync.Mutex
	view    view
	at      map[int64]int // place of a node in view.nodes
	read    time.Time
	took    time.Duration                // to read it
	pending map[string]store.Reservation // chosen, and not stored yet
}

// viewAge is how long all nodes are seen as they were read, where they are many: or
// viewShare times what reading them took, so that little of the time goes there.
const (
	viewAge   = 200 * time.Millisecond
	viewShare = 5
)

// choose finds a node, and the limit of its room. The caller calls chosen with id when
// the room is stored or was refused.
func (s *Server) choose(ctx context.Context, r scheduler.Request, app, id string) (n scheduler.Node, limit store.Room, why string, err error) {
	if app != "" {
		if r.Replicas, err = s.store.ReplicasOf(ctx, app); err != nil {
			return n, limit, "", err
		}
	}
	s.nodes.refresh(ctx, fresh) // before its turn: it may ask them
	c := &s.chooser
	c.mu.Lock()
	defer c.mu.Unlock()
	young := len(s.nodes.list) > askAtOnce && time.Since(c.read) < max(viewAge, viewShare*c.took)
	if !young {
		err = c.look(ctx, s)
	}
	if err == nil {
		n, why, err = scheduler.Pick(r, c.view.nodes)
	}
	if err != nil && young { // room that was given back since
		if err = c.lookAgain(ctx, s, r.NodeID); err == nil {
			n, why, err = scheduler.Pick(r, c.view.nodes)
		}
	}
	if err != nil {
		return n, limit, "", err
	}
	p := c.view.promised[n.ID]
	limit = store.Room{VCPU: n.Free.VCPU, MemoryMiB: n.Free.MemoryMiB, DiskGB: n.Free.DiskGB, GPUs: n.FreeGPUs(r.GPU)}.Plus(p)
	if r.GPUs == 0 {
		limit.GPUs = math.MaxInt // what others do with the cards is nothing to it
	}
	if id != "" {
		if c.pending == nil {
			c.pending = map[string]store.Reservation{}
		}
		h := store.Reservation{NodeID: n.ID, Room: roomOf(r)}
		c.pending[id] = h
		c.promise(h)
	}
	return n, limit, why, nil
}

// look reads all nodes again.
func (c *chooser) look(ctx context.Context, s *Server) (err error) {
	begin := time.Now()
	if c.view, err = s.see(ctx); err != nil {
		c.read = time.Time{}
		return err
	}
	c.read, c.took, c.at = begin, time.Since(begin), make(map[int64]int, len(c.view.nodes))
	for i := range c.view.nodes {
		c.at[c.view.nodes[i].ID] = i
	}
	for id, h := range c.pending {
		if !c.view.held[id] { // else it is stored already, and counted
			c.promise(h)
		}
	}
	return nil
}

// lookAgain reads the node again that nothing but will do, or (0) all.
func (c *chooser) lookAgain(ctx context.Context, s *Server, id int64) error {
	i, ok := c.at[id]
	if !ok {
		return c.look(ctx, s)
	}
	p, err := s.store.PromisedRoom(ctx, id)
	if err != nil {
		return err
	}
	c.view.nodes[i], c.view.promised[id] = s.nodes.byID[id].placement(p.Rooms[id], s.now()), p.Rooms[id]
	for key, h := range c.pending {
		if h.NodeID == id && !p.Held[key] {
			c.promise(h)
		}
	}
	return nil
}

// promise takes room from what is seen.
func (c *chooser) promise(h store.Reservation) {
	i, ok := c.at[h.NodeID]
	if !ok {
		return
	}
	p := c.view.promised[h.NodeID].Plus(h.Room)
	c.view.promised[h.NodeID] = p
	n := &c.view.nodes[i]
	n.Free.VCPU = min(n.Free.VCPU, n.Capacity.VCPU-p.VCPU)
	n.Free.MemoryMiB = min(n.Free.MemoryMiB, n.Capacity.MemoryMiB-p.MemoryMiB)
	n.Free.DiskGB = min(n.Free.DiskGB, n.Capacity.DiskGB-p.DiskGB)
	n.GPUs = without(n.GPUs, h.Room.GPUs)
}

// roomOf is what a request takes of its node.
func roomOf(r scheduler.Request) store.Room {
	return store.Room{VCPU: r.Need.VCPU, MemoryMiB: r.Need.MemoryMiB, DiskGB: r.Need.DiskGB, GPUs: r.GPUs}
}

// without is the free cards when n more are promised, of a kind that is not known: of
// each kind so many fewer. It errs to the safe side, on nodes with several kinds, from
// the promise until the VM holds its cards.
func without(free []string, n int) (out []string) {
	if n <= 0 {
		return free
	}
	gone := map[string]int{}
	for _, product := range free {
		if gone[product]++; gone[product] > n {
			out = append(out, product)
		}
	}
	return out
}

// chosen ends a choice: its room is stored, or (again) the nodes are to be read anew.
func (c *chooser) chosen(id string, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
	if again {
		c.read = time.Time{}
	}
}
