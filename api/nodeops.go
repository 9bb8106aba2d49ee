package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/vmm/vmmapi"
)

func (s *Server) nodeRoutes(api huma.API) {
	operator := access{role: store.Viewer, scope: "nodes:write"} // and see operates
	see := reads("nodes")
	register(s, api, op{method: "GET", path: "/nodes/{node_id}", summary: "One node", access: see}, s.oneNode)
	register(s, api, op{method: "GET", path: "/nodes/{node_id}/explain", summary: "Would this node take such a CVM, and why not", access: see}, s.explainNode)
	register(s, api, op{method: "GET", path: "/nodes/{node_id}/evidence", summary: "What a node proved of its platform, with the evidence", access: see}, s.nodeEvidence)
	register(s, api, op{method: "GET", path: "/nodes/{node_id}/events", summary: "What happened to a node", access: see}, s.nodeEvents)
	register(s, api, op{method: "POST", path: "/nodes/{node_id}/challenge", summary: "What the proof of a node must answer (for who operates the cloud)", access: operator}, s.challengeNode)
	register(s, api, op{method: "POST", path: "/nodes/{node_id}/join", summary: "Prove a node's platform; the cloud verifies the evidence itself (for who operates it)", access: operator}, s.joinNode)
	register(s, api, op{method: "DELETE", path: "/nodes/{node_id}/join", summary: "Drop a node's proof (for who operates the cloud)", access: operator, status: 204}, s.leaveNode)
	register(s, api, op{method: "GET", path: "/nodes/{node_id}/drain", summary: "How far a node's drain is (for who operates the cloud)", access: access{role: store.Viewer, scope: "nodes:read"}}, s.nodeDrain)
	register(s, api, op{method: "POST", path: "/nodes/{node_id}/drain", summary: "Take a node out of service (for who operates the cloud)", access: operator}, s.drainNode)
	register(s, api, op{method: "POST", path: "/nodes/{node_id}/undrain", summary: "Put a node back into service (for who operates the cloud)", access: operator}, s.undrainNode)
}

// NodeInput names a node in the path.
type NodeInput struct {
	Node int64 `path:"node_id" minimum:"1"`
}

// node finds one by its id.
func (s *Server) node(id int64) (*node, error) {
	if n := s.nodes.byID[id]; n != nil {
		return n, nil
	}
	return nil, fail(http.StatusNotFound, errNodeNotFound, cvm.NotFound, "node-not-found", "node not found", "list them: GET /nodes")
}

// operated finds one for who operates this cloud.
func (s *Server) operated(ctx context.Context, id int64) (*node, error) {
	if err := operates(ctx); err != nil {
		return nil, err
	}
	return s.node(id)
}

func (s *Server) oneNode(ctx context.Context, in *NodeInput) (out cloudapi.AvailableNode, err error) {
	n, err := s.node(in.Node)
	if err != nil {
		return out, err
	}
	p, err := s.placed(ctx, n)
	if err != nil {
		return out, err
	}
	return s.availableNode(p), nil
}

type nodeEventsInput struct {
	NodeInput
	After int64 `query:"after" minimum:"0" doc:"only events with a higher seq"`
	Limit int   `query:"limit" default:"100" minimum:"1" maximum:"500"`
}

func (s *Server) nodeEvents(ctx context.Context, in *nodeEventsInput) ([]cloudapi.NodeEvent, error) {
	n, err := s.node(in.Node)
	if err != nil {
		return nil, err
	}
	events, err := s.store.NodeEvents(ctx, n.id, in.After, in.Limit)
	return append([]cloudapi.NodeEvent{}, events...), err
}

func (s *Server) nodeDrain(ctx context.Context, in *NodeInput) (out cloudapi.NodeDrain, err error) {
	n, err := s.operated(ctx, in.Node)
	if err != nil {
		return out, err
	}
	return n.drainView(call(ctx, n.client.DrainState))
}

type drainInput struct {
	NodeInput
	Body *cloudapi.NodeDrainRequest
}

func (s *Server) drainNode(ctx context.Context, in *drainInput) (out cloudapi.NodeDrain, err error) {
	n, err := s.operated(ctx, in.Node)
	if err != nil {
		return out, err
	}
	r := vmmapi.DrainRequest{}
	if in.Body != nil {
		r = vmmapi.DrainRequest{Reason: in.Body.Reason, StopAfterSeconds: in.Body.StopAfterSeconds}
	}
	if out, err = n.drainView(call(ctx, func(ctx context.Context) (vmmapi.DrainState, error) { return n.client.Drain(ctx, r) })); err != nil {
		return out, err
	}
	text := "it takes no new CVMs"
	if out.StopAt != nil {
		text += "; what still runs is stopped at " + out.StopAt.UTC().Format(time.RFC3339)
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return out, s.drained(ctx, n, cloudapi.NodeDrained, text)
}

type undrainInput struct {
	NodeInput
	Body *cloudapi.NodeUndrainRequest
}

func (s *Server) undrainNode(ctx context.Context, in *undrainInput) (out cloudapi.NodeDrain, err error) {
	n, err := s.operated(ctx, in.Node)
	if err != nil {
		return out, err
	}
	r := vmmapi.UndrainRequest{Start: in.Body != nil && in.Body.Start}
	if out, err = n.drainView(call(ctx, func(ctx context.Context) (vmmapi.DrainState, error) { return n.client.Undrain(ctx, r) })); err != nil {
		return out, err
	}
	return out, s.drained(ctx, n, cloudapi.NodeUndrained, "it is in service again")
}

// drained records what was done, and makes it count at once.
func (s *Server) drained(ctx context.Context, n *node, kind, text string) error {
	err := s.store.AddNodeEvent(ctx, cloudapi.NodeEvent{NodeID: n.id, Kind: kind, Message: text, By: who(ctx).Username})
	n.ask(ctx, 0, 0)
	return err
}

func (n *node) drainView(d vmmapi.DrainState, err error) (cloudapi.NodeDrain, error) {
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return ptr(t.UTC())
	}
	return cloudapi.NodeDrain{NodeID: int(n.id), Name: n.name(), Draining: d.Draining, Reason: d.Reason, Since: when(d.Since), StopAt: when(d.StopAt),
		Running: append([]string{}, d.Running...), Stopped: append([]string{}, d.Stopped...)}, err
}
