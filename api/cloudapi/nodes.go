package cloudapi

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/confidential-cloud/phala/attest/claim"
)

// Kinds of a node's events.
const (
	NodeJoined     = "node.joined"      // it proved its platform
	NodeLeft       = "node.left"        // its proof was dropped
	NodeExpired    = "node.expired"     // what its proof rests on has ended
	NodeKeyChanged = "node.key-changed" // its VMM answered with another TLS key than the one that joined
	NodeDrained    = "node.drained"
	NodeUndrained  = "node.undrained"
)

// NodeProof is what a node proved of its platform when it joined (ours). Until
// ExpiresAt the node counts as what it proved to be, then as unverified.
type NodeProof struct {
	Platform    string    `json:"platform" doc:"tdx, sev-snp, aws-nitro, simulated, custom"`
	Simulated   bool      `json:"simulated" doc:"SIMULATED: it proves nothing about hardware"`
	DeviceID    string    `json:"device_id" doc:"hex sha256 of the processor's PPID (or CHIP_ID), from its verified certificate"`
	TCB         claim.TCB `json:"tcb"`
	FMSPC       string    `json:"fmspc,omitempty"`
	PPID        string    `json:"ppid,omitempty"`
	OSImageHash string    `json:"os_image_hash" doc:"of the guest image that answered"`
	TLSKey      string    `json:"tls_key_sha256,omitempty" doc:"of the VMM's SubjectPublicKeyInfo: the cloud speaks to no other; none on the cloud's own machine without TLS"`
	Profile     string    `json:"profile" doc:"name of the trust profile that admitted it"`
	ProfileHash string    `json:"profile_sha256" doc:"of that profile: compare with GET /trust-profile"`
	JoinedAt    time.Time `json:"joined_at"`
	JoinedBy    string    `json:"joined_by"`
	ExpiresAt   time.Time `json:"expires_at" doc:"when what it rests on ends: join again before"`
	Expired     bool      `json:"expired,omitempty"`
}

// NodeEvidence is a node's proof with what was verified, so that anyone can do it
// again (phala node check): the quote answers SHA-512("phala-node-join:v1:", Fresh,
// TLSKey; without TLS the sha256 of nothing).
type NodeEvidence struct {
	NodeID int    `json:"node_id"`
	Name   string `json:"name"`
	NodeProof
	Fresh       string        `json:"fresh" doc:"hex: 32 bytes that the cloud chose"`
	Attestation []byte        `json:"attestation" doc:"the guest's evidence, as the guest API gives it"`
	Checks      []claim.Check `json:"checks"`
}

// NodeChallenge is what a proof must answer (ours).
type NodeChallenge struct {
	Challenge string    `json:"challenge" doc:"hex: send it back with the evidence"`
	Fresh     string    `json:"fresh" doc:"hex sha256 of the challenge's bytes: what vmmapi.JoinNonce takes"`
	ExpiresAt time.Time `json:"expires_at"`
}

// NodeJoin is what a node shows to join (ours).
type NodeJoin struct {
	Challenge   string `json:"challenge" maxLength:"512"`
	Attestation []byte `json:"attestation" doc:"the prover's evidence"`
	TLSKey      string `json:"tls_key_sha256,omitempty" maxLength:"64" doc:"of the VMM's SubjectPublicKeyInfo as who joins it saw it; hex"`
}

// NodeDrain is whether a node is out of service, and what still runs on it (ours).
type NodeDrain struct {
	NodeID   int        `json:"node_id"`
	Name     string     `json:"name"`
	Draining bool       `json:"draining"`
	Reason   string     `json:"reason,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	StopAt   *time.Time `json:"stop_at,omitempty" doc:"when what still runs is stopped; none: it runs on"`
	Running  []string   `json:"running" doc:"ids of VMs (vm_uuid) that run or are to run"`
	Stopped  []string   `json:"stopped" doc:"ids of VMs that the drain stopped"`
}

// NodeDrainRequest takes a node out of service.
type NodeDrainRequest struct {
	Reason           string `json:"reason,omitempty" maxLength:"200" doc:"those who are refused read it"`
	StopAfterSeconds *int64 `json:"stop_after_seconds,omitempty" required:"false" minimum:"0" maximum:"2592000" doc:"stop what still runs after this time; none: it runs on"`
}

// NodeUndrainRequest puts it back.
type NodeUndrainRequest struct {
	Start bool `json:"start,omitempty" doc:"start the VMs that the drain stopped"`
}

// NodeEvent is something that happened to a node (ours).
type NodeEvent struct {
	Seq     int64     `json:"seq"`
	NodeID  int64     `json:"node_id"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Message string    `json:"message"`
	By      string    `json:"by,omitempty"`
}

func nodePath(id int, rest string) string { return "/nodes/" + strconv.Itoa(id) + rest }

// Node describes one node.
func (c *Client) Node(ctx context.Context, id int) (out AvailableNode, err error) {
	return out, c.Do(ctx, "GET", nodePath(id, ""), nil, &out)
}

// ChallengeNode asks for what the node's proof must answer.
func (c *Client) ChallengeNode(ctx context.Context, id int) (out NodeChallenge, err error) {
	return out, c.Do(ctx, "POST", nodePath(id, "/challenge"), nil, &out)
}

// JoinNode gives the cloud a node's proof, which it verifies itself.
func (c *Client) JoinNode(ctx context.Context, id int, r NodeJoin) (out NodeProof, err error) {
	return out, c.Do(ctx, "POST", nodePath(id, "/join"), r, &out)
}

// LeaveNode drops a node's proof.
func (c *Client) LeaveNode(ctx context.Context, id int) error {
	return c.Do(ctx, "DELETE", nodePath(id, "/join"), nil, nil)
}

// NodeEvidence fetches what a node proved when it joined.
func (c *Client) NodeEvidence(ctx context.Context, id int) (out NodeEvidence, err error) {
	return out, c.Do(ctx, "GET", nodePath(id, "/evidence"), nil, &out)
}

// NodeEvents lists what happened to a node after an event, oldest first.
func (c *Client) NodeEvents(ctx context.Context, id int, after int64) (out []NodeEvent, err error) {
	return out, c.Do(ctx, "GET", nodePath(id, "/events?after="+url.QueryEscape(fmt.Sprint(after))), nil, &out)
}

// NodeDrainState tells how far a drain is.
func (c *Client) NodeDrainState(ctx context.Context, id int) (out NodeDrain, err error) {
	return out, c.Do(ctx, "GET", nodePath(id, "/drain"), nil, &out)
}

// DrainNode takes a node out of service.
func (c *Client) DrainNode(ctx context.Context, id int, r NodeDrainRequest) (out NodeDrain, err error) {
	return out, c.Do(ctx, "POST", nodePath(id, "/drain"), r, &out)
}

// UndrainNode puts it back into service.
func (c *Client) UndrainNode(ctx context.Context, id int, r NodeUndrainRequest) (out NodeDrain, err error) {
	return out, c.Do(ctx, "POST", nodePath(id, "/undrain"), r, &out)
}
