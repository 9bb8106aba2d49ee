package guestapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
)

// Paths of the guest API (GuestSock).
const (
	PathInfo       = "/v1/info"
	PathContainers = "/v1/containers"
	PathSysInfo    = "/v1/sysinfo"
	PathNetwork    = "/v1/network"
	PathGuestProof = "/v1/evidence"
	PathLogs       = "/v1/logs/" // + container name or id
	PathShutdown   = "/v1/shutdown"
	PathPrepare    = "/v1/prepare"
)

// Client is the host's side of the guest API. What it returns was written by the
// guest: the host shows it, verifiers check it.
type Client struct{ c rpc.Client }

// NewClient talks to the guest's guest.sock (its path on the host).
func NewClient(sock string) *Client {
	h := rpc.UnixClient(sock)
	return &Client{c: rpc.Client{Base: "http://unix", HTTP: h}}
}

// NewClientOver talks to the guest over connections that h makes.
func NewClientOver(h *http.Client) *Client {
	return &Client{c: rpc.Client{Base: "http://guest", HTTP: h}}
}

// Info describes the app.
func (g *Client) Info(ctx context.Context) (v AppInfo, err error) {
	return v, g.c.Call(ctx, http.MethodGet, PathInfo, nil, &v)
}

// Containers lists the app's containers.
func (g *Client) Containers(ctx context.Context) (v Containers, err error) {
	return v, g.c.Call(ctx, http.MethodGet, PathContainers, nil, &v)
}

// SysInfo reads the guest's load.
func (g *Client) SysInfo(ctx context.Context) (v SysInfo, err error) {
	return v, g.c.Call(ctx, http.MethodGet, PathSysInfo, nil, &v)
}

// Evidence asks for evidence over a nonce (8..64 bytes).
func (g *Client) Evidence(ctx context.Context, nonce []byte) (v Evidence, err error) {
	return v, g.c.Call(ctx, http.MethodGet, PathGuestProof+"?nonce="+hex.EncodeToString(nonce), nil, &v)
}

// Logs streams a container's log; q holds the reference's options (since, until,
// follow, text, timestamps, bare, tail, ansi). Close it when done.
func (g *Client) Logs(ctx context.Context, container string, q url.Values) (io.ReadCloser, error) {
	// A follower may live for hours: no client timeout, ctx bounds it.
	c := g.c
	h := *g.c.HTTP
	h.Timeout = 0
	c.HTTP = &h
	return c.Stream(ctx, http.MethodGet, PathLogs+url.PathEscape(container)+"?"+q.Encode(), nil)
}

// Prepare has the guest pull what another app-compose would run, and tells how far
// it is. It returns when everything is there; ctx bounds it. What runs is not changed.
func (g *Client) Prepare(ctx context.Context, appCompose string, tell func(PullProgress)) error {
	c := g.c
	h := *g.c.HTTP
	h.Timeout = 0
	c.HTTP = &h
	rd, err := c.Stream(ctx, http.MethodPost, PathPrepare, PrepareRequest{appCompose})
	if err != nil {
		return err
	}
	defer rd.Close()
	dec := json.NewDecoder(io.LimitReader(rd, maxPrepareAnswer))
	for {
		var p PullProgress
		if err := dec.Decode(&p); err != nil {
			return cvm.Errorf(cvm.Unavailable, "guest: prepare ended without a result: %w", err)
		}
		switch p.State {
		case "ready":
			return nil
		case "failed":
			return cvm.Errorf(cvm.Precondition, "guest: prepare: %s", p.Error).WithReason(p.Reason).WithFix(p.Fix)
		}
		tell(p)
	}
}

// maxPrepareAnswer bounds what a guest may say during one preparation, in bytes.
const maxPrepareAnswer = 16 << 20

// Shutdown asks the guest to stop its containers and exit; it returns at once.
func (g *Client) Shutdown(ctx context.Context) error {
	return g.c.Call(ctx, http.MethodPost, PathShutdown, struct{}{}, nil)
}

// Host is the guest's side of the host API (HostSock).
type Host struct{ c rpc.Client }

// PathNotify takes a Notify; PathHostInfo answers HostInfo.
const (
	PathNotify   = "/api/Notify"
	PathHostInfo = "/api/Info"
)

// HostInfo names the VMM.
type HostInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// NewHost talks to the VMM's host.sock.
func NewHost(sock string) *Host {
	return &Host{c: rpc.Client{Base: "http://unix", HTTP: rpc.UnixClient(sock)}}
}

// Notify tells the host something; the host believes none of it.
func (h *Host) Notify(ctx context.Context, n Notify) error {
	return h.c.Call(ctx, http.MethodPost, PathNotify, n, nil)
}
