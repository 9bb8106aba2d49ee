package gatewayapi

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/internal/rpc"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// PathHealth answers {} while the tunnel API serves.
const PathHealth = "/v1/health"

// Reasons of refused registrations (cvm.Error.Reason).
const (
	ReasonTicketForged   = kmsapi.ReasonTicketForged
	ReasonTicketExpired  = kmsapi.ReasonTicketExpired
	ReasonTicketStale    = "ticket-older-route" // a newer ticket of this instance is known
	ReasonTicketInvalid  = kmsapi.ReasonTicketInvalid
	ReasonKeyTaken       = "wireguard-key-taken" // another instance has this key
	ReasonNoAddress      = "no-tunnel-address"
	ReasonRateLimited    = "rate-limited"
	ReasonNotReady       = "gateway-not-ready" // the gateway has not yet reached its own guest agent
	ReasonUnknownApp     = "app-unknown"
	ReasonNotConnected   = "app-not-connected"
	ReasonPortRefused    = "port-refused"
	ReasonPortClosed     = "port-closed"
	ReasonTooMany        = "too-many-connections"
	ReasonBadName        = "name-invalid"
	ReasonPlainHTTP      = "plain-http-on-tls-port"
	ReasonUnknownDomain  = "domain-unknown"
	ReasonMethodNotKnown = "not-found"
)

// Client is the guest's side of the tunnel API.
type Client struct{ c rpc.Client }

// NewClient speaks to the gateway at base ("https://host:port"). t must pin the
// gateway: the KMS root by SPKI and the gateway's app id, as
// ratls.PinnedClient(rootSPKI, "app:custom", &gatewayAppID, nil) does.
func NewClient(base string, t *tls.Config) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.TrimSuffix(u.Path, "/") != "" {
		return nil, cvm.Errorf(cvm.Invalid, "gateway URL %q: want https://host:port", base)
	}
	if t == nil {
		return nil, cvm.Errorf(cvm.Invalid, "gateway client: no TLS configuration; an unpinned gateway is refused")
	}
	return &Client{rpc.Client{
		Base: "https://" + u.Host,
		HTTP: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: t, ForceAttemptHTTP2: false, IdleConnTimeout: 10 * time.Second}},
	}}, nil
}

// Register shows a ticket and gets the tunnel's parameters. Register again with
// every new ticket.
func (c *Client) Register(ctx context.Context, r RegisterRequest) (Registration, error) {
	var out Registration
	err := c.c.Call(ctx, http.MethodPost, PathRegister, r, &out)
	return out, err
}

// Health is nil when the gateway serves.
func (c *Client) Health(ctx context.Context) error {
	return c.c.Call(ctx, http.MethodGet, PathHealth, nil, nil)
}
