package vmmapi

import (
	"context"
	"net/http"
	"time"
)

// DrainRequest takes a node out of service: no new VMs. With StopAfterSeconds, the
// VMs that still run then are stopped, and stay stopped until undrain.
type DrainRequest struct {
	Reason           string `json:"reason,omitempty"` // for people
	StopAfterSeconds *int64 `json:"stop_after_seconds,omitempty"`
}

// UndrainRequest puts the node back into service; Start starts the VMs that the
// drain stopped.
type UndrainRequest struct {
	Start bool `json:"start"`
}

// DrainState is whether a node is being drained, and what still runs on it.
type DrainState struct {
	Draining bool      `json:"draining"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	StopAt   time.Time `json:"stop_at,omitzero"` // zero: the VMs run on
	Running  []string  `json:"running"`          // ids of VMs that run or are to run
	Stopped  []string  `json:"stopped"`          // ids of VMs that the drain stopped
}

// Maintenance is the part of a drain that everybody who sees the node may know.
type Maintenance struct {
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	StopAt time.Time `json:"stop_at,omitzero"` // zero: the VMs run on
}

// Drain takes the node out of service. A drained node can be drained anew, with
// another time to stop.
func (c *Client) Drain(ctx context.Context, r DrainRequest) (s DrainState, err error) {
	return s, c.rpc.Call(ctx, http.MethodPost, "/v1/node/drain", r, &s)
}

// Undrain puts the node back into service.
func (c *Client) Undrain(ctx context.Context, r UndrainRequest) (s DrainState, err error) {
	return s, c.rpc.Call(ctx, http.MethodPost, "/v1/node/undrain", r, &s)
}

// DrainState tells how far a drain is.
func (c *Client) DrainState(ctx context.Context) (s DrainState, err error) {
	return s, c.rpc.Call(ctx, http.MethodGet, "/v1/node/drain", nil, &s)
}
