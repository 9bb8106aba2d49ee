package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

func (x *suite) webhook(t *testing.T, p store.Principal, id string, events ...string) store.Webhook {
	t.Helper()
	return must[store.Webhook](t)(x.s.AddWebhook(t.Context(), store.Webhook{PublicID: id, WorkspaceID: p.WorkspaceID, URL: "https://h/" + id, Events: events, Enabled: true, Secret: []byte{1, 0}}))
}

func webhooks(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	b := must[store.Principal](t)(x.s.AddWorkspace(ctx, "b", "b", "", "user"))
	h := x.webhook(t, a, "wh_1", store.HookStarted, store.HookDeleted)
	if _, err := x.s.Webhook(ctx, b.WorkspaceID, "wh_1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("somebody else's webhook: %v", err)
	}
	x.clock.Add(time.Minute)
	h.Enabled, h.Name, h.Secret = false, "n", []byte{2}
	must[store.Webhook](t)(x.s.SaveWebhook(ctx, h))
	got := must[store.Webhook](t)(x.s.Webhook(ctx, a.WorkspaceID, "wh_1"))
	if got.Enabled || got.Name != "n" || !slices.Equal(got.Secret, []byte{2}) || len(got.Events) != 2 || got.UpdatedAt.Sub(got.CreatedAt) != time.Minute {
		t.Errorf("%+v", got)
	}
	d := must[store.Delivery](t)(x.s.AddDelivery(ctx, store.Delivery{WebhookID: h.ID, EventID: "evt_1", Event: store.HookTest, URL: h.URL, Body: []byte("{}")}))
	first := must[[]store.Delivery](t)(x.s.ClaimDeliveries(ctx, time.Minute, 10))
	if len(first) != 1 || first[0].ID != d.ID || first[0].Attempts != 1 || string(first[0].Body) != "{}" {
		t.Fatalf("claimed %+v", first)
	}
	if again := must[[]store.Delivery](t)(x.s.ClaimDeliveries(ctx, time.Minute, 10)); len(again) != 0 {
		t.Errorf("claimed twice: %+v", again)
	}
	x.clock.Add(time.Minute) // who claimed it has died
	if again := must[[]store.Delivery](t)(x.s.ClaimDeliveries(ctx, time.Minute, 10)); len(again) != 1 || again[0].Attempts != 2 {
		t.Errorf("not given back: %+v", again)
	}
	d.Status, d.Response, d.Duration, d.Delivered = store.DeliverySuccess, 204, 30*time.Millisecond, x.clock.Now()
	if err := x.s.FinishDelivery(ctx, d); err != nil {
		t.Fatal(err)
	}
	s := must[store.HookStats](t)(x.s.WebhookStats(ctx, h.ID))
	if s.Total != 1 || s.Success != 1 || s.Average != 30*time.Millisecond || !s.Last.Equal(x.clock.Now()) {
		t.Errorf("%+v", s)
	}
	if err := x.s.PruneDeliveries(ctx, x.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if l := must[[]store.Delivery](t)(x.s.Deliveries(ctx, h.ID, 10, 0)); len(l) != 0 {
		t.Errorf("not forgotten: %+v", l)
	}
	if err := x.s.DeleteWebhook(ctx, h.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := x.s.WebhookByID(ctx, h.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

// hookEvents: what a change finishes is told with it, to who asked for it, once.
func hookEvents(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	b := must[store.Principal](t)(x.s.AddWorkspace(ctx, "b", "b", "", "user"))
	all := x.webhook(t, a, "wh_all", store.HookEvents()...)
	one := x.webhook(t, a, "wh_one", store.HookStopped)
	other := x.webhook(t, b, "wh_b", store.HookEvents()...)
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	finish := func(generation int, state string) error {
		_, err := x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
			if o := ch.Op(generation); o != nil {
				ch.Finish(o, state)
			}
			return nil
		})
		return err
	}
	for _, err := range []error{finish(1, store.Done), finish(1, store.Done)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	x.clock.Add(time.Second)
	for i, state := range []string{store.Done, store.Superseded, store.Failed} {
		must[store.CVM](t)(x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
			ch.Begin(store.Stop, store.OperationBody{By: "me"})
			return nil
		}))
		if err := finish(i+2, state); err != nil {
			t.Fatal(err)
		}
	}
	failed := errors.New("no")
	if _, err := x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
		ch.Begin(store.Deploy, store.OperationBody{By: "me"})
		return failed
	}); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if got := x.told(ctx, t, all); !slices.Equal(got, []string{store.HookCreated, store.HookStarted, store.HookStopped}) {
		t.Errorf("told %v", got)
	}
	if got := x.told(ctx, t, one); !slices.Equal(got, []string{store.HookStopped}) {
		t.Errorf("told %v", got)
	}
	if got := x.told(ctx, t, other); len(got) != 0 {
		t.Errorf("another workspace was told %v", got)
	}
}

// told lists a webhook's events, oldest first.
func (x *suite) told(ctx context.Context, t *testing.T, h store.Webhook) (out []string) {
	t.Helper()
	list := must[[]store.Delivery](t)(x.s.Deliveries(ctx, h.ID, 100, 0))
	slices.Reverse(list)
	for _, d := range list {
		var e cloudapi.HookEvent
		if err := json.Unmarshal(d.Body, &e); err != nil || e.ID != d.EventID || e.Event != d.Event || e.Version != "1" || e.Workspace.ID == "" {
			t.Errorf("body %s: %v", d.Body, err)
		}
		out = append(out, d.Event)
	}
	return out
}
