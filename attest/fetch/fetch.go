// Package fetch gets vendor collateral from PCS-shaped services (Intel PCS v4, a
// PCCS, or attest/simtee) and keeps it in a bounded cache. The verify path never
// touches the network: callers fetch, then verify. What is fetched is not trusted.
package fetch

import (
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/attest/tdx"
	"github.com/confidential-cloud/phala/cvm"
)

// IntelPCS is the vendor's own service.
const IntelPCS = "https://api.trustedservices.intel.com"

// intelRootCRL is where Intel's own service keeps the root's list (DER); PCCS-shaped services
// serve it as hex at /sgx/certification/v4/rootcacrl.
const intelRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

// Config of a Client.
type Config struct {
	URLs    []string         // base URLs of PCS or PCCS services, tried in order
	Timeout time.Duration    // of all requests to one URL; 0: 10 s
	MaxAge  time.Duration    // how long fetched collateral is served from the cache; 0: 1 h
	Entries int              // cached processor models; 0: 64
	HTTP    *http.Client     // nil: a client of its own
	Clock   func() time.Time // nil: time.Now
	Log     *slog.Logger     // nil: discarded
}

// Client fetches collateral. It is safe for concurrent use; concurrent calls for
// one processor model share one fetch.
type Client struct {
	cfg    Config
	flight singleflight.Group

	mu    sync.Mutex
	byKey map[string]*list.Element // of *entry
	order *list.List               // most recently used first
}

type entry struct {
	key   string
	set   collateral.Set
	until time.Time
}

// New checks the config.
func New(cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 {
		return nil, cvm.Errorf(cvm.Invalid, "collateral: no service URL").WithFix("name a PCS or PCCS, for example " + IntelPCS)
	}
	urls := make([]string, 0, len(cfg.URLs))
	for _, s := range cfg.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, cvm.Errorf(cvm.Invalid, "collateral: %q is not a base URL (http or https, no user, no query)", s)
		}
		urls = append(urls, strings.TrimRight(s, "/"))
	}
	cfg.URLs = urls
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = time.Hour
	}
	if cfg.Entries == 0 {
		cfg.Entries = 64
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{}
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, byKey: map[string]*list.Element{}, order: list.New()}, nil
}

// Get returns the collateral for a quote's platform, from the cache or the
// network. Errors: invalid for a quote that cannot be read, unavailable with
// reason "collateral-unavailable" when no URL answers.
func (c *Client) Get(ctx context.Context, quote []byte) (collateral.Set, error) {
	fmspc, ca, err := tdx.FMSPC(quote)
	if err != nil {
		return collateral.Set{}, err
	}
	key := hex.EncodeToString(fmspc[:]) + "/" + ca
	if s, ok := c.cached(key); ok {
		return s, nil
	}
	// The shared fetch must not die with the first caller.
	ch := c.flight.DoChan(key, func() (any, error) {
		s, err := c.fetch(context.WithoutCancel(ctx), hex.EncodeToString(fmspc[:]), ca)
		if err == nil {
			c.store(key, s)
		}
		return s, err
	})
	select {
	case r := <-ch:
		s, _ := r.Val.(collateral.Set)
		return s, r.Err
	case <-ctx.Done():
		return collateral.Set{}, cvm.Errorf(cvm.Unavailable, "collateral: %w", ctx.Err()).WithReason("collateral-unavailable")
	}
}

// Forget drops the cache: the next Get asks the network.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey, c.order = map[string]*list.Element{}, list.New()
}

func (c *Client) cached(key string) (collateral.Set, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.byKey[key]
	if el == nil {
		return collateral.Set{}, false
	}
	e, _ := el.Value.(*entry)
	if !c.cfg.Clock().Before(e.until) {
		c.order.Remove(el)
		delete(c.byKey, key)
		return collateral.Set{}, false
	}
	c.order.MoveToFront(el)
	return e.set, true
}

// store keeps a set until MaxAge or the end of its shortest validity.
func (c *Client) store(key string, s collateral.Set) {
	until := c.cfg.Clock().Add(c.cfg.MaxAge)
	if t, err := collateral.Expires(s); err == nil && t.Before(until) {
		until = t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.byKey[key]; el != nil {
		c.order.Remove(el)
	}
	c.byKey[key] = c.order.PushFront(&entry{key, s, until})
	for c.order.Len() > c.cfg.Entries {
		last := c.order.Back()
		e, _ := last.Value.(*entry)
		delete(c.byKey, e.key)
		c.order.Remove(last)
	}
}

// fetch tries the URLs in order.
func (c *Client) fetch(ctx context.Context, fmspc, ca string) (collateral.Set, error) {
	var errs []error
	for _, base := range c.cfg.URLs {
		one, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		s, err := c.from(one, base, fmspc, ca)
		cancel()
		if err == nil {
			return s, nil
		}
		c.cfg.Log.Warn("collateral service failed", "url", base, "fmspc", fmspc, "error", err)
		errs = append(errs, fmt.Errorf("%s: %w", base, err))
	}
	return collateral.Set{}, cvm.Errorf(cvm.Unavailable, "no collateral for processor model %s: %w", fmspc, errors.Join(errs...)).
		WithReason("collateral-unavailable").WithFix("check that the collateral service (PCS or PCCS) can be reached")
}

func (c *Client) from(ctx context.Context, base, fmspc, ca string) (s collateral.Set, err error) {
	// Intel prints FMSPC in upper case and some caches compare it as text.
	fmspc = strings.ToUpper(fmspc)
	if s.TCBInfo, s.TCBInfoIssuerChain, err = c.get(ctx, base+"/tdx/certification/v4/tcb?fmspc="+fmspc, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"); err != nil {
		return s, err
	}
	if s.QEIdentity, s.QEIdentityIssuerChain, err = c.get(ctx, base+"/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain"); err != nil {
		return s, err
	}
	if s.PCKCRL, s.PCKCRLIssuerChain, err = c.get(ctx, base+"/sgx/certification/v4/pckcrl?ca="+ca+"&encoding=der", "SGX-PCK-CRL-Issuer-Chain"); err != nil {
		return s, err
	}
	rootURL := base + "/sgx/certification/v4/rootcacrl"
	if base == IntelPCS {
		rootURL = intelRootCRL
	}
	if s.RootCRL, _, err = c.get(ctx, rootURL); err != nil {
		return s, err
	}
	s.PCKCRL, s.RootCRL = der(s.PCKCRL), der(s.RootCRL)
	_, err = collateral.Expires(s) // refuses what cannot be read, so that the next URL is tried
	return s, err
}

// der undoes the hex that PCCS services use for lists.
func der(b []byte) []byte {
	if v, err := hex.DecodeString(strings.TrimSpace(string(b))); err == nil {
		return v
	}
	return b
}

// get reads one bounded answer; the first of headers that is set holds the
// percent-encoded issuer chain.
func (c *Client) get(ctx context.Context, u string, headers ...string) (body, chain []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, nil, err
	}
	res, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("GET %s: %s", u, res.Status)
	}
	if body, err = io.ReadAll(io.LimitReader(res.Body, collateral.MaxBody+1)); err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", u, err)
	}
	if len(body) > collateral.MaxBody {
		return nil, nil, fmt.Errorf("GET %s: answer over %d bytes", u, collateral.MaxBody)
	}
	for _, h := range headers {
		if v := res.Header.Get(h); v != "" {
			s, err := url.PathUnescape(v)
			if err != nil {
				return nil, nil, fmt.Errorf("GET %s: header %s: %w", u, h, err)
			}
			return body, []byte(s), nil
		}
	}
	if len(headers) > 0 {
		return nil, nil, fmt.Errorf("GET %s: no header %s", u, headers[0])
	}
	return body, nil, nil
}
