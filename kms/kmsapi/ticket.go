package kmsapi

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// SignedTicket is a RouteTicket on the wire.
type SignedTicket struct {
	Ticket    []byte `json:"ticket"` // exact JSON bytes
	Signature []byte `json:"signature"`
}

const ticketTag = "phala-route-ticket:v1:"

// Limits of tickets.
const (
	MaxTicket = 64 << 10 // bytes of a signed one
	// TicketSkew is how far the KMS's clock may be ahead of the gateway's.
	TicketSkew = 30 * time.Second
)

// Why a ticket is refused.
const (
	ReasonTicketInvalid = "ticket-invalid"
	ReasonTicketForged  = "ticket-forged"  // not signed by the KMS's ticket key
	ReasonTicketExpired = "ticket-expired" // ask the KMS for a new one
)

// SignTicket encodes and signs a route ticket with the KMS's ticket key.
func SignTicket(key ed25519.PrivateKey, t RouteTicket) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "encoding a ticket: %w", err)
	}
	return json.Marshal(SignedTicket{b, ed25519.Sign(key, append([]byte(ticketTag), b...))})
}

// OpenTicket verifies a ticket's signature and that it is in force at a time.
// Nothing of an unsigned ticket is looked at.
func OpenTicket(key ed25519.PublicKey, b []byte, at time.Time) (RouteTicket, error) {
	fail := func(reason, format string, args ...any) (RouteTicket, error) {
		return RouteTicket{}, cvm.Errorf(cvm.Denied, "route ticket: "+format, args...).WithReason(reason)
	}
	if len(key) != ed25519.PublicKeySize {
		return RouteTicket{}, cvm.Errorf(cvm.Precondition, "route ticket: no key to check it with")
	}
	if len(b) > MaxTicket {
		return fail(ReasonTicketInvalid, "%d bytes, the limit is %d", len(b), MaxTicket)
	}
	var s SignedTicket
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil || d.More() {
		return fail(ReasonTicketInvalid, "not a signed ticket")
	}
	if !ed25519.Verify(key, append([]byte(ticketTag), s.Ticket...), s.Signature) {
		return fail(ReasonTicketForged, "the signature is not the KMS's")
	}
	var t RouteTicket // what is signed may say more one day
	if err := json.Unmarshal(s.Ticket, &t); err != nil {
		return fail(ReasonTicketInvalid, "signed content is not a ticket")
	}
	switch {
	case !t.Expires.After(t.IssuedAt):
		return fail(ReasonTicketInvalid, "it expires before it is issued")
	case t.IssuedAt.After(at.Add(TicketSkew)):
		return fail(ReasonTicketInvalid, "issued %s ahead of this clock", t.IssuedAt.Sub(at).Round(time.Second))
	case !t.Expires.After(at):
		return fail(ReasonTicketExpired, "it expired %s ago", at.Sub(t.Expires).Round(time.Second))
	}
	return t, nil
}
