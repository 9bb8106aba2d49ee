package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

func prices() billing.Prices {
	return billing.Prices{Currency: "USD", VCPU: 58000, MemoryGB: 14500, DiskGB: 139}
}

// status gives a CVM a status, as a change of its own.
func (x *suite) status(t *testing.T, id int64, status string) {
	t.Helper()
	must[store.CVM](t)(x.s.Change(t.Context(), id, nil, func(ch *store.Change) error {
		ch.SetStatus(status, status)
		if status == cloudapi.StatusDeleted {
			ch.CVM.DeletedAt = ch.At
		}
		return nil
	}))
}

// meter reads all that is due.
func (x *suite) meter(t *testing.T) {
	t.Helper()
	for must[int](t)(x.s.MeterDue(t.Context(), 2)) > 0 {
		continue
	}
}

// agrees checks that a CVM's lines are what its events give, and the account their sum.
func (x *suite) agrees(t *testing.T, c store.CVM) {
	t.Helper()
	ctx := t.Context()
	want := must[[]billing.Segment](t)(x.s.Replay(ctx, c.ID))
	have := must[[]store.Entry](t)(x.s.Lines(ctx, c.WorkspaceID, store.LedgerQuery{CVMID: c.ID}))
	if len(want) != len(have) {
		t.Fatalf("the events give %d lines, the ledger has %d:\n%+v\n%+v", len(want), len(have), want, have)
	}
	for _, e := range have {
		found := false
		for _, s := range want {
			found = found || s.Kind == e.Kind && s.Seq == e.Seq && s.From.Equal(e.From) && s.To.Equal(e.To) && s.Amount == -e.Amount && s.Rate == e.Rate && s.Size == *e.Size
		}
		if !found {
			t.Errorf("the events do not give %+v", e)
		}
	}
	var sum billing.Micro
	for _, e := range must[[]store.Entry](t)(x.s.Lines(ctx, c.WorkspaceID, store.LedgerQuery{})) {
		sum += e.Amount
	}
	if a := must[store.Account](t)(x.s.Account(ctx, c.WorkspaceID)); a.Balance() != sum {
		t.Errorf("the account %+v is not the sum of its lines, %s", a, sum)
	}
}

func metering(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	for _, p := range []billing.Prices{prices(), prices()} {
		if err := x.s.SetPrices(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa")) // 1 vCPU, no disk
	x.clock.Add(time.Minute)
	x.status(t, c.ID, cloudapi.StatusRunning)
	x.meter(t)
	x.clock.Add(3*time.Hour + 20*time.Minute + 7*time.Second)
	if r := must[[]store.Running](t)(x.s.RunningMeters(ctx, a.WorkspaceID)); len(r) != 1 || r[0].Name != "one" || !r[0].Meter.Open() {
		t.Errorf("running: %+v", r)
	}
	x.accrues(t, a.WorkspaceID)
	x.status(t, c.ID, cloudapi.StatusStopped)
	if done := must[bool](t)(x.s.MeteredUntil(ctx, a.WorkspaceID, x.clock.Now())); done {
		t.Error("complete, with an event that was not read")
	}
	x.meter(t)
	x.meter(t)
	lines := must[[]store.Entry](t)(x.s.Lines(ctx, a.WorkspaceID, store.LedgerQuery{AppID: "aa"}))
	if before := must[[]store.Entry](t)(x.s.Lines(ctx, a.WorkspaceID, store.LedgerQuery{To: lines[0].From})); len(before) != 0 {
		t.Errorf("before it ran: %+v", before)
	}
	if len(lines) != 2 || lines[0].Kind != billing.Compute || lines[0].Amount != -193446 || lines[0].To.Sub(lines[0].From) != 12007*time.Second {
		t.Fatalf("%+v", lines)
	}
	x.agrees(t, c)
	x.status(t, c.ID, cloudapi.StatusRunning)
	x.meter(t)
	x.accrues(t, a.WorkspaceID)
	x.clock.Add(50 * time.Hour)
	x.accrues(t, a.WorkspaceID)
	day := billing.Midnight(x.clock.Now())
	if must[bool](t)(x.s.MeteredUntil(ctx, a.WorkspaceID, day)) {
		t.Error("complete, with days that were not cut")
	}
	for range 2 { // the second time there is nothing to do
		must[int](t)(x.s.CutDays(ctx, day, 10))
	}
	if n := must[int](t)(x.s.CutDays(ctx, day, 10)); n != 0 || !must[bool](t)(x.s.MeteredUntil(ctx, a.WorkspaceID, day)) {
		t.Errorf("cut %d again", n)
	}
	x.agrees(t, c)
	p := prices()
	p.VCPU *= 2
	if err := x.s.SetPrices(ctx, p); err != nil {
		t.Fatal(err)
	}
	find := must[func(time.Time) billing.Prices](t)(x.s.PriceLists(ctx))
	if now := x.clock.Now(); find(now).VCPU != 58000 || find(now.Add(2*time.Minute)).VCPU != 116000 || find(time.Time{}).VCPU != 58000 {
		t.Error("the wrong prices")
	}
	x.clock.Add(5 * time.Minute)
	x.status(t, c.ID, cloudapi.StatusStopping)
	x.status(t, c.ID, cloudapi.StatusRunning)
	x.clock.Add(time.Hour)
	x.status(t, c.ID, cloudapi.StatusDeleted)
	x.meter(t)
	x.agrees(t, c)
	last := must[[]store.Entry](t)(x.s.Lines(ctx, a.WorkspaceID, store.LedgerQuery{From: x.clock.Now().Add(-time.Minute)}))
	if len(last) != 2 || last[0].Amount != -116000 && last[1].Amount != -116000 {
		t.Errorf("at the new price: %+v", last)
	}
	if r := must[[]store.Running](t)(x.s.RunningMeters(ctx, 0)); len(r) != 0 {
		t.Errorf("deleted, and %+v", r)
	}
}

// meteringRaces: several processes meter while statuses change; each line is there once.
func meteringRaces(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	if err := x.s.SetPrices(ctx, prices()); err != nil {
		t.Fatal(err)
	}
	var cvms []store.CVM
	for i := range 3 {
		cvms = append(cvms, must[store.CVM](t)(x.vm(t, a, i+1, fmt.Sprintf("vm-%d", i), "aa")))
	}
	quit, cancel := context.WithCancel(ctx)
	var meters, changes sync.WaitGroup
	for range 3 {
		meters.Go(func() {
			for quit.Err() == nil {
				if _, err := x.s.MeterDue(ctx, 5); err != nil {
					t.Error(err)
					return
				}
				if _, err := x.s.CutDays(ctx, billing.Midnight(x.clock.Now()), 5); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, c := range cvms {
		changes.Go(func() {
			for i := range 20 {
				x.clock.Add(time.Hour)
				x.status(t, c.ID, []string{cloudapi.StatusRunning, cloudapi.StatusStopped}[i%2])
			}
		})
	}
	changes.Wait()
	cancel()
	meters.Wait()
	x.meter(t)
	for _, c := range cvms {
		if c = must[store.CVM](t)(x.s.CVM(ctx, c.ID)); c.Generation != 1 {
			t.Errorf("%+v", c)
		}
		x.agrees(t, c)
	}
}

func ledger(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	b := must[store.Principal](t)(x.s.AddWorkspace(ctx, "b", "b", "", "user"))
	if v := must[store.Account](t)(x.s.Account(ctx, b.WorkspaceID)); v.State != billing.Active || v.Balance() != 0 {
		t.Errorf("no account: %+v", v)
	}
	grant := store.Entry{WorkspaceID: a.WorkspaceID, Key: "money/1", Kind: store.Grant, Amount: 5_000_000, EntryBody: store.EntryBody{Reason: "welcome"}}
	first := must[store.Entry](t)(x.s.AddMoney(ctx, grant))
	x.clock.Add(time.Hour)
	if again := must[store.Entry](t)(x.s.AddMoney(ctx, grant)); again.ID != first.ID || !again.CreatedAt.Equal(first.CreatedAt) {
		t.Errorf("%+v, then %+v", first, again)
	}
	other := grant
	other.Amount++
	if _, err := x.s.AddMoney(ctx, other); !errors.Is(err, store.ErrKeyUsed) {
		t.Errorf("another amount under the same key: %v", err)
	}
	grant.WorkspaceID = b.WorkspaceID
	must[store.Entry](t)(x.s.AddMoney(ctx, grant)) // keys are of a workspace
	must[store.Entry](t)(x.s.AddMoney(ctx, store.Entry{WorkspaceID: a.WorkspaceID, Key: "money/2", Kind: store.Correction, Amount: -1_000_000}))
	if _, err := x.s.AddMoney(ctx, store.Entry{WorkspaceID: a.WorkspaceID, Key: "money/3", Kind: billing.Compute, Amount: 1}); err == nil {
		t.Error("usage by hand")
	}
	v := must[store.Account](t)(x.s.Account(ctx, a.WorkspaceID))
	if v.Granted != 5_000_000 || v.Paid != -1_000_000 || v.Balance() != 4_000_000 {
		t.Errorf("%+v", v)
	}
	if err := x.s.SetTerms(ctx, a.WorkspaceID, "tier-1", true); err != nil {
		t.Fatal(err)
	}
	if err := x.s.MoveAccount(ctx, v, billing.Empty, x.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if err := x.s.MoveAccount(ctx, v, billing.Suspended, x.clock.Now()); !errors.Is(err, store.ErrMoved) {
		t.Errorf("moved from where it is not: %v", err)
	}
	all := must[[]store.Account](t)(x.s.Accounts(ctx))
	if len(all) != 2 || all[0].State != billing.Empty || all[0].Tier != "tier-1" || !all[0].PostPaid || !all[0].Since.Equal(x.clock.Now()) {
		t.Errorf("%+v", all)
	}
	if id, _, err := x.s.WorkspaceBySlug(ctx, b.WorkspaceSlug); err != nil || id != b.WorkspaceID {
		t.Errorf("%d %v", id, err)
	}
	if _, _, err := x.s.WorkspaceBySlug(ctx, "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

// limits: of many changes at once that each fit, only those that fit together happen.
func limits(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	node := must[int64](t)(x.s.NodeID(ctx, "http://vmm"))
	l := billing.Limits{CVMs: 3, VCPU: billing.Unlimited, MemoryMB: billing.Unlimited, DiskGB: billing.Unlimited, DiskGBPerCVM: 50}
	add := func(n, disk int) error {
		_, err := x.s.Create(ctx, store.CVM{WorkspaceID: a.WorkspaceID, UserID: a.UserID, UUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Name: fmt.Sprint("n", n),
			AppID: fmt.Sprint("app", n), NodeID: node, Status: cloudapi.StatusCreating, Body: store.Body{VCPU: 1, DiskGB: disk}}, nil, func(c *store.Change) error {
			c.Limits = &l
			return nil
		})
		return err
	}
	var over *store.LimitError
	if err := add(99, 51); !errors.As(err, &over) || over.What != "GB disk of one CVM" || over.Have != 51 {
		t.Errorf("%v", err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		wg.Go(func() {
			err := add(i, 50)
			mu.Lock()
			defer mu.Unlock()
			var over *store.LimitError
			if err == nil {
				made++
			} else if !errors.As(err, &over) || over.What != "CVMs" || over.Limit != 3 {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if all := must[[]store.CVM](t)(x.s.List(ctx, 0)); made != 3 || len(all) != 3 {
		t.Errorf("%d made, %d there", made, len(all))
	}
}
