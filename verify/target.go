package verify

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/confidential-cloud/phala/cvm"
)

// Target is what is to be verified: an app (or one instance of it) behind the
// profile's gateway. Both ids are 20 bytes, and the gateway's names carry either.
type Target struct {
	Text string // as it was given
	ID   string // 40 lowercase hex digits: an app id or an instance id
	Host string // the name that a client uses
	Port int    // the gateway's external port, or the URL's
	// App is the app that the evidence must name. Nil when the target is a URL whose
	// name carries an instance id or an app id: then the evidence must name one of
	// them as ID.
	App *cvm.AppID
}

// ParseTarget reads a URL of an app (https://<id>[-port].<base>), or an app or
// instance id. Custom domains and TLS passthrough need the app id: pass the id.
func (p Profile) ParseTarget(s string) (Target, error) {
	t := Target{Text: s, Port: p.Gateway.Port}
	if !strings.Contains(s, "://") && !strings.Contains(s, ".") {
		id := strings.ToLower(strings.TrimPrefix(s, "0x"))
		if _, err := cvm.ParseAppID(id); err != nil {
			return t, cvm.Errorf(cvm.Invalid, "verify: %q is neither a URL nor an id of 40 hex digits", s)
		}
		t.ID, t.Host = id, id+"."+p.Gateway.Domain
		return t, nil
	}
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return t, cvm.Errorf(cvm.Invalid, "verify: %q is not a URL", t.Text)
	}
	if u.Scheme != "https" {
		return t, cvm.Errorf(cvm.Invalid, "verify: %s has no TLS, so that nothing can be bound to it", t.Text).WithFix("use the https:// address")
	}
	if u.Port() != "" {
		if t.Port, err = strconv.Atoi(u.Port()); err != nil || t.Port < 1 || t.Port > 65535 {
			return t, cvm.Errorf(cvm.Invalid, "verify: %q: bad port", t.Text)
		}
	} else if t.Port = p.Gateway.Port; u.Port() == "" && p.Gateway.Address == "" {
		t.Port = 443
	}
	t.Host = strings.ToLower(u.Hostname())
	return t, t.fromHost(p.Gateway.Domain)
}

func (t *Target) fromHost(domain string) error {
	label, ok := strings.CutSuffix(t.Host, "."+strings.ToLower(domain))
	if !ok || strings.Contains(label, ".") {
		return cvm.Errorf(cvm.Unsupported, "verify: %s is not under the profile's domain %s", t.Host, domain).
			WithFix("use the trust profile of that cloud, or give the app id")
	}
	id, port, hasPort := strings.Cut(label, "-")
	if _, err := cvm.ParseAppID(id); err != nil {
		return cvm.Errorf(cvm.Invalid, "verify: %s does not begin with an app or instance id", t.Host)
	}
	if hasPort && strings.HasSuffix(port, "s") {
		return cvm.Errorf(cvm.Unsupported, "verify: %s passes TLS through to the app: its key is the app's own, not the gateway's", t.Host).
			WithFix("verify the app by its id")
	}
	t.ID = id
	return nil
}

// names reports whether the target's id is this app's or this instance's.
func (t Target) names(app cvm.AppID, instance cvm.InstanceID) bool {
	if t.App != nil && *t.App != app {
		return false
	}
	return t.ID == app.String() || (!instance.IsZero() && t.ID == instance.String())
}

// Address is where to dial for a host: the profile's fixed address, or its name.
func (p Profile) Address(host string, port int) string {
	if p.Gateway.Address != "" {
		return p.Gateway.Address
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}
