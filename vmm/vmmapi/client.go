package vmmapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/guest-agent/guestapi"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Client calls a VMM. Errors of the VMM arrive as *cvm.Error with the VMM's own
// code and reason; a VMM that does not answer is code unavailable.
type Client struct{ rpc rpc.Client }

// NewClient calls the VMM at base ("http://127.0.0.1:8720") with its bearer token.
// h may be nil: then the default HTTP client is used, without a timeout, because
// logs are streamed; bound calls by their context.
func NewClient(base, token string, h *http.Client) *Client {
	return &Client{rpc.Client{Base: base, HTTP: h, Header: http.Header{"Authorization": {"Bearer " + token}}}}
}

func vmPath(id string, rest string) string { return PathVMs + url.PathEscape(id) + rest }

// Node describes the host.
func (c *Client) Node(ctx context.Context) (n Node, err error) {
	return n, c.rpc.Call(ctx, http.MethodGet, "/v1/node", nil, &n)
}

// Images lists the guest images of the host.
func (c *Client) Images(ctx context.Context) (v []Image, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, "/v1/images", nil, &v)
}

// List returns all VMs of the host.
func (c *Client) List(ctx context.Context) (v []VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, "/v1/vms", nil, &v)
}

// ViewBrief, as the query view of a list, leaves out what is handed to the guests.
const ViewBrief = "brief"

// ListBrief is List without what is handed to the guests (Spec.App), which is most of
// it: for who compares many VMs often. A VMM that does not know the view sends all.
func (c *Client) ListBrief(ctx context.Context) (v []VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, "/v1/vms?view="+ViewBrief, nil, &v)
}

// Put defines a VM. Sending the same spec again returns the VM as it is; another
// spec under the same id is a conflict.
func (c *Client) Put(ctx context.Context, s Spec) (v VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodPut, vmPath(s.ID, ""), s, &v)
}

// Get returns one VM, or code not_found.
func (c *Client) Get(ctx context.Context, id string) (v VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, vmPath(id, ""), nil, &v)
}

// PutApp replaces what the host hands to the guest; it takes effect at the next start.
func (c *Client) PutApp(ctx context.Context, id string, a App) (v VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodPut, vmPath(id, "/app"), a, &v)
}

// PutResources changes the size; it takes effect at the next start.
func (c *Client) PutResources(ctx context.Context, id string, r Resources) (v VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodPut, vmPath(id, "/resources"), r, &v)
}

// PutImage chooses another guest image of the node; it takes effect at the next start.
func (c *Client) PutImage(ctx context.Context, id, image string) (v VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodPut, vmPath(id, "/image"), ImageChoice{Image: image}, &v)
}

// Update replaces app, size and image together: the running guest pulls first, and
// what does not get ready is rolled back. It returns at once; watch LastUpdate.
func (c *Client) Update(ctx context.Context, id string, q UpdateRequest) (v VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodPost, vmPath(id, "/update"), q, &v)
}

// IfMatch is a client whose changing calls are refused (conflict, reason
// "generation") when the VM is not of this generation any more.
func (c *Client) IfMatch(generation int64) *Client {
	out := *c
	out.rpc.Header = c.rpc.Header.Clone()
	out.rpc.Header.Set("If-Match", strconv.Quote(strconv.FormatInt(generation, 10)))
	return &out
}

// Boots returns the newest boots of a VM with their stages, oldest first.
func (c *Client) Boots(ctx context.Context, id string) (v []Boot, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, vmPath(id, "/boots"), nil, &v)
}

// Start asks for a running VM and returns at once.
func (c *Client) Start(ctx context.Context, id string) (VM, error) { return c.op(ctx, id, "/start") }

// Stop asks for a stopped VM and returns at once.
func (c *Client) Stop(ctx context.Context, id string) (VM, error) { return c.op(ctx, id, "/stop") }

// Restart stops the VM and starts it again; it returns at once.
func (c *Client) Restart(ctx context.Context, id string) (VM, error) {
	return c.op(ctx, id, "/restart")
}

func (c *Client) op(ctx context.Context, id, what string) (v VM, err error) {
	return v, c.rpc.Call(ctx, http.MethodPost, vmPath(id, what), nil, &v)
}

// Delete removes the VM, and its volumes unless keepVolumes. It returns at once:
// the VM is gone when Get says not_found. Deleting what is gone is not an error.
func (c *Client) Delete(ctx context.Context, id string, keepVolumes bool) error {
	q := "?volumes=delete"
	if keepVolumes {
		q = "?volumes=keep"
	}
	return c.rpc.Call(ctx, http.MethodDelete, vmPath(id, q), nil, nil)
}

// Events returns what happened to a VM, oldest first.
func (c *Client) Events(ctx context.Context, id string) (v []Event, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, vmPath(id, "/events"), nil, &v)
}

// EventsAfter returns at most limit events with a greater seq, oldest first.
func (c *Client) EventsAfter(ctx context.Context, id string, seq int64, limit int) (v []Event, err error) {
	q := url.Values{"after": {strconv.FormatInt(seq, 10)}, "limit": {strconv.Itoa(limit)}}
	return v, c.rpc.Call(ctx, http.MethodGet, vmPath(id, "/events?"+q.Encode()), nil, &v)
}

// FollowEvents calls each with every event after seq, as they happen, until ctx
// ends, each fails or the VM is gone (nil).
func (c *Client) FollowEvents(ctx context.Context, id string, seq int64, each func(Event) error) error {
	rc, err := c.rpc.Stream(ctx, http.MethodGet, vmPath(id, "/events?follow=true&after="+strconv.FormatInt(seq, 10)), nil)
	if err != nil {
		return err
	}
	defer rc.Close()
	sc := bufio.NewScanner(rc)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		data, ok := bytes.CutPrefix(sc.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return cvm.Errorf(cvm.Unavailable, "event stream: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return sc.Err()
}

// LogQuery is what of a VM's output somebody wants. The zero value is all of the
// guest's console that is kept.
type LogQuery struct {
	Channel      string // serial (or ""), or the hypervisor's own: stdout, stderr
	Tail         int    // lines from the end; 0: all
	Since, Until string // RFC 3339, unix seconds, or a duration before now ("10m"); "": no bound
	Follow       bool   // go on until ctx ends
	Timestamps   bool   // the time before each line
}

// Log streams a channel of a VM's output. cvm.Unsupported: the node has not this
// channel, or keeps no times.
func (c *Client) Log(ctx context.Context, id string, o LogQuery) (io.ReadCloser, error) {
	q := url.Values{"follow": {strconv.FormatBool(o.Follow)}}
	for name, v := range map[string]string{"channel": o.Channel, "since": o.Since, "until": o.Until} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if o.Tail > 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if o.Timestamps {
		q.Set("timestamps", "true")
	}
	return c.rpc.Stream(ctx, http.MethodGet, vmPath(id, "/serial?"+q.Encode()), nil)
}

// GuestInfo decodes the guest's AppInfo (reference shape) into out.
func (c *Client) GuestInfo(ctx context.Context, id string, out any) error {
	return c.rpc.Call(ctx, http.MethodGet, vmPath(id, "/guest/info"), nil, out)
}

// GuestContainers lists the app's containers.
func (c *Client) GuestContainers(ctx context.Context, id string) (v guestapi.Containers, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, vmPath(id, "/guest/containers"), nil, &v)
}

// GuestSysInfo returns the guest's system figures.
func (c *Client) GuestSysInfo(ctx context.Context, id string) (v guestapi.SysInfo, err error) {
	return v, c.rpc.Call(ctx, http.MethodGet, vmPath(id, "/guest/sysinfo"), nil, &v)
}

// GuestEvidence asks the guest for evidence over the caller's nonce (1-64 bytes).
func (c *Client) GuestEvidence(ctx context.Context, id string, nonce []byte) (v guestapi.Evidence, err error) {
	if len(nonce) == 0 || len(nonce) > 64 {
		return v, cvm.Errorf(cvm.Invalid, "evidence nonce: want 1 to 64 bytes, got %d", len(nonce))
	}
	return v, c.rpc.Call(ctx, http.MethodGet, vmPath(id, "/guest/evidence?nonce="+hex.EncodeToString(nonce)), nil, &v)
}

// GuestLogs streams a container's log; q holds the reference's query
// (since until tail follow timestamps text).
func (c *Client) GuestLogs(ctx context.Context, id, container string, q url.Values) (io.ReadCloser, error) {
	return c.rpc.Stream(ctx, http.MethodGet, vmPath(id, "/guest/logs/"+url.PathEscape(container)+"?"+q.Encode()), nil)
}
