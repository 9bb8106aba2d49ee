package vmmapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// Paths of images and of the node's service:
//
//	POST   /v1/images/pull    PullRequest -> Pull    returns at once; watch GET /v1/images/pulls
//	GET    /v1/images/pulls   -> []Pull, newest first
//	DELETE /v1/images/{name}  -> {}                  409 image-used while a VM names it
//	POST   /v1/images/gc      GCRequest -> GCResult
//	POST   /v1/node/drain     DrainRequest -> DrainState
//	POST   /v1/node/undrain   UndrainRequest -> DrainState
//	GET    /v1/node/drain     -> DrainState

// PullRequest names an image in a registry. One of a digest in Ref, Hash and the
// node's image keys must pin it.
type PullRequest struct {
	Ref  string        `json:"ref"`            // host/repo@sha256:... or host/repo:tag
	Name string        `json:"name,omitempty"` // "": phala-<version> or phala-dev-<version>
	Hash cvm.ImageHash `json:"hash,omitzero"`  // os_image_hash it must have; zero: not pinned by it
}

// Phases of a pull.
const (
	PullResolving   = "resolving"   // manifest and signature
	PullDownloading = "downloading" // DoneBytes of TotalBytes
	PullUnpacking   = "unpacking"
	PullChecking    = "checking" // sums, os_image_hash, hash tree of the root filesystem
	PullDone        = "done"
	PullFailed      = "failed" // Error says why; what was downloaded is kept for the next try
)

// Pull is one pull and how far it is.
type Pull struct {
	ID         string        `json:"id"`
	Ref        string        `json:"ref"`
	Digest     string        `json:"digest,omitempty"` // of the manifest, sha256:...
	Name       string        `json:"name,omitempty"`
	Hash       cvm.ImageHash `json:"hash,omitzero"`
	SignedBy   string        `json:"signed_by,omitempty"` // the key's file name
	Phase      string        `json:"phase"`
	DoneBytes  int64         `json:"done_bytes"`
	TotalBytes int64         `json:"total_bytes"`
	Error      *VMError      `json:"error,omitempty"`
	StartedAt  time.Time     `json:"started_at"`
	EndedAt    time.Time     `json:"ended_at,omitzero"`
}

// Ended reports whether the pull is over.
func (p Pull) Ended() bool { return p.Phase == PullDone || p.Phase == PullFailed }

// GCRequest removes images that no VM names and that are not the node's default,
// but for the newest Keep of them, and remains of ended pulls.
type GCRequest struct {
	Keep   int  `json:"keep"`
	DryRun bool `json:"dry_run"`
}

// GCResult is what was removed (DryRun: what would be).
type GCResult struct {
	Removed []string `json:"removed"`
	Kept    []string `json:"kept"`
	Bytes   int64    `json:"bytes"` // of the removed images and remains
	DryRun  bool     `json:"dry_run"`
}

// Pull starts a pull, or joins the one of the same image that is under way.
func (c *Client) Pull(ctx context.Context, r PullRequest) (p Pull, err error) {
	return p, c.rpc.Call(ctx, http.MethodPost, "/v1/images/pull", r, &p)
}

// Pulls lists pulls under way and those that ended lately, newest first.
func (c *Client) Pulls(ctx context.Context) (p []Pull, err error) {
	return p, c.rpc.Call(ctx, http.MethodGet, "/v1/images/pulls", nil, &p)
}

// DeleteImage removes an image that no VM uses.
func (c *Client) DeleteImage(ctx context.Context, name string) error {
	return c.rpc.Call(ctx, http.MethodDelete, "/v1/images/"+url.PathEscape(name), nil, nil)
}

// CollectImages removes unused images.
func (c *Client) CollectImages(ctx context.Context, r GCRequest) (v GCResult, err error) {
	return v, c.rpc.Call(ctx, http.MethodPost, "/v1/images/gc", r, &v)
}
