package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// A device login as RFC 8628 has it, with the answers that the public CLI wants.
const (
	deviceTTL      = 15 * time.Minute
	deviceInterval = 5 * time.Second
	deviceKeyTTL   = 90 * 24 * time.Hour
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	codeLetters    = "BCDFGHJKLMNPQRSTVWXZ" // no vowels: no words; RFC 8628, 6.1
	codeLength     = 8
)

func (s *Server) deviceRoutes(api huma.API) {
	decide := access{role: store.Viewer, scope: "keys:write"}
	register(s, api, op{method: "POST", path: "/auth/device/code", summary: "Begin a device login", access: open()}, s.deviceCode)
	register(s, api, op{method: "POST", path: "/auth/device/token", summary: "Poll for the key of a device login", access: open()}, s.deviceToken)
	register(s, api, op{method: "POST", path: "/auth/device/authorize", summary: "Approve (or deny) a device login", status: 204, access: decide}, s.deviceAuthorize)
}

func newUserCode() string {
	b := make([]byte, codeLength)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(codeLetters))))
		if err != nil {
			panic(err) // crypto/rand never fails
		}
		b[i] = codeLetters[n.Int64()]
	}
	return string(b[:4]) + "-" + string(b[4:])
}

// codeHash takes a code as people write it: case, dashes and spaces do not matter.
func codeHash(code string) (hash [32]byte, ok bool) {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			r += 'A' - 'a'
		}
		if r < 'A' || r > 'Z' {
			return -1
		}
		return r
	}, code)
	return sha256.Sum256([]byte(clean)), len(clean) == codeLength
}

// publicURL is where people reach this server.
func (s *Server) publicURL(host string) string {
	if s.cfg.PublicURL != "" {
		return strings.TrimSuffix(s.cfg.PublicURL, "/")
	}
	return "http://" + host
}

func (s *Server) deviceCode(ctx context.Context, in *bodyOf[cloudapi.DeviceCodeRequest]) (out cloudapi.DeviceCode, err error) {
	hc := requestOf(ctx)
	address := s.address(hc.RemoteAddr(), hc.Header("X-Forwarded-For"))
	if err := s.take(ctx, limitDevice(), address); err != nil {
		return out, err
	}
	scopes := strings.Fields(in.Body.Scope)
	for _, v := range scopes {
		if !store.ValidScope(v) {
			return out, &apiError{http.StatusBadRequest, cloudapi.DeviceError{Error: "invalid_scope", Description: "unknown scope " + v}}
		}
	}
	if len(scopes) == 0 {
		return out, &apiError{http.StatusBadRequest, cloudapi.DeviceError{Error: "invalid_scope", Description: "no scope"}}
	}
	token, hash := newToken("")
	for range 3 { // a code that is in use is rare
		out.UserCode = newUserCode()
		code, _ := codeHash(out.UserCode)
		err = s.store.AddDevice(ctx, hash, code, store.Device{Client: in.Body.ClientID, Scopes: strings.Join(scopes, " "), Address: address,
			Interval: deviceInterval, ExpiresAt: s.now().Add(deviceTTL)})
		if !errors.Is(err, store.ErrTaken) {
			break
		}
	}
	out.DeviceCode, out.ExpiresIn, out.Interval = token, int(deviceTTL/time.Second), int(deviceInterval/time.Second)
	out.VerificationURI = s.publicURL(hc.Host()) + "/device"
	out.VerificationURIComplete = out.VerificationURI + "?" + url.Values{"user_code": {out.UserCode}}.Encode()
	return out, err
}

func deviceRefusal(word, why string) error {
	return &apiError{http.StatusBadRequest, cloudapi.DeviceError{Error: word, Description: why}}
}

func (s *Server) deviceToken(ctx context.Context, in *bodyOf[cloudapi.DeviceTokenRequest]) (out cloudapi.DeviceToken, err error) {
	draft := store.AuditOf(ctx)
	draft.Quiet = true // until there is a key
	if in.Body.GrantType != deviceGrant {
		return out, deviceRefusal("unsupported_grant_type", "want "+deviceGrant)
	}
	var refusal error
	err = s.store.Poll(ctx, sha256.Sum256([]byte(in.Body.DeviceCode)), func(d *store.Device) (*store.Key, error) {
		if refusal = s.devicePending(d); refusal != nil {
			return nil, nil //nolint:nilerr // the poll is stored first, the refusal answered after it
		}
		key, k := makeKey("device login: " + d.Client)
		k.Scopes, k.ExpiresAt = d.Scopes, s.now().Add(deviceKeyTTL)
		out = cloudapi.DeviceToken{AccessToken: key, TokenType: "bearer", ExpiresIn: int(deviceKeyTTL / time.Second), Scope: d.Scopes}
		d.State = store.DeviceTaken
		draft.Quiet, draft.Chain, draft.Entry.User = false, d.WorkspaceID, userID(d.UserID)
		return &k, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return out, deviceRefusal("expired_token", "this login is unknown or too old: begin again")
	}
	if err == nil && refusal != nil {
		return out, refusal
	}
	return out, err
}

// devicePending is why a poll gets no key; it notes the poll.
func (s *Server) devicePending(d *store.Device) error {
	now := s.now()
	early := !d.PolledAt.IsZero() && now.Sub(d.PolledAt) < d.Interval-time.Second // a second for the network
	d.PolledAt = now
	switch {
	case d.State == store.DeviceDenied:
		return deviceRefusal("access_denied", "the login was denied")
	case d.State == store.DeviceTaken || !d.ExpiresAt.After(now):
		return deviceRefusal("expired_token", "this login is unknown or too old: begin again")
	case early:
		d.Interval += deviceInterval
		return deviceRefusal("slow_down", fmt.Sprintf("wait %d seconds between polls", int(d.Interval/time.Second)))
	case d.State != store.DeviceApproved:
		return deviceRefusal("authorization_pending", "waiting for the approval")
	}
	return nil
}

func (s *Server) deviceAuthorize(ctx context.Context, in *bodyOf[cloudapi.DeviceAuthorize]) (none, error) {
	p := who(ctx)
	if w := in.Body.WorkspaceSlug; w != nil && *w != p.WorkspaceSlug {
		return none{}, text(http.StatusNotFound, noWorkspace)
	}
	d, err := s.waitingDevice(ctx, p, in.Body.UserCode)
	if err != nil {
		return none{}, err
	}
	code := ""
	if in.Body.TOTPCode != nil {
		code = *in.Body.TOTPCode
	}
	return none{}, s.decide(ctx, p, d, !in.Body.Deny, code)
}

// waitingDevice finds what a code is for. Wrong codes are counted.
func (s *Server) waitingDevice(ctx context.Context, p store.Principal, code string) (store.Device, error) {
	subject := userID(p.UserID)
	if err := s.take(ctx, limitCode(), subject); err != nil {
		return store.Device{}, err
	}
	hash, ok := codeHash(code)
	if !ok {
		return store.Device{}, text(http.StatusNotFound, noCode)
	}
	d, err := s.store.DeviceByCode(ctx, hash)
	if err != nil {
		return d, named(err, noCode)
	}
	s.forgive(ctx, limitCode(), subject)
	return d, nil
}

const noCode = "this code is unknown or too old: begin the login again"

// decide approves or denies a device. Approving gives out a key: the second factor, if
// there is one, is proved now or was just now, and the key may do no more than its
// approver.
func (s *Server) decide(ctx context.Context, p store.Principal, d store.Device, approve bool, code string) error {
	if approve {
		for v := range strings.FieldsSeq(d.Scopes) {
			if !covers(p.Scopes, v) {
				return text(http.StatusForbidden, "your own key lacks the scope "+v)
			}
		}
		if p.TOTP && !s.fresh(p) {
			if code == "" {
				return stale()
			}
			u, err := s.store.User(ctx, p.UserID)
			if err != nil {
				return err
			}
			if err := s.checkFactor(ctx, u, code); err != nil {
				return err
			}
		}
	}
	return named(s.store.Decide(ctx, d.ID, p, approve), noCode)
}
