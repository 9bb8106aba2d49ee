package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

const (
	hookTimeout = 10 * time.Second
	hookLease   = 30 * time.Second // longer than an attempt: a process that died gives it back
	hookLook    = time.Second
	hookAtOnce  = 64
	hookAgent   = "PhalaCloud-Webhook/1.0"
	hookKept    = 30 * 24 * time.Hour
)

// hookRetries are the pauses after a failed attempt; then it is given up.
func hookRetries() []time.Duration {
	return []time.Duration{time.Minute, 10 * time.Minute, time.Hour}
}

// deliver sends what is due until ctx ends. A delivery's row is its job: it is claimed
// for a while, so that another process goes on with what this one leaves.
func (s *Server) deliver(ctx context.Context) error {
	client := s.hookClient()
	// One receiver that takes its time holds up nobody else's.
	slots := make(chan struct{}, hookAtOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	look := time.NewTicker(hookLook)
	defer look.Stop()
	prune := time.NewTicker(time.Hour)
	defer prune.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-prune.C:
			if err := s.store.PruneDeliveries(ctx, s.now().Add(-hookKept)); err != nil {
				s.log.Warn("forgetting old webhook deliveries", "err", err)
			}
		case <-look.C:
			due, err := s.store.ClaimDeliveries(ctx, hookLease, hookAtOnce-len(slots))
			if err != nil && ctx.Err() == nil {
				s.log.Error("webhook deliveries", "err", err)
			}
			for _, v := range due {
				slots <- struct{}{} // there is room: as many were claimed
				wg.Go(func() {
					defer func() { <-slots }()
					if err := s.attempt(ctx, client, v); err != nil && ctx.Err() == nil {
						s.log.Error("webhook delivery", "event", v.EventID, "err", err)
					}
				})
			}
		}
	}
}

// sendNow stores a delivery and makes its first attempt while the caller waits.
func (s *Server) sendNow(ctx context.Context, h store.Webhook, v store.Delivery) (out cloudapi.WebhookDelivery, err error) {
	v.Attempts, v.NextAt = 1, s.now().Add(hookLease) // nobody else takes it meanwhile
	if v, err = s.store.AddDelivery(ctx, v); err != nil {
		return out, err
	}
	v, err = s.attemptTo(ctx, s.hookClient(), h, v)
	return publicDelivery(v), err
}

// attempt sends a claimed delivery and stores what came of it.
func (s *Server) attempt(ctx context.Context, client *http.Client, v store.Delivery) error {
	h, err := s.store.WebhookByID(ctx, v.WebhookID)
	if errors.Is(err, store.ErrNotFound) {
		return nil // removed meanwhile, with its deliveries
	}
	if err != nil {
		return err
	}
	_, err = s.attemptTo(ctx, client, h, v)
	return err
}

func (s *Server) attemptTo(ctx context.Context, client *http.Client, h store.Webhook, v store.Delivery) (store.Delivery, error) {
	begun := time.Now()
	status, err := s.post(ctx, client, h, v)
	if ctx.Err() != nil {
		return v, ctx.Err() // not the receiver's fault; it is claimed again
	}
	v.URL, v.Response, v.Duration, v.Delivered, v.Error = h.URL, status, time.Since(begun), s.now(), ""
	switch retries := hookRetries(); {
	case err == nil:
		v.Status = store.DeliverySuccess
	case v.Attempts <= len(retries) && h.Enabled:
		v.Error, v.NextAt = clip(err.Error(), 500), s.now().Add(retries[v.Attempts-1])
	default:
		v.Status, v.Error = store.DeliveryFailed, clip(err.Error(), 500)
	}
	return v, s.store.FinishDelivery(store.WithAudit(ctx, nil), v)
}

// post is one request. What the receiver answers is not kept but for its status.
func (s *Server) post(ctx context.Context, client *http.Client, h store.Webhook, v store.Delivery) (int, error) {
	secret, err := s.hookSecret(h)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(v.Body))
	if err != nil {
		return 0, err
	}
	stamp := strconv.FormatInt(s.now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(v.Body)
	for k, val := range map[string]string{
		"Content-Type": "application/json", "User-Agent": hookAgent, "X-Webhook-Id": v.EventID, "X-Webhook-Event": v.Event,
		"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
	} {
		r.Header.Set(k, val)
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return res.StatusCode, fmt.Errorf("the receiver answered %d", res.StatusCode)
	}
	return res.StatusCode, nil
}

// hookClient reaches public addresses only, whatever a name resolves to at the time,
// and follows nobody elsewhere.
func (s *Server) hookClient() *http.Client {
	d := &net.Dialer{Timeout: hookTimeout}
	if !s.cfg.WebhooksAnywhere {
		d.Control = func(_, address string, _ syscall.RawConn) error { return publicAddress(address) }
	}
	return &http.Client{
		Timeout:       hookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: d.DialContext, TLSHandshakeTimeout: hookTimeout, MaxResponseHeaderBytes: 32 << 10, DisableKeepAlives: true},
	}
}

// publicAddress refuses addresses that are not of the public Internet (IANA's special
// purpose registries), also when they hide in an IPv6 address.
func publicAddress(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("webhook address %q", address)
	}
	ip := ap.Addr().Unmap().WithZone("")
	bad := !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
	for _, p := range specialNetworks() {
		bad = bad || p.Contains(ip)
	}
	if bad {
		return errors.New("the webhook's host has an address that is not public")
	}
	return nil
}

func specialNetworks() (out []netip.Prefix) {
	for _, p := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
