package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/cvm"
	"github.com/confidential-cloud/phala/gateway/gatewayapi"
	"github.com/confidential-cloud/phala/verify"
)

// How long a running app may take until its URL answers, and how often to look.
const (
	urlTimeout = 2 * time.Minute
	urlPoll    = 500 * time.Millisecond
)

// gatewayClient is an HTTP client for apps. Names under the gateway's domain are
// dialled at the pinned address (Go does not resolve *.localhost everywhere); the
// name still goes into SNI and is checked against the certificate.
func (a *app) gatewayClient(s *session, t *verify.Profile) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	ca, err := s.caPEM(t)
	if err != nil {
		return nil, err
	}
	if ca != "" && !roots.AppendCertsFromPEM([]byte(ca)) {
		return nil, cvm.Errorf(cvm.Invalid, "the gateway's CA file holds no certificate")
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	return &http.Client{Timeout: 15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, _, err := net.SplitHostPort(addr)
				if err == nil && t.Gateway.Address != "" && strings.HasSuffix(host, "."+t.Gateway.Domain) {
					addr = t.Gateway.Address
				}
				return d.DialContext(ctx, network, addr)
			},
		}}, nil
}

// waitURL returns when the app answers through the gateway.
func (a *app) waitURL(ctx context.Context, j *job, t *verify.Profile, target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "https" {
		return nil // nothing that could be asked safely
	}
	c, err := a.gatewayClient(j.s, t)
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	j.steps.start("waiting for %s", target)
	ctx, cancel := context.WithTimeout(ctx, urlTimeout)
	defer cancel()
	tick := time.NewTicker(urlPoll)
	defer tick.Stop()
	for {
		last := answers(ctx, c, target)
		if last == nil {
			j.steps.ok(target + " answers")
			return nil
		}
		j.steps.news("%v", last)
		select {
		case <-ctx.Done():
			return cvm.Errorf(cvm.Unavailable, "%s runs, but %s does not answer: %v", j.name, target, last).
				WithReason("url-does-not-answer").WithFix("phala logs --cvm-id " + j.name + " shows what the app says; phala ps whether it listens")
		case <-tick.C:
		}
	}
}

// answers asks once. What is not HTTP answers too: the app may speak anything.
func answers(ctx context.Context, c *http.Client, target string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	res, err := c.Do(r)
	if err != nil {
		if strings.Contains(err.Error(), "malformed HTTP") {
			return nil
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return err
	}
	defer res.Body.Close()
	if why := res.Header.Get(gatewayapi.HeaderReason); why != "" {
		return fmt.Errorf("the gateway says %s (%s)", res.Status, why)
	}
	return nil
}
