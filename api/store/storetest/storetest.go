// Package storetest is the suite that every store.Store must pass.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

// Clock is the store's clock in the tests.
type Clock struct {
	mu sync.Mutex
	t  time.Time
}

// Now is the store's now.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// Add moves the clock.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// Open makes an empty store.
type Open func(t *testing.T, now func() time.Time) store.Store

type suite struct {
	s     store.Store
	clock *Clock
	jobs  []string
}

func (x *suite) enqueue(_ context.Context, _ *sql.Tx, id int64, generation int) error {
	x.jobs = append(x.jobs, fmt.Sprintf("%d/%d", id, generation))
	return nil
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, fn := range map[string]func(*testing.T, *suite){
		"accounts": accounts, "create": create, "change is atomic": atomic, "operations": operations,
		"events": events, "find": find, "provisions": provisions, "watch": watch, "reservations": reservations, "concurrent changes": concurrent, "nodes": nodes,
		"prepared changes": preparedChanges, "deletions": deletions, "history": history, "answers": answers, "webhooks": webhooks, "attestations": attestations, "cvms of an app": appCVMs, "deliveries of changes": hookEvents,
		"listing": listing, "node proofs": nodeProofs, "metering": metering, "metering races": meteringRaces, "ledger": ledger, "limits": limits, "sums": sums,
	} {
		t.Run(name, func(t *testing.T) {
			c := &Clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
			s := open(t, c.Now)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			fn(t, &suite{s: s, clock: c})
		})
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func accounts(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	if b := must[store.Principal](t)(x.s.Admin(ctx)); a != b || a.Role != "admin" {
		t.Errorf("admin: %+v, then %+v", a, b)
	}
	if _, err := x.s.ByKey(ctx, [32]byte{1}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown key: %v", err)
	}
	must[store.Key](t)(x.s.AddKey(ctx, a, store.Key{Name: "n", Prefix: "phak_x", Hash: [32]byte{1}}))
	got := must[store.Principal](t)(x.s.ByKey(ctx, [32]byte{1}))
	if got.KeyID == 0 || got.UserID != a.UserID || got.WorkspaceSlug != a.WorkspaceSlug {
		t.Errorf("by key: %+v", got)
	}
	if _, err := x.s.AddKey(ctx, a, store.Key{Name: "n", Prefix: "phak_x", Hash: [32]byte{1}}); err == nil {
		t.Error("the same key was stored twice")
	}
}

func (x *suite) vm(t *testing.T, p store.Principal, n int, name, app string) (store.CVM, error) {
	t.Helper()
	node := must[int64](t)(x.s.NodeID(t.Context(), "http://vmm"))
	return x.s.Create(t.Context(), store.CVM{
		WorkspaceID: p.WorkspaceID, UserID: p.UserID, UUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Name: name, AppID: app, NodeID: node,
		Status: cloudapi.StatusCreating, Body: store.Body{VCPU: 1, AppCompose: []byte(`{}`), ComposeHash: "h" + name, EncryptedEnv: []byte{1, 2}},
	}, x.enqueue, func(c *store.Change) error {
		c.Begin(store.Deploy, store.OperationBody{By: p.Username})
		c.Revised = true
		return nil
	})
}

func create(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	b := must[store.Principal](t)(x.s.AddWorkspace(ctx, "b", "b", "", "user"))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	if c.Generation != 1 || len(x.jobs) != 1 || x.jobs[0] != fmt.Sprintf("%d/1", c.ID) || !c.CreatedAt.Equal(x.clock.Now()) {
		t.Errorf("created %+v, jobs %v", c, x.jobs)
	}
	if _, err := x.vm(t, a, 2, "one", "bb"); !errors.Is(err, store.ErrNameTaken) {
		t.Errorf("taken name: %v", err)
	}
	if _, err := x.vm(t, b, 3, "two", "aa"); !errors.Is(err, store.ErrAppTaken) {
		t.Errorf("foreign app: %v", err)
	}
	must[store.CVM](t)(x.vm(t, b, 4, "one", "cc"))
	must[store.CVM](t)(x.vm(t, a, 5, "replica", "aa"))
	if all := must[[]store.CVM](t)(x.s.List(ctx, a.WorkspaceID)); len(all) != 2 || all[0].Name != "replica" {
		t.Errorf("list: %+v", all)
	}
	if all := must[[]store.CVM](t)(x.s.List(ctx, 0)); len(all) != 3 {
		t.Errorf("list of all: %d", len(all))
	}
	if r := must[[]store.Revision](t)(x.s.Revisions(ctx, a.WorkspaceID, "aa")); len(r) != 2 || r[1].ComposeHash != "hone" || string(r[1].AppCompose) != "{}" {
		t.Errorf("revisions: %+v", r)
	}
}

func atomic(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	seq := must[int64](t)(x.s.LastSeq(ctx, c.ID))
	boom := errors.New("boom")
	unchanged := func(why string) {
		t.Helper()
		got := must[store.CVM](t)(x.s.CVM(ctx, c.ID))
		ops := must[[]store.Operation](t)(x.s.OpenOps(ctx, c.ID))
		if got.Status != c.Status || got.Generation != 1 || len(ops) != 1 || must[int64](t)(x.s.LastSeq(ctx, c.ID)) != seq {
			t.Errorf("%s left something behind: %+v %+v", why, got, ops)
		}
	}
	_, err := x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
		ch.SetStatus("x", "x")
		ch.Begin(store.Stop, store.OperationBody{})
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	unchanged("a refused change")
	_, err = x.s.Change(ctx, c.ID, func(context.Context, *sql.Tx, int64, int) error { return boom }, func(ch *store.Change) error {
		ch.SetStatus("x", "x")
		ch.Begin(store.Stop, store.OperationBody{})
		return nil
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	unchanged("a failed job insert")
	if _, err := x.s.Change(ctx, c.ID, nil, func(ch *store.Change) error { ch.Begin(store.Stop, store.OperationBody{}); return nil }); err == nil {
		t.Error("an operation without a job was stored")
	}
	if _, err := x.s.Change(ctx, 999, nil, func(*store.Change) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("change of nothing: %v", err)
	}
}

func operations(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	c = must[store.CVM](t)(x.s.Change(ctx, c.ID, x.enqueue, func(ch *store.Change) error {
		ch.Op(1).BootsBefore = 7
		ch.Begin(store.Delete, store.OperationBody{Volumes: "keep", By: "me"})
		return nil
	}))
	open := must[[]store.Operation](t)(x.s.OpenOps(ctx, c.ID))
	if len(open) != 2 || open[0].Generation != 1 || open[0].BootsBefore != 7 || open[1].Volumes != "keep" || c.Generation != 2 {
		t.Fatalf("open: %+v", open)
	}
	x.clock.Add(time.Minute)
	must[store.CVM](t)(x.s.Change(ctx, c.ID, nil, func(ch *store.Change) error { ch.Finish(ch.Op(1), store.Superseded); return nil }))
	o := must[store.Operation](t)(x.s.Operation(ctx, c.ID, 1))
	if o.Open() || o.State != store.Superseded || o.FinishedAt.Sub(o.CreatedAt) != time.Minute {
		t.Errorf("finished: %+v", o)
	}
	if all := must[[]store.Operation](t)(x.s.Unfinished(ctx)); len(all) != 1 || all[0].Kind != store.Delete {
		t.Errorf("unfinished: %+v", all)
	}
	if _, err := x.s.Operation(ctx, c.ID, 9); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such operation: %v", err)
	}
}

func events(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	d := must[store.CVM](t)(x.vm(t, a, 2, "two", "aa"))
	from := must[int64](t)(x.s.LastSeq(ctx, c.ID))
	vmEvents := []store.VMEvent{{Seq: 1, Event: cloudapi.Event{Time: x.clock.Now(), Kind: "progress", Message: "m1"}}, {Seq: 2, Event: cloudapi.Event{Time: x.clock.Now(), Kind: "progress", Message: "m2"}}}
	for range 2 { // VM events are told again and again
		for _, id := range []int64{c.ID, d.ID} {
			must[store.CVM](t)(x.s.Change(ctx, id, nil, func(ch *store.Change) error {
				ch.VMEvents = vmEvents
				ch.CVM.Error = &cloudapi.CVMError{Reason: "r"}
				ch.SetStatus(cloudapi.StatusFailed, "down")
				return nil
			}))
		}
	}
	got := must[[]cloudapi.Event](t)(x.s.Events(ctx, c.ID, from, 100))
	if len(got) != 3 || got[0].Message != "m1" || got[1].Message != "m2" || got[2].Status != cloudapi.StatusFailed || got[2].Error == nil {
		t.Fatalf("events: %+v", got)
	}
	if one := must[[]cloudapi.Event](t)(x.s.Events(ctx, c.ID, got[0].Seq, 1)); len(one) != 1 || one[0].Seq != got[1].Seq {
		t.Errorf("after and limit: %+v", one)
	}
}

func find(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	b := must[store.Principal](t)(x.s.AddWorkspace(ctx, "b", "b", "", "user"))
	const app, inst = "00112233445566778899aabbccddeeff00112233", "ffeeddccbbaa99887766554433221100ffeeddcc"
	c := must[store.CVM](t)(x.vm(t, a, 1, "one-cvm", app))
	must[store.CVM](t)(x.s.Change(ctx, c.ID, nil, func(ch *store.Change) error { ch.CVM.InstanceID = inst; return nil }))
	refs := []string{c.UUID, store.HashID(c.UUID), store.HashID(c.UUID)[4:], "one-cvm", app, "app_" + app, "0x" + app, inst, "app_" + inst, "instance_" + inst, fmt.Sprint(c.ID)}
	for _, r := range refs {
		if got := must[[]store.CVM](t)(x.s.Find(ctx, a.WorkspaceID, r, false)); len(got) != 1 || got[0].ID != c.ID {
			t.Errorf("%s: %+v", r, got)
		}
		if got := must[[]store.CVM](t)(x.s.Find(ctx, b.WorkspaceID, r, true)); len(got) != 0 {
			t.Errorf("%s is seen from another workspace", r)
		}
	}
	if got := must[[]store.CVM](t)(x.s.Find(ctx, a.WorkspaceID, "instance_"+app, false)); len(got) != 0 {
		t.Errorf("an app id was taken for an instance id: %+v", got)
	}
	must[store.CVM](t)(x.vm(t, a, 2, "two-cvm", app))
	if got := must[[]store.CVM](t)(x.s.Find(ctx, a.WorkspaceID, app, false)); len(got) != 2 {
		t.Errorf("two of one app: %d", len(got))
	}
	must[store.CVM](t)(x.s.Change(ctx, c.ID, nil, func(ch *store.Change) error { ch.CVM.DeletedAt = ch.At; return nil }))
	if got := must[[]store.CVM](t)(x.s.Find(ctx, a.WorkspaceID, "one-cvm", false)); len(got) != 0 {
		t.Errorf("a deleted one is found: %+v", got)
	}
	if got := must[[]store.CVM](t)(x.s.Find(ctx, a.WorkspaceID, "one-cvm", true)); len(got) != 1 || got[0].Live() {
		t.Errorf("deleted: %+v", got)
	}
	must[store.CVM](t)(x.vm(t, a, 3, "one-cvm", app))
}

func provisions(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	p := store.Provision{WorkspaceID: a.WorkspaceID, ComposeHash: "hone", ExpiresAt: x.clock.Now().Add(time.Hour), ProvisionBody: store.ProvisionBody{Name: "one", AppCompose: []byte("x")}}
	if err := x.s.PutProvision(ctx, p); err != nil {
		t.Fatal(err)
	}
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	p.VCPU = 4
	if err := x.s.PutProvision(ctx, p); err != nil {
		t.Fatal(err)
	}
	got := must[store.Provision](t)(x.s.Provision(ctx, a.WorkspaceID, 0, "hone"))
	if got.CommittedCVM != c.ID || got.VCPU != 4 || string(got.AppCompose) != "x" {
		t.Errorf("provision: %+v", got)
	}
	for _, k := range []struct {
		ws, cvm int64
		hash    string
	}{{a.WorkspaceID + 1, 0, "hone"}, {a.WorkspaceID, c.ID, "hone"}, {a.WorkspaceID, 0, "other"}} {
		if _, err := x.s.Provision(ctx, k.ws, k.cvm, k.hash); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%+v: %v", k, err)
		}
	}
	x.clock.Add(time.Hour)
	if _, err := x.s.Provision(ctx, a.WorkspaceID, 0, "hone"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("expired: %v", err)
	}
}

func watch(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	signal, stop := x.s.Watch(c.ID)
	other, stopOther := x.s.Watch(c.ID + 1)
	defer stopOther()
	for range 3 {
		must[store.CVM](t)(x.s.Change(ctx, c.ID, nil, func(*store.Change) error { return nil }))
	}
	select {
	case <-signal:
	case <-time.After(10 * time.Second):
		t.Fatal("no signal after a change")
	}
	select {
	case <-other:
		t.Error("a signal for another CVM")
	default:
	}
	stop()
	must[store.CVM](t)(x.s.Change(ctx, c.ID, nil, func(*store.Change) error { return nil }))
}

func concurrent(t *testing.T, x *suite) {
	ctx := t.Context()
	a := must[store.Principal](t)(x.s.Admin(ctx))
	c := must[store.CVM](t)(x.vm(t, a, 1, "one", "aa"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if _, err := x.s.Change(ctx, c.ID, nil, func(ch *store.Change) error { ch.CVM.VCPU++; return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := must[store.CVM](t)(x.s.CVM(ctx, c.ID)); got.VCPU != 81 {
		t.Errorf("80 increments gave %d", got.VCPU-1)
	}
}

func nodes(t *testing.T, x *suite) {
	ctx := t.Context()
	a, b := must[int64](t)(x.s.NodeID(ctx, "http://a")), must[int64](t)(x.s.NodeID(ctx, "http://b"))
	if again := must[int64](t)(x.s.NodeID(ctx, "http://a")); a == b || a != again {
		t.Errorf("node ids %d %d, again %d", a, b, again)
	}
}
