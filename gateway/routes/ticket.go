package routes

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

const (
	// MaxTicket bounds a signed ticket, in bytes.
	MaxTicket = 64 << 10
	// MaxTTL bounds what a ticket may ask for, whatever it says.
	MaxTTL = 10 * time.Minute
	// maxSkew is how far ahead of this clock a ticket may have been issued.
	maxSkew = 30 * time.Second
	// ticketTag is what the KMS signs in front of the ticket's bytes (kmsapi.RouteTicket).
	ticketTag = "phala-route-ticket:v1:"
	keySize   = 32
)

// signedTicket is a ticket on the wire.
type signedTicket struct {
	Ticket    []byte `json:"ticket"`
	Signature []byte `json:"signature"`
}

// Sign makes a signed ticket: what the KMS does, for tests and tools.
func Sign(t kmsapi.RouteTicket, key ed25519.PrivateKey) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return json.Marshal(signedTicket{Ticket: b, Signature: ed25519.Sign(key, append([]byte(ticketTag), b...))})
}

// Verify reads a signed ticket and checks its signature and its times. Nothing of
// an unsigned ticket is looked at.
func Verify(signed []byte, key ed25519.PublicKey, at time.Time) (kmsapi.RouteTicket, appcompose.PortPolicy, error) {
	var none kmsapi.RouteTicket
	fail := func(reason, format string, args ...any) (kmsapi.RouteTicket, appcompose.PortPolicy, error) {
		return none, appcompose.PortPolicy{}, cvm.Errorf(cvm.Denied, "route ticket: "+format, args...).WithReason(reason)
	}
	if len(key) != ed25519.PublicKeySize {
		return none, appcompose.PortPolicy{}, cvm.Errorf(cvm.Unavailable, "this gateway does not know the KMS's ticket key yet").WithReason("gateway-not-ready")
	}
	if len(signed) > MaxTicket {
		return fail("ticket-invalid", "%d bytes, the limit is %d", len(signed), MaxTicket)
	}
	var s signedTicket
	if err := strictJSON(signed, &s); err != nil {
		return fail("ticket-invalid", "not a signed ticket")
	}
	if !ed25519.Verify(key, append([]byte(ticketTag), s.Ticket...), s.Signature) {
		return fail("ticket-forged", "the signature is not the KMS's")
	}
	var t kmsapi.RouteTicket
	if err := json.Unmarshal(s.Ticket, &t); err != nil {
		return fail("ticket-invalid", "signed content is not a ticket")
	}
	switch {
	case len(t.WireGuardKey) != keySize:
		return fail("ticket-invalid", "WireGuard key has %d bytes, want %d", len(t.WireGuardKey), keySize)
	case t.AppID.IsZero():
		return fail("ticket-invalid", "no app id")
	case !t.Expires.After(t.IssuedAt):
		return fail("ticket-invalid", "it expires before it is issued")
	case t.IssuedAt.After(at.Add(maxSkew)):
		return fail("ticket-invalid", "issued %s ahead of this gateway's clock", t.IssuedAt.Sub(at).Round(time.Second))
	case !t.Expires.After(at):
		return fail("ticket-expired", "it expired %s ago", at.Sub(t.Expires).Round(time.Second))
	}
	policy, err := parsePolicy(t.PortPolicy)
	if err != nil {
		return fail("ticket-invalid", "port policy: %w", err)
	}
	return t, policy, nil
}

// parsePolicy reads the measured port_policy. None means that every port is open
// (the reference's default); one that cannot be read is refused, never ignored.
func parsePolicy(b []byte) (p appcompose.PortPolicy, err error) {
	if len(b) == 0 || string(b) == "null" {
		return p, nil
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, cvm.Errorf(cvm.Invalid, "not JSON of port_policy")
	}
	seen := map[int]bool{}
	for _, x := range p.Ports {
		if x.Port < 1 || x.Port > 65535 || seen[x.Port] {
			return p, cvm.Errorf(cvm.Invalid, "port %d is outside 1..65535 or listed twice", x.Port)
		}
		seen[x.Port] = true
	}
	return p, nil
}

func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return cvm.Errorf(cvm.Invalid, "data after the JSON value")
	}
	return nil
}
