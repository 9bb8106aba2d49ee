package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/scheduler"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
)

// More of the public error catalogue.
const (
	errNoVCPU     = "ERR-02-003"
	errNoMemory   = "ERR-02-004"
	errNoGPU      = "ERR-02-006"
	errNodeClosed = "ERR-02-012"
)

// holdFor is how long room is kept for a CVM that is about to be stored, also when
// many wait to be: a process that died in between keeps it no longer.
const holdFor = 5 * time.Minute

// view is what placing a CVM is decided on.
type view struct {
	nodes    []scheduler.Node
	promised map[int64]store.Room // to CVMs and to those about to be stored
	held     map[string]bool      // the reservations in it
}

// placements are the nodes as the scheduler sees them.
func (s *Server) placements(ctx context.Context) ([]scheduler.Node, error) {
	s.nodes.refresh(ctx, fresh)
	v, err := s.see(ctx)
	return v.nodes, err
}

// placed is one of them.
func (s *Server) placed(ctx context.Context, n *node) (scheduler.Node, error) {
	s.nodes.refresh(ctx, fresh)
	promised, err := s.store.PromisedRoom(ctx, n.id)
	return n.placement(promised.Rooms[n.id], s.now()), err
}

// see is how the nodes are, as far as is known without asking them: what the host says
// is free, or less, when room was promised that nobody takes yet.
func (s *Server) see(ctx context.Context) (v view, err error) {
	p, err := s.store.PromisedRoom(ctx, 0)
	if err != nil {
		return v, err
	}
	v.promised, v.held = p.Rooms, p.Held
	v.nodes = make([]scheduler.Node, 0, len(s.nodes.list))
	for _, n := range s.nodes.list {
		v.nodes = append(v.nodes, n.placement(v.promised[n.id], s.now()))
	}
	return v, nil
}

func (n *node) placement(p store.Room, now time.Time) scheduler.Node {
	info, images, err := n.facts()
	v := scheduler.Node{ID: n.id, Name: n.name(), Region: n.region(), Online: err == nil, Draining: info.Draining,
		Capacity: scheduler.Resources{VCPU: info.Capacity.VCPU, MemoryMiB: info.Capacity.MemoryMiB, DiskGB: info.Capacity.DiskMiB >> 10},
		Free: scheduler.Resources{
			VCPU:      info.Capacity.VCPU - max(info.Used.VCPU, p.VCPU),
			MemoryMiB: info.Capacity.MemoryMiB - max(info.Used.MemoryMiB, p.MemoryMiB),
			DiskGB:    info.Capacity.DiskMiB>>10 - max(info.Used.DiskMiB>>10, p.DiskGB),
		}}
	v.Confidence, v.ConfidenceWhy = n.confidence(info, now)
	if keyChanged(err) {
		v.OfflineWhy = ": " + keyChangedText
	}
	if w := info.Maintenance; w != nil && w.Reason != "" {
		v.DrainWhy = " (" + w.Reason + ")"
	}
	held := 0
	for _, g := range info.GPUs {
		switch {
		case g.Switch || g.Problem != "":
		case g.HeldBy != "":
			held++
		default:
			v.GPUs = append(v.GPUs, g.Product)
		}
	}
	v.GPUs = without(v.GPUs, p.GPUs-held)
	for _, i := range images {
		v.Images = append(v.Images, i.Name)
	}
	return v
}

// room is a CVM's room on a node, held until its change redeems it.
type room struct {
	node   scheduler.Node
	why    string
	holdID string
}

// place chooses a node and holds the room there; the caller redeems it by
// Change.Reservation, or drops it. What others took meanwhile is looked at again.
func (s *Server) place(ctx context.Context, r scheduler.Request, app string) (room, error) {
	for range 5 {
		id := uuid.NewString()
		n, limit, why, err := s.choose(ctx, r, app, id)
		if err != nil {
			return room{}, unplaced(err)
		}
		h := store.Reservation{ID: id, NodeID: n.ID, ExpiresAt: s.now().Add(holdFor), Room: roomOf(r)}
		err = s.store.HoldRoom(store.WithAudit(ctx, nil), h, limit)
		s.chooser.chosen(id, err != nil)
		if errors.Is(err, store.ErrNoRoom) {
			continue
		}
		return room{n, why, h.ID}, err
	}
	return room{}, tooLate()
}

func tooLate() error {
	return fail(http.StatusConflict, errNoResources, cvm.Exhausted, "no-capacity", "others took the room meanwhile", "send the request again")
}

// drop gives held room back, unless it was redeemed.
func (s *Server) drop(ctx context.Context, r room) {
	if err := s.store.FreeRoom(store.WithAudit(context.WithoutCancel(ctx), nil), r.holdID); err != nil {
		s.log.Warn("held room was not given back: it expires", "err", err)
	}
}

// unplaced is the answer that says of the nodes that came nearest why not.
func unplaced(err error) error {
	var u *scheduler.Unplaced
	var e *cvm.Error
	if !errors.As(err, &u) || !errors.As(err, &e) {
		return err
	}
	code := codeOfReason(e.Reason)
	switch u.Check() {
	case "vcpu":
		code = errNoVCPU
	case "memory":
		code = errNoMemory
	case "gpu":
		code = errNoGPU
	case "draining":
		code = errNodeClosed
	case "disk", "confidence", "":
		if e.Reason == scheduler.ReasonNoCapacity || e.Reason == scheduler.ReasonConfidence {
			code = errNoResources
		}
	}
	out := fail(statusOf(e.Code), code, e.Code, e.Reason, e.Message, e.Fix)
	d := out.Detail.(cloudapi.ErrorDetail) //nolint:forcetypeassert // made a line above
	for _, v := range u.Verdicts {
		texts := make([]string, len(v.Problems))
		for i, p := range v.Problems {
			texts[i] = p.Text
		}
		d.Details = append(d.Details, cloudapi.Detail{Field: "node " + v.Node.Name, Value: v.Node.ID, Message: strings.Join(texts, "; ")})
	}
	out.Detail = d
	return out
}
