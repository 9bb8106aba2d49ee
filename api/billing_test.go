package api_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"context"

	"github.com/confidential-cloud/phala/api"
	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store/storetest"
	"github.com/confidential-cloud/phala/internal/config"
)

// hands are a clock that a test moves.
type hands struct {
	mu sync.Mutex
	t  time.Time
}

func (h *hands) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.t
}

func (h *hands) add(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t = h.t.Add(d)
}

func newHands() *hands { return &hands{t: time.Date(2026, 1, 30, 9, 0, 0, 0, time.UTC)} }

func timed(h *hands, mod func(*api.Config)) func(*api.Config) {
	return func(c *api.Config) {
		offChain(c)
		c.Now = h.now
		if mod != nil {
			mod(c)
		}
	}
}

// metered waits until the ledger has n lines, and checks that it is what the events give.
func (w *world) metered(n int) []cloudapi.LedgerLine {
	w.t.Helper()
	var lines []cloudapi.LedgerLine
	w.until(fmt.Sprintf("%d ledger lines", n), func() bool {
		lines = call[[]cloudapi.LedgerLine](w, 200, "GET", "/workspace/ledger?limit=1000", nil, nil)
		return len(lines) >= n
	})
	if c := call[cloudapi.LedgerCheck](w, 200, "GET", "/workspace/ledger/check", nil, nil); !c.Agrees || len(lines) != n || c.Lines != n {
		w.t.Fatalf("want %d lines: %+v\n%+v", n, c, lines)
	}
	return lines
}

// ticking waits until the meter knows that something runs.
func (w *world) ticking() {
	w.t.Helper()
	w.until("a meter runs", func() bool {
		return call[cloudapi.Balance](w, 200, "GET", "/workspace/balance", nil, nil).HourlyNow != "0.00"
	})
}

const ran = 3*time.Hour + 20*time.Minute + 7*time.Second

func TestUsageIsExact(t *testing.T) {
	h := newHands()
	w := newWorld(t, timed(h, nil))
	vm := w.offChainApp("my-app", nil)
	w.ticking()
	h.add(ran)
	now := call[cloudapi.AppUsage](w, 200, "GET", "/apps/"+vm.AppID+"/usage", nil, nil)
	if len(now.Usage) != 2 || now.Usage[0].UsageType != "compute" || now.Usage[0].Cost != 0.193446 {
		t.Errorf("as it runs: %+v", now)
	}
	w.stop() // and somebody else does the rest
	w.start()
	w.deed(*vm.VMUUID, "stop")
	lines := w.metered(2)
	if lines[0].Kind != "compute" || lines[0].Amount != "-0.193446" || lines[1].Kind != "storage" || lines[1].Amount != "-0.018544" {
		t.Errorf("%+v", lines) // 58000 * 12007/3600 and 139*40 * 12007/3600, rounded down
	}
	h.add(time.Hour) // stopped: the disk alone
	u := call[cloudapi.Usage](w, 200, "GET", "/workspace/usage", nil, nil)
	if len(u.Items) != 2 || u.Items[0].Seconds != "12007.000" || u.Items[1].Seconds != "15607.000" || u.Total != "0.217550" && u.Total != "0.21755" {
		t.Errorf("%+v", u)
	}
	b := call[cloudapi.Balance](w, 200, "GET", "/workspace/balance", nil, nil)
	if b.Total != "-0.21755" || b.HourlyNow != "0.00556" || b.Enforced || b.State != "active" || b.Tier != "self-hosted" {
		t.Errorf("%+v", b)
	}
	if code, text := w.raw("DELETE", "/cvms/"+*vm.VMUUID, nil, nil); code != 204 {
		t.Fatal(code, text)
	}
	w.metered(3)
	h.add(24 * time.Hour)
	gone := call[cloudapi.AppUsage](w, 200, "GET", "/apps/"+vm.AppID+"/usage?limit=2&offset=1", nil, nil)
	if gone.Total != 2 || gone.TotalCost <= 0 {
		t.Errorf("of a deleted app: %+v", gone)
	}
	if old := call[cloudapi.AppUsage](w, 200, "GET", "/apps/"+vm.AppID+"/usage?start_date=2025-01-01&end_date=2025-02-01", nil, nil); old.Total != 0 {
		t.Errorf("before its time: %+v", old)
	}
	refused(w, 404, "App not found", "GET", "/apps/"+strings.Repeat("e", 40)+"/usage", nil, nil)
	refused(w, 400, "before start_date", "GET", "/apps/"+vm.AppID+"/usage?start_date=2026-02-01&end_date=2026-01-01", nil, nil)
	refused(w, 422, "start_date", "GET", "/workspace/usage?start_date=yesterday", nil, nil)
}

func TestInvoices(t *testing.T) {
	h := newHands()
	w := newWorld(t, timed(h, nil))
	call[cloudapi.LedgerLine](w, 201, "POST", "/operator/workspaces/default/credits", m{"kind": "grant", "amount": "10", "reason": "wëlcome ☃", "idempotency_key": "welcome-1"}, nil)
	vm := w.offChainApp("my-app", nil)
	w.ticking()
	h.add(time.Hour)
	if v := call[cloudapi.Invoice](w, 200, "GET", "/workspace/invoices/2026-01", nil, nil); v.Status != "draft" || len(v.Items) != 2 || v.Total != "0.06356" {
		t.Errorf("%+v", v)
	}
	h.add(71 * time.Hour) // 2 February, 9:00
	w.until("January is final", func() bool {
		return call[cloudapi.Invoice](w, 200, "GET", "/workspace/invoices/2026-01", nil, nil).Status == "final"
	})
	w.deed(*vm.VMUUID, "stop")
	v := call[cloudapi.Invoice](w, 200, "GET", "/workspace/invoices/2026-01", nil, nil)
	// 39 hours of 0.058 + 40 * 0.000139
	if v.Total != "2.47884" || v.Opening != "0.00" || v.Closing != "7.52116" || len(v.Payments) != 1 || v.Items[0].Seconds != "140400.000" || v.Items[0].Running {
		t.Errorf("%+v", v)
	}
	feb := call[cloudapi.Invoice](w, 200, "GET", "/workspace/invoices/2026-02", nil, nil)
	if feb.Status != "draft" || feb.Opening != v.Closing {
		t.Errorf("%+v", feb)
	}
	if l := call[cloudapi.Invoices](w, 200, "GET", "/workspace/invoices", nil, nil); len(l.Items) != 2 || l.Items[1].Total != v.Total || l.Items[1].Status != "final" || l.Items[0].Month != "2026-02" {
		t.Errorf("%+v", l)
	}
	_, text := w.raw("GET", "/workspace/invoices/2026-01/csv", nil, nil)
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 4 || rows[3][9] != v.Total {
		t.Fatalf("%v %q", err, text)
	}
	var sum billing.Micro
	for _, r := range rows[1:3] {
		a, err := billing.ParseMicro(r[9])
		if sum += a; err != nil {
			t.Error(err)
		}
	}
	if sum.String() != v.Total {
		t.Errorf("the rows sum to %s of %s", sum, v.Total)
	}
	_, one := w.raw("GET", "/workspace/invoices/2026-01/pdf", nil, nil)
	h.add(time.Hour)
	_, two := w.raw("GET", "/workspace/invoices/2026-01/pdf", nil, nil)
	if one != two || !strings.HasPrefix(one, "%PDF-") || !bytes.Contains([]byte(one), []byte("%%EOF")) {
		t.Errorf("%d and %d bytes of PDF", len(one), len(two))
	}
	for _, month := range []string{"2026-13", "january", "2026-1", "0001-01"} {
		refused(w, 422, "want a month", "GET", "/workspace/invoices/"+month, nil, nil)
		refused(w, 422, "want a month", "GET", "/workspace/invoices/"+month+"/pdf", nil, nil)
	}
}

func TestOperatorsMoney(t *testing.T) {
	w := newWorld(t, offChain)
	stranger := map[string]string{"X-API-Key": w.srv.KeyOfNewWorkspace(t, "stranger")}
	const path = "/operator/workspaces/default/credits"
	body := m{"kind": "credit", "amount": "12.5", "reason": "paid", "idempotency_key": "payment-1"}
	for _, slug := range []string{"default", "stranger", "nobody"} {
		refused(w, 403, "only who operates", "POST", "/operator/workspaces/"+slug+"/credits", body, stranger)
		refused(w, 403, "only who operates", "PUT", "/operator/workspaces/"+slug+"/terms", m{"is_post_paid": true}, stranger)
		refused(w, 403, "only who operates", "GET", "/operator/workspaces/"+slug+"/balance", nil, stranger)
	}
	first := call[cloudapi.LedgerLine](w, 201, "POST", path, body, nil)
	if again := call[cloudapi.LedgerLine](w, 201, "POST", path, body, nil); again.ID != first.ID {
		t.Errorf("written twice: %+v %+v", first, again)
	}
	body["amount"] = "12.51"
	refused(w, 409, "idempotency", "POST", path, body, nil)
	for _, bad := range []m{{"amount": "1e9"}, {"amount": "0"}, {"amount": "-1"}, {"amount": "1.0000001"}, {"amount": "99999999999"}, {"kind": "compute"}, {"reason": " "}, {"idempotency_key": "x"}} {
		b := m{"kind": "credit", "amount": "1", "reason": "r", "idempotency_key": "payment-2"}
		for k, v := range bad {
			b[k] = v
		}
		refused(w, 422, "", "POST", path, b, nil)
	}
	refused(w, 404, "orkspace", "POST", "/operator/workspaces/nobody/credits", body, nil)
	refused(w, 422, "no tier", "PUT", "/operator/workspaces/default/terms", m{"tier": "gold"}, nil)
	call[cloudapi.LedgerLine](w, 201, "POST", path, m{"kind": "correction", "amount": "-2.5", "reason": "too much", "idempotency_key": "payment-3"}, nil)
	call[cloudapi.LedgerLine](w, 201, "POST", path, m{"kind": "grant", "amount": "3", "reason": "hello", "idempotency_key": "payment-4"}, nil)
	me := call[cloudapi.CurrentUser](w, 200, "GET", "/auth/me", nil, nil)
	if me.Credits.Balance != "10.00" || me.Credits.GrantedBalance != "3.00" || me.Credits.IsPostPaid {
		t.Errorf("%+v", me.Credits)
	}
	if b := call[cloudapi.Balance](w, 200, "PUT", "/operator/workspaces/stranger/terms", m{"tier": "tier-2", "is_post_paid": true}, nil); b.Tier != "tier-2" || !b.PostPaid || b.Total != "0.00" {
		t.Errorf("%+v", b)
	}
}

func TestWorkspaceLimits(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		offChain(c)
		c.Billing.DefaultTier = "tier-s"
		c.Billing.Tiers = append(c.Billing.Tiers, api.TierConfig{Name: "tier-s", CVMs: 3, VCPU: 4, MemoryMB: 65536, DiskGB: 200, DiskGBPerCVM: 100})
	})
	provision := func(name, typ string, disk int) m {
		return m{"name": name, "instance_type": typ, "disk_size": disk, "compose_file": m{"docker_compose_file": yaml(name)}}
	}
	refused(w, 409, "ERR-04-003", "POST", "/cvms/provision", provision("too-wide", "tdx.xlarge", 20), nil)
	refused(w, 409, "ERR-04-003", "POST", "/cvms/provision", provision("too-deep", "tdx.small", 101), nil)
	vm := w.offChainApp("my-app", nil)
	if q := call[cloudapi.Quotas](w, 200, "GET", "/workspaces/default/quotas", nil, nil); q.Tier != "tier-s" || q.Quotas.VMSlots != (cloudapi.Quota{Limit: 3, Remaining: 2}) || q.Quotas.VCPU.Remaining != 3 || q.Quotas.DiskGB.Remaining != 160 {
		t.Errorf("%+v", q)
	}
	refused(w, 409, "ERR-04-003", "PATCH", "/cvms/"+*vm.VMUUID+"/resources", m{"vcpu": 5, "allow_restart": true}, nil)
	refused(w, 409, "ERR-04-003", "PATCH", "/cvms/"+*vm.VMUUID, m{"disk_size": 101}, nil)
	// Prepared while there was room, committed when there is none any more.
	late := call[cloudapi.Provisioned](w, 200, "POST", "/cvms/provision", provision("too-late", "tdx.small", 20), nil)
	for range 2 {
		r := call[cloudapi.VM](w, 200, "POST", "/cvms/"+*vm.VMUUID+"/replicas", nil, nil)
		w.wait(*r.VMUUID, r.EventSeq)
	}
	refused(w, 409, "ERR-04-002", "POST", "/cvms/"+*vm.VMUUID+"/replicas", nil, nil)
	refused(w, 409, "ERR-04-002", "POST", "/cvms", m{"app_id": *late.AppID, "compose_hash": late.ComposeHash}, nil)
	refused(w, 409, "ERR-04-002", "POST", "/cvms/provision", provision("one-more", "tdx.small", 20), nil)
	if n := w.vmm.count("POST start"); n != 3 {
		t.Errorf("%d VMs started", n)
	}
	call[cloudapi.Balance](w, 200, "PUT", "/operator/workspaces/default/terms", m{"tier": "enterprise"}, nil)
	call[cloudapi.VM](w, 200, "POST", "/cvms", m{"app_id": *late.AppID, "compose_hash": late.ComposeHash}, nil)
}

func enforced(c *api.Config) {
	c.Billing.Suspension = api.SuspensionConfig{Enforce: true, WarnAt: "0.5", Grace: config.Duration(10 * time.Hour), DeleteAfterDays: 30}
}

func (w *world) credit(amount, key string) {
	w.t.Helper()
	call[cloudapi.LedgerLine](w, 201, "POST", "/operator/workspaces/default/credits", m{"kind": "credit", "amount": amount, "reason": "paid", "idempotency_key": key}, nil)
}

func (w *world) account(state string) {
	w.t.Helper()
	w.until("the account is "+state, func() bool {
		return call[cloudapi.Balance](w, 200, "GET", "/workspace/balance", nil, nil).State == state
	})
}

func (w *world) status(id, status string) {
	w.t.Helper()
	w.until(id+" is "+status, func() bool {
		c, err := w.c.CVM(w.t.Context(), id)
		return err == nil && c.Status == status
	})
}

func TestSuspension(t *testing.T) {
	h := newHands()
	w := newWorld(t, timed(h, func(c *api.Config) { enforced(c); c.WebhooksAnywhere = true }))
	r := newReceiver(t)
	hook := call[cloudapi.Webhook](w, 201, "POST", "/workspace/webhooks", m{"url": r.URL, "events": []string{"billing.balance_low", "billing.balance_empty", "billing.suspended", "billing.resumed", "billing.abandoned"}}, nil)
	refused(w, 402, "ERR-04-001", "POST", "/cvms/provision", m{"name": "my-app", "compose_file": m{"docker_compose_file": composeYAML}}, nil)
	w.credit("1", "payment-1")
	vm := w.offChainApp("my-app", nil)
	id := *vm.VMUUID
	other := call[cloudapi.VM](w, 200, "POST", "/cvms/"+id+"/replicas", nil, nil)
	w.wait(*other.VMUUID, other.EventSeq)
	w.deed(*other.VMUUID, "stop") // by its owner: it stays so
	h.add(8 * time.Hour)          // 8 * (0.058 + 0.00556) = 0.508, and the other one's disk
	w.account("warned")
	h.add(8 * time.Hour)
	w.account("empty")
	refused(w, 402, "ERR-04-001", "POST", "/cvms/"+id+"/replicas", nil, nil)
	w.deed(id, "restart") // the grace is for that
	h.add(10 * time.Hour)
	w.account("suspended")
	w.status(id, "stopped")
	refused(w, 402, "ERR-04-001", "POST", "/cvms/"+id+"/start", nil, nil)
	w.stop()
	w.start()
	w.credit("5", "payment-2")
	w.account("active")
	w.status(id, "running")
	if c, err := w.c.CVM(t.Context(), *other.VMUUID); err != nil || c.Status != "stopped" {
		t.Errorf("its owner had stopped it: %+v %v", c.Status, err)
	}
	h.add(24 * 30 * time.Hour)
	w.account("empty")
	h.add(10 * time.Hour)
	w.account("suspended")
	w.status(id, "stopped")
	h.add(24*30*time.Hour - time.Second)
	w.account("suspended")
	h.add(time.Second)
	w.account("abandoned")
	w.until("the CVMs are deleted", func() bool {
		all, err := w.c.CVMs(t.Context())
		return err == nil && len(all) == 0
	})
	// Each move once, in the transaction of the move.
	want := []string{"billing.balance_low", "billing.balance_empty", "billing.suspended", "billing.resumed", "billing.balance_empty", "billing.suspended", "billing.abandoned"}
	var told []cloudapi.WebhookDelivery
	w.until("the moves are told", func() bool {
		told = call[[]cloudapi.WebhookDelivery](w, 200, "GET", "/workspace/webhooks/"+hook.ID+"/deliveries", nil, nil)
		return len(told) >= len(want)
	})
	slices.Reverse(told)
	var moves []string
	for _, d := range told {
		moves = append(moves, d.EventType)
	}
	if strings.Join(moves, " ") != strings.Join(want, " ") {
		t.Errorf("told %v", moves)
	}
	if c := call[cloudapi.LedgerCheck](w, 200, "GET", "/workspace/ledger/check", nil, nil); !c.Agrees || c.CVMs != 2 {
		t.Errorf("%+v", c)
	}
}

// Without a policy nobody is stopped, whatever is owed.
func TestNobodyIsSuspended(t *testing.T) {
	h := newHands()
	w := newWorld(t, timed(h, nil))
	vm := w.offChainApp("my-app", nil)
	h.add(1000 * time.Hour)
	w.deed(*vm.VMUUID, "restart")
	var b cloudapi.Balance
	w.until("the hours are metered", func() bool {
		b = call[cloudapi.Balance](w, 200, "GET", "/workspace/balance", nil, nil)
		return strings.HasPrefix(b.Total, "-63.5")
	})
	if b.State != "active" || w.vmm.count("POST stop") != 0 {
		t.Errorf("%+v", b)
	}
}

// Two API processes on one database meter once.
func TestPostgresMetersOnce(t *testing.T) {
	pg := storetest.StartPostgres(t)
	h := newHands()
	w := newWorld(t, timed(h, func(c *api.Config) { c.DatabaseURL = pg.NewDatabase(t) }))
	second, err := api.New(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- second.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	urls := []string{w.url, "http://" + l.Addr().String()}
	vm := w.offChainApp("my-app", nil)
	const rounds = 4
	for i := range rounds {
		w.url = urls[i%2]
		w.c.Base = w.url + cloudapi.Prefix
		h.add(2 * time.Hour) // over midnight too
		w.deed(*vm.VMUUID, "stop")
		h.add(2 * time.Hour)
		w.deed(*vm.VMUUID, "start")
	}
	var sum, minutes float64
	w.until("the last stop is metered", func() bool {
		if code, text := w.raw("GET", "/apps/"+vm.AppID+"/usage", nil, nil); code != 200 {
			t.Fatalf("%s\n%s", text, w.logs)
		}
		u := call[cloudapi.AppUsage](w, 200, "GET", "/apps/"+vm.AppID+"/usage", nil, nil)
		sum, minutes = 0, 0
		for _, r := range u.Usage {
			if r.UsageType == "compute" {
				sum, minutes = sum+r.Cost, minutes+r.DurationMinutes
			}
		}
		return minutes >= rounds*120
	})
	if minutes != rounds*120 || fmt.Sprintf("%.6f", sum) != "0.464000" {
		t.Errorf("%v minutes for %v", minutes, sum)
	}
	if c := call[cloudapi.LedgerCheck](w, 200, "GET", "/workspace/ledger/check", nil, nil); !c.Agrees {
		t.Errorf("%+v", c)
	}
	if code, text := w.raw(http.MethodGet, "/workspace/invoices", nil, nil); code != 200 {
		t.Error(code, text)
	}
}
