package api_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/cloudapi"
)

// receiver is somebody's webhook endpoint.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	got    []http.Header
	bodies [][]byte
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{status: 200}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got, r.bodies = append(r.got, q.Header), append(r.bodies, b)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(r.status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// events lists what arrived, and checks each signature.
func (r *receiver) events(t *testing.T, secret string) (out []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, h := range r.got {
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s.%s", h.Get("X-Webhook-Timestamp"), r.bodies[i])
		if h.Get("X-Webhook-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) || h.Get("User-Agent") != "PhalaCloud-Webhook/1.0" {
			t.Errorf("headers %v", h)
		}
		var e cloudapi.HookEvent
		if err := json.Unmarshal(r.bodies[i], &e); err != nil || e.ID != h.Get("X-Webhook-Id") || e.Event != h.Get("X-Webhook-Event") || e.Workspace.ID != "default" {
			t.Errorf("%s: %v", r.bodies[i], err)
		}
		out = append(out, e.Event)
	}
	return out
}

var everyEvent = []string{"cvm.created", "cvm.started", "cvm.create_failed", "cvm.restarted", "cvm.updated", "cvm.stopped", "cvm.deleted", "cvm.update.pending_approval",
	"billing.balance_low", "billing.balance_empty", "billing.suspended", "billing.resumed", "billing.abandoned"}

func anywhere(c *api.Config) { offChain(c); c.WebhooksAnywhere = true }

func TestWebhookEvents(t *testing.T) {
	w := newWorld(t, anywhere)
	r := newReceiver(t)
	h := call[cloudapi.Webhook](w, 201, "POST", "/workspace/webhooks", m{"url": r.URL, "events": everyEvent}, nil)
	if h.Secret == nil || !strings.HasPrefix(*h.Secret, "whsec_") || len(*h.Secret) != 49 {
		t.Fatalf("%+v", h)
	}
	vm := w.offChainApp("my-app", nil)
	for _, verb := range []string{"stop", "start", "restart"} {
		w.deed(*vm.VMUUID, verb)
	}
	if code, text := w.raw("DELETE", "/cvms/"+*vm.VMUUID, nil, nil); code != 204 {
		t.Fatal(code, text)
	}
	want := []string{"cvm.created", "cvm.started", "cvm.stopped", "cvm.started", "cvm.restarted", "cvm.deleted"}
	w.until("all events", func() bool { return r.count() >= len(want) })
	got := r.events(t, *h.Secret)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for _, path := range []string{"/workspace/webhooks", "/workspace/webhooks/" + h.ID, "/workspace/webhooks/" + h.ID + "/deliveries"} {
		if code, text := w.raw("GET", path, nil, nil); code != 200 || strings.Contains(text, *h.Secret) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if strings.Contains(w.logs.String(), *h.Secret) {
		t.Error("the secret is in the log")
	}
	var s cloudapi.WebhookStats
	w.until("the attempts have ended", func() bool { // the receiver knows before the sender
		s = call[cloudapi.WebhookStats](w, 200, "GET", "/workspace/webhooks/"+h.ID+"/stats", nil, nil)
		return s.Total >= len(want)
	})
	if s.Total != len(want) || s.SuccessRate != 1 || s.LastDeliveryAt == nil {
		t.Errorf("%+v", s)
	}
	list := call[[]cloudapi.WebhookDelivery](w, 200, "GET", "/workspace/webhooks/"+h.ID+"/deliveries?limit=2&offset=1", nil, nil)
	if len(list) != 2 || list[0].Status != "success" || list[0].ResponseStatus != 200 {
		t.Fatalf("%+v", list)
	}
	again := call[cloudapi.WebhookDelivery](w, 200, "POST", "/workspace/webhooks/"+h.ID+"/deliveries/"+list[0].EventID+"/resend", nil, nil)
	if again.OriginalEventID != list[0].EventID || again.EventID == list[0].EventID || again.Status != "success" || r.count() != len(want)+1 {
		t.Errorf("%+v", again)
	}
	r.events(t, *h.Secret)
	refused(w, 404, "no such event", "POST", "/workspace/webhooks/"+h.ID+"/deliveries/evt_0/resend", nil, nil)
}

// deed asks for one verb and waits until it is done.
func (w *world) deed(id, verb string) {
	w.t.Helper()
	after := w.lastSeq(id)
	if code, text := w.raw("POST", "/cvms/"+id+"/"+verb, nil, nil); code != 200 {
		w.t.Fatalf("%s: %d %s", verb, code, text)
	}
	w.wait(id, after)
}

func TestWebhookRetries(t *testing.T) {
	p := newPeople(t, anywhere)
	r := newReceiver(t)
	h := call[cloudapi.Webhook](p.world, 201, "POST", "/workspace/webhooks", m{"url": r.URL, "events": []string{"cvm.stopped"}, "secret": "a-secret-of-my-own"}, nil)
	path := "/workspace/webhooks/" + h.ID
	for _, status := range []int{500, 302, 404, 200} {
		r.answer(status)
		d := call[cloudapi.WebhookDelivery](p.world, 200, "POST", path+"/test", nil, nil)
		if good := status == 200; d.ResponseStatus != status || (d.Status == "success") != good || (d.ErrorMessage == "") != good {
			t.Errorf("%d: %+v", status, d)
		}
	}
	r.answer(503)
	before := r.count()
	d := call[cloudapi.WebhookDelivery](p.world, 200, "POST", path+"/test", nil, nil)
	attempts := func() (v cloudapi.WebhookDelivery) {
		for _, v := range call[[]cloudapi.WebhookDelivery](p.world, 200, "GET", path+"/deliveries", nil, nil) {
			if v.EventID == d.EventID {
				return v
			}
		}
		t.Fatal("the delivery is gone")
		return v
	}
	for i, pause := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour} {
		if v := attempts(); v.Attempts != i+1 || v.Status != "pending" {
			t.Fatalf("after %d: %+v", i, v)
		}
		p.clock.add(pause + time.Second)
		mark := p.clock.now().Add(-time.Second) // an attempt that is over was over after this
		p.until("another attempt", func() bool { v := attempts(); return v.Attempts == i+2 && v.DeliveredAt.After(mark) })
	}
	p.until("given up", func() bool { return attempts().Status == "failed" })
	p.clock.add(24 * time.Hour)
	if n := r.count() - before; n < 4 {
		t.Errorf("%d attempts arrived", n)
	}
	if v := attempts(); v.Attempts != 4 {
		t.Errorf("%+v", v)
	}
}

func TestWebhookRefusals(t *testing.T) {
	w := newWorld(t, offChain)
	for name, body := range map[string]m{
		"http":       {"url": "http://example.com/", "events": everyEvent},
		"no host":    {"url": "https:///x", "events": everyEvent},
		"password":   {"url": "https://a:b@example.com/", "events": everyEvent},
		"file":       {"url": "file:///etc/passwd", "events": everyEvent},
		"no event":   {"url": "https://example.com/", "events": []string{}},
		"an unknown": {"url": "https://example.com/", "events": []string{"cvm.exploded"}},
		"short":      {"url": "https://example.com/", "events": everyEvent, "secret": "short"},
	} {
		if code, text := w.raw("POST", "/workspace/webhooks", body, nil); code != 422 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	// The name resolves to this machine: the address is checked when it is dialled.
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	port := tls.URL[strings.LastIndex(tls.URL, ":"):]
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fd00::1]", "0.0.0.0"} {
		h := call[cloudapi.Webhook](w, 201, "POST", "/workspace/webhooks", m{"url": "https://" + host + port, "events": everyEvent}, nil)
		d := call[cloudapi.WebhookDelivery](w, 200, "POST", "/workspace/webhooks/"+h.ID+"/test", nil, nil)
		if d.Status != "pending" || !strings.Contains(d.ErrorMessage, "not public") {
			t.Errorf("%s: %+v", host, d)
		}
		if code, _ := w.raw("DELETE", "/workspace/webhooks/"+h.ID, nil, nil); code != 204 {
			t.Error(code)
		}
	}
	for range 20 {
		call[cloudapi.Webhook](w, 201, "POST", "/workspace/webhooks", m{"url": "https://example.com/", "events": everyEvent}, nil)
	}
	refused(w, 409, "at most 20", "POST", "/workspace/webhooks", m{"url": "https://example.com/", "events": everyEvent}, nil)
}

// TestWebhookSecret: only with a fresh second factor is a secret shown or replaced.
func TestWebhookSecret(t *testing.T) {
	p := newPeople(t, anywhere)
	b := p.admin()
	var h, shown, fresh cloudapi.Webhook
	b.call("POST", "/workspace/webhooks", m{"url": "http://127.0.0.1:1/", "events": everyEvent}, &h, 201)
	path := "/workspace/webhooks/" + h.ID
	b.call("POST", path+"/reveal-secret", nil, nil, 403)
	var setup cloudapi.FactorSetup
	b.call("POST", "/auth/2fa/setup", nil, &setup, 200)
	b.call("POST", "/auth/2fa/enable", m{"verification_code": code(t, setup.Secret, p.clock.now())}, nil, 200)
	b.call("POST", path+"/reveal-secret", nil, &shown, 200)
	b.call("POST", path+"/rotate-secret", nil, &fresh, 200)
	if *shown.Secret != *h.Secret || *fresh.Secret == *h.Secret {
		t.Error("the secret is not the one that was made, or was not replaced")
	}
	p.clock.add(11 * time.Minute)
	b.call("POST", path+"/reveal-secret", nil, nil, 428)
	b.call("POST", path+"/rotate-secret", nil, nil, 428)
	if code, _ := p.raw("POST", path+"/reveal-secret", nil, nil); code != 403 && code != 428 {
		t.Errorf("a key alone: %d", code)
	}
}
