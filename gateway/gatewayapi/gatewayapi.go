// Package gatewayapi holds the wire types between guests and gateways, and the
// gateway's public evidence.
package gatewayapi

import (
	"time"

	"github.com/confidential-cloud/phala/guest-agent/guestapi"
)

// Registration (guest -> gateway), HTTPS on the gateway's tunnel address. The
// server's certificate chains to the KMS root CA and its APP_ID extension equals
// the gateway app id that the KMS named, exactly.
//
//	POST /v1/register RegisterRequest -> Registration
//	GET  /v1/health   -> {}
//
// Public (on https://gateway.<base domain>/ and on the admin address):
//
//	GET /evidence?nonce=hex -> Evidence
//	GET /.well-known/phala  -> Info
const PathRegister = "/v1/register"

// HeaderReason marks an HTTP answer that the gateway gave instead of the app; its
// value says why ("app-unknown", ...).
const HeaderReason = "X-Phala-Reason"

// RegisterRequest carries a live route ticket (kmsapi.RouteTicket, signed). A guest
// registers again with each new ticket; the same WireGuard key keeps its address.
type RegisterRequest struct {
	Ticket []byte `json:"ticket"`
	// WireGuardPort is the guest's UDP port (guestapi.WireGuardPort), 0 if unknown.
	// With it a gateway that has restarted can shake hands first; it is a hint only,
	// packets that prove the key move the endpoint.
	WireGuardPort int `json:"wireguard_port,omitempty"`
}

// Registration tells a guest how to reach the gateway. The guest keeps a tunnel to
// every server in the list.
type Registration struct {
	ClientIP string   `json:"client_ip"` // the guest's address in the tunnel, without mask
	Servers  []Server `json:"servers"`
	// Expires is when the route ends unless a new ticket arrives.
	Expires time.Time `json:"expires"`
	Domain  string    `json:"domain"` // base domain
	Port    int       `json:"external_port"`
	// GatewayRun changes whenever the gateway has forgotten its session with this
	// guest (it started anew, or the route had ended): a guest that sees it change
	// resets its tunnel session (wgnet.ResetPeer).
	GatewayRun string `json:"gateway_run"`
}

// Server is one gateway's end of the tunnel.
type Server struct {
	PublicKey []byte `json:"public_key"` // WireGuard, 32 bytes
	IP        string `json:"ip"`
	Endpoint  string `json:"endpoint"` // host:port, UDP
}

// Evidence is the gateway's: guestapi.Evidence with Bound = DER SPKI of the TLS
// key that serves the name that was asked.
type Evidence struct {
	Evidence guestapi.Evidence `json:"evidence"`
	Domain   string            `json:"domain"`
}

// Info describes a gateway.
type Info struct {
	BaseDomain string `json:"base_domain"`
	Port       int    `json:"external_port"`
	AppID      string `json:"app_id"`
	Simulated  bool   `json:"simulated"`
	Version    string `json:"version"`
}
