// Package fetch gets vendor collateral from PCS-shaped services and keeps it in
// a bounded cache. The verify path never touches the network: callers fetch, then
// verify.
package fetch

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/confidential-cloud/phala/attest/collateral"
)

// Config of a Client.
type Config struct {
	URLs    []string         // base URLs of PCS or PCCS services, tried in order
	Timeout time.Duration    // of one attempt on one URL; 0: 10 s
	MaxAge  time.Duration    // how long fetched collateral is served from the cache; 0: 1 h
	Entries int              // cached FMSPCs; 0: 64
	HTTP    *http.Client     // nil: a client of its own
	Clock   func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil: discarded
}

// Client fetches collateral. It is safe for concurrent use.
type Client struct{ cfg Config }

// New checks the config.
func New(cfg Config) (*Client, error) { return &Client{cfg: cfg}, nil }

// Get returns the collateral for a quote's platform, from the cache or the network.
func (c *Client) Get(ctx context.Context, quote []byte) (collateral.Set, error) {
	return collateral.Set{}, nil
}
