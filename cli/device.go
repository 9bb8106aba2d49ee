package cli

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/cvm"
)

// deviceCode is the answer of POST /auth/device/code.
type deviceCode struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"`
	ExpiresIn               int    `json:"expires_in"`
	Interval                int    `json:"interval"`
}

// slowDown is what RFC 8628 adds to the interval when the server asks for patience.
const slowDown = 5 * time.Second

// deviceLogin has a person approve this login in a browser, and returns the API key.
func (a *app) deviceLogin(ctx context.Context, prefix string, open bool) (string, error) {
	api, err := newClient(prefix, "")
	if err != nil {
		return "", err
	}
	var code deviceCode
	err = api.Do(ctx, "POST", "/auth/device/code", map[string]any{"client_id": "phala-cli", "scope": "user:profile cvms:* nodes:*"}, &code)
	if err != nil {
		return "", a.loginError(prefix, err)
	}
	if code.DeviceCode == "" || code.ExpiresIn <= 0 {
		return "", cvm.Errorf(cvm.Unavailable, "%s did not answer with a device code", prefix)
	}
	page := first(code.VerificationURIComplete, code.VerificationURI)
	a.say("Open %s\nand check that it shows the code %s", page, code.UserCode)
	if open && a.TTY {
		a.openBrowser(page)
	}
	st := a.steps()
	st.start("waiting for the approval")
	key, err := a.pollDevice(ctx, api, code)
	if err != nil {
		st.fail()
		return "", err
	}
	st.ok("approved")
	return key, nil
}

// pollDevice asks for the key until it is given, refused, or the code is too old.
func (a *app) pollDevice(ctx context.Context, api *cloudapi.Client, code deviceCode) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(code.ExpiresIn)*time.Second)
	defer cancel()
	wait := time.Duration(max(code.Interval, 1)) * time.Second
	for {
		select {
		case <-ctx.Done():
			return "", cvm.Errorf(cvm.Unauthenticated, "nobody approved the login in time").WithFix("phala login, once more")
		case <-time.After(wait):
		}
		var token struct {
			AccessToken string `json:"access_token"`
		}
		err := api.Do(ctx, "POST", "/auth/device/token", map[string]any{"device_code": code.DeviceCode,
			"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}, &token)
		if err == nil && token.AccessToken != "" {
			return token.AccessToken, nil
		}
		var refused *cloudapi.APIError
		if err == nil || !errors.As(err, &refused) {
			if cvm.CodeOf(err) == cvm.Unavailable && ctx.Err() == nil {
				continue // the network comes and goes
			}
			if ctx.Err() != nil {
				continue // said above
			}
			return "", cvm.Errorf(cvm.Unavailable, "the cloud's answer holds no key")
		}
		switch refused.OAuth {
		case "authorization_pending":
		case "slow_down":
			wait += slowDown
		case "access_denied":
			return "", cvm.Errorf(cvm.Denied, "the login was refused in the browser")
		case "expired_token":
			return "", cvm.Errorf(cvm.Unauthenticated, "the code is too old").WithFix("phala login, once more")
		default:
			return "", err
		}
	}
}

// openBrowser tries to; the address is on the screen anyway.
func (a *app) openBrowser(page string) {
	if !strings.HasPrefix(page, "https://") && !strings.HasPrefix(page, "http://") {
		return // an opener would start other programs for other schemes
	}
	name := map[string]string{"darwin": "open", "linux": "xdg-open"}[runtime.GOOS]
	if name == "" || a.Getenv("DISPLAY")+a.Getenv("WAYLAND_DISPLAY") == "" && runtime.GOOS == "linux" {
		return
	}
	if err := a.RunTool(name, page); err != nil {
		a.say("no browser could be started")
	}
}
