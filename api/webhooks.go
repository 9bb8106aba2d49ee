package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
	"github.com/confidential-cloud/phala/api/store/sqlstore"
	"github.com/confidential-cloud/phala/cvm"
)

const (
	maxWebhooks   = 20
	maxDeliveries = 100
)

func (s *Server) webhookRoutes(api huma.API) {
	const list, one = "/workspace/webhooks", "/workspace/webhooks/{webhook_id}"
	secret := manages("webhooks")
	secret.stepUp = true
	register(s, api, op{method: "GET", path: list, summary: "The workspace's webhooks", access: reads("webhooks")}, s.webhooks)
	register(s, api, op{method: "POST", path: list, summary: "Add a webhook; its secret is shown once", status: 201, access: manages("webhooks")}, s.addWebhook)
	register(s, api, op{method: "GET", path: one, summary: "One webhook", access: reads("webhooks")}, s.webhook)
	register(s, api, op{method: "PUT", path: one, summary: "Change a webhook", access: manages("webhooks")}, s.changeWebhook)
	register(s, api, op{method: "DELETE", path: one, summary: "Remove a webhook", status: 204, access: manages("webhooks")}, s.removeWebhook)
	register(s, api, op{method: "POST", path: one + "/reveal-secret", summary: "Show the secret (second factor)", access: secret}, s.revealWebhook)
	register(s, api, op{method: "POST", path: one + "/rotate-secret", summary: "Make a new secret (second factor)", access: secret}, s.rotateWebhook)
	register(s, api, op{method: "POST", path: one + "/test", summary: "Send a test event now", access: manages("webhooks")}, s.testWebhook)
	register(s, api, op{method: "GET", path: one + "/deliveries", summary: "Deliveries, newest first", access: reads("webhooks")}, s.webhookDeliveries)
	register(s, api, op{method: "GET", path: one + "/stats", summary: "Finished deliveries, counted", access: reads("webhooks")}, s.webhookStats)
	register(s, api, op{method: "POST", path: one + "/deliveries/{event_id}/resend", summary: "Send an event again, as a new one", access: manages("webhooks")}, s.resendWebhook)
}

// WebhookRef is the webhook in a path (exported: huma sees no other embedded fields).
type WebhookRef struct {
	ID string `path:"webhook_id"`
}

func publicWebhook(h store.Webhook, secret string) cloudapi.Webhook {
	out := cloudapi.Webhook{ID: h.PublicID, URL: h.URL, Events: h.Events, Enabled: h.Enabled, CreatedAt: h.CreatedAt, UpdatedAt: h.UpdatedAt}
	if h.Name != "" {
		out.Name = &h.Name
	}
	if secret != "" {
		out.Secret = &secret
	}
	return out
}

func (s *Server) webhooks(ctx context.Context, _ *none) ([]cloudapi.Webhook, error) {
	hooks, err := s.store.WebhooksOf(ctx, who(ctx).WorkspaceID)
	out := make([]cloudapi.Webhook, 0, len(hooks))
	for _, h := range hooks {
		out = append(out, publicWebhook(h, ""))
	}
	return out, err
}

// hook is the caller's webhook; somebody else's is missing.
func (s *Server) hook(ctx context.Context, id string) (store.Webhook, error) {
	h, err := s.store.Webhook(ctx, who(ctx).WorkspaceID, id)
	if errors.Is(err, store.ErrNotFound) {
		return h, fail(http.StatusNotFound, "", cvm.NotFound, "webhook-not-found", "webhook not found")
	}
	return h, err
}

// checkHook says what is wrong with a webhook's URL and events.
func (s *Server) checkHook(p *problems, address string, events []string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(address) > 2048:
		p.add("url", "value_error", "want an https URL without a name or password in it, at most 2048 bytes", "")
	case u.Scheme != "https" && (u.Scheme != "http" || !s.cfg.WebhooksAnywhere):
		p.add("url", "value_error", "webhooks are sent over https only", "")
	}
	if len(events) == 0 {
		p.add("events", "value_error", "name at least one event", "one of "+strings.Join(store.HookEvents(), ", "))
	}
	for _, e := range events {
		if !slices.Contains(store.HookEvents(), e) {
			p.add("events", "value_error", fmt.Sprintf("%.64q is no event", e), "one of "+strings.Join(store.HookEvents(), ", "))
		}
	}
}

func newHookSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return "whsec_" + base64.RawURLEncoding.EncodeToString(b)
}

// sealHook is what the database holds of a secret.
func (s *Server) sealHook(publicID, secret string) []byte {
	return s.sealer.seal("webhook "+publicID, 0, []byte(secret))
}

func (s *Server) hookSecret(h store.Webhook) (string, error) {
	b, err := s.sealer.open("webhook "+h.PublicID, 0, h.Secret)
	return string(b), err
}

func (s *Server) addWebhook(ctx context.Context, in *struct{ Body cloudapi.WebhookRequest }) (out cloudapi.Webhook, err error) {
	var p problems
	s.checkHook(&p, in.Body.URL, in.Body.Events)
	secret := newHookSecret()
	if in.Body.Secret != nil {
		if secret = *in.Body.Secret; len(secret) < 16 || len(secret) > 256 || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
			p.add("secret", "value_error", "want 16 to 256 visible ASCII characters", "leave it out: one is made")
		}
	}
	name := ""
	if in.Body.Name != nil {
		name = *in.Body.Name
	}
	if err := p.err(); err != nil {
		return out, err
	}
	all, err := s.store.WebhooksOf(ctx, who(ctx).WorkspaceID)
	if err != nil {
		return out, err
	}
	if len(all) >= maxWebhooks {
		return out, fail(http.StatusConflict, "", cvm.Exhausted, "too-many-webhooks", fmt.Sprintf("a workspace has at most %d webhooks", maxWebhooks), "remove one that is not used")
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	h := store.Webhook{PublicID: "wh_" + hex.EncodeToString(id), WorkspaceID: who(ctx).WorkspaceID, URL: in.Body.URL, Name: name,
		Events: slices.Compact(slices.Sorted(slices.Values(in.Body.Events))), Enabled: true}
	h.Secret = s.sealHook(h.PublicID, secret)
	if h, err = s.store.AddWebhook(ctx, h); err != nil {
		return out, err
	}
	return publicWebhook(h, secret), nil
}

func (s *Server) webhook(ctx context.Context, in *WebhookRef) (cloudapi.Webhook, error) {
	h, err := s.hook(ctx, in.ID)
	return publicWebhook(h, ""), err
}

func (s *Server) changeWebhook(ctx context.Context, in *struct {
	WebhookRef
	Body cloudapi.WebhookUpdate
}) (out cloudapi.Webhook, err error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return out, err
	}
	if in.Body.URL != nil {
		h.URL = *in.Body.URL
	}
	if in.Body.Events != nil {
		h.Events = slices.Compact(slices.Sorted(slices.Values(*in.Body.Events)))
	}
	if in.Body.Name != nil {
		h.Name = *in.Body.Name
	}
	if in.Body.Enabled != nil {
		h.Enabled = *in.Body.Enabled
	}
	var p problems
	s.checkHook(&p, h.URL, h.Events)
	if err := p.err(); err != nil {
		return out, err
	}
	h, err = s.store.SaveWebhook(ctx, h)
	return publicWebhook(h, ""), err
}

func (s *Server) removeWebhook(ctx context.Context, in *WebhookRef) (none, error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return none{}, err
	}
	return none{}, s.store.DeleteWebhook(ctx, h.ID)
}

func (s *Server) revealWebhook(ctx context.Context, in *WebhookRef) (out cloudapi.Webhook, err error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return out, err
	}
	secret, err := s.hookSecret(h)
	return publicWebhook(h, secret), err
}

func (s *Server) rotateWebhook(ctx context.Context, in *WebhookRef) (out cloudapi.Webhook, err error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return out, err
	}
	secret := newHookSecret()
	h.Secret = s.sealHook(h.PublicID, secret)
	h, err = s.store.SaveWebhook(ctx, h)
	return publicWebhook(h, secret), err
}

func publicDelivery(v store.Delivery) cloudapi.WebhookDelivery {
	out := cloudapi.WebhookDelivery{SnowflakeID: v.ID, EventID: v.EventID, EventType: v.Event, Status: v.Status, Attempts: v.Attempts, RequestURL: v.URL,
		ResponseStatus: v.Response, ErrorMessage: v.Error, DurationMS: v.Duration.Milliseconds(), CreatedAt: v.CreatedAt, OriginalEventID: v.Original}
	if !v.Delivered.IsZero() {
		out.DeliveredAt = &v.Delivered
	}
	return out
}

func (s *Server) webhookDeliveries(ctx context.Context, in *struct {
	WebhookRef
	Limit  int `query:"limit" default:"50" minimum:"1" maximum:"100"`
	Offset int `query:"offset" default:"0" minimum:"0" maximum:"1000000"`
}) ([]cloudapi.WebhookDelivery, error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	list, err := s.store.Deliveries(ctx, h.ID, min(in.Limit, maxDeliveries), in.Offset)
	out := make([]cloudapi.WebhookDelivery, 0, len(list))
	for _, v := range list {
		out = append(out, publicDelivery(v))
	}
	return out, err
}

func (s *Server) webhookStats(ctx context.Context, in *WebhookRef) (out cloudapi.WebhookStats, err error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return out, err
	}
	v, err := s.store.WebhookStats(ctx, h.ID)
	out = cloudapi.WebhookStats{Total: v.Total, SuccessCount: v.Success, FailedCount: v.Failed, AvgDurationMS: v.Average.Milliseconds(), MaxDurationMS: v.Longest.Milliseconds()}
	if v.Total > 0 {
		out.SuccessRate = float64(v.Success) / float64(v.Total)
	}
	if !v.Last.IsZero() {
		out.LastDeliveryAt = &v.Last
	}
	return out, err
}

// testWebhook sends one event to the webhook as it is, and says how that went.
func (s *Server) testWebhook(ctx context.Context, in *WebhookRef) (out cloudapi.WebhookDelivery, err error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return out, err
	}
	v := store.Delivery{WebhookID: h.ID, EventID: sqlstore.NewEventID(), Event: store.HookTest, URL: h.URL}
	p := who(ctx)
	v.Body, err = json.Marshal(cloudapi.HookEvent{ID: v.EventID, Event: v.Event, Version: "1", CreatedAt: s.now().UTC(),
		Workspace: cloudapi.HookWorkspace{ID: p.WorkspaceSlug, Name: p.WorkspaceName}, Data: map[string]string{"message": "this is a test"}})
	if err != nil {
		return out, err
	}
	return s.sendNow(ctx, h, v)
}

// resendWebhook sends an event again under a new id.
func (s *Server) resendWebhook(ctx context.Context, in *struct {
	WebhookRef
	Event string `path:"event_id"`
}) (out cloudapi.WebhookDelivery, err error) {
	h, err := s.hook(ctx, in.ID)
	if err != nil {
		return out, err
	}
	old, err := s.store.Delivery(ctx, h.ID, in.Event)
	if errors.Is(err, store.ErrNotFound) {
		return out, fail(http.StatusNotFound, "", cvm.NotFound, "event-not-found", "this webhook has no such event")
	}
	if err != nil {
		return out, err
	}
	var e map[string]json.RawMessage
	if err := json.Unmarshal(old.Body, &e); err != nil {
		return out, err
	}
	v := store.Delivery{WebhookID: h.ID, EventID: sqlstore.NewEventID(), Event: old.Event, Original: old.EventID, URL: h.URL}
	e["id"], _ = json.Marshal(v.EventID) // a string
	if v.Body, err = json.Marshal(e); err != nil {
		return out, err
	}
	return s.sendNow(ctx, h, v)
}
