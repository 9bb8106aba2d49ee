// Package static is an Authority that reads an allow-list file: for clusters
// without a chain. The file has the shape of the reference's auth-simple, and is
// read again at every request, so that an edit is in force at once.
//
// One rule is stricter than there: an empty device list allows no device (T9),
// unless allowAnyDevice says otherwise.
package static

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/governance"
)

// Config says where the list is.
type Config struct {
	Path string           // JSON file, see List
	Now  func() time.Time // nil: time.Now
}

// List is the file. Hex values are compared without regard to case and 0x.
type List struct {
	GatewayAppID       string           `json:"gatewayAppId"`
	KMSContractAddr    string           `json:"kmsContractAddr"`   // shown, not read
	ChainID            uint64           `json:"chainId"`           // shown, not read
	AppImplementation  string           `json:"appImplementation"` // shown, not read
	OSImages           []string         `json:"osImages"`
	AllowedTCBStatuses []string         `json:"allowedTcbStatuses"` // absent: UpToDate only
	AllowedAdvisoryIDs []string         `json:"allowedAdvisoryIds"`
	KMS                KMSRule          `json:"kms"`
	Apps               map[string]*Rule `json:"apps"` // by app id
}

// KMSRule says which KMS members are allowed.
type KMSRule struct {
	MRAggregated   []string `json:"mrAggregated"`
	Devices        []string `json:"devices"`
	AllowAnyDevice bool     `json:"allowAnyDevice"`
}

// Rule says what one app may run, and where.
type Rule struct {
	ComposeHashes  []string `json:"composeHashes"`
	Devices        []string `json:"devices"`
	AllowAnyDevice bool     `json:"allowAnyDevice"`
}

// Authority decides by the file.
type Authority struct {
	path string
	now  func() time.Time
}

// New checks that the file can be read and is well formed.
func New(c Config) (*Authority, error) {
	a := &Authority{path: c.Path, now: c.Now}
	if a.now == nil {
		a.now = time.Now
	}
	_, err := a.read()
	return a, err
}

// Parse reads a list strictly: an unknown key is an error.
func Parse(b []byte) (*List, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var l List
	if err := d.Decode(&l); err != nil {
		return nil, cvm.Errorf(cvm.Invalid, "allow-list: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, cvm.Errorf(cvm.Invalid, "allow-list: data after the JSON object")
	}
	apps := make(map[string]*Rule, len(l.Apps))
	for id, r := range l.Apps {
		p, err := cvm.ParseAppID(strings.ToLower(id))
		if err != nil {
			return nil, cvm.Errorf(cvm.Invalid, "allow-list: apps: %q: %w", id, err)
		}
		if r == nil {
			return nil, cvm.Errorf(cvm.Invalid, "allow-list: apps: %q has no rule", id)
		}
		if _, twice := apps[p.String()]; twice {
			return nil, cvm.Errorf(cvm.Invalid, "allow-list: apps: %q is listed twice", id)
		}
		apps[p.String()] = r
	}
	l.Apps = apps
	if l.AllowedTCBStatuses == nil {
		l.AllowedTCBStatuses = []string{"UpToDate"}
	}
	return &l, nil
}

func (a *Authority) read() (*List, error) {
	b, err := os.ReadFile(a.path)
	if err != nil {
		return nil, cvm.Errorf(cvm.Unavailable, "allow-list: %w", err).WithReason("chain-unreachable").
			WithFix("check the path of the allow-list in the KMS's config")
	}
	return Parse(b)
}

func (a *Authority) decide(r governance.BootRequest, rule func(*List) string) (governance.Decision, error) {
	l, err := a.read()
	if err != nil {
		return governance.Decision{}, err
	}
	reason := platform(l, r)
	if reason == "" {
		reason = rule(l)
	}
	return governance.Decision{Allowed: reason == "", Reason: reason, GatewayAppID: l.GatewayAppID, View: a.view()}, nil
}

func (a *Authority) view() governance.View {
	return governance.View{Source: "static", SeenAt: a.now().UTC()}
}

func platform(l *List, r governance.BootRequest) string {
	if !has(l.AllowedTCBStatuses, r.TCBStatus) {
		return "TCB status is not allowed"
	}
	for _, id := range r.AdvisoryIDs {
		if !has(l.AllowedAdvisoryIDs, id) {
			return "advisory ID is not allowed"
		}
	}
	if !has(l.OSImages, r.OSImageHash.String()) {
		return "OS image is not allowed"
	}
	return ""
}

// AuthorizeApp implements governance.Authority.
func (a *Authority) AuthorizeApp(_ context.Context, r governance.BootRequest) (governance.Decision, error) {
	return a.decide(r, func(l *List) string {
		app := l.Apps[r.AppID.String()]
		switch {
		case app == nil:
			return "app not registered"
		case !has(app.ComposeHashes, r.ComposeHash.String()):
			return "compose hash not allowed"
		case !app.AllowAnyDevice && !has(app.Devices, r.DeviceID.String()):
			return "app is not allowed to boot on this device"
		}
		return ""
	})
}

// AuthorizeKMS implements governance.Authority.
func (a *Authority) AuthorizeKMS(_ context.Context, r governance.BootRequest) (governance.Decision, error) {
	return a.decide(r, func(l *List) string {
		switch {
		case !has(l.KMS.MRAggregated, cvm.ComposeHash(r.MRAggregated).String()):
			return "aggregated MR not allowed"
		case !l.KMS.AllowAnyDevice && !has(l.KMS.Devices, r.DeviceID.String()):
			return "KMS is not allowed to boot on this device"
		}
		return ""
	})
}

// Info implements governance.Authority.
func (a *Authority) Info(context.Context) (governance.Info, error) {
	l, err := a.read()
	if err != nil {
		return governance.Info{}, err
	}
	return governance.Info{Source: "static", ChainID: l.ChainID, Contract: l.KMSContractAddr,
		GatewayAppID: l.GatewayAppID, AppImplementation: l.AppImplementation, View: a.view()}, nil
}

// has compares as hex strings are compared: without regard to case and 0x. An
// empty value is never in a list.
func has(list []string, v string) bool {
	norm := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "0x") }
	for _, e := range list {
		if v != "" && norm(e) == norm(v) {
			return true
		}
	}
	return false
}

var _ governance.Authority = (*Authority)(nil)
