package routes

import (
	"crypto/ed25519"
	"encoding/json"
	"time"

	"github.com/confidential-cloud/phala/appcompose"
	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/kms/kmsapi"
)

// MaxTTL bounds what a ticket may ask for, whatever it says.
const MaxTTL = 10 * time.Minute

const keySize = 32

// Verify reads a signed ticket and checks its signature, its times and what it says.
func Verify(signed []byte, key ed25519.PublicKey, at time.Time) (kmsapi.RouteTicket, appcompose.PortPolicy, error) {
	var none kmsapi.RouteTicket
	fail := func(format string, args ...any) (kmsapi.RouteTicket, appcompose.PortPolicy, error) {
		return none, appcompose.PortPolicy{}, cvm.Errorf(cvm.Denied, "route ticket: "+format, args...).WithReason(kmsapi.ReasonTicketInvalid)
	}
	if len(key) != ed25519.PublicKeySize {
		return none, appcompose.PortPolicy{}, cvm.Errorf(cvm.Unavailable, "this gateway does not know the KMS's ticket key yet").WithReason("gateway-not-ready")
	}
	t, err := kmsapi.OpenTicket(key, signed, at)
	if err != nil {
		return none, appcompose.PortPolicy{}, err
	}
	if len(t.WireGuardKey) != keySize {
		return fail("WireGuard key has %d bytes, want %d", len(t.WireGuardKey), keySize)
	}
	if t.AppID.IsZero() {
		return fail("no app id")
	}
	policy, err := parsePolicy(t.PortPolicy)
	if err != nil {
		return fail("port policy: %w", err)
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
