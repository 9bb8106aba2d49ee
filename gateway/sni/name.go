package sni

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Mode is what the gateway does with a stream.
type Mode string

const (
	// Terminate ends TLS in the gateway and carries plain bytes: HTTP/1.1,
	// WebSocket, raw TCP.
	Terminate Mode = "terminate"
	// Passthrough carries the client's TLS to the app untouched (suffix s).
	Passthrough Mode = "passthrough"
	// H2 ends TLS in the gateway, with HTTP/2 agreed (suffix g: gRPC).
	H2 Mode = "h2"
)

// Self names the gateway's own pages, Health its liveness page.
const (
	Self   = "gateway"
	Health = "health"
)

// Target is a parsed server name.
type Target struct {
	// Self is "gateway" or "health" for the gateway's own names, else "".
	Self string
	// ID is an app id or an instance id: the name does not say which.
	ID   [20]byte
	Port uint16
	Mode Mode
}

// ParseName reads <id>[-[<port>][s|g]].<base>. base is lower case, without a
// leading dot. Errors are coded: not_found for a name outside base, invalid
// otherwise. Names are compared without case, as DNS does.
func ParseName(name, base string) (Target, error) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	label, ok := strings.CutSuffix(name, "."+base)
	if name == base {
		return Target{Self: Self, Port: 80, Mode: Terminate}, nil
	}
	if !ok || label == "" || strings.Contains(label, ".") {
		// The place for custom domains: TXT _dstack-app-address.<name> will name the
		// target, always in mode Passthrough.
		return Target{}, cvm.Errorf(cvm.NotFound, "%q is not a name under %s", name, base).WithReason("domain-unknown").
			WithFix("use <app id>[-<port>][s|g]." + base)
	}
	id, suffix, dashed := strings.Cut(label, "-")
	t, err := parseSuffix(suffix)
	if err != nil {
		return Target{}, err
	}
	if id == Self || id == Health {
		if dashed {
			return Target{}, badName("%q takes no port or suffix", id)
		}
		t.Self = id
		return t, nil
	}
	if len(id) != 40 {
		return Target{}, badName("%q is not an app id or instance id: want 40 hex digits, got %d characters", id, len(id))
	}
	if _, err := hex.Decode(t.ID[:], []byte(id)); err != nil {
		return Target{}, badName("%q is not hex", id)
	}
	return t, nil
}

func parseSuffix(s string) (Target, error) {
	t := Target{Port: 80, Mode: Terminate}
	switch {
	case strings.HasSuffix(s, "s"):
		t.Port, t.Mode = 443, Passthrough
		s = s[:len(s)-1]
	case strings.HasSuffix(s, "g"):
		t.Mode = H2
		s = s[:len(s)-1]
	}
	if s == "" {
		return t, nil
	}
	if strings.Trim(s, "0123456789") != "" {
		return Target{}, badName("suffix %q is not [port][s|g]", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return Target{}, badName("port %q is outside 1..65535", s)
	}
	t.Port = uint16(n)
	return t, nil
}

func badName(format string, args ...any) error {
	return cvm.Errorf(cvm.Invalid, format, args...).WithReason("name-invalid").
		WithFix("names are <app id|instance id>[-<port>][s|g].<base domain>; port 80 (443 with s) when none is given")
}
