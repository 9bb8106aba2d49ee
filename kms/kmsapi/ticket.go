package kmsapi

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"time"

	"github.com/confidential-cloud/phala/cvm"
)

// signedTicket is a RouteTicket on the wire.
type signedTicket struct {
	Ticket    []byte `json:"ticket"` // exact JSON bytes
	Signature []byte `json:"signature"`
}

const ticketTag = "phala-route-ticket:v1:"

// SignTicket encodes and signs a route ticket with the KMS's ticket key.
func SignTicket(key ed25519.PrivateKey, t RouteTicket) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, cvm.Errorf(cvm.Internal, "encoding a ticket: %w", err)
	}
	return json.Marshal(signedTicket{b, ed25519.Sign(key, append([]byte(ticketTag), b...))})
}

// OpenTicket verifies a ticket's signature and that it is in force at a time.
func OpenTicket(key ed25519.PublicKey, b []byte, at time.Time) (RouteTicket, error) {
	var s signedTicket
	var t RouteTicket
	if len(key) != ed25519.PublicKeySize {
		return t, cvm.Errorf(cvm.Precondition, "route ticket: no key to check it with")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil || d.More() {
		return t, cvm.Errorf(cvm.Invalid, "route ticket: not in the expected form")
	}
	if !ed25519.Verify(key, append([]byte(ticketTag), s.Ticket...), s.Signature) {
		return t, cvm.Errorf(cvm.Denied, "route ticket: not signed by the KMS").WithReason("ticket-invalid")
	}
	d = json.NewDecoder(bytes.NewReader(s.Ticket))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return RouteTicket{}, cvm.Errorf(cvm.Invalid, "route ticket: %w", err)
	}
	if !at.Before(t.Expires) || at.Add(TicketSkew).Before(t.IssuedAt) {
		return RouteTicket{}, cvm.Errorf(cvm.Denied, "route ticket: in force from %s to %s", t.IssuedAt, t.Expires).WithReason("ticket-expired")
	}
	return t, nil
}

// TicketSkew is how far the KMS's clock may be ahead of the gateway's.
const TicketSkew = 15 * time.Second
